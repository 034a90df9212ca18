//! Published objects: what is there, what should be, and the writes between the two.
//!
//! [`Shelf`] is a plain value that knows what the watch of our own objects has shown and what each group should be; [`Shelf::plan`]
//! says what to write. [`Batch::run`] does it: what must be remembered and all parts first, then the manifests whose parts are there.
//! A manifest is written with the version it replaces, so that of two leaders only one can. Parts that no manifest names go after a
//! while, when no gateway serves an older version that names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use paifang_compiler::ObjectId;
use paifang_model::ObjectName;
use paifang_snapshot::{
    published::{GroupManifest, Hash, Part, PublishedApps, publish_group},
    wire,
};

use crate::{
    fleet::Fleet,
    lease::Leading,
    names::{self, Content, PartKind, Publishable as _, Published, Type},
    said, store,
};

/// Writes at a time.
const AT_ONCE: usize = 24;
/// Tries of one write within a batch.
const TRIES: u32 = 3;
/// How long a part that nothing names stays, for gateways that are just reading an older manifest.
const KEPT: Duration = Duration::from_secs(60);
/// Parts that are removed in one batch: what changes meanwhile waits for no more than these.
const REMOVED_AT_ONCE: usize = AT_ONCE;

/// A group, or all Apps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Group(ObjectName),
    Apps,
}

/// What is published, and what should be.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    there: BTreeMap<(Type, String), There>,
    relists: BTreeMap<Type, BTreeSet<String>>,
    synced: BTreeSet<Type>,
    wanted: BTreeMap<Key, Wanted>,
    /// Parts that nothing names, and since when.
    unneeded: BTreeMap<(Type, String), Instant>,
    /// Those of them that may go, as far as was known when they were looked at last.
    removable: Vec<(Type, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct There {
    version: String,
    content: Content,
}

/// What a group's manifest should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Name of the object that holds the manifest.
    name: String,
    instance: String,
    /// Hash of the manifest: what gateways report.
    pub(crate) hash: Hash,
    /// The objects that it names.
    parts: BTreeSet<(Type, String)>,
}

/// A part to be there.
#[derive(Debug, Clone)]
pub(crate) struct PartWrite {
    kind: PartKind,
    instance: String,
    part: Part,
    /// What is there under its name, and is not it.
    replaces: bool,
}

/// A manifest to be written, or removed.
#[derive(Debug, Clone)]
pub(crate) struct ManifestWrite {
    key: Key,
    name: String,
    instance: String,
    /// None to remove it.
    text: Option<String>,
    /// The version it replaces; none when there is none.
    version: Option<String>,
    needs: BTreeSet<Hash>,
}

/// Values to be written.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) states: Vec<(ObjectId, Vec<store::Write>)>,
    pub(crate) parts: Vec<PartWrite>,
    pub(crate) manifests: Vec<ManifestWrite>,
    pub(crate) unneeded: Vec<(Type, String)>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Objects whose state could not be stored.
    pub(crate) unstored: BTreeSet<ObjectId>,
    /// What could not be published.
    pub(crate) unpublished: BTreeSet<Key>,
    /// What is there now.
    pub(crate) there: Vec<Published>,
    /// What is gone now.
    pub(crate) gone: Vec<(Type, String)>,
    /// Writes that were sent.
    pub(crate) writes: u64,
}

// === impl Shelf ===

impl Shelf {
    /// Whether it is known what is there.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.len() == 2
    }

    /// All objects of a type are about to be told.
    pub(crate) fn relist(&mut self, type_: Type) {
        self.relists.insert(type_, BTreeSet::new());
    }

    /// They were. Answers what must be published again.
    pub(crate) fn relisted(&mut self, type_: Type) -> BTreeSet<Key> {
        let seen = self.relists.remove(&type_).unwrap_or_default();
        self.synced.insert(type_);
        let names = self.there.keys().filter(|(it, _)| *it == type_);
        let gone: Vec<String> = names
            .map(|(_, name)| name.clone())
            .filter(|name| !seen.contains(name))
            .collect();
        gone.iter()
            .flat_map(|name| self.gone(type_, name))
            .collect()
    }

    /// An object is there. Answers what must be published again because of it.
    pub(crate) fn there(&mut self, found: Published) -> BTreeSet<Key> {
        let listed = self.relists.get_mut(&found.type_);
        let is_listed = listed.is_some();
        if let Some(seen) = listed {
            seen.insert(found.name.clone());
        }
        let id = (found.type_, found.name);
        let there = There {
            version: found.version,
            content: found.content,
        };
        // The watch shows what we wrote a moment later, and what was before that too: neither is news. A list is what there is, even
        // where an API server came back from a backup with lower versions.
        let known = self.there.get(&id).filter(|_| !is_listed);
        if known.is_some_and(|it| *it == there || is_newer(&it.version, &there.version)) {
            return BTreeSet::new();
        }
        let again = match &there.content {
            Content::Sound => BTreeSet::new(),
            Content::Altered => self.who_needs(&id),
            Content::Manifest { text, instance } => self
                .wanted
                .iter()
                .filter(|(_, wanted)| wanted.name == id.1)
                .filter(|(_, wanted)| wanted.hash != *text || wanted.instance != *instance)
                .map(|(key, _)| key.clone())
                .collect(),
        };
        self.there.insert(id, there);
        again
    }

    /// An object was written by us. What the watch has shown since is newer and stays.
    pub(crate) fn was_written(&mut self, written: Published) {
        let known = self.there.get(&(written.type_, written.name.clone()));
        if known.is_none_or(|known| is_newer(&written.version, &known.version)) {
            self.there(written);
        }
    }

    /// An object is gone. Answers what must be published again because of it.
    pub(crate) fn gone(&mut self, type_: Type, name: &str) -> BTreeSet<Key> {
        let id = (type_, name.to_owned());
        self.unneeded.remove(&id);
        if self.there.remove(&id).is_none() {
            return BTreeSet::new();
        }
        self.who_needs(&id)
    }

    fn who_needs(&self, id: &(Type, String)) -> BTreeSet<Key> {
        let needs = |wanted: &Wanted| wanted.name == id.1 || wanted.parts.contains(id);
        let wanted = self.wanted.iter().filter(|(_, wanted)| needs(wanted));
        wanted.map(|(key, _)| key.clone()).collect()
    }

    /// What a group's manifest should be.
    pub(crate) fn wanted(&self, key: &Key) -> Option<&Wanted> {
        self.wanted.get(key)
    }

    /// Whether the manifest that should be there is.
    pub(crate) fn is_published(&self, key: &Key) -> bool {
        let Some(wanted) = self.wanted.get(key) else {
            return true;
        };
        let there = self.there.get(&(manifest_type(key), wanted.name.clone()));
        matches!(there.map(|it| &it.content), Some(Content::Manifest { text, .. }) if *text == wanted.hash)
    }

    /// Adds to `batch` what it takes to publish a group as it is now, or to remove it. Answers the new manifest's hash.
    pub(crate) fn plan_group(
        &mut self,
        name: &ObjectName,
        group: Option<&wire::Group>,
        certificates: &BTreeMap<ObjectName, wire::Certificate>,
        batch: &mut Batch,
    ) -> Option<Hash> {
        let key = Key::Group(name.clone());
        let before = self.wanted.get(&key).map(|wanted| wanted.name.clone());
        let Some(group) = group else {
            self.wanted.remove(&key);
            before
                .into_iter()
                .for_each(|object| self.plan_removal(&key, object, batch));
            return None;
        };
        let published = publish_group(group, |name| certificates.get(name));
        let object = names::manifest_name(&group.id);
        if let Some(before) = before.filter(|before| *before != object) {
            self.plan_removal(&key, before, batch);
        }
        let text = published.manifest.text();
        let wanted = Wanted {
            name: object,
            instance: group.instance.clone(),
            hash: Hash::of(text.as_bytes()),
            parts: parts_of(&published.manifest),
        };
        let routing = published
            .parts
            .into_values()
            .map(|part| (PartKind::Routing, part));
        let secret = published
            .certificates
            .into_values()
            .map(|part| (PartKind::Certificate, part));
        self.plan(key, wanted, text, routing.chain(secret), batch)
    }

    /// The same for all Apps.
    pub(crate) fn plan_apps(&mut self, apps: PublishedApps, batch: &mut Batch) -> Option<Hash> {
        let text = apps.manifest.text();
        let hashes = apps.manifest.parts();
        let wanted = Wanted {
            name: names::APPS.to_owned(),
            instance: names::EVERY_INSTANCE.to_owned(),
            hash: Hash::of(text.as_bytes()),
            parts: hashes
                .map(|hash| PartKind::Credential.object(hash))
                .collect(),
        };
        let parts = apps
            .parts
            .into_values()
            .map(|part| (PartKind::Credential, part));
        self.plan(Key::Apps, wanted, text, parts, batch)
    }

    fn plan(
        &mut self,
        key: Key,
        wanted: Wanted,
        text: String,
        parts: impl Iterator<Item = (PartKind, Part)>,
        batch: &mut Batch,
    ) -> Option<Hash> {
        let mut needs = BTreeSet::new();
        for id in &wanted.parts {
            self.unneeded.remove(id);
        }
        for (kind, part) in parts {
            let there = self.there.get(&kind.object(&part.hash));
            let replaces = match there.map(|it| &it.content) {
                Some(Content::Sound) => continue,
                other => other.is_some(),
            };
            needs.insert(part.hash.clone());
            batch.parts.push(PartWrite {
                kind,
                instance: wanted.instance.clone(),
                part,
                replaces,
            });
        }
        let there = self.there.get(&(manifest_type(&key), wanted.name.clone()));
        let expected = Content::Manifest {
            text: wanted.hash.clone(),
            instance: wanted.instance.clone(),
        };
        let hash = wanted.hash.clone();
        if there.is_none_or(|there| there.content != expected) {
            batch.manifests.push(ManifestWrite {
                key: key.clone(),
                name: wanted.name.clone(),
                instance: wanted.instance.clone(),
                text: Some(text),
                version: there.map(|there| there.version.clone()),
                needs,
            });
        }
        self.wanted.insert(key, wanted);
        Some(hash)
    }

    fn plan_removal(&self, key: &Key, name: String, batch: &mut Batch) {
        let there = self.there.get(&(manifest_type(key), name.clone()));
        batch.manifests.extend(there.map(|there| ManifestWrite {
            key: key.clone(),
            name,
            instance: String::new(),
            text: None,
            version: Some(there.version.clone()),
            needs: BTreeSet::new(),
        }));
    }

    /// Manifests of groups that should not be there, of an ApiGroup that went while nobody led.
    pub(crate) fn plan_orphans(&self, batch: &mut Batch) {
        let manifests: BTreeSet<&str> = self.wanted.values().map(|it| it.name.as_str()).collect();
        let orphans = self.there.iter().filter(|((type_, name), _)| {
            *type_ == Type::ConfigMap
                && names::is_group_manifest(name)
                && !manifests.contains(name.as_str())
        });
        for ((_, name), there) in orphans {
            batch.manifests.push(ManifestWrite {
                key: Key::Group(ObjectName::new("", name.as_str())),
                name: name.clone(),
                instance: String::new(),
                text: None,
                version: Some(there.version.clone()),
                needs: BTreeSet::new(),
            });
        }
    }

    /// Looks at every part: which nothing names, and which of these may go because nobody needs them any more.
    pub(crate) fn look_for_unneeded(&mut self, fleet: &Fleet, now: Instant) {
        let needed: BTreeSet<&(Type, String)> =
            self.wanted.values().flat_map(|it| &it.parts).collect();
        let parts = self.there.keys().filter(|(_, name)| names::is_part(name));
        let unneeded: BTreeMap<(Type, String), Instant> = parts
            .filter(|id| !needed.contains(*id))
            .map(|id| (id.clone(), *self.unneeded.get(id).unwrap_or(&now)))
            .collect();
        self.unneeded = unneeded;
        self.removable.clear();
        let behind = self.wanted.iter().any(|(key, wanted)| match key {
            Key::Group(group) => fleet.may_need(group, &wanted.hash),
            Key::Apps => false,
        });
        if !behind {
            let old = self.unneeded.iter();
            let old = old.filter(|(_, since)| now.duration_since(**since) >= KEPT);
            self.removable.extend(old.map(|(id, _)| id.clone()));
        }
    }

    /// Adds to `batch` the removal of a few of the parts that may go.
    pub(crate) fn plan_removal_of_parts(&mut self, batch: &mut Batch) {
        let Self {
            unneeded,
            removable,
            ..
        } = self;
        while batch.unneeded.len() < REMOVED_AT_ONCE
            && let Some(id) = removable.pop()
        {
            // One that was named since it was looked at stays.
            if unneeded.contains_key(&id) {
                batch.unneeded.push(id);
            }
        }
    }
}

/// Whether a resourceVersion is later than another. The API server's are numbers that grow.
fn is_newer(version: &str, than: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    match (number(version), number(than)) {
        (Some(version), Some(than)) => version > than,
        _ => false,
    }
}

fn manifest_type(key: &Key) -> Type {
    match key {
        Key::Group(_) => Type::ConfigMap,
        Key::Apps => Type::Secret,
    }
}

fn parts_of(manifest: &GroupManifest) -> BTreeSet<(Type, String)> {
    let routing = manifest.parts().map(|hash| PartKind::Routing.object(hash));
    let certificates = manifest.certificates.values();
    routing
        .chain(certificates.map(|hash| PartKind::Certificate.object(hash)))
        .collect()
}

// === impl Batch ===

impl Batch {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            states,
            parts,
            manifests,
            unneeded,
        } = self;
        states.is_empty() && parts.is_empty() && manifests.is_empty() && unneeded.is_empty()
    }

    /// Writes it all, as long as this replica leads.
    pub(crate) async fn run(
        self,
        client: Client,
        namespace: Arc<str>,
        leading: Leading,
    ) -> Outcome {
        let writer = Writer {
            client,
            namespace,
            leading,
        };
        let mut outcome = Outcome::default();
        let writer = &writer;
        let states = stream::iter(self.states)
            .map(|(id, writes)| async move { (id, writer.states(writes).await) })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        let parts = stream::iter(self.parts)
            .map(|part| async move { (writer.part(&part).await, part) })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        let (states, parts) = futures_util::join!(states, parts);
        for (id, done) in states {
            outcome.writes += 1;
            if !done {
                outcome.unstored.insert(id);
            }
        }
        let mut missing = BTreeSet::new();
        for (found, part) in parts {
            outcome.writes += 1;
            match found {
                Some(found) => outcome.there.push(found),
                None => drop(missing.insert(part.part.hash)),
            }
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = self
            .manifests
            .into_iter()
            .partition(|it| it.needs.is_disjoint(&missing));
        outcome
            .unpublished
            .extend(waiting.into_iter().map(|it| it.key));
        let written = stream::iter(ready)
            .map(|manifest| async move { (writer.manifest(&manifest).await, manifest) })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        for (done, manifest) in written.await {
            outcome.writes += 1;
            match done {
                Some(Some(found)) => outcome.there.push(found),
                Some(None) => outcome
                    .gone
                    .push((manifest_type(&manifest.key), manifest.name)),
                None => drop(outcome.unpublished.insert(manifest.key)),
            }
        }
        let removed = stream::iter(self.unneeded)
            .map(|(type_, name)| async move {
                let done = writer.delete(type_, &name, None).await;
                (done, type_, name)
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        for (done, type_, name) in removed.await {
            outcome.writes += 1;
            if done.is_some() {
                outcome.gone.push((type_, name));
            }
        }
        outcome
    }
}

/// Sends writes, a few times each.
struct Writer {
    client: Client,
    namespace: Arc<str>,
    leading: Leading,
}

// === impl Writer ===

impl Writer {
    async fn states(&self, writes: Vec<store::Write>) -> bool {
        for write in writes {
            if let Err(error) = self.tries(|| write.run(&self.client)).await {
                if let Some(error) = error {
                    store::complain(&write, &error);
                }
                return false;
            }
        }
        true
    }

    async fn part(&self, write: &PartWrite) -> Option<Published> {
        let PartWrite {
            kind,
            instance,
            part,
            replaces,
        } = write;
        let name = kind.name(&part.hash);
        if *replaces {
            tracing::warn!(
                name,
                "a published part was altered by somebody; it is made again"
            );
            self.delete(kind.type_(), &name, None).await?;
        }
        for _ in 0..TRIES {
            match self.create_part(*kind, part, instance).await {
                Ok(version) => {
                    return Some(Published {
                        type_: kind.type_(),
                        name,
                        version: version.unwrap_or_default(),
                        content: Content::Sound,
                    });
                }
                Err(Some(kube::Error::Api(status))) if status.reason == "AlreadyExists" => {}
                Err(error) => {
                    complain(&name, error.as_ref());
                    return None;
                }
            }
            // Made by a leader before us, or put there by somebody.
            match self.find(kind.type_(), &name).await {
                Some(found) if found.content == Content::Sound => return Some(found),
                Some(_) => {
                    tracing::warn!(
                        name,
                        "something else stands where a part is to be published; it is removed"
                    );
                    self.delete(kind.type_(), &name, None).await?;
                }
                None => {}
            }
        }
        None
    }

    async fn create_part(
        &self,
        kind: PartKind,
        part: &Part,
        instance: &str,
    ) -> Result<Option<String>, Option<kube::Error>> {
        match kind.type_() {
            Type::ConfigMap => {
                let object = names::config_map_part(part, instance);
                let api: Api<ConfigMap> = self.api();
                let created = || async { api.create(&PostParams::default(), &object).await };
                self.tries(created)
                    .await
                    .map(|it| it.metadata.resource_version)
            }
            Type::Secret => {
                let object = names::secret_part(kind, part, instance);
                let api: Api<Secret> = self.api();
                let created = || async { api.create(&PostParams::default(), &object).await };
                self.tries(created)
                    .await
                    .map(|it| it.metadata.resource_version)
            }
        }
    }

    /// What stands under a name.
    async fn find(&self, type_: Type, name: &str) -> Option<Published> {
        match type_ {
            Type::ConfigMap => {
                let api: Api<ConfigMap> = self.api();
                api.get_opt(name).await.ok()??.published()
            }
            Type::Secret => {
                let api: Api<Secret> = self.api();
                api.get_opt(name).await.ok()??.published()
            }
        }
    }

    /// `Some(None)` for one that was removed.
    async fn manifest(&self, write: &ManifestWrite) -> Option<Option<Published>> {
        let type_ = manifest_type(&write.key);
        let Some(text) = &write.text else {
            self.delete(type_, &write.name, write.version.as_deref())
                .await?;
            return Some(None);
        };
        let done = match &write.key {
            Key::Group(group) => {
                let mut object = names::group_manifest(
                    write.name.clone(),
                    &group.to_string(),
                    &write.instance,
                    text.clone(),
                );
                object.metadata.resource_version.clone_from(&write.version);
                let api: Api<ConfigMap> = self.api();
                let put =
                    || async { put(&api, &write.name, &object, write.version.is_some()).await };
                self.tries(put).await.map(|it| it.metadata.resource_version)
            }
            Key::Apps => {
                let mut object = names::apps_manifest(text.clone());
                object.metadata.resource_version.clone_from(&write.version);
                let api: Api<Secret> = self.api();
                let put =
                    || async { put(&api, &write.name, &object, write.version.is_some()).await };
                self.tries(put).await.map(|it| it.metadata.resource_version)
            }
        };
        match done {
            Ok(version) => Some(Some(Published {
                type_,
                name: write.name.clone(),
                version: version.unwrap_or_default(),
                content: Content::Manifest {
                    text: Hash::of(text.as_bytes()),
                    instance: write.instance.clone(),
                },
            })),
            Err(error) => {
                complain(&write.name, error.as_ref());
                None
            }
        }
    }

    async fn delete(&self, type_: Type, name: &str, version: Option<&str>) -> Option<()> {
        let params = DeleteParams {
            preconditions: version.map(|version| Preconditions {
                resource_version: Some(version.to_owned()),
                uid: None,
            }),
            ..DeleteParams::default()
        };
        let done = match type_ {
            Type::ConfigMap => {
                let api: Api<ConfigMap> = self.api();
                self.tries(|| async { api.delete(name, &params).await.map(drop) })
                    .await
            }
            Type::Secret => {
                let api: Api<Secret> = self.api();
                self.tries(|| async { api.delete(name, &params).await.map(drop) })
                    .await
            }
        };
        match done {
            Ok(()) => Some(()),
            Err(Some(kube::Error::Api(status))) if status.code == 404 => Some(()),
            Err(error) => {
                complain(name, error.as_ref());
                None
            }
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Tries a few times what may only have been unlucky. `Err(None)`: this replica does not lead any more.
    async fn tries<T, F>(&self, mut send: impl FnMut() -> F) -> Result<T, Option<kube::Error>>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut wait = Duration::from_millis(50);
        for tried in 1.. {
            if !self.leading.holds() {
                return Err(None);
            }
            match send().await {
                Ok(done) => return Ok(done),
                Err(error) if tried < TRIES && is_passing(&error) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => return Err(Some(error)),
            }
        }
        Err(None)
    }
}

async fn put<K>(api: &Api<K>, name: &str, object: &K, there: bool) -> kube::Result<K>
where
    K: Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    if there {
        api.replace(name, &PostParams::default(), object).await
    } else {
        api.create(&PostParams::default(), object).await
    }
}

/// Whether the same request may work a moment later.
pub(crate) fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        _ => true,
    }
}

fn complain(name: &str, error: Option<&kube::Error>) {
    match error {
        Some(error) => tracing::warn!(name, error = %said(error), "cannot be published yet"),
        None => tracing::info!(name, "not published: another replica leads"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(name: &str, apis: usize) -> wire::Group {
        let api = |at: usize| {
            json!({
                "name": format!("ns/api-{at:04}"), "release": 1, "hash": "h", "kind": "Common", "protocols": ["HTTP"], "method": "GET",
                "path": format!("/{at}"), "mode": "Mapping", "bodyFormat": "Form", "auth": {"type": "anonymous"}, "internalOnly": false,
                "dispatch": {"timeoutMs": 1000, "contentType": "Default"},
            })
        };
        let routes: Vec<_> = (0..apis)
            .map(|at| json!({"stage": "RELEASE", "api": at, "backend": 0}))
            .collect();
        let group = json!({
            "format": wire::FORMAT, "name": format!("ns/{name}"), "id": name, "instance": "default", "basePath": "/", "qpsLimit": 500,
            "httpsPolicy": "Http2Tls13", "filterAppCode": false, "subDomain": {"public": null, "internal": null, "dailyQuota": 1},
            "domains": [], "apis": (0..apis).map(api).collect::<Vec<_>>(), "routes": routes,
            "backends": [{"label": "inline", "target": {"type": "mock", "status": 200, "headers": [], "body": ""}}], "grants": [],
        });
        serde_json::from_value(group).unwrap()
    }

    fn name(group: &str) -> ObjectName {
        ObjectName::new("ns", group)
    }

    fn plan(shelf: &mut Shelf, group: Option<&wire::Group>, of: &str) -> Batch {
        let mut batch = Batch::default();
        shelf.plan_group(&name(of), group, &BTreeMap::new(), &mut batch);
        batch
    }

    /// As if everything had been written.
    fn write(shelf: &mut Shelf, batch: Batch) {
        for part in batch.parts {
            let found = Published {
                type_: part.kind.type_(),
                name: part.kind.name(&part.part.hash),
                version: "1".to_owned(),
                content: Content::Sound,
            };
            assert_eq!(shelf.there(found), BTreeSet::new());
        }
        for manifest in batch.manifests {
            match manifest.text {
                None => drop(shelf.gone(Type::ConfigMap, &manifest.name)),
                Some(text) => {
                    let content = Content::Manifest {
                        text: Hash::of(text.as_bytes()),
                        instance: manifest.instance,
                    };
                    let found = Published {
                        type_: Type::ConfigMap,
                        name: manifest.name,
                        version: "1".to_owned(),
                        content,
                    };
                    assert_eq!(shelf.there(found), BTreeSet::new());
                }
            }
        }
        for (type_, name) in batch.unneeded {
            shelf.gone(type_, &name);
        }
    }

    #[test]
    fn what_is_there_already_is_not_written() {
        let mut shelf = Shelf::default();
        let first = plan(&mut shelf, Some(&group("g", 100)), "g");
        assert!(first.parts.len() > 2, "{} parts", first.parts.len());
        assert_eq!(first.manifests.len(), 1);
        assert!(!shelf.is_published(&Key::Group(name("g"))));
        write(&mut shelf, first);
        assert!(shelf.is_published(&Key::Group(name("g"))));
        assert!(plan(&mut shelf, Some(&group("g", 100)), "g").is_empty());
    }

    #[test]
    fn a_change_of_one_api_writes_one_part_and_the_manifest_with_the_version_it_replaces() {
        let mut shelf = Shelf::default();
        let mut content = group("g", 200);
        let first = plan(&mut shelf, Some(&content), "g");
        write(&mut shelf, first);
        Arc::make_mut(&mut content.apis[77]).release = 2;
        let second = plan(&mut shelf, Some(&content), "g");
        assert_eq!((second.parts.len(), second.manifests.len()), (1, 1));
        assert_eq!(second.manifests[0].version.as_deref(), Some("1"));
    }

    /// The watch lags behind what is written, under load by several writes.
    #[test]
    fn what_the_watch_shows_late_is_not_published_again() {
        let mut shelf = Shelf::default();
        let mut content = group("g", 3);
        let mut shown = Vec::new();
        for version in ["5", "6", "7"] {
            Arc::make_mut(&mut content.apis[0]).release += 1;
            let batch = plan(&mut shelf, Some(&content), "g");
            let written = Published {
                type_: Type::ConfigMap,
                name: batch.manifests[0].name.clone(),
                version: version.to_owned(),
                content: Content::Manifest {
                    text: shelf.wanted(&Key::Group(name("g"))).unwrap().hash.clone(),
                    instance: "default".to_owned(),
                },
            };
            shelf.was_written(written.clone());
            shown.push(written);
        }
        for found in shown {
            assert_eq!(shelf.there(found), BTreeSet::new());
        }
        assert!(shelf.is_published(&Key::Group(name("g"))));
        Arc::make_mut(&mut content.apis[0]).release += 1;
        let next = plan(&mut shelf, Some(&content), "g");
        assert_eq!(next.manifests[0].version.as_deref(), Some("7"));
    }

    #[test]
    fn what_somebody_alters_or_deletes_is_published_again() {
        let mut shelf = Shelf::default();
        let content = group("g", 3);
        let first = plan(&mut shelf, Some(&content), "g");
        let part = first.parts[0].kind.name(&first.parts[0].part.hash);
        let manifest = first.manifests[0].name.clone();
        write(&mut shelf, first);
        let again = BTreeSet::from([Key::Group(name("g"))]);
        let altered = Published {
            type_: Type::ConfigMap,
            name: part.clone(),
            version: "2".to_owned(),
            content: Content::Altered,
        };
        assert_eq!(shelf.there(altered), again);
        let repair = plan(&mut shelf, Some(&content), "g");
        assert!(repair.parts.iter().any(|part| part.replaces));
        write(&mut shelf, repair);
        assert_eq!(shelf.gone(Type::ConfigMap, &part), again);
        assert_eq!(shelf.gone(Type::ConfigMap, &manifest), again);
        let edited = Published {
            type_: Type::ConfigMap,
            name: manifest,
            version: "9".to_owned(),
            content: Content::Manifest {
                text: Hash::of(b"{}"),
                instance: "default".to_owned(),
            },
        };
        assert_eq!(shelf.there(edited), again);
    }

    #[test]
    fn parts_go_only_when_nothing_names_them_for_a_while_and_nobody_serves_an_older_version() {
        let mut shelf = Shelf::default();
        let mut content = group("g", 3);
        let first = plan(&mut shelf, Some(&content), "g");
        write(&mut shelf, first);
        Arc::make_mut(&mut content.apis[0]).release = 2;
        let second = plan(&mut shelf, Some(&content), "g");
        write(&mut shelf, second);
        let fleet = Fleet::default();
        let start = Instant::now();
        let collect = |shelf: &mut Shelf, seconds| {
            let mut batch = Batch::default();
            shelf.look_for_unneeded(&fleet, start + Duration::from_secs(seconds));
            shelf.plan_removal_of_parts(&mut batch);
            batch
        };
        assert!(collect(&mut shelf, 0).is_empty());
        assert!(collect(&mut shelf, 59).is_empty());
        let batch = collect(&mut shelf, 60);
        assert!(!batch.unneeded.is_empty());
        write(&mut shelf, batch);
        assert!(collect(&mut shelf, 120).is_empty());
        // The group goes: its manifest at once, its parts after a while.
        let removal = plan(&mut shelf, None, "g");
        assert!(
            removal
                .manifests
                .iter()
                .all(|manifest| manifest.text.is_none())
        );
        assert_eq!(removal.manifests.len(), 1);
        write(&mut shelf, removal);
        collect(&mut shelf, 130);
        assert!(!collect(&mut shelf, 200).unneeded.is_empty());
    }

    #[test]
    fn parts_are_removed_a_few_at_a_time_and_one_that_is_named_again_stays() {
        let mut shelf = Shelf::default();
        let first = group("g", 2_000);
        let batch = plan(&mut shelf, Some(&first), "g");
        let parts = batch.parts.len();
        assert!(parts > 2 * REMOVED_AT_ONCE, "{parts} parts");
        write(&mut shelf, batch);
        let batch = plan(&mut shelf, Some(&group("g", 1)), "g");
        write(&mut shelf, batch);
        let (fleet, start) = (Fleet::default(), Instant::now());
        shelf.look_for_unneeded(&fleet, start);
        shelf.look_for_unneeded(&fleet, start + KEPT);
        let mut some = Batch::default();
        shelf.plan_removal_of_parts(&mut some);
        assert_eq!(some.unneeded.len(), REMOVED_AT_ONCE);
        write(&mut shelf, some);
        // The group is as it was: what is still there of it is wanted, what went is made again.
        let batch = plan(&mut shelf, Some(&first), "g");
        assert_eq!(batch.parts.len(), REMOVED_AT_ONCE);
        write(&mut shelf, batch);
        let mut none = Batch::default();
        shelf.plan_removal_of_parts(&mut none);
        assert_eq!(none.unneeded.len(), 0, "what is named again stays");
    }

    #[test]
    fn a_manifest_that_nobody_wants_is_removed() {
        let mut shelf = Shelf::default();
        let orphan = Published {
            type_: Type::ConfigMap,
            name: names::manifest_name("gone"),
            version: "5".to_owned(),
            content: Content::Manifest {
                text: Hash::of(b"{}"),
                instance: "default".to_owned(),
            },
        };
        shelf.there(orphan);
        let mut batch = Batch::default();
        shelf.plan_orphans(&mut batch);
        assert_eq!(batch.manifests.len(), 1);
        assert_eq!(batch.manifests[0].version.as_deref(), Some("5"));
    }
}
