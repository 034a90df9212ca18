//! `paifang gateway`: the gateway of a cluster.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use anyhow::Context as _;
use ipnet::IpNet;
use paifang_gateway::{
    Control, Gateway,
    cluster::{self, Subscription},
};
use paifang_proxy::network::BackendPolicy;
use paifang_runtime::{
    log::{self, Format},
    signal::Signals,
};

use crate::{
    serving::Serving,
    standalone::PATIENCE,
    units::{Listen, Time},
};

/// Run a gateway of a Kubernetes cluster
///
/// Serves what the controller published for its instance in its namespace, follows the endpoints of the Services that this names, and tells the
/// controller what it serves. It only reads from the cluster. When the API server cannot be reached it goes on with what it has, and starts from the
/// last good copy on disk. It finds the API server by KUBECONFIG, or by its pod's service account.
///
/// SIGTERM turns readiness off, goes on serving for --lame-duck, then lets requests end, --drain-timeout at most. A second one does not wait.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  In a pod, as the chart runs it:
      paifang gateway --instance default
  On a laptop, against the cluster of the current kubeconfig:
      paifang gateway --namespace paifang-system --cache off --report off --admin 127.0.0.1:9901")]
pub(crate) struct Args {
    /// The namespace of the controller and of all gateways
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        default_value = "paifang-system"
    )]
    namespace: String,

    /// The fleet of gateways that it belongs to; it serves the groups of this instance
    #[arg(long, value_name = "NAME", default_value = "default")]
    instance: String,

    /// Its pod's name, for reports [default: the host's name]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod: Option<String>,

    /// Its pod's address, by which it finds its zone
    #[arg(long, env = "POD_IP", value_name = "IP")]
    pod_ip: Option<IpAddr>,

    /// Its zone: endpoints there are asked first [default: that of its pod's EndpointSlice]
    #[arg(long, env = "PAIFANG_ZONE", value_name = "ZONE")]
    zone: Option<String>,

    /// Folder for the last good copy; holds secrets, only its owner can read it; `off` for none
    #[arg(long, value_name = "DIR", default_value = "/var/lib/paifang")]
    cache: String,

    /// Where the access log goes, one JSON object a line: stderr, stdout, off, or a file
    #[arg(long, value_name = "WHERE", default_value = "stdout")]
    access_log: String,

    /// Plain HTTP; `off` for none
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:8080",
        help_heading = "Listeners"
    )]
    http: Listen,

    /// TLS, for domains with a certificate
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:8443",
        help_heading = "Listeners"
    )]
    https: Listen,

    /// Plain HTTP for domains of the Intranet and Apis that are internal only
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:8081",
        help_heading = "Listeners"
    )]
    internal: Listen,

    /// Metrics, /livez, /readyz and the configuration without secrets; has no authentication
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:9901",
        help_heading = "Listeners"
    )]
    admin: Listen,

    /// What it serves, for the controller; with mutual TLS
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:9902",
        help_heading = "Listeners"
    )]
    report: Listen,

    /// Also allow backends in this network; repeat for several
    ///
    /// Addresses are checked after DNS, at every connection. Loopback, link-local addresses and the cloud providers' metadata services
    /// (169.254.169.254, 100.100.100.200) are refused unless they are allowed here.
    #[arg(long, value_name = "CIDR", help_heading = "Platform settings")]
    allow_backend: Vec<IpNet>,

    /// Allow backends on the gateway's own machine; they are refused otherwise
    #[arg(long, help_heading = "Platform settings")]
    allow_loopback_backends: bool,

    #[command(flatten)]
    serving: Serving,

    /// At the end: go on for so long after /readyz says no, until no Service sends anything here
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        help_heading = "Timeouts"
    )]
    lame_duck: Time,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    log::init(Format::Json, "info")?;
    let subscription = args.subscription()?;
    let signals = Signals::listen()?;
    let gateway = Gateway::start(args.gateway())?;
    let subscription = Subscription::start(subscription, gateway.feed())?;
    end_on_signal(signals, gateway.control())?;
    let drained = gateway.wait();
    drop(subscription);
    tracing::info!(cut = drained.cut, "ended");
    Ok(ExitCode::SUCCESS)
}

/// The first signal drains, the second does not wait.
fn end_on_signal(signals: Signals, control: Control) -> anyhow::Result<()> {
    let wait = move || {
        while signals.next_within(PATIENCE).is_none() {}
        control.drain();
        while signals.next_within(PATIENCE).is_none() {}
        tracing::warn!("ended by a second signal");
        control.force();
    };
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(wait)
        .context("no thread to wait for signals")?;
    Ok(())
}

impl Args {
    fn gateway(&self) -> paifang_gateway::Settings {
        paifang_gateway::Settings {
            http: self.http.0,
            https: self.https.0,
            internal: self.internal.0,
            admin: self.admin.0,
            ..self
                .serving
                .gateway(self.backends(), &self.access_log, self.lame_duck)
        }
    }

    fn backends(&self) -> BackendPolicy {
        let mut policy = if self.allow_loopback_backends {
            BackendPolicy::with_loopback()
        } else {
            BackendPolicy::default()
        };
        policy.allowed.extend(self.allow_backend.iter().copied());
        policy
    }

    fn subscription(&self) -> anyhow::Result<cluster::Settings> {
        let report: Option<SocketAddr> = self.report.0;
        Ok(cluster::Settings {
            kubeconfig: None,
            namespace: self.namespace.clone(),
            instance: self.instance.clone(),
            pod: match &self.pod {
                Some(pod) => pod.clone(),
                None => hostname()?,
            },
            pod_ip: self.pod_ip,
            // A variable that is there and empty says nothing.
            zone: self.zone.clone().filter(|zone| !zone.is_empty()),
            cache: (self.cache != "off").then(|| PathBuf::from(&self.cache)),
            report,
        })
    }
}

fn hostname() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.map(|name| name.trim().to_owned()).unwrap_or_default();
    anyhow::ensure!(!name.is_empty(), "this machine has no name: give --pod");
    Ok(name)
}
