//! How requests are served, shared by `standalone` and `gateway`: limits, times, and whom to believe.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
};

use clap::Args;
use ipnet::IpNet;
use paifang_gateway::{AccessLog, Connections, Drain, Settings};
use paifang_proxy::{Limits, Timeouts, network::BackendPolicy, trailers::Trailers};

use crate::units::{Size, Time};

/// How requests are served.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serving {
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

    /// Believe X-Forwarded-For from this network; repeat for several
    #[arg(long, value_name = "CIDR", help_heading = "Platform settings")]
    trust_proxy: Vec<IpNet>,

    /// Let this trailer pass, too, in both directions; repeat for several, end in * for all that begin so
    ///
    /// grpc-status, grpc-message, grpc-status-details-bin, content-digest, repr-digest and server-timing always pass. What RFC 9110
    /// §6.5.1 keeps out of trailers never does.
    #[arg(long, value_name = "NAME", value_parser = trailer, help_heading = "Platform settings")]
    allow_trailer: Vec<String>,

    /// Ask this name server instead of those of /etc/resolv.conf; repeat for several
    ///
    /// Search domains and options of /etc/resolv.conf count all the same, and /etc/hosts comes first.
    #[arg(long, value_name = "ADDRESS", value_parser = name_server, help_heading = "Platform settings")]
    name_server: Vec<SocketAddr>,

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

    /// Object that a caller writes to an object store
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "5GiB",
        help_heading = "Limits"
    )]
    max_object: Size,

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

    /// Silence in server-sent events and on WebSockets, which no other time ends
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5m",
        help_heading = "Timeouts"
    )]
    stream_idle_timeout: Time,

    /// At the end: requests in flight may take so long
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        help_heading = "Timeouts"
    )]
    drain_timeout: Time,
}

fn trailer(text: &str) -> Result<String, String> {
    let allowed = Trailers::default().allow(text);
    allowed
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

/// An address, with port 53 unless it has another.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| {
            text.parse()
                .map(|address: IpAddr| SocketAddr::new(address, 53))
        })
        .map_err(|_| "write an address, 10.96.0.10, or one with a port, 10.96.0.10:5353".to_owned())
}

impl Serving {
    /// For the gateway: everything but its listeners.
    pub(crate) fn gateway(
        &self,
        backends: BackendPolicy,
        access_log: &str,
        lame_duck: Time,
    ) -> Settings {
        let default = Settings::default();
        Settings {
            workers: self.workers.unwrap_or(default.workers),
            proxy: paifang_proxy::Settings {
                limits: self.limits(),
                timeouts: self.timeouts(),
                trusted_proxies: self.trust_proxy.clone(),
                backends,
                name_servers: self.name_server.clone(),
                trailers: self.trailers(),
            },
            access_log: match access_log {
                "stderr" => AccessLog::Stderr,
                "stdout" => AccessLog::Stdout,
                "off" => AccessLog::Off,
                path => AccessLog::File(path.into()),
            },
            drain: Drain {
                lame_duck: lame_duck.0,
                idle: Drain::default().idle,
                deadline: self.drain_timeout.0,
            },
            connections: Connections {
                per_listener: self.max_connections,
                total: Connections::default().total.max(self.max_connections),
            },
            ..default
        }
    }

    fn trailers(&self) -> Trailers {
        let mut trailers = Trailers::default();
        for name in &self.allow_trailer {
            // Read before.
            let _ = trailers.allow(name);
        }
        trailers
    }

    fn limits(&self) -> Limits {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        Limits {
            head_bytes: bytes(self.max_head),
            body_bytes: self.max_body.0,
            object_bytes: self.max_object.0,
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
            stream_idle: self.stream_idle_timeout.0,
        }
    }
}
