//! What every stage of every Api serves.
//!
//! A stage serves the release it is told to; if that cannot be published, what it served before goes on, if that still can.

use std::{collections::BTreeMap, sync::Arc};

use paifang_model::{ObjectName, PathTemplate, Stage};
use paifang_resources::Kind;
use paifang_snapshot::wire;

use crate::{
    ApiStatus, BackendFailure, BackendServiceStatus, Memory, Objects, Problem, Reason, Served,
    Settings, StageStatus, Status, Verdict,
    claims::{self, Blocked, Claim, Entry, Got, Outcome},
    groups::Groups,
    parse::{
        api::{Choice, Draft},
        variable,
    },
    releases::{ApiState, Drafts, service_of},
    services::Services,
    target::{Referrer, Resolved, Resolver},
};

/// A release that can be published in a stage.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) draft: Arc<Draft>,
    /// Position of its group.
    pub(crate) group: usize,
    /// Backend path with its stage variables filled in.
    path: Option<PathTemplate>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) backend: wire::Backend,
    address: String,
    /// Why the backend answers nothing but that.
    problem: Option<Problem>,
}

/// One stage of one Api.
pub(crate) struct StageOutcome {
    /// Position of the Api among the states.
    pub(crate) api: usize,
    pub(crate) stage: Stage,
    /// What it publishes.
    pub(crate) chosen: Option<Arc<Candidate>>,
    /// Why that is not what it was told.
    problem: Option<Problem>,
    /// The service and the group of the release it was told to serve.
    told: Option<Arc<Draft>>,
}

/// A stage before conflicts are settled.
struct Wish {
    api: usize,
    stage: Stage,
    wanted: Option<Arc<Candidate>>,
    held: Option<Arc<Candidate>>,
    holds: bool,
    problem: Option<Problem>,
    told: Option<Arc<Draft>>,
}

/// What candidates are made from.
pub(crate) struct Scene<'s, 'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) settings: &'a Settings,
    /// Those that releases are parsed with.
    pub(crate) release_settings: &'s Settings,
    pub(crate) groups: &'s Groups<'a>,
    pub(crate) services: &'s Services<'a>,
    pub(crate) resolver: &'s mut Resolver<'a>,
    pub(crate) drafts: &'s mut Drafts,
}

// === impl Candidate ===

impl Candidate {
    /// Two candidates with equal variants are published as one Api.
    pub(crate) fn variant(&self) -> (&ObjectName, u64, Option<&PathTemplate>) {
        let api = &self.draft.api;
        (&api.name, api.release, self.path.as_ref())
    }

    /// The Api as published.
    pub(crate) fn publish(&self) -> wire::Api {
        let mut api = self.draft.api.clone();
        if let Some(path) = &self.path {
            api.dispatch.path = Some(path.clone());
        }
        api
    }

    /// Whether calls reach the backend.
    pub(crate) fn is_usable(&self) -> bool {
        !matches!(self.backend.target, wire::Target::Unavailable { .. })
    }
}

// === impl Scene ===

impl Scene<'_, '_> {
    /// Decides every stage of every Api. `states` are in order of seniority.
    pub(crate) fn decide(&mut self, states: &[ApiState<'_>]) -> Vec<StageOutcome> {
        let mut wishes = Vec::new();
        for (api, state) in states.iter().enumerate() {
            for (stage, told) in &state.stages {
                wishes.push(self.wish(api, state, stage, *told));
            }
        }
        let entries: Vec<Entry<_>> = wishes
            .iter()
            .map(|wish| Entry {
                wanted: wish.wanted.as_ref().map(|it| claim(wish, it)),
                held: wish.held.as_ref().map(|it| claim(wish, it)),
                holds: wish.holds,
            })
            .collect();
        let outcomes = claims::settle(&entries, self.settings.limits.apis_per_group);
        let owners: Vec<&ObjectName> = wishes.iter().map(|wish| states[wish.api].name).collect();
        let blocked: Vec<Option<Problem>> = outcomes
            .iter()
            .zip(&wishes)
            .map(|(outcome, wish)| self.blocked(outcome, wish, &owners))
            .collect();
        wishes
            .into_iter()
            .zip(outcomes)
            .zip(blocked)
            .map(|((wish, outcome), blocked)| wish.settle(outcome, blocked))
            .collect()
    }

    fn wish(&mut self, api: usize, state: &ApiState<'_>, stage: &Stage, told: Option<u64>) -> Wish {
        let mut wish = Wish {
            api,
            stage: stage.clone(),
            wanted: None,
            held: None,
            holds: false,
            problem: None,
            told: None,
        };
        match state.asked(told) {
            None => {
                wish.problem = Some(Problem::new(
                    format!("spec.stages.{stage}"),
                    Reason::NoRelease,
                    "there is no release: no draft was valid yet",
                    "correct the draft",
                ));
            }
            Some(number) => {
                wish.told = self.draft(state, number).ok();
                match self.candidate(state, stage, number) {
                    Ok(candidate) => {
                        wish.problem.clone_from(&candidate.problem);
                        wish.wanted = Some(Arc::new(candidate));
                    }
                    Err(problem) => wish.problem = Some(problem),
                }
            }
        }
        if let Some(served) = state.served.get(stage) {
            let same = |it: &&Arc<Candidate>| it.draft.api.release == served.release;
            wish.held = match wish.wanted.as_ref().filter(same) {
                Some(wanted) => Some(Arc::clone(wanted)),
                None => self
                    .candidate(state, stage, served.release)
                    .ok()
                    .map(Arc::new),
            };
            wish.held = wish.held.filter(|it| it.is_usable());
            wish.holds = served.on && wish.held.is_some();
        }
        // What answers nothing but its reason gives way to what works.
        if wish.held.is_some() && !wish.wanted.as_ref().is_some_and(|it| it.is_usable()) {
            wish.wanted = None;
        }
        wish
    }

    fn draft(&mut self, state: &ApiState<'_>, number: u64) -> Result<Arc<Draft>, (Reason, String)> {
        let Some(release) = state.release(number) else {
            let newest = state.releases.last().map_or(0, |newest| newest.number);
            let message = format!("there is no release {number}; the newest is {newest}");
            return Err((Reason::ReleaseNotFound, message));
        };
        self.drafts
            .parse(state.name, release, self.release_settings)
            .ok_or_else(|| {
                let message = format!("release {number} cannot be read by this version");
                (Reason::ReleaseInvalid, message)
            })
    }

    /// The release `number` in `stage`, or why it cannot be published there.
    fn candidate(
        &mut self,
        state: &ApiState<'_>,
        stage: &Stage,
        number: u64,
    ) -> Result<Candidate, Problem> {
        let draft = self.draft(state, number).map_err(|(reason, message)| {
            let field = format!("spec.stages.{stage}.release");
            Problem::new(
                field,
                reason,
                message,
                "name one that is in status or history",
            )
        })?;
        let group = self.group(state, &draft)?;
        let (resolved, label) = self.resolve(state, stage, &draft)?;
        let (path, variables) = self.fill_in(stage, group, &draft)?;
        // With a last good certificate the backend works, and its own verdict says what is wrong.
        let closed = resolved.problems.first().filter(|_| !resolved.is_usable());
        let problem = closed.map(|problem| match &draft.backend {
            Choice::Inline(_) => problem.clone(),
            Choice::Service(service) => Problem::new(
                "spec.backend.serviceRef",
                match problem.reason {
                    Reason::BackendNotServed => Reason::BackendNotServed,
                    _ => Reason::BackendUnavailable,
                },
                format!(
                    "BackendService {service} in stage {stage}: {}",
                    problem.message
                ),
                problem.fix.as_str(),
            ),
        });
        Ok(Candidate {
            backend: wire::Backend {
                label,
                target: resolved.target(&draft.sample),
            },
            address: resolved.address,
            draft,
            group,
            path,
            variables,
            problem,
        })
    }

    /// Position of the group that the draft belongs to.
    fn group(&self, state: &ApiState<'_>, draft: &Draft) -> Result<usize, Problem> {
        let at = self.groups.position(&draft.group).ok_or_else(|| {
            Problem::new(
                "spec.groupRef",
                Reason::GroupNotFound,
                format!("there is no ApiGroup {} in force", draft.group),
                "create it, or correct the name",
            )
        })?;
        let namespace = &state.name.namespace;
        if self.groups.allows(self.objects, at, namespace) {
            return Ok(at);
        }
        Err(Problem::new(
            "spec.groupRef",
            Reason::NamespaceNotAllowed,
            format!(
                "ApiGroup {} takes no Apis of namespace {namespace}",
                draft.group
            ),
            "let spec.allowedNamespaces of the group take it",
        ))
    }

    fn resolve(
        &mut self,
        state: &ApiState<'_>,
        stage: &Stage,
        draft: &Draft,
    ) -> Result<(Resolved, String), Problem> {
        let service = match &draft.backend {
            Choice::Inline(backend) => {
                let from = Referrer {
                    kind: Kind::Api,
                    namespace: &state.name.namespace,
                    field: "spec.backend",
                };
                let resolved = self.resolver.resolve(from, backend);
                return Ok((resolved, "inline".to_owned()));
            }
            Choice::Service(service) => service,
        };
        let entry = self
            .services
            .entries
            .get(service)
            .ok_or_else(|| missing_service(service))?;
        let resolved = entry.stages.get(stage).ok_or_else(|| {
            Problem::new(
                "spec.backend.serviceRef",
                Reason::BackendStageMissing,
                format!("BackendService {service} has no configuration for stage {stage}"),
                format!("add spec.stages.{stage} there"),
            )
        })?;
        Ok((resolved.clone(), service.name.to_string()))
    }

    /// The backend path and the variables for the gateway to fill in.
    #[allow(clippy::type_complexity)]
    fn fill_in(
        &self,
        stage: &Stage,
        group: usize,
        draft: &Draft,
    ) -> Result<(Option<PathTemplate>, BTreeMap<String, String>), Problem> {
        let values = self.groups.entries[group].model.variables.get(stage);
        let add = || {
            format!(
                "add it to spec.stageVariables.{stage} of ApiGroup {}",
                draft.group
            )
        };
        let variables = variable::values(&draft.variables, values).map_err(|name| {
            Problem::new(
                "spec.backend",
                Reason::StageVariableMissing,
                format!("the stage variable #{name}# has no value in stage {stage}"),
                add(),
            )
        })?;
        for constant in &draft.api.dispatch.constants {
            let get = |name: &str| variables.get(name).map(String::as_str);
            let filled = variable::substitute(&constant.value, get).unwrap_or_default();
            if constant.location == paifang_model::Location::Header
                && filled.trim_matches([' ', '\t']) != filled
            {
                return Err(Problem::new(
                    "spec.backend.constants",
                    Reason::StageVariableMissing,
                    format!(
                        "`{}` begins or ends with a space in stage {stage}, which no header may",
                        constant.name
                    ),
                    "change the stage variable's value",
                ));
            }
        }
        let path = draft
            .path
            .as_deref()
            .map(|path| fill_path(path, &variables))
            .transpose()
            .map_err(|why| {
                Problem::new(
                    "spec.backend.path",
                    Reason::StageVariableMissing,
                    format!("is no path with the variables of stage {stage}: {why}"),
                    "change the stage variable's value",
                )
            })?;
        Ok((path, variables))
    }

    /// Why an entry did not get what it wanted.
    fn blocked(&self, outcome: &Outcome, wish: &Wish, owners: &[&ObjectName]) -> Option<Problem> {
        let wanted = wish.wanted.as_ref()?;
        let group = self.groups.entries[wanted.group].name;
        Some(match outcome.blocked? {
            Blocked::Taken(owner) => Problem::new(
                "spec.request.path",
                Reason::Conflicted,
                format!(
                    "{} {} of ApiGroup {group} is served by Api {} in stage {} already",
                    wanted.draft.api.method, wanted.draft.api.path, owners[owner], wish.stage
                ),
                "use another path or method",
            ),
            Blocked::Full => Problem::new(
                "spec.groupRef",
                Reason::GroupFull,
                format!(
                    "ApiGroup {group} has {} Apis already",
                    self.settings.limits.apis_per_group
                ),
                "use another group, or ask the platform team to raise the limit",
            ),
        })
    }

    /// What is wrong with the references of the newest release, when no stage has said so.
    pub(crate) fn draft_references(&mut self, state: &ApiState<'_>) -> Vec<Problem> {
        let Some(newest) = state.releases.last() else {
            return Vec::new();
        };
        let Ok(draft) = self.draft(state, newest.number) else {
            return Vec::new();
        };
        let service = service_of(&draft).filter(|it| !self.services.entries.contains_key(it));
        self.group(state, &draft)
            .err()
            .into_iter()
            .chain(service.map(missing_service))
            .collect()
    }
}

fn missing_service(service: &ObjectName) -> Problem {
    Problem::new(
        "spec.backend.serviceRef",
        Reason::BackendNotFound,
        format!("there is no BackendService {service} in force"),
        "create it, or correct the name",
    )
}

/// A path whose variables are filled in may have other literals, but no other parameters.
fn fill_path(text: &str, variables: &BTreeMap<String, String>) -> Result<PathTemplate, String> {
    let tried = variable::substitute(text, |_| Some("x")).unwrap_or_default();
    let tried: PathTemplate = tried.parse().map_err(|_| "malformed".to_owned())?;
    let get = |name: &str| variables.get(name).map(String::as_str);
    let filled = variable::substitute(text, get)?;
    let path: PathTemplate = filled.parse().map_err(|why| format!("{why}"))?;
    if path.parameters().eq(tried.parameters()) && path.has_tail() == tried.has_tail() {
        Ok(path)
    } else {
        Err("a value may not bring a parameter or `*`".to_owned())
    }
}

fn claim(wish: &Wish, candidate: &Candidate) -> Claim<(usize, Stage, String)> {
    Claim {
        key: (
            candidate.group,
            wish.stage.clone(),
            candidate.draft.shape.clone(),
        ),
        group: candidate.group,
        member: wish.api,
    }
}

// === impl Wish ===

impl Wish {
    fn settle(self, outcome: Outcome, blocked: Option<Problem>) -> StageOutcome {
        StageOutcome {
            api: self.api,
            stage: self.stage,
            chosen: match outcome.got {
                Some(Got::Wanted) => self.wanted,
                Some(Got::Held) => self.held,
                None => None,
            },
            problem: blocked.or(self.problem),
            told: self.told,
        }
    }
}

// === impl StageOutcome ===

impl StageOutcome {
    /// The release that calls reach.
    fn serving(&self) -> Option<&Candidate> {
        self.chosen.as_deref().filter(|it| it.is_usable())
    }

    fn status(&self, groups: &Groups<'_>) -> StageStatus {
        let mut problem = self.problem.clone();
        let Some(candidate) = self.serving() else {
            return StageStatus {
                problem,
                ..StageStatus::default()
            };
        };
        let api = &candidate.draft.api;
        if let Some(problem) = &mut problem {
            problem.message = format!(
                "{}; release {} goes on in stage {}",
                problem.message, api.release, self.stage
            );
        }
        StageStatus {
            release: Some(api.release),
            hash: Some(api.hash.clone()),
            group: Some(groups.entries[candidate.group].name.clone()),
            service: service_of(&candidate.draft).cloned(),
            address: Some(candidate.address.clone()),
            problem,
        }
    }
}

/// What to remember of each Api, and a verdict on it. `outcomes` are those of this Api; `references` is what is wrong with its draft's
/// references.
pub(crate) fn conclude(
    state: &ApiState<'_>,
    outcomes: &[StageOutcome],
    references: Vec<Problem>,
    groups: &Groups<'_>,
    memory: &mut Memory,
) -> Verdict {
    let mut serving = state.served.clone();
    for served in serving.values_mut() {
        served.on = false;
    }
    let mut problems = state.problems.clone();
    let mut status = ApiStatus {
        latest_release: state.releases.last().map(|newest| newest.number),
        stages: BTreeMap::new(),
    };
    for outcome in outcomes {
        let stage = outcome.status(groups);
        if let Some(release) = stage.release {
            serving.insert(outcome.stage.clone(), Served { release, on: true });
        }
        let said = stage.problem.iter().filter(|it| {
            // A draft that never was valid says itself why there is no release.
            it.reason != Reason::NoRelease && !problems.contains(it)
        });
        let said: Vec<Problem> = said.cloned().collect();
        problems.extend(said);
        status.stages.insert(outcome.stage.clone(), stage);
    }
    for problem in references {
        let same = |it: &Problem| (it.reason, &it.field) == (problem.reason, &problem.field);
        if !problems.iter().any(same) {
            problems.push(problem);
        }
    }
    memory
        .apis
        .insert(state.name.clone(), state.memory(serving));
    Verdict::judge(problems, &state.effect(), &[], Status::Api(status))
}

/// Who goes through each BackendService, and who should and does not.
pub(crate) fn service_usage(
    states: &[ApiState<'_>],
    outcomes: &[StageOutcome],
    groups: &Groups<'_>,
) -> BTreeMap<ObjectName, BackendServiceStatus> {
    let mut used: BTreeMap<ObjectName, BackendServiceStatus> = BTreeMap::new();
    for service in states.iter().filter_map(ApiState::drafted_service) {
        used.entry(service).or_default().drafts += 1;
    }
    for outcome in outcomes {
        let serving = outcome.serving();
        if let Some(service) = serving.and_then(|it| service_of(&it.draft)) {
            let stages = &mut used.entry(service.clone()).or_default().stages;
            stages.entry(outcome.stage.clone()).or_default().apis += 1;
        }
        let told = outcome.told.as_deref();
        let service = told.and_then(service_of);
        if let (Some(problem), Some(service), Some(told)) =
            (outcome.status(groups).problem, service, told)
        {
            let stages = &mut used.entry(service.clone()).or_default().stages;
            let stage = stages.entry(outcome.stage.clone()).or_default();
            stage.failures.push(BackendFailure {
                api: states[outcome.api].name.clone(),
                group: told.group.clone(),
                problem,
            });
        }
    }
    used
}
