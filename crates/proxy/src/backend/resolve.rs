//! Names of backends to addresses. Answers are kept for a few seconds by each worker, so that a changed name is followed soon and a
//! burst of connections asks once.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::refusal::Refusal;

/// How long an answer is kept. The system's resolver does not tell the record's own time to live.
const KEPT: Duration = Duration::from_secs(5);
/// Most names kept.
const MOST: usize = 1024;

#[derive(Default)]
pub(crate) struct Resolver {
    known: RefCell<HashMap<Box<str>, Answer>>,
}

/// When a name was asked for, and its addresses.
type Answer = (Instant, Vec<IpAddr>);

// === impl Resolver ===

impl Resolver {
    /// All addresses of `host`, a name or an address, with `port`.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(addresses) = self.kept(host) {
            return Ok(with_port(&addresses, port));
        }
        let found: Vec<IpAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| Refusal::backend_unresolved(host).detail(error))?
            .map(|address| address.ip())
            .collect();
        if found.is_empty() {
            return Err(Refusal::backend_unresolved(host).detail("no address"));
        }
        let addresses = with_port(&found, port);
        self.keep(host, found);
        Ok(addresses)
    }

    fn kept(&self, host: &str) -> Option<Vec<IpAddr>> {
        let known = self.known.borrow();
        let (at, addresses) = known.get(host)?;
        (at.elapsed() < KEPT).then(|| addresses.clone())
    }

    fn keep(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if known.len() < MOST {
            known.insert(host.into(), (Instant::now(), addresses));
        }
    }
}

fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|&address| SocketAddr::new(address, port))
        .collect()
}
