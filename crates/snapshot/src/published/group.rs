//! A group as pieces, and put together again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use serde::{Deserialize, Serialize};

use super::{
    cut,
    part::{Hash, InvalidPart, Part, Piece, cut_piece, json, read_piece},
};
use crate::wire;

/// Names everything that a group is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupManifest {
    /// [`wire::FORMAT`] of the writer.
    pub format: u32,
    /// The ApiGroup object.
    pub group: ObjectName,
    /// The fleet of gateways that serves it.
    pub instance: String,
    /// The group without what the other pieces hold.
    pub head: Piece,
    /// Runs of Apis, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apis: Vec<Piece>,
    /// Runs of grants, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Piece>,
    /// The material of each Secret that the group refers to; one that is missing here has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<ObjectName, Hash>,
}

/// A group, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedGroup {
    /// Its manifest.
    pub manifest: GroupManifest,
    /// The parts of routing that the manifest names.
    pub parts: BTreeMap<Hash, Part>,
    /// The parts that hold certificates. Secret.
    pub certificates: BTreeMap<Hash, Part>,
}

/// Apis, with their routes and backends.
#[derive(Default, Serialize, Deserialize)]
struct Run {
    /// Makes the part one instance's: its object is labelled for that one.
    instance: String,
    apis: Vec<Entry>,
    /// Backends that routes of this run name by position.
    backends: Vec<wire::Backend>,
}

#[derive(Serialize, Deserialize)]
struct Grants {
    instance: String,
    grants: Vec<Arc<wire::Grant>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    api: Arc<wire::Api>,
    routes: Vec<Route>,
}

/// As [`wire::Route`]; the backend's position is within the run, the Api is the entry's.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    stage: Stage,
    backend: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
}

// === impl GroupManifest ===

impl GroupManifest {
    /// The manifest as text. Equal manifests have equal texts.
    pub fn text(&self) -> String {
        String::from_utf8(json(self)).unwrap_or_default()
    }

    /// Names the content: what gateways report, and the controller compares.
    pub fn hash(&self) -> Hash {
        Hash::of(&json(self))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is no manifest, or of a format that this version does not read.
    pub fn read(text: &str) -> Result<Self, InvalidPart> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_str(text).map_err(InvalidPart::Manifest)?;
        supported(format)?;
        serde_json::from_str(text).map_err(InvalidPart::Manifest)
    }

    /// Every part of routing that it names.
    pub fn parts(&self) -> impl Iterator<Item = &Hash> {
        let runs = self.apis.iter().chain(&self.grants);
        self.head.iter().chain(runs.flatten())
    }
}

/// The writer's format must be ours or the one before.
pub(super) fn supported(format: u32) -> Result<(), InvalidPart> {
    if format == wire::FORMAT || format + 1 == wire::FORMAT {
        Ok(())
    } else {
        Err(InvalidPart::Format(format))
    }
}

/// Cuts a group into parts. `material` finds the certificates that the group refers to.
pub fn publish_group<'m>(
    group: &wire::Group,
    material: impl Fn(&ObjectName) -> Option<&'m wire::Certificate>,
) -> PublishedGroup {
    let mut parts = BTreeMap::new();
    let mut put = |part: Part| drop(parts.insert(part.hash.clone(), part));
    let head = wire::Group {
        apis: Vec::new(),
        routes: Vec::new(),
        backends: Vec::new(),
        grants: Vec::new(),
        ..head_of(group)
    };
    let head = cut_piece(&json(&head), &mut put);

    let entries = entries(group);
    let mut apis = Vec::new();
    cut::runs(
        &entries,
        |entry| &entry.api.name.name,
        |range| apis.push(cut_piece(&json(&run(group, &entries[range])), &mut put)),
    );
    let mut grants = Vec::new();
    cut::runs(
        &group.grants,
        |grant| &grant.app.name,
        |range| {
            let run = Grants {
                instance: group.instance.clone(),
                grants: group.grants[range].to_vec(),
            };
            grants.push(cut_piece(&json(&run), &mut put));
        },
    );

    let mut certificates = BTreeMap::new();
    let mut published = BTreeMap::new();
    for name in certificates_of(group) {
        let Some(material) = material(name) else {
            continue;
        };
        let part = super::publish_certificate(&group.instance, material);
        certificates.insert(name.clone(), part.hash.clone());
        published.insert(part.hash.clone(), part);
    }
    PublishedGroup {
        manifest: GroupManifest {
            format: wire::FORMAT,
            group: group.name.clone(),
            instance: group.instance.clone(),
            head,
            apis,
            grants,
            certificates,
        },
        parts,
        certificates: published,
    }
}

/// The Secrets that a group refers to, ordered.
pub fn certificates_of(group: &wire::Group) -> BTreeSet<&ObjectName> {
    let mut used = BTreeSet::new();
    for tls in group
        .domains
        .iter()
        .filter_map(|domain| domain.tls.as_ref())
    {
        used.insert(&tls.certificate);
        used.extend(&tls.client_ca);
    }
    for backend in &group.backends {
        if let Some(Some(tls)) = backend.target.tls() {
            used.extend(&tls.ca);
            used.extend(&tls.client_certificate);
        }
        used.extend(backend.target.credentials());
    }
    used
}

/// A group put together from the parts that `find` has.
///
/// # Errors
/// When a part is missing or altered, or cannot be read; the group is as good as not there then, and what served before goes on.
pub fn assemble_group<'p>(
    manifest: &GroupManifest,
    find: impl Fn(&Hash) -> Option<&'p [u8]>,
) -> Result<wire::Group, InvalidPart> {
    let mut group: wire::Group = read_piece(&manifest.head, &find)?;
    supported(group.format)?;
    if group.name != manifest.group {
        return Err(InvalidPart::Inconsistent("the head is another group's"));
    }
    let mut runs = Vec::new();
    for piece in &manifest.apis {
        runs.push(read_piece::<Run>(piece, &find)?);
    }
    let backends: BTreeSet<wire::Backend> = runs
        .iter_mut()
        .flat_map(|run| run.backends.iter().cloned())
        .collect();
    group.backends = backends.into_iter().collect();
    for run in runs {
        join(&mut group, run)?;
    }
    group
        .routes
        .sort_by(|a, b| (&a.stage, a.api).cmp(&(&b.stage, b.api)));
    for piece in &manifest.grants {
        group
            .grants
            .extend(read_piece::<Grants>(piece, &find)?.grants);
    }
    Ok(group)
}

fn join(group: &mut wire::Group, run: Run) -> Result<(), InvalidPart> {
    let positions: Vec<u32> = run
        .backends
        .iter()
        .filter_map(|backend| position(group.backends.binary_search(backend).ok()?))
        .collect();
    for entry in run.apis {
        let api = position(group.apis.len());
        let api = api.ok_or(InvalidPart::Inconsistent("more Apis than can be counted"))?;
        group.apis.push(entry.api);
        for route in entry.routes {
            let local = usize::try_from(route.backend).unwrap_or(usize::MAX);
            let backend = positions.get(local).copied();
            group.routes.push(wire::Route {
                stage: route.stage,
                api,
                backend: backend.ok_or(InvalidPart::Inconsistent("a route without a backend"))?,
                variables: route.variables,
            });
        }
    }
    Ok(())
}

fn position(at: usize) -> Option<u32> {
    u32::try_from(at).ok()
}

fn head_of(group: &wire::Group) -> wire::Group {
    wire::Group {
        format: group.format,
        name: group.name.clone(),
        id: group.id.clone(),
        instance: group.instance.clone(),
        base_path: group.base_path.clone(),
        qps_limit: group.qps_limit,
        sub_domain: group.sub_domain.clone(),
        https_policy: group.https_policy,
        filter_app_code: group.filter_app_code,
        domains: group.domains.clone(),
        apis: Vec::new(),
        routes: Vec::new(),
        backends: Vec::new(),
        grants: Vec::new(),
    }
}

/// Each Api with its routes; backends still by their position in the group.
fn entries(group: &wire::Group) -> Vec<Entry> {
    let mut entries: Vec<Entry> = group
        .apis
        .iter()
        .map(|api| Entry {
            api: Arc::clone(api),
            routes: Vec::new(),
        })
        .collect();
    for route in &group.routes {
        let at = usize::try_from(route.api).unwrap_or(usize::MAX);
        if let Some(entry) = entries.get_mut(at) {
            entry.routes.push(Route {
                stage: route.stage.clone(),
                backend: route.backend,
                variables: route.variables.clone(),
            });
        }
    }
    entries
}

/// A run with the backends it needs and no others, in their order.
fn run(group: &wire::Group, entries: &[Entry]) -> Run {
    let used: BTreeSet<u32> = entries
        .iter()
        .flat_map(|entry| entry.routes.iter().map(|route| route.backend))
        .collect();
    let local: BTreeMap<u32, u32> = used.iter().copied().zip(0..).collect();
    let backend = |at: &u32| group.backends.get(usize::try_from(*at).ok()?).cloned();
    let mut apis = entries.to_vec();
    for route in apis.iter_mut().flat_map(|entry| &mut entry.routes) {
        route.backend = local.get(&route.backend).copied().unwrap_or(u32::MAX);
    }
    Run {
        instance: group.instance.clone(),
        apis,
        backends: used.iter().filter_map(backend).collect(),
    }
}
