//! What every stage of every Api serves.
//!
//! A stage serves the release it is told to; if that cannot be published, what it served before goes on, if that still can.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, PathTemplate, Stage};
use paifang_resources::Kind;
use paifang_snapshot::wire;

use crate::{
    ApiMemory, ApiStatus, BackendFailure, ByStage, ObjectId, Problem, Reason, Served, Settings,
    StageStatus, Status, Verdict,
    admit::counted,
    backend::{self, Referrer, Resolver},
    certificates::{Certificates, Judgements},
    claims::{self, Blocked, Claim, Entry, Got, Outcome},
    compile::{Step, View, World},
    graph::{Dep, Deps},
    groups::{GroupEntry, Routed},
    inputs::Age,
    memory::replace,
    parse::variable,
    releases::{self, ApiState, Draft, Drafts, Through, Where},
    services::{Contribution, Reached, ServiceEntry},
};

/// A release that can be published in a stage.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) draft: Arc<Draft>,
    /// Of the release's content.
    hash: Arc<str>,
    group: Arc<ObjectName>,
    /// The BackendService; none when the backend is inline.
    service: Option<Arc<ObjectName>>,
    /// Backend path with its stage variables filled in.
    path: Option<Box<PathTemplate>>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) backend: Arc<wire::Backend>,
    pub(crate) address: Arc<str>,
    /// Why the backend answers nothing but that.
    problem: Option<Box<Problem>>,
}

/// What one stage of an Api gets.
#[derive(Debug)]
pub(crate) struct StageOutcome {
    pub(crate) stage: Stage,
    /// What it publishes.
    pub(crate) chosen: Option<Arc<Candidate>>,
    /// Why that is not what it was told.
    problem: Option<Box<Problem>>,
    /// The release it was told to serve: its service and its group.
    told: Option<Arc<Draft>>,
}

/// What one stage of an Api asks for, before conflicts are settled.
#[derive(Debug)]
pub(crate) struct Wish {
    stage: Stage,
    wanted: Option<Arc<Candidate>>,
    held: Option<Arc<Candidate>>,
    holds: bool,
    problem: Option<Box<Problem>>,
    told: Option<Arc<Draft>>,
}

/// What an Api asks for.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// In order of the stages.
    pub(crate) stages: Vec<Wish>,
    /// What is wrong with the references of the newest release.
    pub(crate) references: Vec<Problem>,
    /// What was looked at.
    deps: Deps,
}

/// What is known of an Api.
#[derive(Debug)]
pub(crate) struct ApiNode {
    id: Arc<ObjectId>,
    pub(crate) state: ApiState,
    pub(crate) drafts: Drafts,
    pub(crate) wishes: Wishes,
    pub(crate) outcomes: Vec<StageOutcome>,
    /// The age that its outcomes were settled with.
    settled_age: Age,
    /// What it goes through, as far as is remembered.
    in_use: Through,
    counted: Contribution,
}

/// What candidates are made from.
struct Scene<'s, 'a, 't> {
    view: View<'a>,
    resolver: Resolver<'a, 't>,
    name: &'s ObjectName,
    state: &'s ApiState,
    drafts: &'s mut Drafts,
}

/// An Api among others that want the same.
pub(crate) struct Contender<'n> {
    pub(crate) name: &'n ObjectName,
    pub(crate) age: Age,
    pub(crate) wishes: &'n [Wish],
}

// === impl Candidate ===

impl Candidate {
    /// The group it is for.
    pub(crate) fn group(&self) -> &ObjectName {
        &self.draft.group
    }

    /// Two candidates with equal variants are published as one Api.
    pub(crate) fn variant(&self) -> (&ObjectName, u64, Option<&PathTemplate>) {
        let api = &self.draft.api;
        (&api.name, api.release, self.path.as_deref())
    }

    /// The Api as published.
    pub(crate) fn publish(&self) -> Arc<wire::Api> {
        let mut api = Arc::clone(&self.draft.api);
        if let Some(path) = &self.path {
            Arc::make_mut(&mut api).dispatch.path = Some((**path).clone());
        }
        api
    }

    /// Whether calls reach the backend.
    pub(crate) fn is_usable(&self) -> bool {
        !matches!(self.backend.target, wire::Target::Unavailable { .. })
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.draft, &other.draft)
            && self.path == other.path
            && self.variables == other.variables
            && self.backend == other.backend
            && self.address == other.address
            && self.problem == other.problem
    }
}

/// Whether two are the same, or come to the same.
fn alike<T: PartialEq>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}

fn same_draft(a: Option<&Arc<Draft>>, b: Option<&Arc<Draft>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

// === impl ApiNode ===

impl ApiNode {
    /// Other settings may read releases otherwise.
    pub(crate) fn forget_drafts(&mut self) {
        self.drafts = Drafts::default();
    }
}

// === impl Wish ===

impl Wish {
    /// The groups in which it asks for something.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &ObjectName> {
        let both = self.wanted.iter().chain(&self.held);
        both.map(|candidate| candidate.group())
    }

    fn claim<'w>(
        &'w self,
        candidate: Option<&'w Arc<Candidate>>,
        member: usize,
        groups: &BTreeMap<&ObjectName, usize>,
    ) -> Option<Claim<(usize, &'w Stage, &'w str)>> {
        let candidate = candidate?;
        let group = groups[candidate.group()];
        let key = (group, &self.stage, &*candidate.draft.shape);
        Some(Claim { key, group, member })
    }

    fn settle(&self, outcome: Outcome, blocked: Option<Problem>) -> StageOutcome {
        StageOutcome {
            stage: self.stage.clone(),
            chosen: match outcome.got {
                Some(Got::Wanted) => self.wanted.clone(),
                Some(Got::Held) => self.held.clone(),
                None => None,
            },
            problem: blocked.map(Box::new).or_else(|| self.problem.clone()),
            told: self.told.clone(),
        }
    }
}

impl PartialEq for Wish {
    fn eq(&self, other: &Self) -> bool {
        self.stage == other.stage
            && alike(self.wanted.as_ref(), other.wanted.as_ref())
            && alike(self.held.as_ref(), other.held.as_ref())
            && self.holds == other.holds
            && self.problem == other.problem
            && same_draft(self.told.as_ref(), other.told.as_ref())
    }
}

// === impl StageOutcome ===

impl StageOutcome {
    /// As a route of its group.
    pub(crate) fn routed(&self) -> Option<Routed<'_>> {
        Some(Routed {
            stage: &self.stage,
            candidate: self.chosen.as_deref()?,
        })
    }

    /// The group that publishes it.
    pub(crate) fn group(&self) -> Option<&ObjectName> {
        self.chosen.as_ref().map(|it| it.group())
    }

    /// The release that calls reach.
    pub(crate) fn serving(&self) -> Option<&Candidate> {
        self.chosen.as_deref().filter(|it| it.is_usable())
    }

    fn status(&self) -> StageStatus {
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
            hash: Some(Arc::clone(&candidate.hash)),
            group: Some(Arc::clone(&candidate.group)),
            service: candidate.service.clone(),
            address: Some(Arc::clone(&candidate.address)),
            problem,
        }
    }
}

impl PartialEq for StageOutcome {
    fn eq(&self, other: &Self) -> bool {
        self.stage == other.stage
            && alike(self.chosen.as_ref(), other.chosen.as_ref())
            && self.problem == other.problem
            && same_draft(self.told.as_ref(), other.told.as_ref())
    }
}

// === impl Scene ===

/// Works out what every stage of an Api asks for.
pub(crate) fn wishes(
    name: &ObjectName,
    state: &ApiState,
    drafts: &mut Drafts,
    view: View<'_>,
    certificates: Certificates<'_>,
    judgements: &mut Judgements,
) -> Wishes {
    let mut scene = Scene {
        view,
        resolver: Resolver::new(certificates, judgements),
        name,
        state,
        drafts,
    };
    let stages = state.stages.iter();
    let stages = stages
        .map(|(stage, told)| scene.wish(stage, *told))
        .collect();
    let references = scene.draft_references();
    let deps = scene.resolver.trace.deps;
    drafts.turn();
    Wishes {
        stages,
        references,
        deps,
    }
}

impl<'a> Scene<'_, 'a, '_> {
    fn wish(&mut self, stage: &Stage, told: Option<u64>) -> Wish {
        let mut wish = Wish {
            stage: stage.clone(),
            wanted: None,
            held: None,
            holds: false,
            problem: None,
            told: None,
        };
        match self.state.asked(told) {
            None => {
                wish.problem = Some(Box::new(Problem::new(
                    format!("spec.stages.{stage}"),
                    Reason::NoRelease,
                    "there is no release: no draft was valid yet",
                    "correct the draft",
                )));
            }
            Some(number) => {
                wish.told = self.draft(number).ok();
                match self.candidate(stage, number) {
                    Ok(candidate) => {
                        wish.problem.clone_from(&candidate.problem);
                        wish.wanted = Some(Arc::new(candidate));
                    }
                    Err(problem) => wish.problem = Some(Box::new(problem)),
                }
            }
        }
        if let Some(served) = self.state.served.get(stage) {
            let same = |it: &&Arc<Candidate>| it.draft.api.release == served.release;
            wish.held = match wish.wanted.as_ref().filter(same) {
                Some(wanted) => Some(Arc::clone(wanted)),
                None => self.candidate(stage, served.release).ok().map(Arc::new),
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

    fn draft(&mut self, number: u64) -> Result<Arc<Draft>, (Reason, String)> {
        let state = self.state;
        let Some(release) = state.release(number) else {
            let newest = state.releases.last().map_or(0, |newest| newest.number);
            let message = format!("there is no release {number}; the newest is {newest}");
            return Err((Reason::ReleaseNotFound, message));
        };
        self.drafts
            .parse(self.name, release, self.view.release_settings)
            .ok_or_else(|| {
                let message = format!("release {number} cannot be read by this version");
                (Reason::ReleaseInvalid, message)
            })
    }

    /// The release `number` in `stage`, or why it cannot be published there.
    fn candidate(&mut self, stage: &Stage, number: u64) -> Result<Candidate, Problem> {
        let draft = self.draft(number).map_err(|(reason, message)| {
            let field = format!("spec.stages.{stage}.release");
            Problem::new(
                field,
                reason,
                message,
                "name one that is in status or history",
            )
        })?;
        let group = self.group(&draft)?;
        let (service, reached) = self.resolve(stage, &draft)?;
        let backend = reached.backend(draft.sample.as_deref());
        backend::fit(&draft.api.dispatch.call, &backend.target)?;
        let (path, variables) = Self::fill_in(stage, &group, &draft)?;
        let resolved = &reached.resolved;
        // With a last good certificate the backend works, and its own verdict says what is wrong.
        let closed = resolved.problems.first().filter(|_| !resolved.is_usable());
        let problem = closed.map(|problem| match draft.service() {
            None => problem.clone(),
            Some(service) => Problem::new(
                "spec.backend.serviceRef",
                Reason::BackendUnavailable,
                format!(
                    "BackendService {service} in stage {stage}: {}",
                    problem.message
                ),
                problem.fix.as_str(),
            ),
        });
        let release = self.state.release(number);
        Ok(Candidate {
            hash: release.map_or_else(Arc::default, |it| Arc::clone(&it.hash)),
            group: Arc::clone(&group.name),
            service,
            backend,
            address: Arc::clone(&reached.address),
            draft,
            path: path.map(Box::new),
            variables,
            problem: problem.map(Box::new),
        })
    }

    /// The group that the draft belongs to.
    fn group(&mut self, draft: &Draft) -> Result<Arc<GroupEntry>, Problem> {
        self.resolver.trace.reads(Dep::Group(draft.group.clone()));
        let entry = self.view.group(&draft.group).ok_or_else(|| {
            Problem::new(
                "spec.groupRef",
                Reason::GroupNotFound,
                format!("there is no ApiGroup {} in force", draft.group),
                "create it, or correct the name",
            )
        })?;
        let namespace = &self.name.namespace;
        if draft.group.namespace != *namespace {
            let labels = Dep::Labels(namespace.clone());
            self.resolver.trace.reads(labels);
        }
        let labels = self
            .resolver
            .certificates
            .objects
            .namespaces
            .get(&**namespace);
        if entry.model.allows(&draft.group, namespace, labels) {
            return Ok(Arc::clone(entry));
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

    /// The BackendService, if there is one, and what it or the inline backend comes to.
    #[allow(clippy::type_complexity)]
    fn resolve(
        &mut self,
        stage: &Stage,
        draft: &Draft,
    ) -> Result<(Option<Arc<ObjectName>>, Cow<'a, Reached>), Problem> {
        let service = match &draft.backend {
            Where::Inline(backend) => {
                let from = Referrer {
                    kind: Kind::Api,
                    namespace: &self.name.namespace,
                    field: "spec.backend",
                };
                let resolved = self.resolver.resolve(from, backend);
                return Ok((None, Cow::Owned(Reached::new("inline", resolved))));
            }
            Where::Service(service) => service,
        };
        let entry = self
            .service(service)
            .ok_or_else(|| missing_service(service))?;
        let reached = entry.stages.get(stage).ok_or_else(|| {
            Problem::new(
                "spec.backend.serviceRef",
                Reason::BackendStageMissing,
                format!("BackendService {service} has no configuration for stage {stage}"),
                format!("add spec.stages.{stage} there"),
            )
        })?;
        Ok((Some(Arc::clone(&entry.name)), Cow::Borrowed(reached)))
    }

    /// The backend path and the variables for the gateway to fill in.
    #[allow(clippy::type_complexity)]
    fn fill_in(
        stage: &Stage,
        group: &GroupEntry,
        draft: &Draft,
    ) -> Result<(Option<PathTemplate>, BTreeMap<String, String>), Problem> {
        let values = group.model.variables.get(stage);
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

    fn service(&mut self, name: &ObjectName) -> Option<&'a ServiceEntry> {
        self.resolver.trace.reads(Dep::Backend(name.clone()));
        self.view.service(name)
    }

    /// What is wrong with the references of the newest release, whether a stage serves it or not.
    fn draft_references(&mut self) -> Vec<Problem> {
        let Some(newest) = self.state.releases.last() else {
            return Vec::new();
        };
        let Ok(draft) = self.draft(newest.number) else {
            return Vec::new();
        };
        let missing = |service: &ObjectName| {
            let there = self.service(service).is_some();
            (!there).then(|| missing_service(service))
        };
        let service = draft.service().and_then(missing);
        self.group(&draft)
            .err()
            .into_iter()
            .chain(service)
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

// === impl Contender ===

/// Settles who publishes what. `contenders` are in order of seniority, and no other Api asks for anything in their groups. Answers
/// stage by stage, in their order.
pub(crate) fn settle(contenders: &[Contender<'_>], settings: &Settings) -> Vec<Vec<StageOutcome>> {
    let wishes: Vec<(usize, &Wish)> = contenders
        .iter()
        .enumerate()
        .flat_map(|(at, contender)| contender.wishes.iter().map(move |wish| (at, wish)))
        .collect();
    let mut groups: BTreeMap<&ObjectName, usize> = BTreeMap::new();
    for group in wishes.iter().flat_map(|(_, wish)| wish.groups()) {
        let next = groups.len();
        groups.entry(group).or_insert(next);
    }
    let entries: Vec<Entry<(usize, &Stage, &str)>> = wishes
        .iter()
        .map(|(at, wish)| Entry {
            wanted: wish.claim(wish.wanted.as_ref(), *at, &groups),
            held: wish.claim(wish.held.as_ref(), *at, &groups),
            holds: wish.holds,
        })
        .collect();
    let outcomes = claims::settle(&entries, settings.limits.apis_per_group);
    let mut settled: Vec<Vec<StageOutcome>> = contenders
        .iter()
        .map(|it| Vec::with_capacity(it.wishes.len()))
        .collect();
    for ((at, wish), outcome) in wishes.iter().zip(outcomes) {
        let owner = |entry: usize| contenders[wishes[entry].0].name;
        let blocked = blocked(outcome, wish, owner, settings);
        settled[*at].push(wish.settle(outcome, blocked));
    }
    settled
}

/// Why a wish was not granted.
fn blocked<'n>(
    outcome: Outcome,
    wish: &Wish,
    owner: impl Fn(usize) -> &'n ObjectName,
    settings: &Settings,
) -> Option<Problem> {
    let wanted = wish.wanted.as_ref()?;
    let group = wanted.group();
    Some(match outcome.blocked? {
        Blocked::Taken(entry) => Problem::new(
            "spec.request.path",
            Reason::Conflicted,
            format!(
                "{} {} of ApiGroup {group} is served by Api {} in stage {} already",
                wanted.draft.api.method,
                wanted.draft.api.path,
                owner(entry),
                wish.stage
            ),
            "use another path or method",
        ),
        Blocked::Full => Problem::new(
            "spec.groupRef",
            Reason::GroupFull,
            format!(
                "ApiGroup {group} has {} already",
                counted(settings.limits.apis_per_group, "Api")
            ),
            "use another group, or ask the platform team to raise the limit",
        ),
    })
}

/// What to remember of an Api, and a verdict on it.
pub(crate) fn conclude(
    state: &ApiState,
    outcomes: &[StageOutcome],
    references: &[Problem],
) -> (Arc<ApiMemory>, Verdict) {
    let off = |(stage, served): (&Stage, &Served)| {
        (
            stage.clone(),
            Served {
                on: false,
                ..*served
            },
        )
    };
    let mut serving: BTreeMap<Stage, Served> = state.served.iter().map(off).collect();
    let mut problems = state.problems.clone();
    let mut stages = BTreeMap::new();
    for outcome in outcomes {
        let stage = outcome.status();
        if let Some(release) = stage.release {
            serving.insert(outcome.stage.clone(), Served { release, on: true });
        }
        let said = stage.problem.as_deref().filter(|it| {
            // A draft that never was valid says itself why there is no release.
            it.reason != Reason::NoRelease && !problems.contains(it)
        });
        problems.extend(said.cloned());
        stages.insert(outcome.stage.clone(), stage);
    }
    for problem in references {
        let same = |it: &Problem| (it.reason, &it.field) == (problem.reason, &problem.field);
        if !problems.iter().any(same) {
            problems.push(problem.clone());
        }
    }
    problems.shrink_to_fit();
    let status = ApiStatus {
        latest_release: state.releases.last().map(|newest| newest.number),
        stages: stages.into(),
    };
    let verdict = Verdict::judge(problems, &state.effect(), &[], Status::Api(status));
    let serving = ByStage::from(serving);
    // What is the same is shared.
    let same = serving == state.served;
    let serving = if same { state.served.clone() } else { serving };
    (state.memory(serving), verdict)
}

/// What an Api adds to the usage of backend services.
fn contribution(name: &ObjectName, node: &ApiNode) -> Contribution {
    let mut adds = Contribution {
        draft: node.state.drafted_service.clone(),
        ..Contribution::default()
    };
    let mut through = Vec::new();
    for outcome in &node.outcomes {
        let stage = &outcome.stage;
        let serving = outcome.serving();
        if let Some(service) = serving.and_then(|it| it.service.as_ref()) {
            through.push((Arc::clone(service), stage.clone()));
        }
        let told = outcome.told.as_deref();
        if let (Some(told), Some(service), Some(problem)) = (
            told,
            told.and_then(Draft::service),
            outcome.status().problem,
        ) {
            let failure = BackendFailure {
                api: name.clone(),
                group: told.group.clone(),
                problem: *problem,
            };
            let service = Arc::new(service.clone());
            adds.failed.push((service, stage.clone(), failure));
        }
    }
    // As is remembered, mostly.
    adds.served = if *node.in_use == *through {
        Arc::clone(&node.in_use)
    } else {
        through.into()
    };
    adds
}

/// What an Api would ask for.
pub(crate) struct Asked {
    pub(crate) age: Age,
    pub(crate) wishes: Wishes,
}

/// What everybody concerned would get if some Apis asked for something else, or were gone. Changes nothing.
pub(crate) fn try_out(
    world: &World,
    instead: &BTreeMap<ObjectName, Option<Asked>>,
    settings: &Settings,
) -> BTreeMap<ObjectName, Vec<StageOutcome>> {
    let asked = instead.values().flatten();
    let groups = asked.flat_map(|it| it.wishes.stages.iter().flat_map(Wish::groups));
    let apis = world.neighbours(instead.keys().cloned().collect(), groups.cloned().collect());
    let mut contenders: Vec<Contender<'_>> = apis
        .iter()
        .filter_map(|name| {
            let (age, wishes) = match instead.get(name) {
                Some(asked) => asked.as_ref().map(|it| (it.age, &it.wishes))?,
                None => world.apis.get(name).map(|it| (it.state.age, &it.wishes))?,
            };
            Some(Contender {
                name,
                age,
                wishes: &wishes.stages,
            })
        })
        .collect();
    contenders.sort_by_key(|it| (it.age, it.name));
    let settled = settle(&contenders, settings);
    let names = contenders.iter().map(|it| it.name.clone());
    let mut outcomes: BTreeMap<_, _> = names.zip(settled).collect();
    // Who is gone gets nothing.
    for gone in instead.iter().filter(|(_, asked)| asked.is_none()) {
        outcomes.insert(gone.0.clone(), Vec::new());
    }
    outcomes
}

// === impl World ===

impl World {
    /// The Apis that ask for something in a group.
    pub(crate) fn claimants(&self, group: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        let claimants = self.claimants.get(group).into_iter().flatten();
        claimants.map(|id| &id.name)
    }

    /// How many Apis calls of a group reach.
    pub(crate) fn count_published(&self, group: &ObjectName) -> usize {
        let nodes = self.claimants(group).filter_map(|api| self.apis.get(api));
        let nodes = nodes.map(|node| &**node);
        let reached = |node: &&ApiNode| {
            let mut serving = node.outcomes.iter().filter_map(StageOutcome::serving);
            serving.any(|it| it.group() == group)
        };
        nodes.filter(reached).count()
    }

    /// An Api asks for something in other groups than before.
    fn claim(&mut self, api: &Arc<ObjectId>, before: &[Wish], now: &[Wish]) {
        let groups = |wishes: &[Wish]| -> BTreeSet<ObjectName> {
            wishes.iter().flat_map(Wish::groups).cloned().collect()
        };
        let (before, now) = (groups(before), groups(now));
        for group in before.difference(&now) {
            if let Some(apis) = self.claimants.get_mut(group) {
                apis.remove(api);
                if apis.is_empty() {
                    self.claimants.remove(group);
                }
            }
        }
        for group in now.difference(&before) {
            let apis = self.claimants.entry(group.clone()).or_default();
            apis.insert(Arc::clone(api));
        }
    }

    /// `apis` and all Apis that ask for something in the same groups, or in `groups`, and so on.
    pub(crate) fn neighbours(
        &self,
        mut apis: BTreeSet<ObjectName>,
        mut groups: Vec<ObjectName>,
    ) -> BTreeSet<ObjectName> {
        let asked = |name: &ObjectName| {
            let stages = self.apis.get(name).map(|node| &node.wishes.stages);
            let groups = stages.into_iter().flatten().flat_map(Wish::groups);
            groups.cloned().collect::<BTreeSet<_>>()
        };
        groups.extend(apis.iter().flat_map(asked));
        let mut seen = BTreeSet::new();
        while let Some(group) = groups.pop() {
            if seen.contains(&group) {
                continue;
            }
            for api in self.claimants(&group) {
                if !apis.contains(api) {
                    apis.insert(api.clone());
                    groups.extend(asked(api).into_iter().filter(|it| !seen.contains(it)));
                }
            }
            seen.insert(group);
        }
        apis
    }
}

// === impl Step ===

impl Step<'_> {
    /// Parses the Apis that are to be parsed.
    pub(crate) fn parse_apis(&mut self) {
        for name in std::mem::take(&mut self.dirty.drafts) {
            let compiler = &mut *self.compiler;
            let world = &mut compiler.world;
            let Some(object) = self.objects.apis.get(&name) else {
                if let Some(gone) = world.apis.get_mut(&name) {
                    let (id, before) = (Arc::clone(&gone.id), std::mem::take(&mut gone.in_use));
                    self.note_use(&id, &before, &[]);
                }
                self.dirty.apis.insert(name);
                continue;
            };
            let remembered = &compiler.memory.apis;
            let state = releases::judge(&name, object, remembered, &compiler.settings);
            let in_use =
                releases::in_use(&name, object, remembered, state.drafted_service.as_ref());
            let (id, before) = match world.apis.get_mut(&name) {
                Some(node) => {
                    node.state = state;
                    let before = std::mem::replace(&mut node.in_use, Arc::clone(&in_use));
                    (Arc::clone(&node.id), before)
                }
                None => {
                    let id = Arc::new(ObjectId::new(Kind::Api, &name));
                    let node = ApiNode {
                        id: Arc::clone(&id),
                        settled_age: state.age,
                        state,
                        drafts: Drafts::default(),
                        wishes: Wishes::default(),
                        outcomes: Vec::new(),
                        in_use: Arc::clone(&in_use),
                        counted: Contribution::default(),
                    };
                    world.apis.insert(name.clone(), Box::new(node));
                    let exists = Dep::Api(name.clone());
                    self.dirty.fire(&exists, &world.readers);
                    (id, Through::default())
                }
            };
            self.note_use(&id, &before, &in_use);
            self.dirty.apis.insert(name.clone());
            self.dirty.told.insert(name);
        }
    }

    /// Works out what the Apis that are to be looked at ask for, and settles it with all who ask for something in the same groups.
    pub(crate) fn settle_routes(&mut self) {
        let mut apis = BTreeSet::new();
        let mut groups = Vec::new();
        for name in std::mem::take(&mut self.dirty.apis) {
            if !self.objects.apis.contains_key(&name) {
                groups.extend(self.forget_api(&name));
            } else if let Some(before) = self.wish(&name) {
                groups.extend(before);
                self.dirty.told.insert(name.clone());
                apis.insert(name);
            }
        }
        let apis = self.compiler.world.neighbours(apis, groups);
        let world = &self.compiler.world;
        let mut contenders: Vec<Contender<'_>> = apis
            .iter()
            .filter_map(|name| world.apis.get_key_value(name))
            .map(|(name, node)| Contender {
                name,
                age: node.state.age,
                wishes: &node.wishes.stages,
            })
            .collect();
        contenders.sort_by_key(|it| (it.age, it.name));
        let settled = settle(&contenders, &self.compiler.settings);
        let names: Vec<ObjectName> = contenders.iter().map(|it| it.name.clone()).collect();
        for (name, outcomes) in names.into_iter().zip(settled) {
            self.take_outcomes(&name, outcomes);
        }
        self.tell_apis();
    }

    /// Works out what an Api asks for. When that is something else than before, answers the groups in which it asked.
    fn wish(&mut self, name: &ObjectName) -> Option<Vec<ObjectName>> {
        let compiler = &mut *self.compiler;
        let world = &mut compiler.world;
        let view = View::new(&world.groups, &world.services, &compiler.release_settings);
        let certificates = Certificates {
            objects: self.objects,
            remembered: &compiler.memory.certificates,
            settings: &compiler.settings,
        };
        let node = world.apis.get_mut(name)?;
        let mut wishes = wishes(
            name,
            &node.state,
            &mut node.drafts,
            view,
            certificates,
            &mut world.judgements,
        );
        let id = Arc::clone(&node.id);
        let read_before = Some(&node.wishes.deps);
        world
            .readers
            .replace(&id, read_before, Some(&mut wishes.deps));
        let same = node.wishes.stages == wishes.stages && node.settled_age == node.state.age;
        let same_references = node.wishes.references == wishes.references;
        let before = std::mem::replace(&mut node.wishes, wishes);
        if !same_references {
            self.dirty.told.insert(name.clone());
        }
        if same {
            node.wishes.stages = before.stages;
            return None;
        }
        node.settled_age = node.state.age;
        let now = std::mem::take(&mut node.wishes.stages);
        world.claim(&id, &before.stages, &now);
        if let Some(node) = world.apis.get_mut(name) {
            node.wishes.stages = now;
        }
        let groups = before.stages.iter().flat_map(Wish::groups);
        Some(groups.cloned().collect())
    }

    /// An Api is gone. Answers the groups in which it asked for something.
    fn forget_api(&mut self, name: &ObjectName) -> Vec<ObjectName> {
        let world = &mut self.compiler.world;
        let gone = world.apis.remove(name);
        if let Some(gone) = &gone {
            world.claim(&gone.id, &gone.wishes.stages, &[]);
            world
                .readers
                .replace(&gone.id, Some(&gone.wishes.deps), None);
            let exists = Dep::Api(name.clone());
            self.dirty.fire(&exists, &world.readers);
            self.count(name, &gone.counted, &Contribution::default());
            for group in gone.outcomes.iter().filter_map(StageOutcome::group) {
                self.publishes_otherwise(group.clone());
            }
        }
        if replace(&mut self.compiler.memory.apis, name, None) {
            self.remembers(Kind::Api, name);
        }
        self.tell(ObjectId::new(Kind::Api, name), None);
        let stages = gone.iter().flat_map(|gone| &gone.wishes.stages);
        stages.flat_map(Wish::groups).cloned().collect()
    }

    /// What an Api gets now.
    fn take_outcomes(&mut self, name: &ObjectName, outcomes: Vec<StageOutcome>) {
        let world = &mut self.compiler.world;
        let Some(node) = world.apis.get_mut(name) else {
            return;
        };
        let same = node.outcomes == outcomes;
        // Also when it comes to the same: the new ones share with what the Api asks for now.
        let before = std::mem::replace(&mut node.outcomes, outcomes);
        if same {
            return;
        }
        let place = |it: &StageOutcome| Some((it.group()?.clone(), it.stage.clone()));
        let then: BTreeSet<_> = before.iter().filter_map(place).collect();
        let now: BTreeSet<_> = node.outcomes.iter().filter_map(place).collect();
        if then != now {
            let places = Dep::Api(name.clone());
            self.dirty.fire(&places, &world.readers);
            for (group, _) in then.symmetric_difference(&now) {
                let members = Dep::Members(group.clone());
                self.dirty.fire(&members, &world.readers);
            }
        }
        let groups = then.into_iter().chain(now).map(|(group, _)| group);
        self.dirty.published.extend(groups);
        self.dirty.told.insert(name.clone());
    }

    fn publishes_otherwise(&mut self, group: ObjectName) {
        let members = Dep::Members(group.clone());
        self.dirty.fire(&members, &self.compiler.world.readers);
        self.dirty.published.insert(group);
    }

    fn tell_apis(&mut self) {
        for name in std::mem::take(&mut self.dirty.told) {
            let Some(node) = self.compiler.world.apis.get_mut(&name) else {
                continue;
            };
            let (memory, verdict) = conclude(&node.state, &node.outcomes, &node.wishes.references);
            let counted = contribution(&name, node);
            let before = std::mem::take(&mut node.counted);
            self.count(&name, &before, &counted);
            if let Some(node) = self.compiler.world.apis.get_mut(&name) {
                node.counted = counted;
            }
            if replace(&mut self.compiler.memory.apis, &name, Some(memory)) {
                self.remembers(Kind::Api, &name);
            }
            self.tell(ObjectId::new(Kind::Api, &name), Some(verdict));
        }
    }
}
