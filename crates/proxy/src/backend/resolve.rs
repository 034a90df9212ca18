//! Names of backends to addresses. Each worker asks for itself and keeps an answer as long as its records say, within bounds; requests
//! that need the same name at the same time ask once.
//!
//! When no name server answers, what was known is used a while longer (RFC 8767): a backend that is up should not be lost with a name
//! server. An answer that says that there is no such name counts at once. What an address may be is judged elsewhere, at every
//! connection ([`crate::network`]); the protocol itself is the library's.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup_ip::LookupIp,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf::read_system_conf,
};
use tokio::sync::Notify;

use crate::refusal::Refusal;

/// Bounds of how long an answer is kept, whatever its records say: not to ask for every connection, and not to miss a change for long.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How long it is believed that there is no such name, and how long a name server that failed is not asked about the name again.
const FAILED: Duration = Duration::from_secs(5);
/// How long beyond its end an answer is used while no name server gives a new one.
const STALE: Duration = Duration::from_secs(10 * 60);
/// How long a request waits for a new answer before it takes one that is past its end.
const PATIENCE: Duration = Duration::from_millis(500);
/// A lookup that has not ended by then is given up, and another begun.
const LOST: Duration = Duration::from_secs(30);
/// Most names kept.
const MOST: usize = 1024;
/// How often it is looked whether the system's files have changed.
const LOOK: Duration = Duration::from_secs(5);
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// A worker's resolver.
pub(crate) struct Resolver(Rc<Inner>);

struct Inner {
    /// Asked instead of the system's name servers, unless empty.
    servers: Vec<SocketAddr>,
    known: RefCell<HashMap<Box<str>, Entry>>,
    library: RefCell<Option<Library>>,
}

/// The library's resolver, and what it was made from.
struct Library {
    resolver: TokioResolver,
    hosts: Hosts,
    written: [Option<SystemTime>; FILES.len()],
    looked: Instant,
}

#[derive(Default)]
struct Entry {
    found: Option<Found>,
    failed: Option<Failed>,
    asked: Option<Asked>,
}

struct Found {
    addresses: Rc<[IpAddr]>,
    fresh_until: Instant,
}

struct Failed {
    reason: String,
    until: Instant,
}

/// A lookup under way.
struct Asked {
    done: Rc<Notify>,
    since: Instant,
}

type Known = Result<Rc<[IpAddr]>, String>;

// === impl Resolver ===

impl Resolver {
    /// `servers` are asked instead of the system's, unless empty.
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        Self(Rc::new(Inner {
            servers: servers.to_vec(),
            known: RefCell::default(),
            library: RefCell::default(),
        }))
    }

    /// All addresses of `host`, a name or an address, with `port`.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        if let Some(address) = literal(host) {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let known = match self.0.known(host, Instant::now()) {
            Some(known) => known,
            None => Box::pin(self.0.wait(host)).await,
        };
        match known {
            Ok(addresses) => Ok(addresses
                .iter()
                .map(|&address| SocketAddr::new(address, port))
                .collect()),
            Err(reason) => Err(Refusal::backend_unresolved(host).detail(reason)),
        }
    }
}

/// An address in a host's place. The odd spellings of IPv4 that some resolvers take (`127.1`, `0x7f000001`) are names here, and no
/// name server knows them.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

// === impl Inner ===

impl Inner {
    /// What can be said without asking.
    fn known(&self, host: &str, now: Instant) -> Option<Known> {
        let known = self.known.borrow();
        let entry = known.get(host)?;
        if let Some(found) = &entry.found
            && now < found.fresh_until
        {
            return Some(Ok(Rc::clone(&found.addresses)));
        }
        let failed = entry.failed.as_ref().filter(|failed| now < failed.until)?;
        Some(entry.stale(now).ok_or_else(|| failed.reason.clone()))
    }

    /// Waits for a lookup, begun by whoever needs the name first. An answer past its end shortens the wait.
    async fn wait(self: &Rc<Self>, host: &str) -> Known {
        let asked = self.begin(host);
        let stale = {
            let known = self.known.borrow();
            known
                .get(host)
                .and_then(|entry| entry.stale(Instant::now()))
        };
        match stale {
            None => asked.notified().await,
            Some(addresses) => {
                if tokio::time::timeout(PATIENCE, asked.notified())
                    .await
                    .is_err()
                {
                    return Ok(addresses);
                }
            }
        }
        self.known(host, Instant::now())
            .unwrap_or_else(|| Err("the name was forgotten at once".to_owned()))
    }

    fn begin(self: &Rc<Self>, host: &str) -> Rc<Notify> {
        let now = Instant::now();
        let mut known = self.known.borrow_mut();
        make_room(&mut known, now);
        let entry = known.entry(host.into()).or_default();
        if let Some(asked) = &entry.asked
            && now.duration_since(asked.since) < LOST
        {
            return Rc::clone(&asked.done);
        }
        let done = Rc::new(Notify::new());
        entry.asked = Some(Asked {
            done: Rc::clone(&done),
            since: now,
        });
        // A task of its own: the request that needed it first may leave, and others wait for it too.
        tokio::task::spawn_local(Rc::clone(self).ask(host.into(), Rc::clone(&done)));
        done
    }

    async fn ask(self: Rc<Self>, host: Box<str>, done: Rc<Notify>) {
        let resolver = self.library();
        match self.in_hosts(&host) {
            Some(addresses) => self.found(&host, addresses, LOOK),
            None => {
                let answer = resolver.lookup_ip(&*host).await;
                self.note(&host, answer);
            }
        }
        done.notify_waiters();
    }

    /// What `/etc/hosts` says. The library would ask a name server too, for the family that the file does not tell.
    fn in_hosts(&self, host: &str) -> Option<Vec<IpAddr>> {
        in_hosts(&self.library.borrow().as_ref()?.hosts, host)
    }

    fn found(&self, host: &str, addresses: Vec<IpAddr>, kept: Duration) {
        let mut known = self.known.borrow_mut();
        let entry = known.entry(host.into()).or_default();
        entry.asked = None;
        entry.failed = None;
        entry.found = Some(Found {
            addresses: alternate(addresses.into_iter()).into(),
            fresh_until: Instant::now() + kept,
        });
    }

    fn note(&self, host: &str, answer: Result<LookupIp, NetError>) {
        let now = Instant::now();
        let error = match answer {
            Ok(lookup) => {
                let kept = lookup.valid_until().saturating_duration_since(now);
                let kept = kept.clamp(SHORTEST, LONGEST);
                return self.found(host, lookup.iter().collect(), kept);
            }
            Err(error) => error,
        };
        let mut known = self.known.borrow_mut();
        let entry = known.entry(host.into()).or_default();
        entry.asked = None;
        if error.is_no_records_found() {
            entry.found = None;
        } else if entry.stale(now).is_some() && entry.failed.is_none() {
            tracing::warn!(host, %error, "no name server answers: going on with the addresses known before");
        }
        entry.failed = Some(Failed {
            reason: error.to_string(),
            until: now + FAILED,
        });
    }

    /// The library's resolver, made anew when the system's files have changed.
    fn library(&self) -> TokioResolver {
        let now = Instant::now();
        let mut library = self.library.borrow_mut();
        if let Some(library) = &mut *library {
            let unchanged = now.duration_since(library.looked) < LOOK || {
                library.looked = now;
                library.written == written()
            };
            if unchanged {
                return library.resolver.clone();
            }
        }
        let resolver = make(&self.servers);
        *library = Some(Library {
            resolver: resolver.clone(),
            hosts: Hosts::from_system().unwrap_or_default(),
            written: written(),
            looked: now,
        });
        resolver
    }
}

impl Entry {
    fn stale(&self, now: Instant) -> Option<Rc<[IpAddr]>> {
        let found = self.found.as_ref()?;
        (now < found.fresh_until + STALE).then(|| Rc::clone(&found.addresses))
    }
}

/// Forgets what is of no use; if that is not enough, what has been useless for longest.
fn make_room(known: &mut HashMap<Box<str>, Entry>, now: Instant) {
    if known.len() < MOST {
        return;
    }
    known.retain(|_, entry| entry.asked.is_some() || entry.stale(now).is_some());
    while known.len() >= MOST {
        let oldest = known
            .iter()
            .min_by_key(|(_, entry)| entry.found.as_ref().map(|found| found.fresh_until))
            .map(|(name, _)| name.clone());
        match oldest {
            Some(name) => known.remove(&name),
            None => return,
        };
    }
}

/// Families in turn, so that one that leads nowhere costs one attempt (RFC 8305 §4); within a family a random one first, as no one
/// address is meant to take all.
fn alternate(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (mut four, mut six): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
    for family in [&mut four, &mut six] {
        if !family.is_empty() {
            let by = fastrand::usize(..family.len());
            family.rotate_left(by);
        }
    }
    let mut all = Vec::with_capacity(four.len() + six.len());
    let (mut four, mut six) = (four.into_iter(), six.into_iter());
    loop {
        let (a, b) = (four.next(), six.next());
        if a.is_none() && b.is_none() {
            return all;
        }
        all.extend(a);
        all.extend(b);
    }
}

// === the library ===

fn make(servers: &[SocketAddr]) -> TokioResolver {
    let (mut config, mut options) = read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "/etc/resolv.conf cannot be used: asking the name server of this machine");
        let local = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        (config, ResolverOpts::default())
    });
    if !servers.is_empty() {
        let (domain, search, _) = config.into_parts();
        let servers = servers.iter().copied().map(server).collect();
        config = ResolverConfig::from_parts(domain, search, servers);
    }
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // Kept here, with what is to be done when a name server fails.
    options.cache_size = 0;
    let mut builder =
        TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().unwrap_or_else(|error| {
        // Without DNSSEC and TLS there is nothing in it that can be wrong.
        tracing::error!(%error, "the system's name service cannot be used as it is set up");
        let local = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .build()
            .expect("plain name servers need nothing that could be missing")
    })
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// Both families of a name in a hosts file.
fn in_hosts(hosts: &Hosts, host: &str) -> Option<Vec<IpAddr>> {
    let name = Name::from_utf8(host).ok()?;
    let mut addresses = Vec::new();
    for family in [RecordType::A, RecordType::AAAA] {
        let query = Query::query(name.clone(), family);
        let found = hosts.lookup_static_host(&query);
        let records = found.iter().flat_map(|lookup| lookup.answers());
        addresses.extend(records.filter_map(|record| record.data.ip_addr()));
    }
    (!addresses.is_empty()).then_some(addresses)
}

fn written() -> [Option<SystemTime>; FILES.len()] {
    FILES.map(|file| fs::metadata(file).ok()?.modified().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_tells_names_in_any_case() {
        let mut all = Hosts::default();
        let text = "127.0.0.1 localhost\n::1\tLocalHost ip6 # a comment\n#1.2.3.4 no\nnonsense x\n10.0.0.1 echo.\n";
        all.read_hosts_conf(text.as_bytes()).unwrap();
        let of = |name: &str| in_hosts(&all, name).map(|addresses| addresses.len());
        assert_eq!(
            (of("localhost"), of("ip6"), of("echo"), of("no"), of("x")),
            (Some(2), Some(1), Some(1), None, None)
        );
    }

    #[test]
    fn families_take_turns() {
        let all = ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.3"].map(|text| text.parse().unwrap());
        let found = alternate(all.into_iter());
        assert_eq!(found.len(), 4);
        assert!(found[0].is_ipv4() && found[1].is_ipv6() && found[2].is_ipv4());
    }

    #[test]
    fn addresses_are_not_asked_for() {
        assert_eq!(literal("[::1]"), "::1".parse().ok());
        assert_eq!(literal("10.0.0.1"), "10.0.0.1".parse().ok());
        for odd in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "a.b"] {
            assert_eq!(literal(odd), None, "{odd}");
        }
    }
}
