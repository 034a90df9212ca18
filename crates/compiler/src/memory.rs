//! What earlier compiles decided: releases, the last good state of every object, who holds what only one object may hold.
//!
//! The caller stores it (a folder with mode 0600, or ControllerRevisions and Secrets) and hands it back. Compile returns the next
//! one. An object that is gone is forgotten; an object with another uid is another object.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::ObjectName;
use paifang_resources::{
    ApiGroupSpec, ApiSpec, AppSpec, AuthorizationSpec, BackendServiceSpec, DomainBindingSpec, Kind,
};
use paifang_snapshot::wire::Certificate;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

use crate::{ByStage, ObjectId, releases::same_content};

/// What earlier compiles decided. Holds private keys: store it where only the owner can read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Releases and stages of each Api.
    pub apis: BTreeMap<ObjectName, Arc<ApiMemory>>,
    /// Last good ApiGroups.
    pub groups: BTreeMap<ObjectName, Arc<Accepted<ApiGroupSpec>>>,
    /// Last good BackendServices.
    pub backend_services: BTreeMap<ObjectName, Arc<Accepted<BackendServiceSpec>>>,
    /// Last good Apps; claims are their AppKeys.
    pub apps: BTreeMap<ObjectName, Arc<Accepted<AppSpec>>>,
    /// Last good Authorizations.
    pub authorizations: BTreeMap<ObjectName, Arc<Accepted<AuthorizationSpec>>>,
    /// Last good DomainBindings; the claim is instance, host and base path.
    pub domain_bindings: BTreeMap<ObjectName, Arc<Accepted<DomainBindingSpec>>>,
    /// Last good material of every Secret that the snapshot refers to.
    pub certificates: BTreeMap<ObjectName, Arc<Certificate>>,
}

/// The last good state of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted<S> {
    /// `metadata.uid` of the object, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Arc<str>>,
    /// The spec in force.
    pub spec: Arc<S>,
    /// What it holds and only one object may hold. Who held it before keeps it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub claims: BTreeSet<String>,
}

/// What is remembered of an Api.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiMemory {
    /// `metadata.uid` of the object, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Arc<str>>,
    /// Its releases, oldest first.
    #[serde(default)]
    pub releases: Vec<Arc<Release>>,
    /// What each stage was last told to serve: a number, or none to follow the draft.
    #[serde(default)]
    pub stages: ByStage<Option<u64>>,
    /// What each stage last served.
    #[serde(default)]
    pub serving: ByStage<Served>,
}

/// What a stage last served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// Number of the release.
    pub release: u64,
    /// Whether it still does: what it asks of its group is kept for it then.
    pub on: bool,
}

/// What a valid draft said.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// 1, 2, 3 … per Api.
    pub number: u64,
    /// SHA-256 of the content as canonical JSON, hexadecimal.
    pub hash: Arc<str>,
    /// The draft; the newest release shares it with the object. Its `stages` and `revisionHistoryLimit` are no part of a release: they
    /// are not looked at, and not written.
    #[serde(serialize_with = "write_content")]
    pub spec: Arc<ApiSpec>,
}

/// Names one entry of a [`Memory`], for a caller that stores entries one by one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryKey {
    /// What is remembered of an object.
    Object(ObjectId),
    /// The last good material of a Secret. Holds a private key.
    Certificate(ObjectName),
}

fn write_content<S: Serializer>(spec: &ApiSpec, serializer: S) -> Result<S::Ok, S::Error> {
    content(spec).serialize(serializer)
}

/// What a release has of a draft.
pub(crate) fn content(spec: &ApiSpec) -> ApiSpec {
    ApiSpec {
        stages: BTreeMap::new(),
        revision_history_limit: 0,
        ..spec.clone()
    }
}

// === impl Release ===

impl PartialEq for Release {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
            && self.hash == other.hash
            && (Arc::ptr_eq(&self.spec, &other.spec) || same_content(&self.spec, &other.spec))
    }
}

// === impl Memory ===

impl Memory {
    /// The entries that differ between `before` and `self`, in order: to store, or to remove when [`Memory::entry`] has none.
    pub fn changes(&self, before: &Self) -> Vec<MemoryKey> {
        let mut keys = Vec::new();
        let object = |kind| move |name: &ObjectName| MemoryKey::Object(ObjectId::new(kind, name));
        differing(
            &before.groups,
            &self.groups,
            object(Kind::ApiGroup),
            &mut keys,
        );
        differing(
            &before.backend_services,
            &self.backend_services,
            object(Kind::BackendService),
            &mut keys,
        );
        differing(&before.apis, &self.apis, object(Kind::Api), &mut keys);
        differing(&before.apps, &self.apps, object(Kind::App), &mut keys);
        differing(
            &before.authorizations,
            &self.authorizations,
            object(Kind::Authorization),
            &mut keys,
        );
        differing(
            &before.domain_bindings,
            &self.domain_bindings,
            object(Kind::DomainBinding),
            &mut keys,
        );
        differing(
            &before.certificates,
            &self.certificates,
            |name| MemoryKey::Certificate(name.clone()),
            &mut keys,
        );
        keys
    }

    /// One entry as JSON; `None` when there is none. That of a certificate holds a private key.
    pub fn entry(&self, key: &MemoryKey) -> Option<serde_json::Value> {
        fn json<T: Serialize>(entry: Option<&Arc<T>>) -> Option<serde_json::Value> {
            entry.and_then(|entry| serde_json::to_value(&**entry).ok())
        }
        match key {
            MemoryKey::Certificate(name) => json(self.certificates.get(name)),
            MemoryKey::Object(ObjectId { kind, name }) => match kind {
                Kind::ApiGroup => json(self.groups.get(name)),
                Kind::BackendService => json(self.backend_services.get(name)),
                Kind::Api => json(self.apis.get(name)),
                Kind::App => json(self.apps.get(name)),
                Kind::Authorization => json(self.authorizations.get(name)),
                Kind::DomainBinding => json(self.domain_bindings.get(name)),
            },
        }
    }

    /// Puts an entry back that [`Memory::entry`] gave.
    ///
    /// # Errors
    /// When the JSON is not such an entry; the memory is unchanged then.
    pub fn restore(&mut self, key: MemoryKey, entry: serde_json::Value) -> serde_json::Result<()> {
        fn put<T: DeserializeOwned>(
            map: &mut BTreeMap<ObjectName, Arc<T>>,
            name: ObjectName,
            entry: serde_json::Value,
        ) -> serde_json::Result<()> {
            map.insert(name, Arc::new(serde_json::from_value(entry)?));
            Ok(())
        }
        match key {
            MemoryKey::Certificate(name) => put(&mut self.certificates, name, entry),
            MemoryKey::Object(ObjectId { kind, name }) => match kind {
                Kind::ApiGroup => put(&mut self.groups, name, entry),
                Kind::BackendService => put(&mut self.backend_services, name, entry),
                Kind::Api => put(&mut self.apis, name, entry),
                Kind::App => put(&mut self.apps, name, entry),
                Kind::Authorization => put(&mut self.authorizations, name, entry),
                Kind::DomainBinding => put(&mut self.domain_bindings, name, entry),
            },
        }
    }
}

fn differing<T: PartialEq>(
    before: &BTreeMap<ObjectName, Arc<T>>,
    after: &BTreeMap<ObjectName, Arc<T>>,
    key: impl Fn(&ObjectName) -> MemoryKey,
    keys: &mut Vec<MemoryKey>,
) {
    let same = |a: &Arc<T>, b: &Arc<T>| Arc::ptr_eq(a, b) || a == b;
    let removed = before.keys().filter(|name| !after.contains_key(name));
    let written = after
        .iter()
        .filter(|(name, now)| !before.get(name).is_some_and(|then| same(then, now)))
        .map(|(name, _)| name);
    let mut names: Vec<&ObjectName> = removed.chain(written).collect();
    names.sort();
    keys.extend(names.into_iter().map(key));
}

/// Puts `entry` in place of what `map` has, or removes that. Says whether this makes a difference. Of two that are equal the new one
/// stays: it shares more with what is there now.
pub(crate) fn replace<T: PartialEq>(
    map: &mut BTreeMap<ObjectName, Arc<T>>,
    name: &ObjectName,
    entry: Option<Arc<T>>,
) -> bool {
    let Some(entry) = entry else {
        return map.remove(name).is_some();
    };
    match map.get_mut(name) {
        Some(before) => {
            let same = Arc::ptr_eq(before, &entry) || **before == *entry;
            *before = entry;
            !same
        }
        None => {
            map.insert(name.clone(), entry);
            true
        }
    }
}

/// The entry of an object, unless another uid says that it was another object's.
pub(crate) fn recall<'a, T: HasUid>(
    map: &'a BTreeMap<ObjectName, Arc<T>>,
    name: &ObjectName,
    uid: Option<&str>,
) -> Option<&'a Arc<T>> {
    map.get(name).filter(|entry| match (entry.uid(), uid) {
        (Some(then), Some(now)) => then == now,
        _ => true,
    })
}

/// An entry that knows whose it is.
pub(crate) trait HasUid {
    /// `metadata.uid` of the object.
    fn uid(&self) -> Option<&str>;
}

impl<S> HasUid for Accepted<S> {
    fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }
}

impl HasUid for ApiMemory {
    fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }
}
