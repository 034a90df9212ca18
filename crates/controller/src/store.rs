//! What must survive a restart of everything, as ControllerRevisions: releases of Apis, and the last accepted state of the other kinds.
//!
//! Each is owned by its object, so that it goes with it. Their content is immutable; what changes without a new release, which is
//! what stages are told and what they serve, stands in annotations of an Api's newest release. The last good certificates are not
//! kept twice: they are what is published.
//!
//! | kind | objects | name |
//! | --- | --- | --- |
//! | Api | one for each release | `paifang-api-<name>-<release>` |
//! | others | one, replaced when a newer state is accepted | `paifang-<kind>-<name>-<revision>` |

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Context as _;
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1 as core},
    apimachinery::pkg::{apis::meta::v1::OwnerReference, runtime::RawExtension},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::ObjectMeta,
};
use paifang_compiler::{ApiMemory, ByStage, Kind, Memory, MemoryKey, ObjectId, Release};
use paifang_model::ObjectName;
use paifang_resources::API_VERSION;
use paifang_snapshot::published::{self, GroupManifest};
use serde_json::{Value, json};

use crate::{
    names::{self, MANAGED_BY, MANAGER},
    said,
};

/// Label that says which kind a ControllerRevision is about.
const KIND: &str = "paifang.dev/kind";
/// Annotation that names the object: labels are too short for some names.
const OBJECT: &str = "paifang.dev/object";
/// Annotation: what each stage was last told to serve.
const STAGES: &str = "paifang.dev/stages";
/// Annotation: what each stage last served.
const SERVING: &str = "paifang.dev/serving";
/// Annotation: hash of a release's content, for people.
const HASH: &str = "paifang.dev/hash";
/// Objects read at a time.
const PAGE: u32 = 500;

/// What is stored of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// Names by revision.
    revisions: BTreeMap<i64, String>,
    /// Annotations of the newest: stages, serving.
    newest: (String, String),
}

/// One change of what is stored, as values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// Create this.
    Create(Box<ControllerRevision>),
    /// Set annotations of the newest release.
    Annotate {
        name: ObjectName,
        stages: String,
        serving: String,
    },
    /// Delete it.
    Delete(ObjectName),
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// For the compiler.
    pub(crate) memory: Memory,
    /// For [`changes`].
    pub(crate) stored: BTreeMap<ObjectId, Stored>,
}

/// Reads everything that is stored. What cannot be read is passed over, loudly: it is as if it had never been accepted.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn load(client: &Client, namespace: &str) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let revisions: Api<ControllerRevision> = Api::all(client.clone());
    let mut params = ListParams::default().labels(names::MANAGED).limit(PAGE);
    loop {
        let page = revisions
            .list(&params)
            .await
            .context("reading ControllerRevisions")?;
        for revision in page.items {
            let name = revision.metadata.name.clone().unwrap_or_default();
            let namespace = revision.metadata.namespace.clone().unwrap_or_default();
            if let Err(error) = found.take(revision) {
                tracing::error!(namespace, name, %error, "a stored state cannot be read and is passed over");
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    found.certificates(client, namespace).await?;
    Ok(found)
}

// === impl Found ===

impl Found {
    fn take(&mut self, revision: ControllerRevision) -> anyhow::Result<()> {
        let metadata = revision.metadata;
        let name = metadata.name.context("it has no name")?;
        let annotations = metadata.annotations.unwrap_or_default();
        let labels = metadata.labels.unwrap_or_default();
        let kind: Kind = labels
            .get(KIND)
            .context("it has no label of its kind")?
            .parse()?;
        let object = annotations.get(OBJECT).context("it names no object")?;
        let id = ObjectId {
            kind,
            name: ObjectName::new(metadata.namespace.unwrap_or_default(), object.as_str()),
        };
        let data = revision.data.context("it holds nothing")?.0;
        let stored = self.stored.entry(id.clone()).or_default();
        let newest = stored
            .revisions
            .keys()
            .next_back()
            .is_none_or(|it| *it < revision.revision);
        stored.revisions.insert(revision.revision, name);
        if kind != Kind::Api {
            if newest {
                self.memory.restore(MemoryKey::Object(id), data)?;
            }
            return Ok(());
        }
        let uid = owner(metadata.owner_references.as_deref());
        let release: Release = serde_json::from_value(data)?;
        let api = self.memory.apis.entry(id.name).or_default();
        let api = Arc::make_mut(api);
        api.uid = uid.map(Into::into);
        let at = api
            .releases
            .partition_point(|it| it.number < release.number);
        api.releases.insert(at, Arc::new(release));
        if newest {
            let text = |key| {
                annotations
                    .get(key)
                    .cloned()
                    .unwrap_or_else(|| "{}".to_owned())
            };
            let (stages, serving) = (text(STAGES), text(SERVING));
            api.stages = serde_json::from_str(&stages)?;
            api.serving = serde_json::from_str(&serving)?;
            stored.newest = (stages, serving);
        }
        Ok(())
    }

    /// The last good certificates are those that are published.
    async fn certificates(&mut self, client: &Client, namespace: &str) -> anyhow::Result<()> {
        let managed = ListParams::default().labels(names::MANAGED);
        let secrets: Api<core::Secret> = Api::namespaced(client.clone(), namespace);
        let secrets = secrets
            .list(&managed)
            .await
            .context("reading published Secrets")?;
        let parts: BTreeMap<_, _> = secrets.iter().filter_map(names::certificate_part).collect();
        let maps: Api<core::ConfigMap> = Api::namespaced(client.clone(), namespace);
        let manifests = managed.labels(&format!("{},paifang.dev/manifest=group", names::MANAGED));
        let manifests = maps
            .list(&manifests)
            .await
            .context("reading published manifests")?;
        for map in &manifests {
            let Some(Ok(manifest)) = names::group_manifest_text(map).map(GroupManifest::read)
            else {
                continue;
            };
            for (name, hash) in manifest.certificates {
                let raw = parts.get(&hash);
                if let Some(Ok(material)) = raw.map(|raw| published::certificate(&hash, raw)) {
                    self.memory.certificates.insert(name, Arc::new(material));
                }
            }
        }
        Ok(())
    }
}

fn owner(owners: Option<&[OwnerReference]>) -> Option<String> {
    let controller = owners?.iter().find(|it| it.controller == Some(true))?;
    Some(controller.uid.clone())
}

/// What to write so that `memory` is stored for `id`, and what is stored then. `uid` is that of the object; without one it is gone,
/// and what was stored goes with it by itself.
pub(crate) fn changes(
    id: &ObjectId,
    uid: Option<&str>,
    memory: &Memory,
    before: &Stored,
) -> (Vec<Write>, Stored) {
    let Some(uid) = uid else {
        return (Vec::new(), Stored::default());
    };
    match id.kind {
        Kind::Api => match memory.apis.get(&id.name) {
            Some(api) => api_changes(id, uid, api, before),
            None => (Vec::new(), before.clone()),
        },
        _ => match memory.entry(&MemoryKey::Object(id.clone())) {
            Some(entry) => accepted_changes(id, uid, entry, before),
            None => (Vec::new(), before.clone()),
        },
    }
}

fn api_changes(id: &ObjectId, uid: &str, api: &ApiMemory, before: &Stored) -> (Vec<Write>, Stored) {
    let stages = annotation(&api.stages);
    let serving = annotation(&api.serving);
    let mut writes = Vec::new();
    let mut after = Stored {
        revisions: BTreeMap::new(),
        newest: (stages.clone(), serving.clone()),
    };
    let newest = api.releases.last().map(|release| release.number);
    for release in &api.releases {
        let number = i64::try_from(release.number).unwrap_or(i64::MAX);
        let name = match before.revisions.get(&number) {
            Some(name) => {
                let name = name.clone();
                if Some(release.number) == newest && before.newest != after.newest {
                    writes.push(Write::Annotate {
                        name: ObjectName::new(id.name.namespace.clone(), name.as_str()),
                        stages: stages.clone(),
                        serving: serving.clone(),
                    });
                }
                name
            }
            None => {
                let mut revision = revision(id, uid, number, json!(&**release));
                let annotations = revision.metadata.annotations.get_or_insert_default();
                annotations.insert(HASH.to_owned(), release.hash.to_string());
                annotations.insert(STAGES.to_owned(), stages.clone());
                annotations.insert(SERVING.to_owned(), serving.clone());
                let name = revision.metadata.name.clone().unwrap_or_default();
                writes.push(Write::Create(Box::new(revision)));
                name
            }
        };
        after.revisions.insert(number, name);
    }
    writes.extend(left_over(id, before, &after));
    (writes, after)
}

fn accepted_changes(
    id: &ObjectId,
    uid: &str,
    entry: Value,
    before: &Stored,
) -> (Vec<Write>, Stored) {
    let number = before
        .revisions
        .keys()
        .next_back()
        .map_or(1, |last| last + 1);
    let revision = revision(id, uid, number, entry);
    let name = revision.metadata.name.clone().unwrap_or_default();
    let after = Stored {
        revisions: BTreeMap::from([(number, name)]),
        ..Stored::default()
    };
    let mut writes = vec![Write::Create(Box::new(revision))];
    writes.extend(left_over(id, before, &after));
    (writes, after)
}

/// Deletions come last: until the newer one is there, the older one counts.
fn left_over(id: &ObjectId, before: &Stored, after: &Stored) -> Vec<Write> {
    let kept: BTreeSet<&i64> = after.revisions.keys().collect();
    let gone = before
        .revisions
        .iter()
        .filter(|(number, _)| !kept.contains(number));
    gone.map(|(_, name)| Write::Delete(ObjectName::new(id.name.namespace.clone(), name.as_str())))
        .collect()
}

fn annotation<T: serde::Serialize>(stages: &ByStage<T>) -> String {
    serde_json::to_string(stages).unwrap_or_default()
}

fn revision(id: &ObjectId, uid: &str, number: i64, data: Value) -> ControllerRevision {
    let labels = [
        (MANAGED_BY, MANAGER),
        ("app.kubernetes.io/part-of", "paifang"),
        (KIND, id.kind.name()),
    ];
    let owned = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(revision_name(id, number)),
            namespace: Some(id.name.namespace.to_string()),
            labels: Some(BTreeMap::from(owned)),
            annotations: Some(BTreeMap::from([(
                OBJECT.to_owned(),
                id.name.name.to_string(),
            )])),
            owner_references: Some(vec![owner_reference(id, uid)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// Of an object that the controller makes for one of the six kinds.
pub(crate) fn owner_reference(id: &ObjectId, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: id.kind.name().to_owned(),
        name: id.name.name.to_string(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

/// A name that fits: one that is too long gives way to its hash.
fn revision_name(id: &ObjectId, number: i64) -> String {
    let kind = id.kind.name().to_ascii_lowercase();
    let name = format!("paifang-{kind}-{}-{number}", id.name.name);
    if name.len() <= 253 {
        return name;
    }
    let hash = published::Hash::of(id.name.name.as_bytes());
    format!("paifang-{kind}-{hash}-{number}")
}

// === impl Write ===

impl Write {
    /// Whose it is, for logs.
    pub(crate) fn name(&self) -> ObjectName {
        match self {
            Self::Create(revision) => ObjectName::new(
                revision.metadata.namespace.clone().unwrap_or_default(),
                revision.metadata.name.clone().unwrap_or_default(),
            ),
            Self::Annotate { name, .. } | Self::Delete(name) => name.clone(),
        }
    }

    /// Does it. What is done already, or cannot be done because the namespace or the object is about to go, is done.
    ///
    /// # Errors
    /// What the API server says.
    pub(crate) async fn run(&self, client: &Client) -> kube::Result<()> {
        let name = self.name();
        let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &name.namespace);
        let done = match self {
            Self::Create(revision) => match api.create(&PostParams::default(), revision).await {
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    replace(&api, revision).await
                }
                done => done.map(drop),
            },
            Self::Annotate {
                stages, serving, ..
            } => {
                let patch =
                    json!({"metadata": {"annotations": {STAGES: stages, SERVING: serving}}});
                let params = PatchParams::default();
                api.patch_metadata(&name.name, &params, &Patch::Merge(patch))
                    .await
                    .map(drop)
            }
            Self::Delete(_) => api
                .delete(&name.name, &DeleteParams::default())
                .await
                .map(drop),
        };
        match done {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains("being terminated") =>
            {
                Ok(())
            }
            done => done,
        }
    }
}

/// Of an earlier try, or of an object of the same name that is gone: what it holds cannot be changed, so it makes room.
async fn replace(api: &Api<ControllerRevision>, wanted: &ControllerRevision) -> kube::Result<()> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let there = api.get(name).await?;
    let same = there.data == wanted.data
        && owner(there.metadata.owner_references.as_deref())
            == owner(wanted.metadata.owner_references.as_deref());
    if same {
        let annotations = json!({"metadata": {"annotations": wanted.metadata.annotations}});
        let params = PatchParams::default();
        return api
            .patch_metadata(name, &params, &Patch::Merge(annotations))
            .await
            .map(drop);
    }
    let labels = there.metadata.labels.unwrap_or_default();
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        let message = format!("ControllerRevision {name} is there and is not the controller's");
        let status = kube::core::Status::failure(&message, "AlreadyExists").with_code(409);
        return Err(kube::Error::Api(Box::new(status)));
    }
    tracing::warn!(name, "a stored state of another object makes room");
    api.delete(name, &DeleteParams::default()).await?;
    api.create(&PostParams::default(), wanted).await.map(drop)
}

/// A write that failed for good, said once.
pub(crate) fn complain(write: &Write, error: &kube::Error) {
    tracing::error!(
        revision = %write.name(),
        error = %said(error),
        "a state cannot be stored; a restart would go back to what was stored last"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use paifang_compiler::Served;

    fn release(number: u64) -> Arc<Release> {
        let spec = json!({
            "groupRef": {"name": "g"}, "request": {"protocols": ["HTTP"], "method": "GET", "path": "/a"}, "backend": {"mock": {"body": number.to_string()}},
        });
        Arc::new(Release {
            number,
            hash: format!("{number:064}").into(),
            spec: serde_json::from_value(spec).unwrap(),
        })
    }

    fn memory(releases: &[u64], serving: u64) -> Memory {
        let stage: paifang_model::Stage = "RELEASE".parse().unwrap();
        let api = ApiMemory {
            uid: Some("u".into()),
            releases: releases.iter().map(|number| release(*number)).collect(),
            stages: [(stage.clone(), None)].into_iter().collect(),
            serving: [(
                stage,
                Served {
                    release: serving,
                    on: true,
                },
            )]
            .into_iter()
            .collect(),
        };
        let mut memory = Memory::default();
        memory
            .apis
            .insert(ObjectName::new("ns", "a"), Arc::new(api));
        memory
    }

    fn id() -> ObjectId {
        ObjectId::new(Kind::Api, &ObjectName::new("ns", "a"))
    }

    fn said(writes: &[Write]) -> Vec<String> {
        let one = |write: &Write| match write {
            Write::Create(_) => format!("create {}", write.name().name),
            Write::Annotate { .. } => format!("annotate {}", write.name().name),
            Write::Delete(_) => format!("delete {}", write.name().name),
        };
        writes.iter().map(one).collect()
    }

    #[test]
    fn a_new_release_is_one_write_and_the_same_again_is_none() {
        let (writes, stored) = changes(&id(), Some("u"), &memory(&[1], 1), &Stored::default());
        assert_eq!(said(&writes), ["create paifang-api-a-1"]);
        let (writes, stored) = changes(&id(), Some("u"), &memory(&[1], 1), &stored);
        assert_eq!(said(&writes), [] as [&str; 0]);
        let (writes, stored) = changes(&id(), Some("u"), &memory(&[1, 2], 2), &stored);
        assert_eq!(said(&writes), ["create paifang-api-a-2"]);
        let (writes, stored) = changes(&id(), Some("u"), &memory(&[1, 2], 1), &stored);
        assert_eq!(said(&writes), ["annotate paifang-api-a-2"]);
        let (writes, _) = changes(&id(), Some("u"), &memory(&[2, 3], 3), &stored);
        assert_eq!(
            said(&writes),
            ["create paifang-api-a-3", "delete paifang-api-a-1"]
        );
    }

    #[test]
    fn what_was_stored_is_read_back() {
        let before = memory(&[1, 2], 1);
        let (writes, stored) = changes(&id(), Some("u"), &before, &Stored::default());
        let mut found = Found::default();
        // In whatever order the API server lists them.
        for write in writes.into_iter().rev() {
            let Write::Create(revision) = write else {
                panic!("only new releases")
            };
            let owner = &revision.metadata.owner_references.as_ref().unwrap()[0];
            assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Api", "u"));
            found.take(*revision).unwrap();
        }
        assert_eq!(found.memory, before);
        let again = changes(&id(), Some("u"), &found.memory, &found.stored[&id()]);
        assert_eq!(said(&again.0), [] as [&str; 0]);
        assert_eq!(found.stored[&id()].revisions, stored.revisions);
    }

    #[test]
    fn another_kind_keeps_one_state_and_the_newer_is_there_before_the_older_goes() {
        let mut memory = Memory::default();
        let id = ObjectId::new(Kind::ApiGroup, &ObjectName::new("ns", "g"));
        let key = MemoryKey::Object(id.clone());
        memory
            .restore(key.clone(), json!({"uid": "u", "spec": {}}))
            .unwrap();
        let (writes, stored) = changes(&id, Some("u"), &memory, &Stored::default());
        assert_eq!(said(&writes), ["create paifang-apigroup-g-1"]);
        memory
            .restore(key, json!({"uid": "u", "spec": {"qpsLimit": 7}}))
            .unwrap();
        let (writes, _) = changes(&id, Some("u"), &memory, &stored);
        assert_eq!(
            said(&writes),
            ["create paifang-apigroup-g-2", "delete paifang-apigroup-g-1"]
        );
    }

    #[test]
    fn an_object_that_is_gone_takes_what_was_stored_with_it() {
        let (writes, _) = changes(&id(), None, &Memory::default(), &Stored::default());
        assert!(writes.is_empty());
    }

    #[test]
    fn a_name_that_is_too_long_gives_way_to_its_hash() {
        let long = ObjectId::new(Kind::Api, &ObjectName::new("ns", "a".repeat(250)));
        let name = revision_name(&long, 12);
        assert!(name.len() <= 253 && name.ends_with("-12"), "{name}");
    }
}
