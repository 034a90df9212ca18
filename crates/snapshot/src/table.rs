//! What a gateway loads: hosts, and behind each the groups it leads to.
//!
//! A [`Table`] is built from a [`wire::Snapshot`] off the hot path, shared as one `Arc` and never changed. Nothing published can make
//! a load panic or stop: a group that makes no sense keeps the version it had before, an Api that cannot be loaded answers closed,
//! and either is reported as a [`Problem`], at every load until it is mended. What a lookup costs does not depend on how many groups
//! or Apis there are.
//!
//! Deliberately absent: the request itself (the proxy reads it), secrets, clocks, sockets, and what to answer to a refusal.

mod api;
mod backend_path;
mod captures;
mod digest;
mod grants;
mod group;
mod header;
mod intern;
mod json;
mod lower;
mod pattern;
mod rules;
mod schema;
mod trie;
mod variables;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use paifang_model::{BasePath, HostPattern, ObjectName, Stage};

use self::intern::{Interner, Lineage};
pub use self::{
    api::{Api, Backend, Call, Constant, Parameter, Route, System, TextPiece},
    backend_path::{BackendPath, PathPiece},
    captures::Captures,
    digest::Digest,
    grants::{AppId, Permission},
    group::{Counters, Group, StageIndex},
    pattern::{InvalidPattern, Pattern, compile_pattern},
    rules::Violation,
    schema::{InvalidSchema, Schema, SchemaViolation, compile_schema},
};
use crate::wire;

/// Everything one gateway serves, ready for look-ups.
pub struct Table {
    groups: BTreeMap<ObjectName, Entry>,
    exact: HashMap<Box<str>, HostEntry, foldhash::fast::RandomState>,
    wildcard: HashMap<Box<str>, HostEntry, foldhash::fast::RandomState>,
    lineage: Arc<Mutex<Lineage>>,
}

/// Something published that could not be loaded, and what serves instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The ApiGroup object.
    pub group: ObjectName,
    /// The Api that answers closed; absent when the whole group is affected.
    pub api: Option<ObjectName>,
    /// For people: what is wrong, and what is done about it. Never a secret.
    pub message: String,
}

/// Which listener a request came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// The public listeners.
    Public,
    /// The internal listener.
    Internal,
}

/// A group that a host leads to.
#[derive(Clone)]
pub struct Binding {
    /// The group.
    pub group: Arc<Group>,
    /// What makes the host lead there.
    pub via: Via,
}

/// What makes a host lead to a group.
#[derive(Clone)]
pub enum Via {
    /// A bound domain.
    Domain(Arc<Domain>),
    /// The automatic name on the public listeners, which has a daily quota.
    PublicSubDomain,
    /// The automatic name on the internal listener.
    InternalSubDomain,
}

/// A bound domain, see [`wire::Domain`].
#[derive(Debug)]
pub struct Domain {
    /// The DomainBinding object.
    pub name: ObjectName,
    /// The host or wildcard.
    pub host: HostPattern,
    /// The stage it pins, with its place in the group; absent when `X-Ca-Stage` decides.
    pub stage: Option<(StageIndex, Stage)>,
    /// Served on the internal listener only, instead of the public ones.
    pub intranet: bool,
    /// Whether WebSocket is open on it.
    pub web_socket: bool,
    /// Whether it has a certificate.
    pub has_tls: bool,
    /// Whether plain HTTP is answered with a redirect.
    pub redirect_http: bool,
    /// Whether the client certificate's subject goes to the backend as `X-Client-S-Dn`.
    pub pass_client_subject: bool,
    /// Whether a client certificate is required (mutual TLS).
    pub client_ca_required: bool,
}

/// A group as published, and what became of it.
#[derive(Clone)]
struct Entry {
    /// What serves; absent when no version of it could ever be loaded.
    group: Option<Arc<Group>>,
    /// What it was loaded from, for a cheap "unchanged". A weak pointer keeps the address from being used again, not the content.
    source: Weak<wire::Group>,
    problems: Arc<[Problem]>,
}

/// Where a host leads, for each network.
#[derive(Default)]
struct HostEntry {
    public: Vec<Binding>,
    internal: Vec<Binding>,
}

// === impl Table ===

impl Table {
    /// A table that knows no host.
    pub fn empty() -> Self {
        Self {
            groups: BTreeMap::new(),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            lineage: Arc::default(),
        }
    }

    /// Builds the table for `snapshot`. Groups that did not change since `previous`, by pointer or by content, are the very same
    /// `Arc`; so are patterns, schemas and backends that any group still uses. A group that cannot be loaded keeps its previous
    /// version; an Api that cannot be loaded gets a backend that answers closed. Both are among the problems returned, in the order
    /// of groups; so are those of unchanged groups. Never panics.
    pub fn load(snapshot: &wire::Snapshot, previous: &Self) -> (Self, Vec<Problem>) {
        let lineage = Arc::clone(&previous.lineage);
        let groups: BTreeMap<ObjectName, Entry> = {
            let mut kept = lineage.lock().unwrap_or_else(PoisonError::into_inner);
            let mut interner = Interner::new(&mut kept);
            let mut load = |name: &ObjectName, content: &Arc<wire::Group>| {
                load_entry(name, content, previous.groups.get(name), &mut interner)
            };
            let groups = snapshot
                .groups
                .iter()
                .map(|(name, content)| (name.clone(), load(name, content)))
                .collect();
            kept.forget_unused();
            groups
        };
        let problems = groups
            .values()
            .flat_map(|entry| entry.problems.iter().cloned())
            .collect();
        let mut table = Self {
            groups,
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            lineage,
        };
        table.bind_hosts();
        (table, problems)
    }

    /// The groups that `host` leads to on `network`, longest base path first; empty when there is none. `host` is normalised
    /// ([`paifang_model::normalise_host`]) and in lower case. A host bound by its exact name belongs to that binding alone, on every
    /// network: a wildcard that covers it as well is not consulted.
    pub fn bindings(&self, host: &str, network: Network) -> &[Binding] {
        match (self.host(host), network) {
            (None, _) => &[],
            (Some(entry), Network::Public) => &entry.public,
            (Some(entry), Network::Internal) => &entry.internal,
        }
    }

    /// Whether `host` leads anywhere, on any network.
    pub fn host_is_known(&self, host: &str) -> bool {
        self.host(host).is_some()
    }

    /// Every group that serves, ordered by name.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups
            .values()
            .filter_map(|entry| entry.group.as_ref())
    }

    /// The group with this name, if it serves.
    pub fn group(&self, name: &ObjectName) -> Option<&Arc<Group>> {
        self.groups.get(name)?.group.as_ref()
    }

    fn host(&self, host: &str) -> Option<&HostEntry> {
        self.exact.get(host).or_else(|| {
            let (label, suffix) = host.split_once('.')?;
            (!label.is_empty())
                .then(|| self.wildcard.get(suffix))
                .flatten()
        })
    }

    fn bind_hosts(&mut self) {
        let groups: Vec<Arc<Group>> = self.groups().cloned().collect();
        for group in groups {
            if let Some(host) = &group.public_sub_domain {
                self.bind(host, Network::Public, &group, Via::PublicSubDomain);
            }
            if let Some(host) = &group.internal_sub_domain {
                self.bind(host, Network::Internal, &group, Via::InternalSubDomain);
            }
            for domain in &group.domains {
                let network = if domain.intranet {
                    Network::Internal
                } else {
                    Network::Public
                };
                self.bind(
                    &domain.host,
                    network,
                    &group,
                    Via::Domain(Arc::clone(domain)),
                );
            }
        }
        for entry in self.exact.values_mut().chain(self.wildcard.values_mut()) {
            entry.public.sort_by(order);
            entry.internal.sort_by(order);
        }
    }

    fn bind(&mut self, host: &HostPattern, network: Network, group: &Arc<Group>, via: Via) {
        let (hosts, name) = match host {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(suffix) => (&mut self.wildcard, suffix),
        };
        let entry = hosts.entry(name.clone()).or_default();
        let bindings = match network {
            Network::Public => &mut entry.public,
            Network::Internal => &mut entry.internal,
        };
        bindings.push(Binding {
            group: Arc::clone(group),
            via,
        });
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::empty()
    }
}

/// Longest base path first; what is left is only there to make the order the same every time (groups come in the order of names, and
/// the sort is stable).
fn order(left: &Binding, right: &Binding) -> std::cmp::Ordering {
    let key = |base: &BasePath| std::cmp::Reverse(base.as_str().len());
    key(&left.group.base_path)
        .cmp(&key(&right.group.base_path))
        .then_with(|| left.group.base_path.cmp(&right.group.base_path))
}

/// One group: reused, loaded, or kept as it was.
fn load_entry(
    name: &ObjectName,
    content: &Arc<wire::Group>,
    previous: Option<&Entry>,
    interner: &mut Interner<'_>,
) -> Entry {
    if let Some(previous) = previous
        && Weak::as_ptr(&previous.source) == Arc::as_ptr(content)
    {
        return previous.clone();
    }
    let source = Arc::downgrade(content);
    let before = previous.and_then(|entry| entry.group.as_ref());
    let digest = Digest::of(content);
    let loaded = match before {
        Some(before) if before.digest == digest => Ok(Arc::clone(before)),
        _ => {
            let counters = before.map(|group| Arc::clone(&group.counters));
            let counters = counters.unwrap_or_default();
            lower::group(name, content, digest, counters, interner).map(Arc::new)
        }
    };
    match loaded {
        Ok(group) => Entry {
            problems: Arc::clone(&group.problems),
            group: Some(group),
            source,
        },
        Err(message) => Entry {
            group: before.cloned(),
            source,
            problems: [unloadable(name, before.is_some(), &message)].into(),
        },
    }
}

fn unloadable(name: &ObjectName, kept: bool, message: &str) -> Problem {
    let instead = if kept {
        "its previous version keeps serving"
    } else {
        "there is no previous version, so none of its hosts is served"
    };
    Problem {
        group: name.clone(),
        api: None,
        message: format!("{message}; {instead}"),
    }
}
