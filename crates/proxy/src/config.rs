//! Everything a worker looks up while a request passes, behind one pointer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::HeaderValue;
use paifang_model::ObjectName;
use paifang_snapshot::{
    table::{Backend, Group, Problem, Table},
    wire::{self, BackendTls, Snapshot, Target},
};
use rustls::ClientConfig;

use crate::{backend::tls, keys::Keys};

/// A configuration in service. Immutable; a change makes a new one and swaps the pointer.
pub struct Config {
    /// Hosts, groups, routes.
    pub table: Table,
    /// Credentials, ready to verify with.
    pub keys: Arc<Keys>,
    /// TLS towards backends, by what each asks for. An entry that could not be made says why.
    pub(crate) backend_tls: Arc<BackendTlsConfigs>,
    /// What each backend is told as `Host`, by [`paifang_snapshot::table::Backend::id`].
    hosts: Arc<Hosts>,
    source: Source,
}

type BackendTlsConfigs = HashMap<Option<BackendTls>, Result<Arc<ClientConfig>, String>>;

/// With what backends had that are there no more, up to about as many.
#[derive(Default)]
struct Hosts {
    all: HashMap<u64, HeaderValue, foldhash::fast::RandomState>,
    /// How many were added since every backend was looked at.
    added: usize,
}

/// What a configuration was loaded from, so that an unchanged part is not loaded again.
#[derive(Default)]
struct Source {
    apps: Arc<wire::Apps>,
    credentials: Arc<Vec<wire::Credential>>,
    certificates: Arc<BTreeMap<ObjectName, wire::Certificate>>,
}

// === impl Config ===

impl Config {
    /// Serves nothing.
    pub fn empty() -> Self {
        Self {
            table: Table::empty(),
            keys: Arc::default(),
            backend_tls: Arc::default(),
            hosts: Arc::default(),
            source: Source::default(),
        }
    }

    /// Loads a snapshot, taking over from `previous` what did not change. What cannot be loaded is reported and either keeps its
    /// previous version or answers closed.
    pub fn load(snapshot: &Snapshot, previous: &Self) -> (Self, Vec<Problem>) {
        let (table, problems) = Table::load(snapshot, &previous.table);
        let same_keys = same(&snapshot.apps, &previous.source.apps)
            && same(&snapshot.credentials, &previous.source.credentials);
        let keys = if same_keys {
            Arc::clone(&previous.keys)
        } else {
            Arc::new(Keys::load(&snapshot.apps, &snapshot.credentials))
        };
        let reusable = same(&snapshot.certificates, &previous.source.certificates);
        let changed: Vec<&Arc<Group>> = table
            .groups()
            .filter(|group| {
                let before = previous.table.group(&group.name);
                before.is_none_or(|before| !Arc::ptr_eq(before, group))
            })
            .collect();
        let config = Self {
            backend_tls: backend_tls(&table, &changed, snapshot, reusable.then_some(previous)),
            hosts: hosts(&table, &changed, &previous.hosts),
            table,
            keys,
            source: Source {
                apps: Arc::clone(&snapshot.apps),
                credentials: Arc::clone(&snapshot.credentials),
                certificates: Arc::clone(&snapshot.certificates),
            },
        };
        (config, problems)
    }

    /// What a backend is told as `Host`; `None` when that cannot be sent, or for one that is not asked over HTTP.
    pub(crate) fn host(&self, backend: u64) -> Option<HeaderValue> {
        self.hosts.all.get(&backend).cloned()
    }
}

/// Whether two are equal, at once when they are the same.
fn same<T: PartialEq>(left: &Arc<T>, right: &Arc<T>) -> bool {
    Arc::ptr_eq(left, right) || left == right
}

/// Looks at the groups that changed alone, but for a whole look now and then, so that what is used no more is forgotten.
fn hosts(table: &Table, changed: &[&Arc<Group>], previous: &Arc<Hosts>) -> Arc<Hosts> {
    let routes = changed.iter().flat_map(|group| group.routes());
    let is_new = |backend: &&Arc<Backend>| !previous.all.contains_key(&backend.id);
    let new: Vec<&Arc<Backend>> = routes.map(|route| &route.backend).filter(is_new).collect();
    if new.is_empty() {
        return Arc::clone(previous);
    }
    let mut hosts = Hosts::default();
    if previous.added + new.len() > previous.all.len() / 2 {
        for route in table.groups().flat_map(|group| group.routes()) {
            hosts.add(&route.backend, previous);
        }
    } else {
        hosts.all = previous.all.clone();
        hosts.added = previous.added + new.len();
        for backend in new {
            hosts.add(backend, previous);
        }
    }
    Arc::new(hosts)
}

impl Hosts {
    fn add(&mut self, backend: &Backend, previous: &Self) {
        if self.all.contains_key(&backend.id) {
            return;
        }
        let known = previous.all.get(&backend.id).cloned();
        if let Some(host) = known.or_else(|| host(&backend.target)) {
            self.all.insert(backend.id, host);
        }
    }
}

fn host(target: &Target) -> Option<HeaderValue> {
    let text = match target {
        Target::Http(http) => match &http.host {
            Some(host) => host.clone(),
            None => http.address.authority(),
        },
        Target::Vpc(vpc) => vpc.host.clone(),
        Target::Mock(_) | Target::Unavailable { .. } => "none".to_owned(),
    };
    HeaderValue::try_from(text).ok()
}

/// One TLS client configuration for each way of verifying that some backend asks for. `reuse` holds those of the previous
/// configuration when no certificate changed, so that sessions go on being resumed.
fn backend_tls(
    table: &Table,
    changed: &[&Arc<Group>],
    snapshot: &Snapshot,
    reuse: Option<&Config>,
) -> Arc<BackendTlsConfigs> {
    if let Some(previous) = reuse {
        let routes = changed.iter().flat_map(|group| group.routes());
        let mut wanted = routes.filter_map(|route| wanted_tls(&route.backend.target));
        if wanted.all(|wanted| previous.backend_tls.contains_key(wanted)) {
            return Arc::clone(&previous.backend_tls);
        }
    }
    let mut made = HashMap::new();
    for route in table.groups().flat_map(|group| group.routes()) {
        let Some(wanted) = wanted_tls(&route.backend.target) else {
            continue;
        };
        if made.contains_key(wanted) {
            continue;
        }
        let kept = reuse.and_then(|config| config.backend_tls.get(wanted).cloned());
        let config =
            kept.unwrap_or_else(|| tls::client_config(wanted.as_ref(), &snapshot.certificates));
        made.insert(wanted.clone(), config);
    }
    Arc::new(made)
}

/// What a target asks of TLS; `None` when it does not use it.
fn wanted_tls(target: &Target) -> Option<&Option<BackendTls>> {
    match target {
        Target::Http(http) if http.address.scheme == paifang_model::Scheme::Https => {
            Some(&http.tls)
        }
        Target::Vpc(vpc) if vpc.scheme == paifang_model::Scheme::Https => Some(&vpc.tls),
        _ => None,
    }
}
