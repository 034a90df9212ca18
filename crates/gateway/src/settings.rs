//! What a gateway is told once, at its start. What it serves comes with snapshots.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use paifang_model::Redacted;

/// What a gateway is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public listener for plain HTTP.
    pub http: Option<SocketAddr>,
    /// The public listener for TLS.
    pub https: Option<SocketAddr>,
    /// The internal listener: plain HTTP. It alone serves internal sub-domains, domains for the intranet and APIs that are internal
    /// only.
    pub internal: Option<SocketAddr>,
    /// The admin port. It has neither TLS nor authentication: loopback, 127.0.0.1:9901, unless told otherwise.
    pub admin: Option<SocketAddr>,
    /// Worker threads, each with sockets, connections and pools of its own; as many as the process has cores.
    pub workers: NonZeroUsize,
    /// Limits and times of requests.
    pub proxy: paifang_proxy::Settings,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// Used for TLS connections whose server name belongs to no domain with a certificate, or that name none. Without it they are
    /// refused.
    pub default_certificate: Option<DefaultCertificate>,
    /// How the gateway ends.
    pub drain: Drain,
    /// How many clients at a time.
    pub connections: Connections,
}

/// Where the access log goes: one JSON object a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// A certificate for names that no domain has.
#[derive(Debug, Clone)]
pub struct DefaultCertificate {
    /// The chain, leaf first, as PEM.
    pub chain: String,
    /// The leaf's key, as PEM.
    pub key: Redacted<String>,
}

/// How the gateway ends: it says that it wants no more traffic, goes on for a while, lets requests end, then cuts.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// How long connections are accepted after the gateway said that it is not ready any more, so that whoever sends traffic has
    /// noticed: 5 s.
    pub lame_duck: Duration,
    /// How long an idle HTTP/1.1 connection is kept after that: 1 s. A request that comes in this time is answered, with
    /// `Connection: close`. Over HTTP/2 `GOAWAY` says the same at once.
    pub idle: Duration,
    /// How long requests in flight may take after that: 60 s.
    pub deadline: Duration,
}

/// How many clients at a time. A connection over the limit is closed at once.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// On each listener: 10,000.
    pub per_listener: usize,
    /// On all listeners together: 50,000.
    pub total: usize,
}

// === impl Settings ===

impl Default for Settings {
    /// No listener but the admin port.
    fn default() -> Self {
        Self {
            http: None,
            https: None,
            internal: None,
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 9901))),
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            proxy: paifang_proxy::Settings::default(),
            access_log: AccessLog::default(),
            default_certificate: None,
            drain: Drain::default(),
            connections: Connections::default(),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            lame_duck: Duration::from_secs(5),
            idle: Duration::from_secs(1),
            deadline: Duration::from_secs(60),
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            per_listener: 10_000,
            total: 50_000,
        }
    }
}
