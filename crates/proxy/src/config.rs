//! Everything a worker looks up while a request passes, behind one pointer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::HeaderValue;
use paifang_model::ObjectName;
use paifang_snapshot::{
    table::{Problem, Table},
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
    pub(crate) backend_tls: HashMap<Option<BackendTls>, Result<Arc<ClientConfig>, String>>,
    /// What each backend is told as `Host`, by [`paifang_snapshot::table::Backend::id`].
    hosts: HashMap<u64, HeaderValue, foldhash::fast::RandomState>,
    source: Source,
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
            backend_tls: HashMap::new(),
            hosts: HashMap::default(),
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
        let config = Self {
            backend_tls: backend_tls(&table, snapshot, reusable.then_some(previous)),
            hosts: hosts(&table, previous),
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
        self.hosts.get(&backend).cloned()
    }
}

/// Whether two are equal, at once when they are the same.
fn same<T: PartialEq>(left: &Arc<T>, right: &Arc<T>) -> bool {
    Arc::ptr_eq(left, right) || left == right
}

fn hosts(
    table: &Table,
    previous: &Config,
) -> HashMap<u64, HeaderValue, foldhash::fast::RandomState> {
    let mut hosts = HashMap::default();
    for route in table.groups().flat_map(|group| group.routes()) {
        let backend = &route.backend;
        if hosts.contains_key(&backend.id) {
            continue;
        }
        let host = match previous.hosts.get(&backend.id) {
            Some(known) => Some(known.clone()),
            None => host(&backend.target),
        };
        if let Some(host) = host {
            hosts.insert(backend.id, host);
        }
    }
    hosts
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
    snapshot: &Snapshot,
    reuse: Option<&Config>,
) -> HashMap<Option<BackendTls>, Result<Arc<ClientConfig>, String>> {
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
    made
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
