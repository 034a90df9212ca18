//! BackendServices in force, stage by stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::{BackendServiceSpec, DeletionPolicy, Kind};

use crate::{
    Accepted, BackendFailure, BackendServiceStatus, Memory, Objects, Problem, Reason, Settings,
    Status, Verdict,
    groups::keep,
    memory::recall,
    parse::{self, backend::Backend},
    settle::{InForce, Settled, effect, settle},
    target::{Referrer, Resolved, Resolver},
};

/// A backend service in force.
pub(crate) struct ServiceEntry {
    /// What to call per stage.
    pub(crate) stages: BTreeMap<Stage, Resolved>,
    accepted: Arc<Accepted<BackendServiceSpec>>,
}

/// All backend services.
pub(crate) struct Services<'a> {
    /// Those in force.
    pub(crate) entries: BTreeMap<&'a ObjectName, ServiceEntry>,
    problems: BTreeMap<&'a ObjectName, Vec<Problem>>,
}

type Parsed = Settled<BackendServiceSpec, BTreeMap<Stage, Backend>>;

/// Parses every BackendService and looks its references up.
pub(crate) fn parse_all<'a>(
    objects: &'a Objects,
    memory: &Memory,
    settings: &Settings,
    resolver: &mut Resolver<'_>,
) -> Services<'a> {
    let in_use = stages_in_use(objects, memory);
    let mut services = Services {
        entries: BTreeMap::new(),
        problems: BTreeMap::new(),
    };
    for (name, object) in &objects.backend_services {
        let before = recall(&memory.backend_services, name, object.uid.as_deref());
        let type_before = before.map(|before| before.spec.type_);
        let mut settled = settle(object, before, settings, |spec, check| {
            parse::backend_service::parse(name, spec, type_before, check)
        });
        guard_stages(name, &mut settled, &in_use);
        let mut problems = std::mem::take(&mut settled.problems);
        if let Some((spec, stages)) = merge(name, settled, resolver, &mut problems) {
            let accepted = keep(before, object.uid.clone(), spec, BTreeSet::new());
            services
                .entries
                .insert(name, ServiceEntry { stages, accepted });
        }
        services.problems.insert(name, problems);
    }
    services
}

/// (service, stage) that a published Api goes through.
fn stages_in_use<'m>(objects: &Objects, memory: &'m Memory) -> BTreeSet<(ObjectName, &'m Stage)> {
    let mut in_use = BTreeSet::new();
    for (name, api) in &memory.apis {
        let Some(object) = objects.apis.get(name) else {
            continue;
        };
        for (stage, served) in api.serving.iter().filter(|(_, served)| served.on) {
            let listed = object
                .spec()
                .is_none_or(|spec| spec.stages.contains_key(stage.as_str()));
            let release = api.releases.iter().find(|it| it.number == served.release);
            let service = release.and_then(|it| it.spec.backend.service_ref.as_ref());
            if let (true, Some(service)) = (listed, service) {
                let service = ObjectName::new(name.namespace.clone(), service.name.as_str());
                in_use.insert((service, stage));
            }
        }
    }
    in_use
}

/// `deletionPolicy: Block` refuses an edit that would take published Apis offline.
fn guard_stages(name: &ObjectName, settled: &mut Parsed, in_use: &BTreeSet<(ObjectName, &Stage)>) {
    let (Some(edit), Some(last)) = (&settled.edit, &settled.last) else {
        return;
    };
    if edit.spec.deletion_policy != DeletionPolicy::Block {
        return;
    }
    let lost: Vec<&Stage> = last
        .model
        .keys()
        .filter(|stage| !edit.model.contains_key(*stage))
        .filter(|stage| in_use.contains(&(name.clone(), *stage)))
        .collect();
    if lost.is_empty() {
        return;
    }
    for stage in lost {
        settled.problems.push(Problem::new(
            format!("spec.stages.{stage}"),
            Reason::StageInUse,
            "cannot be removed: published Apis go through it, and deletionPolicy is Block",
            "take the Apis offline in that stage first, or write `deletionPolicy: TakeOffline`",
        ));
    }
    settled.edit = None;
}

/// The edit; but a stage whose references do not resolve goes on as it was, if that still resolves.
fn merge(
    name: &ObjectName,
    settled: Parsed,
    resolver: &mut Resolver<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Arc<BackendServiceSpec>, BTreeMap<Stage, Resolved>)> {
    let (in_force, last) = match (settled.edit, settled.last) {
        (Some(edit), last) => (edit, last),
        (None, Some(last)) => (last, None),
        (None, None) => return None,
    };
    let mut spec = in_force.spec;
    let mut stages = BTreeMap::new();
    for (stage, backend) in &in_force.model {
        let mut resolved = resolve(name, stage, backend, resolver);
        problems.extend(resolved.problems.iter().cloned());
        if !resolved.is_usable()
            && let Some((config, before)) = usable_before(name, stage, last.as_ref(), resolver)
        {
            resolved = before;
            Arc::make_mut(&mut spec)
                .stages
                .insert(stage.to_string(), config);
        }
        stages.insert(stage.clone(), resolved);
    }
    Some((spec, stages))
}

fn usable_before(
    name: &ObjectName,
    stage: &Stage,
    last: Option<&InForce<BackendServiceSpec, BTreeMap<Stage, Backend>>>,
    resolver: &mut Resolver<'_>,
) -> Option<(paifang_resources::BackendConfig, Resolved)> {
    let last = last?;
    let resolved = resolve(name, stage, last.model.get(stage)?, resolver);
    let config = last.spec.stages.get(stage.as_str())?.clone();
    resolved.is_usable().then_some((config, resolved))
}

fn resolve(
    name: &ObjectName,
    stage: &Stage,
    backend: &Backend,
    resolver: &mut Resolver<'_>,
) -> Resolved {
    let field = format!("spec.stages.{stage}");
    let from = Referrer {
        kind: Kind::BackendService,
        namespace: &name.namespace,
        field: &field,
    };
    resolver.resolve(from, backend)
}

// === impl Services ===

impl Services<'_> {
    /// What to remember.
    pub(crate) fn memory(&self) -> BTreeMap<ObjectName, Arc<Accepted<BackendServiceSpec>>> {
        self.entries
            .iter()
            .map(|(name, entry)| ((*name).clone(), Arc::clone(&entry.accepted)))
            .collect()
    }

    /// A verdict on each; `used` says who goes through it.
    pub(crate) fn verdicts(
        &self,
        mut used: BTreeMap<ObjectName, BackendServiceStatus>,
    ) -> impl Iterator<Item = (ObjectName, Verdict)> {
        self.problems.iter().map(move |(name, problems)| {
            let entry = self.entries.get(name);
            let mut status = used.remove(*name).unwrap_or_default();
            for stage in entry.into_iter().flat_map(|entry| entry.stages.keys()) {
                status.stages.entry(stage.clone()).or_default();
            }
            for stage in status.stages.values_mut() {
                let by_api = |a: &BackendFailure, b: &BackendFailure| a.api.cmp(&b.api);
                stage.failures.sort_by(by_api);
            }
            let verdict = Verdict::judge(
                problems.clone(),
                effect(entry.is_some()),
                &[],
                Status::BackendService(status),
            );
            ((*name).clone(), verdict)
        })
    }
}
