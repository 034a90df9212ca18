//! Limits and timeouts of requests. Defaults are those of Ref §10.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::{network::BackendPolicy, trailers::Trailers};

/// What a worker needs to know beside the configuration it serves.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Sizes.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// Networks whose `X-Forwarded-For` is believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// Which addresses backends may have.
    pub backends: BackendPolicy,
    /// Which trailers pass, in both directions.
    pub trailers: Trailers,
    /// Name servers asked instead of those of `/etc/resolv.conf`, unless empty. Search domains and `/etc/hosts` count all the same.
    pub name_servers: Vec<SocketAddr>,
}

/// Sizes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Request line and headers together, in bytes: 8 KiB.
    pub head_bytes: usize,
    /// A request's body, in bytes: 8 MiB.
    pub body_bytes: u64,
    /// An object that a caller writes to an object store, in bytes: 5 GiB, the most that one request to OSS or S3 may write.
    pub object_bytes: u64,
    /// Fields of a form, and of a query: 10,000.
    pub fields: usize,
    /// Nonces remembered: 4,000,000, about 40 bytes each.
    pub nonces: usize,
    /// Idle connections kept for each backend, and for each of a Service's endpoints, by each worker: 256.
    pub idle_per_backend: usize,
    /// Headers of a backend's answer, in bytes: 64 KiB.
    pub answer_head_bytes: usize,
}

/// Times.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// From the first byte of a request's head to its last: 10 s.
    pub head: Duration,
    /// The longest a client may pause inside a body, or refuse to take an answer: 30 s.
    pub stall: Duration,
    /// The whole of a body that a phase needs before it can go on: 60 s.
    pub body: Duration,
    /// A client connection without a request: 75 s. Clients are told 25 s (Ref §3.1), so that theirs ends first.
    pub idle: Duration,
    /// A TLS handshake: 10 s.
    pub handshake: Duration,
    /// Connecting to a backend, TLS included; the Api's own timeout ends it earlier: 5 s.
    pub connect: Duration,
    /// An idle connection to a backend: 25 s.
    pub backend_idle: Duration,
    /// The longest silence in server-sent events, which no total time ends, and on an upgraded connection: 5 min.
    pub stream_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 8 << 10,
            body_bytes: 8 << 20,
            object_bytes: 5 << 30,
            fields: 10_000,
            nonces: 4_000_000,
            idle_per_backend: 256,
            answer_head_bytes: 64 << 10,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            body: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            backend_idle: Duration::from_secs(25),
            stream_idle: Duration::from_secs(5 * 60),
        }
    }
}
