//! Where a cluster's network is: the machine's own, or a namespace with nothing else in it.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{run, state::random_name};

/// A network: that of the machine, or a namespace.
#[derive(Clone, Debug)]
pub enum Net {
    /// The machine's own; clusters use its loopback addresses only.
    Host,
    /// A named network namespace (`/run/netns/NAME`).
    Namespace(String),
}

// === impl Net ===

impl Net {
    /// Makes a namespace with the address 192.0.2.1 and a default route that leads nowhere. ClusterIPs need a route; nothing can leave.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let net = Self::Namespace(name.to_owned());
        run(Command::new("ip").args(["netns", "add", name]))?;
        for line in [
            "link set lo up",
            "link add node0 type bridge",
            "addr add 192.0.2.1/24 dev node0",
            "link set node0 up",
            "route add default via 192.0.2.254 dev node0",
        ] {
            run(net.command("ip").args(line.split(' ')))?;
        }
        // Load without kept connections leaves a port in TIME_WAIT for each. When they run out, the only free ones are those that were refused, of which the
        // kernel's connection tracking remembers by which pod: from then on every try would be sent there again.
        run(net.command("sh").args([
            "-c",
            "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse",
        ]))?;
        Ok(net)
    }

    /// Where the namespace can be opened.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Host => None,
            Self::Namespace(name) => Some(Path::new("/run/netns").join(name)),
        }
    }

    /// A command that will run in this network. (Not `ip netns exec`: it hides the control groups.)
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self.path() {
            None => Command::new(program),
            Some(path) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", path.display()))
                    .arg("--")
                    .arg(program);
                command
            }
        }
    }

    /// Calls `work` on a thread of its own in this network. Sockets it makes stay in the network wherever they are used later; a runtime it starts
    /// must be one of a single thread, or its other threads must enter with [`Net::enter`].
    ///
    /// # Errors
    /// The namespace is gone.
    ///
    /// # Panics
    /// When `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this network, for as long as it lives.
    ///
    /// # Errors
    /// The namespace is gone, or the process is not root.
    pub fn enter(&self) -> Result<()> {
        if let Some(path) = self.path() {
            let file = File::open(&path)
                .with_context(|| format!("no network namespace {}", path.display()))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network namespace")?;
        }
        Ok(())
    }

    /// Connects within this network. The connection may be used from anywhere.
    ///
    /// # Errors
    /// As `TcpStream::connect_timeout`.
    pub fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        match self {
            Self::Host => TcpStream::connect_timeout(&address, timeout),
            Self::Namespace(_) => self
                .inside(|| TcpStream::connect_timeout(&address, timeout))
                .map_err(io::Error::other)?,
        }
    }

    /// Listens within this network. The listener may be used from anywhere.
    ///
    /// # Errors
    /// As `TcpListener::bind`.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.inside(|| TcpListener::bind(address))
            .map_err(io::Error::other)?
    }

    /// Ports of the loopback that are free, outside the range from which the system takes ports for clients: a server that is started again
    /// finds its port free.
    ///
    /// # Errors
    /// There are none.
    pub fn free_ports<const N: usize>(&self) -> Result<[u16; N]> {
        let mut ports = [0; N];
        for at in 0..N {
            let free = (0..1000).find_map(|_| {
                let port =
                    20_000 + u16::from_str_radix(random_name().ok()?.get(..4)?, 16).ok()? % 12_000;
                let is_free = !ports.contains(&port)
                    && self.listen((Ipv4Addr::LOCALHOST, port).into()).is_ok();
                is_free.then_some(port)
            });
            ports[at] = free.context("no free port between 20000 and 32000")?;
        }
        Ok(ports)
    }

    /// Makes a port of this network reachable on the machine's loopback, for clients that cannot enter; its address there. Lasts as
    /// long as this process.
    ///
    /// # Errors
    /// No thread or no port can be had.
    pub fn forward(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let net = self.clone();
        thread::Builder::new()
            .name(format!("to {to}"))
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    let net = net.clone();
                    thread::spawn(move || {
                        if let Ok(server) = net.connect(to, Duration::from_secs(5)) {
                            splice(&client, &server);
                        }
                    });
                }
            })?;
        Ok(address)
    }
}

/// Copies both ways until either end is done.
fn splice(client: &TcpStream, server: &TcpStream) {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client);
    });
}
