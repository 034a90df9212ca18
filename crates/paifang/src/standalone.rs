//! `paifang standalone`: a gateway on a folder of YAML.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use paifang_gateway::Settings;
use paifang_proxy::network::BackendPolicy;

use crate::{
    live,
    serving::Serving,
    settings::Meaning,
    units::{Listen, Time},
};

/// Run a gateway on a folder of YAML: no cluster, no database
///
/// Reads every *.yaml and *.yml below DIR: the six kinds of paifang.dev/v1alpha1, and Secrets, ConfigMaps, Services, EndpointSlices, Namespaces and
/// ReferenceGrants beside them. A saved file is served in less than 100 ms. A wrong one is reported by file, line and field and changes nothing in
/// traffic; what was good before goes on, also after a restart.
///
/// When it is ready it prints one line on standard output, `ready http=127.0.0.1:8080 …`, with the real ports. Everything else goes to standard
/// error. SIGTERM and SIGINT let requests in flight end; a second one does not wait.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  The quick start, with a backend that answers with what it receives:
      paifang standalone config/quickstart --echo
  Free ports, for a test:
      paifang standalone api/ --http 127.0.0.1:0 --https off --internal off --admin off
  For other machines, behind a load balancer that sets X-Forwarded-For:
      paifang standalone api/ --http 0.0.0.0:80 --https 0.0.0.0:443 --trust-proxy 10.0.0.0/8")]
pub(crate) struct Args {
    /// Folder with YAML files (*.yaml, *.yml, in sub-folders too); names that begin with a dot are not read
    pub(crate) dir: PathBuf,

    /// Folder for releases and the last good state; holds secrets, only its owner can read it [default: .paifang beside DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Also start a backend that answers every request with what it received
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = false, default_missing_value = "127.0.0.1:9000")]
    pub(crate) echo: Option<SocketAddr>,

    /// Where the access log goes, one JSON object a line: stderr, stdout, off, or a file
    #[arg(long, value_name = "WHERE", default_value = "stderr")]
    access_log: String,

    /// Plain HTTP; `off` for none
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        help_heading = "Listeners"
    )]
    http: Listen,

    /// TLS, for domains with a certificate
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8443",
        help_heading = "Listeners"
    )]
    https: Listen,

    /// Plain HTTP for domains of the Intranet and Apis that are internal only
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8081",
        help_heading = "Listeners"
    )]
    internal: Listen,

    /// Metrics, /livez, /readyz and the configuration without secrets; has no authentication
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9901",
        help_heading = "Listeners"
    )]
    admin: Listen,

    #[command(flatten)]
    pub(crate) meaning: Meaning,

    #[command(flatten)]
    serving: Serving,

    /// At the end: go on for so long after /readyz says no, until a load balancer noticed
    #[arg(
        long,
        value_name = "TIME",
        default_value = "0s",
        help_heading = "Timeouts"
    )]
    lame_duck: Time,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    live::run(args)
}

impl Args {
    /// For the gateway.
    pub(crate) fn gateway(&self) -> Settings {
        Settings {
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
        let mut policy = BackendPolicy::with_loopback();
        policy
            .allowed
            .extend(self.meaning.allow_backend.iter().copied());
        policy
    }

    /// Whether somebody else than this machine can reach a listener.
    pub(crate) fn admin_is_open(&self) -> Option<SocketAddr> {
        self.admin.0.filter(|address| !address.ip().is_loopback())
    }
}

/// The longest wait between two looks at the signals.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3600);

/// An address that a client on this machine can use for `listener`.
pub(crate) fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}
