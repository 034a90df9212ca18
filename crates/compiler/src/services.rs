//! BackendServices in force, stage by stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::{BackendServiceSpec, DeletionPolicy, Kind};
use paifang_snapshot::wire;

use crate::{
    Accepted, BackendFailure, BackendServiceStatus, BackendStageStatus, Object, ObjectId, Problem,
    Reason, Settings, Status, Verdict,
    admit::listed,
    backend::{Backend, Referrer, Resolved, Resolver},
    compile::Step,
    graph::{Dep, Deps},
    groups::keep,
    memory::{recall, replace},
    parse::{self, api::Sample},
    releases::Through,
    settle::{InForce, Settled, effect, settle},
};

/// A backend service in force.
#[derive(Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) name: Arc<ObjectName>,
    /// What to call per stage.
    pub(crate) stages: BTreeMap<Stage, Reached>,
    pub(crate) accepted: Arc<Accepted<BackendServiceSpec>>,
}

/// A backend with its references resolved, as the Apis share it that go through it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reached {
    pub(crate) resolved: Resolved,
    /// As published for an Api without a sample.
    backend: Arc<wire::Backend>,
    pub(crate) address: Arc<str>,
}

/// What is known of a BackendService.
#[derive(Debug)]
pub(crate) struct ServiceNode {
    /// None when it is not in force.
    pub(crate) entry: Option<ServiceEntry>,
    pub(crate) problems: Vec<Problem>,
    /// Whether which stages are in use plays a part.
    guarded: bool,
    deps: Deps,
}

/// The published Apis that go through a BackendService, by stage, as far as they are remembered.
pub(crate) type InUse = BTreeMap<Stage, BTreeSet<Arc<ObjectId>>>;

/// Who goes through a BackendService now, and who should.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    drafts: u32,
    stages: BTreeMap<Stage, StageUsage>,
}

#[derive(Debug, Default)]
struct StageUsage {
    apis: u32,
    failures: BTreeMap<ObjectName, BackendFailure>,
}

/// What one Api adds to the usage of backend services.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Contribution {
    /// What its draft names.
    pub(crate) draft: Option<Arc<ObjectName>>,
    /// What its stages go through.
    pub(crate) served: Through,
    /// What its stages should go through and do not.
    pub(crate) failed: Vec<(Arc<ObjectName>, Stage, BackendFailure)>,
}

type Parsed = Settled<BackendServiceSpec, BTreeMap<Stage, Backend>>;

/// Parses a BackendService and looks its references up.
pub(crate) fn judge(
    name: &ObjectName,
    object: &Object<BackendServiceSpec>,
    remembered: &BTreeMap<ObjectName, Arc<Accepted<BackendServiceSpec>>>,
    settings: &Settings,
    in_use: Option<&InUse>,
    mut resolver: Resolver<'_, '_>,
) -> ServiceNode {
    let before = recall(remembered, name, object.uid.as_deref());
    let type_before = before.map(|before| before.spec.type_);
    let mut settled = settle(object, before, settings, |spec, check| {
        parse::backend_service::parse(name, spec, type_before, check)
    });
    let lost = lost_stages(&settled);
    let guarded = !lost.is_empty();
    guard_stages(lost, &mut settled, in_use);
    let mut problems = std::mem::take(&mut settled.problems);
    let entry =
        merge(name, settled, &mut resolver, &mut problems).map(|(spec, stages)| ServiceEntry {
            name: Arc::new(name.clone()),
            stages,
            accepted: keep(before, object.uid.clone(), spec, BTreeSet::new()),
        });
    ServiceNode {
        entry,
        problems,
        guarded,
        deps: resolver.trace.deps,
    }
}

/// The stages that an edit with `deletionPolicy: Block` takes away.
fn lost_stages(settled: &Parsed) -> Vec<Stage> {
    let (Some(edit), Some(last)) = (&settled.edit, &settled.last) else {
        return Vec::new();
    };
    if edit.spec.deletion_policy != DeletionPolicy::Block {
        return Vec::new();
    }
    let lost = last.model.keys();
    lost.filter(|stage| !edit.model.contains_key(*stage))
        .cloned()
        .collect()
}

/// `deletionPolicy: Block` refuses an edit that would take published Apis offline.
fn guard_stages(lost: Vec<Stage>, settled: &mut Parsed, in_use: Option<&InUse>) {
    for stage in lost {
        if let Some(apis) = in_use.and_then(|it| it.get(&stage)) {
            settled.problems.push(stage_in_use(&stage, apis));
            settled.edit = None;
        }
    }
}

/// What `deletionPolicy: Block` says of a stage that published Apis go through.
pub(crate) fn stage_in_use(stage: &Stage, apis: &BTreeSet<Arc<ObjectId>>) -> Problem {
    let (go, them) = match apis.len() {
        1 => ("1 published Api goes".to_owned(), "it"),
        number => (format!("{number} published Apis go"), "them"),
    };
    let names = apis.iter().map(|id| id.name.clone()).collect();
    Problem::new(
        format!("spec.stages.{stage}"),
        Reason::StageInUse,
        format!(
            "cannot be removed: {go} through it, and deletionPolicy is Block: {}",
            listed(&names)
        ),
        format!(
            "take {them} offline in {stage} first: remove it from their spec.stages; or write `deletionPolicy: TakeOffline`"
        ),
    )
}

/// The edit; but a stage whose references do not resolve goes on as it was, if that still resolves.
fn merge(
    name: &ObjectName,
    settled: Parsed,
    resolver: &mut Resolver<'_, '_>,
    problems: &mut Vec<Problem>,
) -> Option<(Arc<BackendServiceSpec>, BTreeMap<Stage, Reached>)> {
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
        stages.insert(stage.clone(), Reached::new(&name.to_string(), resolved));
    }
    Some((spec, stages))
}

fn usable_before(
    name: &ObjectName,
    stage: &Stage,
    last: Option<&InForce<BackendServiceSpec, BTreeMap<Stage, Backend>>>,
    resolver: &mut Resolver<'_, '_>,
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
    resolver: &mut Resolver<'_, '_>,
) -> Resolved {
    let field = format!("spec.stages.{stage}");
    let from = Referrer {
        kind: Kind::BackendService,
        namespace: &name.namespace,
        field: &field,
    };
    resolver.resolve(from, backend)
}

// === impl Reached ===

impl Reached {
    /// `label` is what to show for it.
    pub(crate) fn new(label: &str, resolved: Resolved) -> Self {
        Self {
            backend: Arc::new(wire::Backend {
                label: label.to_owned(),
                target: resolved.target(&Sample::default()),
            }),
            address: resolved.address.as_str().into(),
            resolved,
        }
    }

    /// As published for an Api with this sample, which a Mock without a body answers.
    pub(crate) fn backend(&self, sample: Option<&Sample>) -> Arc<wire::Backend> {
        let shared = &self.backend;
        if let Some(sample) = sample {
            let target = self.resolved.target(sample);
            if target != shared.target {
                let label = shared.label.clone();
                return Arc::new(wire::Backend { label, target });
            }
        }
        Arc::clone(shared)
    }
}

// === impl Usage ===

impl Usage {
    fn is_empty(&self) -> bool {
        self.drafts == 0 && self.stages.is_empty()
    }

    fn stage(&mut self, stage: &Stage) -> &mut StageUsage {
        self.stages.entry(stage.clone()).or_default()
    }

    /// Forgets stages that nothing goes through.
    fn tidy(&mut self) {
        self.stages
            .retain(|_, usage| usage.apis > 0 || !usage.failures.is_empty());
    }

    fn status(&self) -> BackendServiceStatus {
        let stage = |usage: &StageUsage| BackendStageStatus {
            apis: usage.apis,
            failures: usage.failures.values().cloned().collect(),
        };
        BackendServiceStatus {
            stages: self
                .stages
                .iter()
                .map(|(name, usage)| (name.clone(), stage(usage)))
                .collect(),
            drafts: self.drafts,
        }
    }
}

// === impl Contribution ===

impl Contribution {
    fn services(&self) -> impl Iterator<Item = &ObjectName> {
        let served = self.served.iter().map(|(service, _)| service);
        let failed = self.failed.iter().map(|(service, _, _)| service);
        let all = self.draft.iter().chain(served).chain(failed);
        all.map(|service| &**service)
    }
}

// === impl ServiceNode ===

impl ServiceNode {
    /// Whether `self` means for others what `other` does.
    fn means_the_same(&self, other: &Self) -> bool {
        match (&self.entry, &other.entry) {
            (Some(a), Some(b)) => a.stages == b.stages,
            (None, None) => true,
            _ => false,
        }
    }

    pub(crate) fn verdict(&self, usage: Option<&Usage>) -> Verdict {
        let mut status = usage.map(Usage::status).unwrap_or_default();
        for stage in self.entry.iter().flat_map(|entry| entry.stages.keys()) {
            status.stages.entry(stage.clone()).or_default();
        }
        Verdict::judge(
            self.problems.clone(),
            effect(self.entry.is_some()),
            &[],
            Status::BackendService(status),
        )
    }
}

// === impl Step ===

impl Step<'_> {
    /// Parses and resolves the backend services that are to be.
    pub(crate) fn resolve_services(&mut self) {
        for name in std::mem::take(&mut self.dirty.services) {
            let compiler = &mut *self.compiler;
            let world = &mut compiler.world;
            let remembered = &mut compiler.memory.backend_services;
            let object = self.objects.backend_services.get(&name);
            let mut node = object.map(|object| {
                let certificates = crate::certificates::Certificates {
                    objects: self.objects,
                    remembered: &compiler.memory.certificates,
                    settings: &compiler.settings,
                };
                let resolver = Resolver::new(certificates, &mut world.judgements);
                let in_use = world.in_use.get(&name);
                judge(
                    &name,
                    object,
                    remembered,
                    &compiler.settings,
                    in_use,
                    resolver,
                )
            });
            let entry = node.as_ref().and_then(|node| node.entry.as_ref());
            let is_new = replace(
                remembered,
                &name,
                entry.map(|entry| Arc::clone(&entry.accepted)),
            );
            let before = world.services.remove(&name);
            world.readers.replace(
                &Arc::new(ObjectId::new(Kind::BackendService, &name)),
                before.as_ref().map(|it| &it.deps),
                node.as_mut().map(|it| &mut it.deps),
            );
            let same = match (&before, &node) {
                (Some(before), Some(now)) => before.means_the_same(now),
                (before, now) => before.is_none() && now.is_none(),
            };
            if let Some(node) = node {
                world.services.insert(name.clone(), node);
            }
            if !same {
                self.dirty.fire(&Dep::Backend(name.clone()), &world.readers);
            }
            if is_new {
                self.remembers(Kind::BackendService, &name);
            }
            self.dirty.used.insert(name);
        }
    }

    /// An Api goes through other stages of backend services than was known.
    pub(crate) fn note_use(
        &mut self,
        api: &Arc<ObjectId>,
        before: &[(Arc<ObjectName>, Stage)],
        now: &[(Arc<ObjectName>, Stage)],
    ) {
        if before == now {
            return;
        }
        let world = &mut self.compiler.world;
        for (service, stage) in before {
            let Some(stages) = world.in_use.get_mut(&**service) else {
                continue;
            };
            if let Some(apis) = stages.get_mut(stage) {
                apis.remove(api);
                if apis.is_empty() {
                    stages.remove(stage);
                }
            }
            if stages.is_empty() {
                world.in_use.remove(&**service);
            }
        }
        for (service, stage) in now {
            let stages = world.in_use.entry((**service).clone()).or_default();
            let apis = stages.entry(stage.clone()).or_default();
            apis.insert(Arc::clone(api));
        }
        for (service, _) in before.iter().chain(now) {
            if world.services.get(&**service).is_some_and(|it| it.guarded) {
                self.dirty.services.insert((**service).clone());
            }
        }
    }

    /// Counts an Api otherwise than before.
    pub(crate) fn count(&mut self, api: &ObjectName, before: &Contribution, now: &Contribution) {
        if before == now {
            return;
        }
        let usage = &mut self.compiler.world.usage;
        if let Some(service) = &before.draft {
            usage.entry((**service).clone()).or_default().drafts -= 1;
        }
        for (service, stage) in &*before.served {
            let stage = usage.entry((**service).clone()).or_default().stage(stage);
            stage.apis -= 1;
        }
        for (service, stage, _) in &before.failed {
            let stage = usage.entry((**service).clone()).or_default().stage(stage);
            stage.failures.remove(api);
        }
        if let Some(service) = &now.draft {
            usage.entry((**service).clone()).or_default().drafts += 1;
        }
        for (service, stage) in &*now.served {
            let stage = usage.entry((**service).clone()).or_default().stage(stage);
            stage.apis += 1;
        }
        for (service, stage, failure) in &now.failed {
            let stage = usage.entry((**service).clone()).or_default().stage(stage);
            stage.failures.insert(api.clone(), failure.clone());
        }
        self.dirty.used.extend(before.services().cloned());
        self.dirty.used.extend(now.services().cloned());
    }

    /// A verdict on each backend service that was parsed, or whose Apis are others.
    pub(crate) fn tell_services(&mut self) {
        for name in std::mem::take(&mut self.dirty.used) {
            let world = &mut self.compiler.world;
            if let Some(usage) = world.usage.get_mut(&name) {
                usage.tidy();
                if usage.is_empty() {
                    world.usage.remove(&name);
                }
            }
            let usage = world.usage.get(&name);
            let node = world.services.get(&name);
            let verdict = node.map(|node| node.verdict(usage));
            self.tell(ObjectId::new(Kind::BackendService, &name), verdict);
        }
    }
}
