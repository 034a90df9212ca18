//! `paifang controller`: what was said, and what it means.

use std::{
    collections::BTreeMap, net::SocketAddr, process::ExitCode, str::FromStr, time::Duration,
};

use paifang_controller::{Lease, Settings, Webhook};
use paifang_runtime::{
    log::{self, Format},
    signal::Signals,
};

use crate::{
    output::tell,
    settings::Meaning,
    standalone::PATIENCE,
    units::{Listen, Time},
};

/// Run the controller of a Kubernetes cluster
///
/// Watches the six kinds in all namespaces, compiles them, publishes what gateways serve into its own namespace, and says in each object's status what
/// is true of it. Run two of them: one leads, the other takes over. It finds the API server by KUBECONFIG, or by its pod's service account.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  In a pod, as the chart runs it:
      paifang controller
  On a laptop, against the cluster of the current kubeconfig, without a webhook:
      paifang controller --namespace paifang-system --webhook off --admin 127.0.0.1:9901")]
pub(crate) struct Args {
    /// Its own namespace: where it publishes, and where the gateways run
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        default_value = "paifang-system"
    )]
    namespace: String,

    /// Its name among the replicas, different for each
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,

    /// Metrics, /livez and /readyz; has no authentication
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:9901",
        help_heading = "Listeners"
    )]
    admin: Listen,

    /// Where the API server asks about objects, with TLS; `off` for no admission
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:9443",
        help_heading = "Listeners"
    )]
    webhook: Listen,

    /// The Service by which the API server calls the webhook
    #[arg(
        long,
        value_name = "NAME",
        default_value = "paifang-webhook",
        help_heading = "Listeners"
    )]
    webhook_service: String,

    /// The ValidatingWebhookConfiguration whose CA bundle is kept up to date
    #[arg(
        long,
        value_name = "NAME",
        default_value = "paifang",
        help_heading = "Listeners"
    )]
    webhook_configuration: String,

    /// Port on which gateway pods say what they serve
    #[arg(long, value_name = "PORT", default_value_t = 9902)]
    gateway_port: u16,

    /// The Lease that says which replica leads
    #[arg(
        long,
        value_name = "NAME",
        default_value = "paifang-controller",
        help_heading = "Leader election"
    )]
    lease: String,

    /// A replica takes over when nothing was renewed for so long
    #[arg(
        long,
        value_name = "TIME",
        default_value = "15s",
        help_heading = "Leader election"
    )]
    lease_duration: Time,

    /// The leader stops writing when it could not renew for so long
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        help_heading = "Leader election"
    )]
    renew_deadline: Time,

    /// Between two tries
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2s",
        help_heading = "Leader election"
    )]
    retry_period: Time,

    #[command(flatten)]
    meaning: Meaning,

    /// Allow backends on the gateway's own machine; they are refused otherwise
    #[arg(long, help_heading = "Platform settings")]
    allow_loopback_backends: bool,

    /// A domain suffix that a namespace may bind, with every name below it; repeat for several. A namespace without one may bind what
    /// --default-domain-suffix says
    #[arg(
        long,
        value_name = "NAMESPACE=SUFFIX",
        help_heading = "Platform settings"
    )]
    domain_suffix: Vec<NamespaceSuffix>,

    /// A domain suffix that every other namespace may bind; repeat for several [default: any domain]
    #[arg(long, value_name = "SUFFIX", help_heading = "Platform settings")]
    default_domain_suffix: Vec<String>,
}

#[derive(Debug, Clone)]
struct NamespaceSuffix(String, String);

impl FromStr for NamespaceSuffix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((namespace, suffix)) if !namespace.is_empty() && !suffix.is_empty() => Ok(Self(
                namespace.to_owned(),
                suffix.trim_start_matches('.').to_owned(),
            )),
            _ => Err("write NAMESPACE=SUFFIX, as in demo=example.com".to_owned()),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    log::init(Format::Json, "info")?;
    let settings = args.settings()?;
    let signals = Signals::listen()?;
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("end".to_owned())
        .spawn(move || {
            while signals.next_within(PATIENCE).is_none() {}
            let _ = ended.send(());
            while signals.next_within(PATIENCE).is_none() {}
            tell("ended by a second signal");
            std::process::exit(1);
        })?;
    paifang_controller::run(settings, async {
        // Without a thread that listens to signals it ends too.
        let _ = end.await;
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn settings(&self) -> anyhow::Result<Settings> {
        let lease = Lease {
            name: self.lease.clone(),
            duration: self.lease_duration.0,
            renew_deadline: self.renew_deadline.0,
            retry_period: self.retry_period.0,
        };
        anyhow::ensure!(
            lease.retry_period < lease.renew_deadline && lease.renew_deadline < lease.duration,
            "--retry-period must be shorter than --renew-deadline, and that shorter than --lease-duration"
        );
        anyhow::ensure!(
            lease.duration >= Duration::from_secs(1),
            "--lease-duration must be a second or longer: a Lease counts whole seconds"
        );
        let mut meaning = self.meaning.settings(self.allow_loopback_backends);
        let mut suffixes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for NamespaceSuffix(namespace, suffix) in &self.domain_suffix {
            suffixes
                .entry(namespace.clone())
                .or_default()
                .push(suffix.clone());
        }
        meaning.domain_suffixes = suffixes;
        let default = &self.default_domain_suffix;
        meaning.default_domain_suffixes = (!default.is_empty()).then(|| default.clone());
        let webhook = |address: SocketAddr| Webhook {
            address,
            service: self.webhook_service.clone(),
            configuration: self.webhook_configuration.clone(),
        };
        Ok(Settings {
            namespace: self.namespace.clone(),
            identity: match &self.identity {
                Some(identity) => identity.clone(),
                None => hostname()?,
            },
            admin: self.admin.0,
            webhook: self.webhook.0.map(webhook),
            gateway_port: self.gateway_port,
            lease,
            meaning,
        })
    }
}

/// The pod's name in a pod; on a laptop one process of many.
fn hostname() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.map(|name| name.trim().to_owned()).unwrap_or_default();
    anyhow::ensure!(
        !name.is_empty(),
        "this machine has no name: give --identity"
    );
    Ok(format!("{name}-{}", std::process::id()))
}
