//! `paifang standalone`: a gateway on a folder of YAML.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use ipnet::IpNet;
use paifang_gateway::{AccessLog, Connections, Drain, Settings};
use paifang_proxy::{Limits, Timeouts, network::BackendPolicy};

use crate::{
    live,
    settings::Meaning,
    units::{Listen, Size, Time},
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

    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

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

    /// Believe X-Forwarded-For from this network; repeat for several
    #[arg(long, value_name = "CIDR", help_heading = "Platform settings")]
    trust_proxy: Vec<IpNet>,

    /// Request line and headers together
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "8KiB",
        help_heading = "Limits"
    )]
    max_head: Size,

    /// Body of a request
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "8MiB",
        help_heading = "Limits"
    )]
    max_body: Size,

    /// Fields of a form, and of a query
    #[arg(long, value_name = "N", default_value_t = Limits::default().fields, help_heading = "Limits")]
    max_fields: usize,

    /// Headers of a backend's answer
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "64KiB",
        help_heading = "Limits"
    )]
    max_answer_head: Size,

    /// Nonces remembered for 15 minutes, about 40 bytes each
    #[arg(long, value_name = "N", default_value_t = Limits::default().nonces, help_heading = "Limits")]
    max_nonces: usize,

    /// Connections of clients, on each listener
    #[arg(long, value_name = "N", default_value_t = Connections::default().per_listener, help_heading = "Limits")]
    max_connections: usize,

    /// Idle connections kept to each backend, by each worker
    #[arg(long, value_name = "N", default_value_t = Limits::default().idle_per_backend, help_heading = "Limits")]
    max_idle_backend: usize,

    /// From the first byte of a request's head to its last
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        help_heading = "Timeouts"
    )]
    head_timeout: Time,

    /// The whole of a body that must be read before it can be forwarded
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        help_heading = "Timeouts"
    )]
    body_timeout: Time,

    /// A pause of the client inside a body, or in taking an answer
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        help_heading = "Timeouts"
    )]
    stall_timeout: Time,

    /// A client's connection without a request
    #[arg(
        long,
        value_name = "TIME",
        default_value = "75s",
        help_heading = "Timeouts"
    )]
    idle_timeout: Time,

    /// A TLS handshake
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        help_heading = "Timeouts"
    )]
    handshake_timeout: Time,

    /// Connecting to a backend
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        help_heading = "Timeouts"
    )]
    connect_timeout: Time,

    /// An idle connection to a backend
    #[arg(
        long,
        value_name = "TIME",
        default_value = "25s",
        help_heading = "Timeouts"
    )]
    backend_idle_timeout: Time,

    /// At the end: requests in flight may take so long
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        help_heading = "Timeouts"
    )]
    drain_timeout: Time,

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
            workers: self.workers.unwrap_or(Settings::default().workers),
            proxy: paifang_proxy::Settings {
                limits: self.limits(),
                timeouts: self.timeouts(),
                trusted_proxies: self.trust_proxy.clone(),
                backends: self.backends(),
            },
            access_log: match self.access_log.as_str() {
                "stderr" => AccessLog::Stderr,
                "stdout" => AccessLog::Stdout,
                "off" => AccessLog::Off,
                path => AccessLog::File(path.into()),
            },
            default_certificate: None,
            drain: Drain {
                lame_duck: self.lame_duck.0,
                idle: Drain::default().idle,
                deadline: self.drain_timeout.0,
            },
            connections: Connections {
                per_listener: self.max_connections,
                total: Connections::default().total.max(self.max_connections),
            },
        }
    }

    fn limits(&self) -> Limits {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        Limits {
            head_bytes: bytes(self.max_head),
            body_bytes: self.max_body.0,
            fields: self.max_fields,
            nonces: self.max_nonces,
            idle_per_backend: self.max_idle_backend,
            answer_head_bytes: bytes(self.max_answer_head),
        }
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            head: self.head_timeout.0,
            stall: self.stall_timeout.0,
            body: self.body_timeout.0,
            idle: self.idle_timeout.0,
            handshake: self.handshake_timeout.0,
            connect: self.connect_timeout.0,
            backend_idle: self.backend_idle_timeout.0,
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
