//! BackendServices: how far a change of an address is, as the cloud product's console shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use paifang_compiler::{BackendServiceStatus, ObjectId, Status};
use paifang_model::{ObjectName, Stage};
use paifang_resources as resources;
use paifang_snapshot::published::Hash;
use serde_json::Value;

use super::{Reach, View, cut, whole_seconds};

/// Rows that are shown of what failed.
const ROWS: usize = 100;

/// Which Apis go through which stage of which service, and when a stage's configuration was changed.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    through: BTreeMap<ObjectName, BTreeMap<Stage, BTreeSet<Arc<ObjectName>>>>,
    by_api: BTreeMap<Arc<ObjectName>, Vec<(Arc<ObjectName>, Stage)>>,
    configs: BTreeMap<ObjectName, BTreeMap<String, Config>>,
}

/// The configuration of a stage that is in force: which, and since which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Config {
    /// None when it was taken away.
    hash: Option<Hash>,
    generation: i64,
    /// Whether this process saw it change; what it found at its start may be older.
    seen: bool,
}

// === impl Updates ===

impl Updates {
    /// What an Api goes through now. Answers the services that this concerns.
    pub(crate) fn api(
        &mut self,
        api: &ObjectName,
        status: Option<&Status>,
    ) -> BTreeSet<ObjectName> {
        let mut now = Vec::new();
        if let Some(Status::Api(facts)) = status {
            for (stage, facts) in &facts.stages {
                let service = facts.service.as_ref().filter(|_| facts.release.is_some());
                now.extend(service.map(|service| (Arc::clone(service), stage.clone())));
            }
        }
        now.shrink_to_fit();
        let (api, before) = match self.by_api.remove_entry(api) {
            Some(known) => known,
            None => (Arc::new(api.clone()), Vec::new()),
        };
        for (service, stage) in before.iter().filter(|it| !now.contains(it)) {
            let stages = self.through.get_mut(&**service);
            if let Some(apis) = stages.and_then(|it| it.get_mut(stage)) {
                apis.remove(&api);
            }
        }
        for (service, stage) in now.iter().filter(|it| !before.contains(it)) {
            let stages = self.through.entry((**service).clone()).or_default();
            let apis = stages.entry(stage.clone()).or_default();
            apis.insert(Arc::clone(&api));
        }
        let both = before.iter().chain(&now);
        let concerned = both.map(|(service, _)| (**service).clone()).collect();
        if !now.is_empty() {
            self.by_api.insert(api, now);
        }
        concerned
    }

    /// The services that an Api goes through.
    pub(crate) fn services(&self, api: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.by_api
            .get(api)
            .into_iter()
            .flatten()
            .map(|(service, _)| &**service)
    }

    /// A service as it is in force now; none when it is not, or gone. At the start, `first` holds.
    pub(crate) fn service(
        &mut self,
        name: &ObjectName,
        spec: Option<(&resources::BackendServiceSpec, i64)>,
        first: bool,
    ) {
        let Some((spec, generation)) = spec else {
            self.configs.remove(name);
            self.through.remove(name);
            return;
        };
        let known = self.configs.entry(name.clone()).or_default();
        let hash = |config| Hash::of(&serde_json::to_vec(config).unwrap_or_default());
        let written = spec.stages.iter();
        let mut now: BTreeMap<String, Option<Hash>> = written
            .map(|(stage, config)| (stage.clone(), Some(hash(config))))
            .collect();
        for stage in known.keys().filter(|it| !spec.stages.contains_key(*it)) {
            now.insert(stage.clone(), None);
        }
        for (stage, hash) in now {
            if known.get(&stage).is_some_and(|it| it.hash == hash) {
                continue;
            }
            let config = Config {
                hash,
                generation,
                seen: !first,
            };
            known.insert(stage, config);
        }
    }
}

/// The stages in a service's status.
pub(super) fn stages(
    view: &View<'_>,
    name: &ObjectName,
    facts: &BackendServiceStatus,
    before: &Value,
) -> BTreeMap<String, resources::BackendStageStatus> {
    facts
        .stages
        .iter()
        .map(|(stage, facts)| {
            let old = before.pointer(&format!("/stages/{stage}/update"));
            let old = old.and_then(|it| serde_json::from_value(it.clone()).ok());
            let config = view
                .updates
                .configs
                .get(name)
                .and_then(|it| it.get(stage.as_str()));
            let stage_status = resources::BackendStageStatus {
                apis: facts.apis,
                update: update(view, name, stage, facts, config, old),
            };
            (stage.to_string(), stage_status)
        })
        .collect()
}

/// The last change of a stage; none while the stage is as it was created.
fn update(
    view: &View<'_>,
    name: &ObjectName,
    stage: &Stage,
    facts: &paifang_compiler::BackendStageStatus,
    config: Option<&Config>,
    old: Option<resources::BackendUpdate>,
) -> Option<resources::BackendUpdate> {
    let current = view.world.facts.get(&ObjectId {
        kind: paifang_compiler::Kind::BackendService,
        name: name.clone(),
    })?;
    // A stage that was not there when this process began was removed by the present generation, unless the status knows better.
    let generation = match (config, &old) {
        (Some(config), _) if config.seen => config.generation,
        (_, Some(old)) => old.generation,
        (Some(_), None) => return None,
        (None, None) => current.generation,
    };
    // Created, not changed.
    if generation <= 1 && old.is_none() {
        return None;
    }
    let old = old.filter(|old| old.generation == generation);
    // What is over is over: what becomes of an Api later is no part of this change.
    let ended = old.as_ref().and_then(|old| old.finished_at.clone());
    let failed = u32::try_from(facts.failures.len()).unwrap_or(u32::MAX);
    let mut update = resources::BackendUpdate {
        generation,
        failed,
        failures: facts.failures.iter().take(ROWS).map(row).collect(),
        started_at: old.as_ref().and_then(|old| old.started_at.clone()),
        ..resources::BackendUpdate::default()
    };
    for api in view
        .updates
        .through
        .get(name)
        .and_then(|it| it.get(stage))
        .into_iter()
        .flatten()
    {
        // One that goes on with an older release and cannot get the one it is told counts once, as failed.
        if facts
            .failures
            .binary_search_by(|it| it.api.cmp(api))
            .is_ok()
        {
            continue;
        }
        if ended.is_some() {
            update.succeeded += 1;
            continue;
        }
        match view.api_reach(api, stage) {
            Some(reach) if reach.is_complete() => update.succeeded += 1,
            Some(reach) if reach.published => update.in_progress += 1,
            _ => update.waiting += 1,
        }
    }
    update.total = update.succeeded + update.in_progress + update.waiting + update.failed;
    update
        .started_at
        .get_or_insert(Time(whole_seconds(view.now)));
    if update.in_progress + update.waiting == 0 {
        update.finished_at = ended.or(Some(Time(whole_seconds(view.now))));
    }
    Some(update)
}

fn row(failure: &paifang_compiler::BackendFailure) -> resources::BackendUpdateFailure {
    resources::BackendUpdateFailure {
        namespace: failure.api.namespace.to_string(),
        group: failure.group.name.to_string(),
        api: failure.api.name.to_string(),
        reason: failure.problem.reason.to_string(),
        message: cut(&failure.problem.to_string(), 1024),
    }
}

/// How far the service is on the gateways: as far as the Api that is furthest behind.
pub(super) fn reach(view: &View<'_>, name: &ObjectName, _: &BackendServiceStatus) -> Reach {
    let stages = view.updates.through.get(name).into_iter().flatten();
    stages
        .flat_map(|(stage, apis)| apis.iter().map(move |api| (stage, api)))
        .filter_map(|(stage, api)| view.api_reach(api, stage))
        .reduce(Reach::worse)
        .unwrap_or_else(|| Reach::nothing("no Api goes through it"))
}

// === impl View ===

impl View<'_> {
    fn api_reach(&self, api: &ObjectName, stage: &Stage) -> Option<Reach> {
        let id = ObjectId {
            kind: paifang_compiler::Kind::Api,
            name: api.clone(),
        };
        let Status::Api(facts) = &self.compiler.verdict(&id)?.status else {
            return None;
        };
        Some(self.stage_reach(api, stage, facts.stages.get(stage)?))
    }
}
