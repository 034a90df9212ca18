//! ApiGroups in force, and how one is put together for the gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::{ApiGroupSpec, Kind};
use paifang_snapshot::wire;

use crate::{
    Accepted, GroupStatus, MemoryKey, Object, ObjectId, Problem, Settings, Status, Verdict,
    backend, certificates,
    compile::Step,
    graph::Dep,
    ids,
    memory::{recall, replace},
    parse::{self, group::Group},
    routes::{Candidate, StageOutcome},
    settle::{effect, settle},
};

/// A group in force.
#[derive(Debug)]
pub(crate) struct GroupEntry {
    pub(crate) name: Arc<ObjectName>,
    pub(crate) id: String,
    pub(crate) model: Group,
    accepted: Arc<Accepted<ApiGroupSpec>>,
}

/// What is known of an ApiGroup.
#[derive(Debug)]
pub(crate) struct GroupNode {
    /// None when it is not in force.
    pub(crate) entry: Option<Arc<GroupEntry>>,
    problems: Vec<Problem>,
}

/// A route of a group.
pub(crate) struct Routed<'c> {
    pub(crate) stage: &'c Stage,
    pub(crate) candidate: &'c Candidate,
}

/// Parses an ApiGroup.
pub(crate) fn judge(
    name: &ObjectName,
    object: &Object<ApiGroupSpec>,
    remembered: &BTreeMap<ObjectName, Arc<Accepted<ApiGroupSpec>>>,
    settings: &Settings,
) -> GroupNode {
    let uid = object.uid.as_deref();
    let before = recall(remembered, name, uid);
    let (in_force, problems) = settle(object, before, settings, parse::group::parse).take();
    let entry = in_force.map(|in_force| {
        Arc::new(GroupEntry {
            name: Arc::new(name.clone()),
            id: ids::group_id(name, uid),
            model: in_force.model,
            accepted: keep(before, object.uid.clone(), in_force.spec, BTreeSet::new()),
        })
    });
    GroupNode { entry, problems }
}

/// The entry as it was, when nothing of it changed: equal memory is the same memory.
pub(crate) fn keep<S: PartialEq>(
    before: Option<&Arc<Accepted<S>>>,
    uid: Option<Arc<str>>,
    spec: Arc<S>,
    claims: BTreeSet<String>,
) -> Arc<Accepted<S>> {
    match before {
        Some(before)
            if before.uid == uid
                && before.claims == claims
                && (Arc::ptr_eq(&before.spec, &spec) || before.spec == spec) =>
        {
            Arc::clone(before)
        }
        _ => Arc::new(Accepted { uid, spec, claims }),
    }
}

// === impl GroupNode ===

impl GroupNode {
    /// Whether `self` means for others what `other` does.
    fn means_the_same(&self, other: &Self) -> bool {
        match (&self.entry, &other.entry) {
            (Some(a), Some(b)) => a.id == b.id && a.model == b.model,
            (None, None) => true,
            _ => false,
        }
    }

    /// A verdict, now that it is known what it publishes.
    pub(crate) fn verdict(&self, published: Option<&wire::Group>) -> Verdict {
        let notes = match &self.entry {
            Some(entry) => entry.model.notes.as_slice(),
            None => &[],
        };
        Verdict::judge(
            self.problems.clone(),
            effect(self.entry.is_some()),
            notes,
            Status::ApiGroup(Box::new(published.map(status).unwrap_or_default())),
        )
    }
}

// === impl Step ===

impl Step<'_> {
    /// Parses the groups that are to be parsed.
    pub(crate) fn parse_groups(&mut self) {
        for name in std::mem::take(&mut self.dirty.groups) {
            let remembered = &mut self.compiler.memory.groups;
            let object = self.objects.groups.get(&name);
            let node = object.map(|it| judge(&name, it, remembered, &self.compiler.settings));
            let entry = node.as_ref().and_then(|node| node.entry.as_ref());
            if replace(
                remembered,
                &name,
                entry.map(|entry| Arc::clone(&entry.accepted)),
            ) {
                self.remembers(Kind::ApiGroup, &name);
            }
            let world = &mut self.compiler.world;
            let before = world.groups.remove(&name);
            let same = match (&before, &node) {
                (Some(before), Some(now)) => before.means_the_same(now),
                (before, now) => before.is_none() && now.is_none(),
            };
            if let Some(node) = node {
                world.groups.insert(name.clone(), node);
            }
            if !same {
                self.dirty.fire(&Dep::Group(name.clone()), &world.readers);
            }
            self.dirty.published.insert(name);
        }
    }

    /// Puts the groups together that are to be. Nothing is left to refuse.
    pub(crate) fn publish_groups(&mut self) {
        for name in std::mem::take(&mut self.dirty.published) {
            let group = self.put_together(&name);
            let before = self.compiler.snapshot.groups.get(&name);
            if before.map(|it| &**it) != group.as_ref() {
                let group = group.map(Arc::new);
                self.count_uses(before.cloned().as_deref(), group.as_deref());
                let groups = &mut self.compiler.snapshot.groups;
                match &group {
                    Some(group) => groups.insert(name.clone(), Arc::clone(group)),
                    None => groups.remove(&name),
                };
                self.update.groups.insert(name.clone(), group);
            }
            let published = self.compiler.snapshot.groups.get(&name);
            let node = self.compiler.world.groups.get(&name);
            let verdict = node.map(|node| node.verdict(published.map(|it| &**it)));
            self.tell(ObjectId::new(Kind::ApiGroup, &name), verdict);
        }
    }

    fn put_together(&self, name: &ObjectName) -> Option<wire::Group> {
        let world = &self.compiler.world;
        let entry = world.groups.get(name)?.entry.as_ref()?;
        let apis = world.claimants(name);
        let apis = apis.filter_map(|api| world.apis.get(api));
        let routed: Vec<Routed<'_>> = apis
            .flat_map(|api| &api.outcomes)
            .filter_map(StageOutcome::routed)
            .filter(|routed| routed.candidate.group() == name)
            .collect();
        let domains = world.bound.get(name).into_iter().flatten();
        let domains = domains
            .filter_map(|binding| world.domains.get(binding)?.published.as_ref())
            .map(|(_, domain)| domain.clone())
            .collect();
        let grants = world.granted.get(name).into_iter().flatten();
        let grants = grants
            .filter_map(|it| world.authorizations.get(it)?.grants.get(name))
            .flatten()
            .cloned()
            .collect();
        let settings = &self.compiler.settings;
        Some(compile_group(
            name, entry, settings, &routed, domains, grants,
        ))
    }

    /// Which Secrets and Services the published groups use.
    fn count_uses(&mut self, before: Option<&wire::Group>, now: Option<&wire::Group>) {
        let world = &mut self.compiler.world;
        let secrets =
            |group: Option<&'_ wire::Group>| -> BTreeSet<(ObjectName, certificates::Use)> {
                let used = group.map(certificates::used_by).unwrap_or_default();
                used.into_iter()
                    .map(|(name, usage)| (name.clone(), usage))
                    .collect()
            };
        let (then, new) = (secrets(before), secrets(now));
        for (name, usage) in then.difference(&new) {
            world.secret_uses.remove(name, *usage);
            self.dirty.secrets.insert(name.clone());
        }
        for (name, usage) in new.difference(&then) {
            world.secret_uses.add(name, *usage);
            self.dirty.secrets.insert(name.clone());
        }
        let services = |group: Option<&'_ wire::Group>| -> BTreeSet<(ObjectName, String)> {
            let called = group.map(backend::called_by).unwrap_or_default();
            called
                .into_iter()
                .map(|(name, port)| (name.clone(), port.to_owned()))
                .collect()
        };
        let (then, new) = (services(before), services(now));
        for gone in then.difference(&new) {
            if let Some(count) = world.endpoint_uses.get_mut(gone) {
                *count -= 1;
                if *count == 0 {
                    world.endpoint_uses.remove(gone);
                }
            }
            self.dirty.endpoints.insert(gone.clone());
        }
        for come in new.difference(&then) {
            *world.endpoint_uses.entry(come.clone()).or_default() += 1;
            self.dirty.endpoints.insert(come.clone());
        }
    }

    /// An entry of the memory is different.
    pub(crate) fn remembers(&mut self, kind: Kind, name: &ObjectName) {
        self.update
            .memory
            .insert(MemoryKey::Object(ObjectId::new(kind, name)));
    }
}

fn status(group: &wire::Group) -> GroupStatus {
    let mut apis: BTreeMap<Stage, u32> = BTreeMap::new();
    for route in &group.routes {
        if usable(group, route) {
            *apis.entry(route.stage.clone()).or_default() += 1;
        }
    }
    let host = |host: &Option<paifang_model::HostPattern>| host.as_ref().map(ToString::to_string);
    GroupStatus {
        group_id: group.id.clone(),
        public: host(&group.sub_domain.public),
        internal: host(&group.sub_domain.internal),
        apis,
        domains: group.domains.iter().map(|it| it.host.to_string()).collect(),
    }
}

fn usable(group: &wire::Group, route: &wire::Route) -> bool {
    usize::try_from(route.backend)
        .ok()
        .and_then(|at| group.backends.get(at))
        .is_some_and(|backend| !matches!(backend.target, wire::Target::Unavailable { .. }))
}

/// Puts one group together. Everything is resolved: nothing is left to refuse. What it costs depends on this group alone.
fn compile_group(
    name: &ObjectName,
    group: &GroupEntry,
    settings: &Settings,
    routed: &[Routed<'_>],
    mut domains: Vec<wire::Domain>,
    mut grants: Vec<Arc<wire::Grant>>,
) -> wire::Group {
    let variants: BTreeMap<_, &Candidate> = routed
        .iter()
        .map(|it| (it.candidate.variant(), it.candidate))
        .collect();
    let targets: BTreeSet<&wire::Backend> =
        routed.iter().map(|it| &*it.candidate.backend).collect();
    let api_at: BTreeMap<_, u32> = variants.keys().copied().zip(0..).collect();
    let backend_at: BTreeMap<&wire::Backend, u32> = targets.iter().copied().zip(0..).collect();
    let mut routes: Vec<wire::Route> = routed
        .iter()
        .map(|it| wire::Route {
            stage: it.stage.clone(),
            api: api_at[&it.candidate.variant()],
            backend: backend_at[&*it.candidate.backend],
            variables: it.candidate.variables.clone(),
        })
        .collect();
    routes.sort_by(|a, b| (&a.stage, a.api).cmp(&(&b.stage, b.api)));
    domains.sort_by(|a, b| (&a.host, &a.name).cmp(&(&b.host, &b.name)));
    grants.sort();
    grants.dedup();
    let sub_domain = |on: bool, suffix: &str| {
        on.then(|| format!("{}.{suffix}", group.id).parse().ok())
            .flatten()
    };
    let model = &group.model;
    wire::Group {
        format: wire::FORMAT,
        name: name.clone(),
        id: group.id.clone(),
        instance: model.instance.clone(),
        base_path: model.base_path.clone(),
        qps_limit: model.qps_limit,
        sub_domain: wire::SubDomain {
            public: sub_domain(model.public, &settings.public_suffix),
            internal: sub_domain(model.internal, &settings.internal_suffix),
            daily_quota: model.daily_quota,
        },
        https_policy: model.https_policy,
        filter_app_code: model.filter_app_code,
        domains,
        apis: variants.into_values().map(Candidate::publish).collect(),
        routes,
        backends: targets.into_iter().cloned().collect(),
        grants,
    }
}
