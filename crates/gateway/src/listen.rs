//! Sockets to accept connections on: one for each worker and listener, all of a listener on one address (`SO_REUSEPORT`), so that the
//! kernel spreads connections and no lock is shared.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use anyhow::Context as _;
use paifang_snapshot::table::Network;
use socket2::{Domain, Protocol, Socket, Type};

use crate::settings::Settings;

/// Connections that the kernel keeps for us before they are accepted; the system's own limit may be lower.
const BACKLOG: i32 = 4096;

/// A kind of listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Http,
    Https,
    Internal,
}

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// TLS.
    pub https: Option<SocketAddr>,
    /// Plain HTTP for the internal network.
    pub internal: Option<SocketAddr>,
    /// The admin port.
    pub admin: Option<SocketAddr>,
}

/// The sockets of one worker.
pub(crate) type Sockets = Vec<(Listener, TcpListener)>;

// === impl Listener ===

impl Listener {
    pub(crate) const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Internal];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Internal => "internal",
        }
    }

    pub(crate) const fn network(self) -> Network {
        match self {
            Self::Http | Self::Https => Network::Public,
            Self::Internal => Network::Internal,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Binds everything, or nothing: sockets for each worker, the admin port, and the addresses they really have.
pub(crate) fn bind(
    settings: &Settings,
) -> anyhow::Result<(Vec<Sockets>, Option<TcpListener>, Addresses)> {
    let mut addresses = Addresses::default();
    let mut workers: Vec<Sockets> = (0..settings.workers.get()).map(|_| Vec::new()).collect();
    for listener in Listener::ALL {
        let (wanted, bound) = match listener {
            Listener::Http => (settings.http, &mut addresses.http),
            Listener::Https => (settings.https, &mut addresses.https),
            Listener::Internal => (settings.internal, &mut addresses.internal),
        };
        let Some(mut address) = wanted else { continue };
        available(address).map_err(|error| explain(listener.as_str(), address, &error))?;
        for sockets in &mut workers {
            let socket = listen(address, true)
                .map_err(|error| explain(listener.as_str(), address, &error))?;
            address = socket
                .local_addr()
                .context("a bound socket has no address")?;
            sockets.push((listener, socket));
        }
        *bound = Some(address);
    }
    let admin = match settings.admin {
        Some(address) => Some(bind_one("admin", address)?),
        None => None,
    };
    addresses.admin = admin.as_ref().and_then(|socket| socket.local_addr().ok());
    Ok((workers, admin, addresses))
}

/// Binds a port of a kind of its own.
///
/// # Errors
/// In one plain sentence that names listener and address.
pub(crate) fn bind_one(listener: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address, false).map_err(|error| explain(listener, address, &error))
}

/// Whether nobody listens there. `SO_REUSEPORT` would let us share a port with another gateway of the same user without a word.
fn available(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    listen(address, false).map(drop)
}

fn listen(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` also takes IPv4, as its users expect.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(listener: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "the {listener} listener cannot use {address}: another program listens there; stop it or choose another address"
        ),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "the {listener} listener cannot use {address}: this user may not; ports below 1024 need CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!(
                "the {listener} listener cannot use {address}: this machine has no such address"
            )
        }
        _ => anyhow::anyhow!("the {listener} listener cannot use {address}: {error}"),
    }
}
