//! Everything a worker looks up while a request passes, behind one pointer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use paifang_model::ObjectName;
use paifang_snapshot::{
    table::{self, Group, Problem, Table},
    wire::{self, BackendTls, Snapshot},
};
use rustls::ClientConfig;

use crate::{
    backend::{AccessKey, Backend, tls},
    keys::Keys,
};

/// A configuration in service. Immutable; a change makes a new one and swaps the pointer.
pub struct Config {
    /// Hosts, groups, routes.
    pub table: Table,
    /// Credentials, ready to verify with.
    pub keys: Arc<Keys>,
    /// TLS towards backends, by what each asks for. An entry that could not be made says why.
    pub(crate) backend_tls: Arc<BackendTlsConfigs>,
    /// Backends ready to be asked, by [`paifang_snapshot::table::Backend::id`].
    backends: Arc<Backends>,
    /// Access keys, by the Secret they are in.
    access_keys: Arc<HashMap<ObjectName, Arc<AccessKey>>>,
    source: Source,
}

type BackendTlsConfigs = HashMap<Option<BackendTls>, Result<Arc<ClientConfig>, String>>;

/// With what backends had that are there no more, up to about as many.
#[derive(Default)]
struct Backends {
    all: HashMap<u64, Arc<Backend>, foldhash::fast::RandomState>,
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
            backends: Arc::default(),
            access_keys: Arc::default(),
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
            backends: backends(&table, &changed, &previous.backends),
            access_keys: if reusable {
                Arc::clone(&previous.access_keys)
            } else {
                access_keys(snapshot)
            },
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

    /// A backend of a route in [`Config::table`].
    pub(crate) fn backend(&self, id: u64) -> Option<&Arc<Backend>> {
        self.backends.all.get(&id)
    }

    /// The access key in a Secret.
    pub(crate) fn access_key(&self, secret: &ObjectName) -> Option<&Arc<AccessKey>> {
        self.access_keys.get(secret)
    }
}

/// Whether two are equal, at once when they are the same.
fn same<T: PartialEq>(left: &Arc<T>, right: &Arc<T>) -> bool {
    Arc::ptr_eq(left, right) || left == right
}

/// Looks at the groups that changed alone, but for a whole look now and then, so that what is used no more is forgotten.
fn backends(table: &Table, changed: &[&Arc<Group>], previous: &Arc<Backends>) -> Arc<Backends> {
    let routes = changed.iter().flat_map(|group| group.routes());
    let is_new = |backend: &&Arc<table::Backend>| !previous.all.contains_key(&backend.id);
    let new: Vec<_> = routes.map(|route| &route.backend).filter(is_new).collect();
    if new.is_empty() {
        return Arc::clone(previous);
    }
    let mut backends = Backends::default();
    if previous.added + new.len() > previous.all.len() / 2 {
        for route in table.groups().flat_map(|group| group.routes()) {
            backends.add(&route.backend, previous);
        }
    } else {
        backends.all = previous.all.clone();
        backends.added = previous.added + new.len();
        for backend in new {
            backends.add(backend, previous);
        }
    }
    Arc::new(backends)
}

impl Backends {
    fn add(&mut self, backend: &table::Backend, previous: &Self) {
        self.all.entry(backend.id).or_insert_with(|| {
            let known = previous.all.get(&backend.id).cloned();
            known.unwrap_or_else(|| Arc::new(Backend::load(&backend.target)))
        });
    }
}

fn access_keys(snapshot: &Snapshot) -> Arc<HashMap<ObjectName, Arc<AccessKey>>> {
    let keys = snapshot.certificates.iter();
    let keys = keys.filter_map(|(secret, material)| {
        let key = material.access_key.as_ref()?;
        Some((secret.clone(), Arc::new(key.into())))
    });
    Arc::new(keys.collect())
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
        let mut wanted = routes.filter_map(|route| route.backend.target.tls());
        if wanted.all(|wanted| previous.backend_tls.contains_key(wanted)) {
            return Arc::clone(&previous.backend_tls);
        }
    }
    let mut made = HashMap::new();
    for route in table.groups().flat_map(|group| group.routes()) {
        let Some(wanted) = route.backend.target.tls() else {
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
