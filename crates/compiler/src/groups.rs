//! ApiGroups in force, and how one is put together for the gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::ApiGroupSpec;
use paifang_snapshot::wire;

use crate::{
    Accepted, GroupStatus, Memory, Objects, Problem, Settings, Status, Verdict, ids,
    memory::recall,
    parse::{self, group::Group},
    routes::Candidate,
    settle::{effect, settle},
};

/// A group in force.
pub(crate) struct GroupEntry<'a> {
    pub(crate) name: &'a ObjectName,
    pub(crate) id: String,
    pub(crate) model: Group,
    accepted: Arc<Accepted<ApiGroupSpec>>,
}

/// All groups.
pub(crate) struct Groups<'a> {
    /// Those in force, by name.
    pub(crate) entries: Vec<GroupEntry<'a>>,
    positions: BTreeMap<&'a ObjectName, usize>,
    problems: BTreeMap<&'a ObjectName, Vec<Problem>>,
}

/// A route of a group.
pub(crate) struct Routed<'c> {
    pub(crate) stage: &'c Stage,
    pub(crate) candidate: &'c Candidate,
}

/// Parses every ApiGroup.
pub(crate) fn parse_all<'a>(
    objects: &'a Objects,
    memory: &Memory,
    settings: &Settings,
) -> Groups<'a> {
    let mut groups = Groups {
        entries: Vec::with_capacity(objects.groups.len()),
        positions: BTreeMap::new(),
        problems: BTreeMap::new(),
    };
    for (name, object) in &objects.groups {
        let uid = object.uid.as_deref();
        let before = recall(&memory.groups, name, uid);
        let (in_force, problems) = settle(object, before, settings, parse::group::parse).take();
        groups.problems.insert(name, problems);
        let Some(in_force) = in_force else { continue };
        groups.positions.insert(name, groups.entries.len());
        groups.entries.push(GroupEntry {
            name,
            id: ids::group_id(name, uid),
            model: in_force.model,
            accepted: keep(before, object.uid.clone(), in_force.spec, BTreeSet::new()),
        });
    }
    groups
}

/// The entry as it was, when nothing of it changed: equal memory is the same memory.
pub(crate) fn keep<S: PartialEq>(
    before: Option<&Arc<Accepted<S>>>,
    uid: Option<String>,
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

// === impl Groups ===

impl<'a> Groups<'a> {
    /// Position of a group in force.
    pub(crate) fn position(&self, name: &ObjectName) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// Whether the group at `at` takes Apis of `namespace`.
    pub(crate) fn allows(&self, objects: &Objects, at: usize, namespace: &str) -> bool {
        let entry = &self.entries[at];
        let labels = objects.namespaces.get(namespace);
        entry.model.allows(entry.name, namespace, labels)
    }

    /// What to remember.
    pub(crate) fn memory(&self) -> BTreeMap<ObjectName, Arc<Accepted<ApiGroupSpec>>> {
        self.entries
            .iter()
            .map(|entry| (entry.name.clone(), Arc::clone(&entry.accepted)))
            .collect()
    }

    /// A verdict on each, now that it is known what each publishes.
    pub(crate) fn verdicts(
        &self,
        published: &[Arc<wire::Group>],
    ) -> impl Iterator<Item = (ObjectName, Verdict)> {
        self.problems.iter().map(|(name, problems)| {
            let at = self.position(name);
            let (notes, status) = match at {
                None => (&[][..], GroupStatus::default()),
                Some(at) => (
                    self.entries[at].model.notes.as_slice(),
                    status(&published[at]),
                ),
            };
            let verdict = Verdict::judge(
                problems.clone(),
                effect(at.is_some()),
                notes,
                Status::ApiGroup(status),
            );
            ((*name).clone(), verdict)
        })
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
pub(crate) fn compile_group(
    group: &GroupEntry<'_>,
    settings: &Settings,
    routed: &[Routed<'_>],
    mut domains: Vec<wire::Domain>,
    mut grants: Vec<wire::Grant>,
) -> wire::Group {
    let variants: BTreeMap<_, &Candidate> = routed
        .iter()
        .map(|it| (it.candidate.variant(), it.candidate))
        .collect();
    let targets: BTreeSet<&wire::Backend> = routed.iter().map(|it| &it.candidate.backend).collect();
    let api_at: BTreeMap<_, u32> = variants.keys().copied().zip(0..).collect();
    let backend_at: BTreeMap<&wire::Backend, u32> = targets.iter().copied().zip(0..).collect();
    let mut routes: Vec<wire::Route> = routed
        .iter()
        .map(|it| wire::Route {
            stage: it.stage.clone(),
            api: api_at[&it.candidate.variant()],
            backend: backend_at[&it.candidate.backend],
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
        name: group.name.clone(),
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
