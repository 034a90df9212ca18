//! What would happen: refusals and warnings before an object is written or deleted.
//!
//! The functions are those of an update, on what is known now with one object as it would be; nothing is changed. Refused is what can
//! never be right, whatever other objects do; what may be right later is accepted with a warning. Compile checks everything again,
//! so that nothing depends on somebody asking first.

use std::collections::{BTreeMap, BTreeSet};

use paifang_model::{ObjectName, Stage};
use paifang_resources::{
    ApiGroupSpec, ApiSpec, AppSpec, AuthorizationSpec, BackendServiceSpec, DeletionPolicy,
    DomainBindingSpec, Kind,
};

use crate::{
    Compiler, ConditionKind, Memory, Object, ObjectId, Objects, Problem, Reason, Settings, Status,
    Verdict, Written, apps,
    backend::Resolver,
    certificates::{Certificates, Judgements},
    compile::View,
    domains::{self, Bound},
    grants::{self, Lost},
    graph::Dep,
    groups,
    parse::group::Group,
    releases,
    routes::{self, Asked, StageOutcome},
    services,
};

/// Names that a warning shows; of the others it gives the number.
const NAMES: usize = 5;

/// Warnings that one answer has.
const WARNINGS: usize = 10;

/// An object of any of the six kinds.
#[derive(Debug, Clone)]
pub enum AnyObject {
    /// An ApiGroup.
    ApiGroup(Object<ApiGroupSpec>),
    /// A BackendService.
    BackendService(Object<BackendServiceSpec>),
    /// An Api.
    Api(Object<ApiSpec>),
    /// An App.
    App(Object<AppSpec>),
    /// An Authorization.
    Authorization(Object<AuthorizationSpec>),
    /// A DomainBinding.
    DomainBinding(Object<DomainBindingSpec>),
}

/// What somebody is about to do.
#[derive(Debug, Clone, Copy)]
pub enum Request<'r> {
    /// Create an object, or change it.
    Write {
        /// Its name.
        name: &'r ObjectName,
        /// The object as it would be.
        object: &'r AnyObject,
    },
    /// Delete an object.
    Delete {
        /// Which.
        id: &'r ObjectId,
    },
}

/// What is to be said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Why it must not happen; empty when it may.
    pub refusals: Vec<Problem>,
    /// What whoever does it should know, a sentence each; at most ten. Empty when it is refused, and when nothing would change.
    pub warnings: Vec<String>,
}

/// What is wrong with an object by itself, whatever else there is and was.
pub fn problems_of_spec(
    name: &ObjectName,
    object: &AnyObject,
    settings: &Settings,
) -> Vec<Problem> {
    let memory = Memory::default();
    let compiler = Compiler::new(memory, settings.clone());
    compiler
        .admit(&Objects::default(), &Request::Write { name, object })
        .refusals
}

/// Something tried on what is known now.
struct Trial<'t> {
    compiler: &'t Compiler,
    objects: &'t Objects,
    warnings: Vec<String>,
}

/// What changes for Apis, by stage.
#[derive(Default)]
struct Impact {
    offline: BTreeMap<Stage, BTreeSet<ObjectName>>,
    moved: BTreeMap<(Stage, String), usize>,
}

// === impl AnyObject ===

impl AnyObject {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::ApiGroup(_) => Kind::ApiGroup,
            Self::BackendService(_) => Kind::BackendService,
            Self::Api(_) => Kind::Api,
            Self::App(_) => Kind::App,
            Self::Authorization(_) => Kind::Authorization,
            Self::DomainBinding(_) => Kind::DomainBinding,
        }
    }

    /// Whether `objects` has it with this very spec.
    fn is_in(&self, name: &ObjectName, objects: &Objects) -> bool {
        fn same<S: PartialEq>(
            object: &Object<S>,
            name: &ObjectName,
            known: &BTreeMap<ObjectName, Object<S>>,
        ) -> bool {
            match (&object.written, known.get(name).map(|it| &it.written)) {
                (Written::Spec(now), Some(Written::Spec(before))) => now == before,
                _ => false,
            }
        }
        match self {
            Self::ApiGroup(it) => same(it, name, &objects.groups),
            Self::BackendService(it) => same(it, name, &objects.backend_services),
            Self::Api(it) => same(it, name, &objects.apis),
            Self::App(it) => same(it, name, &objects.apps),
            Self::Authorization(it) => same(it, name, &objects.authorizations),
            Self::DomainBinding(it) => same(it, name, &objects.domain_bindings),
        }
    }
}

// === impl Compiler ===

impl Compiler {
    /// What would happen if `request` did. `objects` are those of the last update. What it costs depends on what the object reaches.
    pub fn admit(&self, objects: &Objects, request: &Request<'_>) -> Admission {
        let mut trial = Trial {
            compiler: self,
            objects,
            warnings: Vec::new(),
        };
        let refusals = match request {
            // Labels and finalizers of an object may change, however wrong it is.
            Request::Write { name, object } if object.is_in(name, objects) => Vec::new(),
            Request::Write { name, object } => trial.write(name, object),
            Request::Delete { id } => trial.delete(id),
        };
        let mut warnings = trial.warnings;
        if !refusals.is_empty() {
            warnings.clear();
        }
        let more = warnings.len().saturating_sub(WARNINGS);
        if more > 0 {
            warnings.truncate(WARNINGS - 1);
            warnings.push(format!("and {} more warnings", more + 1));
        }
        Admission { refusals, warnings }
    }
}

// === impl Trial ===

impl<'t> Trial<'t> {
    /// Answers what is against it.
    fn write(&mut self, name: &ObjectName, object: &AnyObject) -> Vec<Problem> {
        let id = ObjectId::new(object.kind(), name);
        let verdict = match object {
            AnyObject::ApiGroup(object) => self.write_group(name, object),
            AnyObject::BackendService(object) => self.write_service(name, object),
            AnyObject::Api(object) => self.write_api(name, object),
            AnyObject::App(object) => self.write_app(name, object),
            AnyObject::Authorization(object) => self.write_authorization(name, object),
            AnyObject::DomainBinding(object) => self.write_domain(name, object),
        };
        let before = self.compiler.verdict(&id);
        let known = |problem: &Problem| before.is_some_and(|it| it.problems.contains(problem));
        let mut refusals = Vec::new();
        for problem in &verdict.problems {
            if is_final(object, problem) {
                refusals.push(problem.clone());
            } else if !known(problem) {
                let said = self.said(object, problem, &verdict);
                self.warnings.push(said);
            }
        }
        refusals
    }

    /// A problem for whoever is about to cause it.
    fn said(&self, object: &AnyObject, problem: &Problem, verdict: &Verdict) -> String {
        let said = match (object, problem.reason) {
            (AnyObject::Authorization(_), Reason::AppNotFound | Reason::ApiNotFound) => {
                not_yet(problem)
            }
            (AnyObject::Api(object), Reason::ReleaseNotFound) => {
                missing_release(object, problem, verdict)
            }
            _ => None,
        };
        said.unwrap_or_else(|| problem.to_string())
    }

    fn write_group(&mut self, name: &ObjectName, object: &Object<ApiGroupSpec>) -> Verdict {
        let compiler = self.compiler;
        let node = groups::judge(name, object, &compiler.memory.groups, &compiler.settings);
        let mut view = self.view();
        view.group_instead = Some((name, node.entry.as_ref()));
        self.group_impact(name, view);
        if let (Some(before), Some(now)) = (self.view().group(name), &node.entry) {
            self.warn_of_moves(name, &before.model, &now.model);
        }
        node.verdict(None)
    }

    /// Another base path, or another fleet: callers find the Apis elsewhere.
    fn warn_of_moves(&mut self, name: &ObjectName, before: &Group, now: &Group) {
        let apis = self.compiler.world.count_published(name);
        if apis == 0 {
            return;
        }
        let apis = counted(apis, "Api");
        if before.base_path != now.base_path {
            let (from, to) = (&before.base_path, &now.base_path);
            let said = format!("this moves {apis} from base path {from} to {to}");
            self.warnings.push(said);
        }
        if before.instance != now.instance {
            let (from, to) = (&before.instance, &now.instance);
            self.warnings.push(format!(
                "this moves {apis} from the gateways of instance `{from}` to those of `{to}`: calls that still arrive at `{from}` are answered 404"
            ));
        }
    }

    fn write_service(&mut self, name: &ObjectName, object: &Object<BackendServiceSpec>) -> Verdict {
        let compiler = self.compiler;
        let mut judgements = Judgements::default();
        let node = services::judge(
            name,
            object,
            &compiler.memory.backend_services,
            &compiler.settings,
            compiler.world.in_use.get(name),
            Resolver::new(self.certificates(), &mut judgements),
        );
        let mut view = self.view();
        view.service_instead = Some((name, node.entry.as_ref()));
        let impact = self.impact_of(&Dep::Backend(name.clone()), view);
        self.warn_of(impact, true);
        node.verdict(None)
    }

    fn write_api(&mut self, name: &ObjectName, object: &Object<ApiSpec>) -> Verdict {
        let compiler = self.compiler;
        let state = releases::judge(name, object, &compiler.memory.apis, &compiler.settings);
        let mut drafts = compiler
            .world
            .apis
            .get(name)
            .map(|node| node.drafts.copy())
            .unwrap_or_default();
        let wishes = routes::wishes(
            name,
            &state,
            &mut drafts,
            self.view(),
            self.certificates(),
            &mut Judgements::default(),
        );
        let references = wishes.references.clone();
        let asked = Asked {
            age: state.age,
            wishes,
        };
        let instead = BTreeMap::from([(name.clone(), Some(asked))]);
        let outcomes = routes::try_out(&compiler.world, &instead, &compiler.settings);
        let (_, verdict) = routes::conclude(
            &state,
            outcomes.get(name).map_or(&[], Vec::as_slice),
            &references,
        );
        let impact = self.compare(&outcomes);
        self.warn_of(impact, false);
        verdict
    }

    fn write_app(&mut self, name: &ObjectName, object: &Object<AppSpec>) -> Verdict {
        let disabled = |object: &Object<AppSpec>| object.spec().is_some_and(|it| it.disabled);
        let before = self.objects.apps.get(name);
        if disabled(object) && !before.is_some_and(disabled) {
            self.warn_of_app(
                name,
                "every call of the App is refused while it is disabled",
            );
        }
        let compiler = self.compiler;
        let mut verdict = apps::try_out(name, object, self.objects, compiler);
        // A Secret that is made by itself is only a matter of time.
        let to_make = |at: usize| {
            let credential = object.spec().and_then(|it| it.credentials.get(at));
            credential.is_some_and(|it| it.secret_ref.is_none())
        };
        verdict.problems.retain(|problem| {
            problem.reason != Reason::SecretNotFound || !index(&problem.field).is_some_and(to_make)
        });
        verdict
    }

    fn write_authorization(
        &mut self,
        name: &ObjectName,
        object: &Object<AuthorizationSpec>,
    ) -> Verdict {
        let compiler = self.compiler;
        let judged = grants::judge(
            name,
            object,
            &compiler.memory.authorizations,
            self.objects,
            &compiler.world,
            &compiler.settings,
        );
        self.warn_of_lost(&compiler.world.lost(name, &judged.grants));
        judged.verdict
    }

    fn write_domain(&mut self, name: &ObjectName, object: &Object<DomainBindingSpec>) -> Verdict {
        let wish = self.wish_domain(name, object, self.view());
        let instead = BTreeMap::from([(name.clone(), Some(wish))]);
        let mut bound = domains::try_out(&self.compiler.world, &instead, &self.compiler.settings);
        self.warn_of_hosts(&bound);
        let own = bound.remove(name).and_then(|bound| bound.verdict);
        own.unwrap_or_else(|| Verdict::judge(Vec::new(), "", &[], Status::Authorization))
    }

    /// Answers what is against it.
    fn delete(&mut self, id: &ObjectId) -> Vec<Problem> {
        let (name, world) = (&id.name, &self.compiler.world);
        match id.kind {
            Kind::ApiGroup => {
                let mut view = self.view();
                view.group_instead = Some((name, None));
                self.group_impact(name, view);
            }
            Kind::BackendService => {
                let refusals = self.guard_service(name);
                if !refusals.is_empty() {
                    return refusals;
                }
                let mut view = self.view();
                view.service_instead = Some((name, None));
                let impact = self.impact_of(&Dep::Backend(name.clone()), view);
                self.warn_of(impact, false);
            }
            Kind::Api => {
                let instead = BTreeMap::from([(name.clone(), None)]);
                let outcomes = routes::try_out(world, &instead, &self.compiler.settings);
                let impact = self.compare(&outcomes);
                self.warn_of(impact, false);
            }
            Kind::App => self.warn_of_app(name, "every call of the App is refused from then on"),
            Kind::DomainBinding => {
                let instead = BTreeMap::from([(name.clone(), None)]);
                let bound = domains::try_out(world, &instead, &self.compiler.settings);
                self.warn_of_hosts(&bound);
            }
            Kind::Authorization => self.warn_of_lost(&world.lost(name, &BTreeMap::new())),
        }
        Vec::new()
    }

    /// `deletionPolicy: Block` keeps what published Apis go through.
    fn guard_service(&self, name: &ObjectName) -> Vec<Problem> {
        let written = self.objects.backend_services.get(name);
        let written = written.and_then(Object::spec);
        let accepted = self.compiler.memory.backend_services.get(name);
        let spec = written.or(accepted.map(|it| &it.spec));
        if spec.is_none_or(|spec| spec.deletion_policy != DeletionPolicy::Block) {
            return Vec::new();
        }
        let in_use = self.compiler.world.in_use.get(name).into_iter().flatten();
        in_use
            .map(|(stage, apis)| services::stage_in_use(stage, apis))
            .collect()
    }

    /// What becomes of the Apis and hosts of a group.
    fn group_impact(&mut self, name: &ObjectName, view: View<'_>) {
        let group = Dep::Group(name.clone());
        let impact = self.impact_of(&group, view);
        self.warn_of(impact, false);
        let world = &self.compiler.world;
        let bindings = world.readers.of_kind(&group, Kind::DomainBinding);
        let wish = |binding: &ObjectName| {
            let object = self.objects.domain_bindings.get(binding)?;
            Some((
                binding.clone(),
                Some(self.wish_domain(binding, object, view)),
            ))
        };
        let instead = bindings.filter_map(wish).collect();
        let bound = domains::try_out(world, &instead, &self.compiler.settings);
        self.warn_of_hosts(&bound);
    }

    /// What becomes of the Apis that read `dep`, when they are worked out with `view`.
    fn impact_of(&self, dep: &Dep, view: View<'_>) -> Impact {
        let world = &self.compiler.world;
        let mut judgements = Judgements::default();
        let mut instead = BTreeMap::new();
        for name in world.readers.of_kind(dep, Kind::Api) {
            let Some(node) = world.apis.get(name) else {
                continue;
            };
            let mut drafts = node.drafts.copy();
            let certificates = self.certificates();
            let wishes = routes::wishes(
                name,
                &node.state,
                &mut drafts,
                view,
                certificates,
                &mut judgements,
            );
            let age = node.state.age;
            instead.insert(name.clone(), Some(Asked { age, wishes }));
        }
        let outcomes = routes::try_out(world, &instead, &self.compiler.settings);
        self.compare(&outcomes)
    }

    /// What is different from what the Apis serve now.
    fn compare(&self, outcomes: &BTreeMap<ObjectName, Vec<StageOutcome>>) -> Impact {
        let mut impact = Impact::default();
        for (name, now) in outcomes {
            let before = self.compiler.world.apis.get(name);
            for outcome in before.iter().flat_map(|node| &node.outcomes) {
                let Some(then) = outcome.serving() else {
                    continue;
                };
                let stage = &outcome.stage;
                let now = now.iter().find(|it| it.stage == *stage);
                match now.and_then(StageOutcome::serving) {
                    None => {
                        let offline = impact.offline.entry(stage.clone()).or_default();
                        offline.insert(name.clone());
                    }
                    Some(now) if now.address != then.address => {
                        let to = (stage.clone(), now.address.to_string());
                        *impact.moved.entry(to).or_default() += 1;
                    }
                    Some(_) => {}
                }
            }
        }
        impact
    }

    fn warn_of(&mut self, impact: Impact, moves: bool) {
        for (stage, apis) in &impact.offline {
            self.warnings.push(format!(
                "this takes {} offline in {stage}: {}",
                counted(apis.len(), "Api"),
                listed(apis)
            ));
        }
        for ((stage, address), apis) in impact.moved.iter().filter(|_| moves) {
            let apis = counted(*apis, "Api");
            self.warnings
                .push(format!("this moves {apis} in {stage} to {address}"));
        }
    }

    fn warn_of_hosts(&mut self, bound: &BTreeMap<ObjectName, Bound>) {
        for (name, now) in bound {
            let before = self.compiler.world.domains.get(name);
            let Some((_, before)) = before.and_then(|node| node.published.as_ref()) else {
                continue;
            };
            let goes_on = now
                .published
                .as_ref()
                .is_some_and(|(_, now)| now.host == before.host);
            if !goes_on {
                self.warnings.push(format!(
                    "this takes the domain {} of DomainBinding {name} offline",
                    before.host
                ));
            }
        }
    }

    fn warn_of_app(&mut self, name: &ObjectName, effect: &str) {
        let world = &self.compiler.world;
        let app = Dep::App(name.clone());
        let named: BTreeSet<ObjectName> = world
            .readers
            .of_kind(&app, Kind::Authorization)
            .cloned()
            .collect();
        if !named.is_empty() && world.apps.contains_key(name) {
            let authorizations = counted(named.len(), "Authorization");
            let verb = if named.len() == 1 { "names" } else { "name" };
            self.warnings.push(format!(
                "{authorizations} {verb} App {name}, and {effect}: {}",
                listed(&named)
            ));
        }
    }

    /// Whoever revokes means it, but perhaps not all of it.
    fn warn_of_lost(&mut self, lost: &Lost) {
        for ((app, stage), apis) in lost {
            self.warnings.push(format!(
                "App {app} may not call {} in {stage} any more: {}",
                counted(apis.len(), "Api"),
                listed(apis)
            ));
        }
    }

    fn wish_domain(
        &self,
        name: &ObjectName,
        object: &Object<DomainBindingSpec>,
        view: View<'_>,
    ) -> domains::Wish {
        let mut judgements = Judgements::default();
        let mut resolver = Resolver::new(self.certificates(), &mut judgements);
        let compiler = self.compiler;
        domains::wish(
            name,
            object,
            &compiler.memory.domain_bindings,
            &compiler.settings,
            view,
            &mut resolver,
        )
    }

    /// Everything as it is.
    fn view(&self) -> View<'t> {
        let compiler = self.compiler;
        View::new(
            &compiler.world.groups,
            &compiler.world.services,
            &compiler.release_settings,
        )
    }

    fn certificates(&self) -> Certificates<'t> {
        Certificates {
            objects: self.objects,
            remembered: &self.compiler.memory.certificates,
            settings: &self.compiler.settings,
        }
    }
}

/// Whether other objects can do nothing about a problem.
fn is_final(object: &AnyObject, problem: &Problem) -> bool {
    match (object, problem.reason) {
        (_, Reason::GroupFull) => false,
        // The same key twice: what two Secrets say now.
        (AnyObject::App(_), Reason::Duplicate) => !problem.field.ends_with(']'),
        (_, reason) => reason.condition() == ConditionKind::Accepted,
    }
}

/// An App or an Api that an Authorization names too early.
fn not_yet(problem: &Problem) -> Option<String> {
    let named = problem.message.strip_prefix("there is no ")?;
    Some(match named.strip_suffix(" in force") {
        Some(app) => {
            format!("{app} does not exist yet: the authorization takes effect when it does")
        }
        None => format!("{named} does not exist yet: the authorization takes effect when it does"),
    })
}

fn missing_release(
    object: &Object<ApiSpec>,
    problem: &Problem,
    verdict: &Verdict,
) -> Option<String> {
    let Status::Api(status) = &verdict.status else {
        return None;
    };
    let stage = problem.field.strip_prefix("spec.stages.")?;
    let stage = stage.strip_suffix(".release")?;
    let told = object.spec()?.stages.get(stage)?.release?;
    let newest = match status.latest_release {
        Some(newest) => format!("newest is {newest}"),
        None => "there is none yet".to_owned(),
    };
    let (stage, served) = status.stages.iter().find(|(it, _)| it.as_str() == stage)?;
    let effect = match served.release {
        Some(release) => format!("{stage} stays on release {release}"),
        None => format!("{stage} is offline"),
    };
    Some(format!("release {told} does not exist; {newest}: {effect}"))
}

/// The number in `spec.credentials[3].secretRef`.
fn index(field: &str) -> Option<usize> {
    let (_, rest) = field.split_once('[')?;
    let (number, _) = rest.split_once(']')?;
    number.parse().ok()
}

/// `1 Api`, `2 Apis`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// The first names, and how many more there are.
pub(crate) fn listed(names: &BTreeSet<ObjectName>) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(ToString::to_string).collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
