//! Releases: which drafts become one, which are kept, and what each stage is told to serve.
//!
//! A draft that is valid in itself becomes the next release whenever it differs from the newest, whether any stage follows or not.
//! What it refers to plays no part here: a release whose references are missing is not served, and the stage keeps what it had.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::ApiSpec;
use paifang_snapshot::wire;

use crate::{
    ApiMemory, ByStage, Object, Problem, Release, Served, Settings, Written,
    backend::Backend,
    ids,
    inputs::{Age, age},
    memory::{content, recall},
    parse::{
        self, Check,
        api::{self, Choice, Sample},
    },
};

/// One Api: its releases, and what its stages should serve.
#[derive(Debug)]
pub(crate) struct ApiState {
    pub(crate) age: Age,
    /// What is wrong with the draft and with `stages`.
    pub(crate) problems: Vec<Problem>,
    /// Oldest first, with the one that this draft became.
    pub(crate) releases: Vec<Arc<Release>>,
    /// What each stage is told: a number, or none to follow the draft.
    pub(crate) stages: ByStage<Option<u64>>,
    /// What each stage served.
    pub(crate) served: ByStage<Served>,
    /// The backend service that the draft names, valid or not.
    pub(crate) drafted_service: Option<Arc<ObjectName>>,
    uid: Option<Arc<str>>,
    /// How many releases are kept.
    history: usize,
    before: Option<Arc<ApiMemory>>,
}

/// What a release means. As [`api::Draft`], but made to be kept by the thousand.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The group it belongs to.
    pub(crate) group: ObjectName,
    /// As published, but for a backend path that `path` has.
    pub(crate) api: Arc<wire::Api>,
    /// Backend path that mentions stage variables.
    pub(crate) path: Option<Box<str>>,
    /// Stage variables that it mentions.
    pub(crate) variables: BTreeSet<String>,
    /// Where it goes.
    pub(crate) backend: Where,
    /// What a Mock answers that has no body of its own.
    pub(crate) sample: Option<Box<Sample>>,
    /// Method and path with the names of parameters taken out.
    pub(crate) shape: Box<str>,
}

/// Where a release goes.
#[derive(Debug)]
pub(crate) enum Where {
    Service(Box<ObjectName>),
    Inline(Box<Backend>),
}

/// Parsed releases of one Api. A release never changes, so that one that was parsed before need not be parsed again.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    known: Vec<Parsed>,
}

#[derive(Debug, Clone)]
struct Parsed {
    /// Number and hash of the release when this version cannot read it.
    draft: Result<Arc<Draft>, Box<(u64, Arc<str>)>>,
    /// Whether it was asked for in this turn.
    used: bool,
}

/// Looks at an Api and at what is remembered of it.
pub(crate) fn judge(
    name: &ObjectName,
    object: &Object<ApiSpec>,
    remembered: &BTreeMap<ObjectName, Arc<ApiMemory>>,
    settings: &Settings,
) -> ApiState {
    let before = recall(remembered, name, object.uid.as_deref());
    let mut check = Check::new(settings);
    let mut releases = before.map(|it| it.releases.clone()).unwrap_or_default();
    let mut stages = None;
    match &object.written {
        Written::Malformed(problems) => check.problems.extend(problems.iter().cloned()),
        Written::Spec(spec) => {
            match releases.last_mut() {
                Some(newest) if Arc::ptr_eq(&newest.spec, spec) => {}
                Some(newest) if same_content(&newest.spec, spec) => share(newest, spec),
                newest => {
                    let newest = newest.map(|it| &**it);
                    let next = release(name, spec, newest, &mut check);
                    releases.extend(next.map(Arc::new));
                }
            }
            check.range(
                "spec.revisionHistoryLimit",
                spec.revision_history_limit,
                1,
                100,
            );
            stages = parse::api::parse_stages(spec, &mut check);
        }
    }
    let told = before.map(|it| &it.stages);
    let stages = match stages.map(ByStage::from) {
        Some(stages) if told != Some(&stages) => stages,
        _ => told.cloned().unwrap_or_default(),
    };
    let mut served = before.map(|it| it.serving.clone()).unwrap_or_default();
    if !served.keys().all(|stage| stages.contains_key(stage)) {
        let listed = served.iter().filter(|(it, _)| stages.contains_key(it));
        served = listed.map(|(stage, it)| (stage.clone(), *it)).collect();
    }
    ApiState {
        age: age(object),
        problems: check.problems,
        releases,
        stages,
        served,
        drafted_service: drafted_service(name, object),
        uid: object.uid.clone(),
        history: object.spec().map_or(usize::MAX, |spec| {
            usize::try_from(spec.revision_history_limit.clamp(1, 100)).unwrap_or(100)
        }),
        before: before.cloned(),
    }
}

/// The newest release says what the draft says: one copy of it is enough.
fn share(newest: &mut Arc<Release>, spec: &Arc<ApiSpec>) {
    *newest = Arc::new(Release {
        number: newest.number,
        hash: Arc::clone(&newest.hash),
        spec: Arc::clone(spec),
    });
}

fn drafted_service(name: &ObjectName, object: &Object<ApiSpec>) -> Option<Arc<ObjectName>> {
    let service = object.spec()?.backend.service_ref.as_ref()?;
    let service = ObjectName::new(name.namespace.clone(), service.name.as_str());
    Some(Arc::new(service))
}

/// Backend services with the stage in which an Api goes through each.
pub(crate) type Through = Arc<[(Arc<ObjectName>, Stage)]>;

/// The backend services that a published Api goes through, with the stage, as far as is remembered.
pub(crate) fn in_use(
    name: &ObjectName,
    object: &Object<ApiSpec>,
    remembered: &BTreeMap<ObjectName, Arc<ApiMemory>>,
    drafted: Option<&Arc<ObjectName>>,
) -> Through {
    let Some(api) = remembered.get(name) else {
        return Through::default();
    };
    let listed = |stage: &Stage| {
        object
            .spec()
            .is_none_or(|spec| spec.stages.contains_key(stage.as_str()))
    };
    let on = api.serving.iter().filter(|(_, served)| served.on);
    on.filter(|(stage, _)| listed(stage))
        .filter_map(|(stage, served)| {
            let release = api.releases.iter().find(|it| it.number == served.release)?;
            let service = release.spec.backend.service_ref.as_ref()?;
            let service = ObjectName::new(name.namespace.clone(), service.name.as_str());
            // Mostly the one that the draft names.
            let service = match drafted {
                Some(drafted) if **drafted == service => Arc::clone(drafted),
                _ => Arc::new(service),
            };
            Some((service, stage.clone()))
        })
        .collect()
}

/// The release that the draft becomes, if it is valid.
fn release(
    name: &ObjectName,
    spec: &Arc<ApiSpec>,
    newest: Option<&Release>,
    check: &mut Check<'_>,
) -> Option<Release> {
    let mark = check.problems.len();
    parse::api::parse(name, spec, check);
    parse::api::compile_rules(spec, check);
    if !check.clean_since(mark) {
        return None;
    }
    Some(Release {
        number: newest.map_or(1, |newest| newest.number + 1),
        hash: ids::content_hash(&content(spec)).into(),
        spec: Arc::clone(spec),
    })
}

/// Whether two specs are the same but for `stages` and `revisionHistoryLimit`.
pub(crate) fn same_content(a: &ApiSpec, b: &ApiSpec) -> bool {
    let ApiSpec {
        group_ref,
        display_name,
        description,
        auth,
        internal_only,
        request,
        backend,
        response,
        stages: _,
        revision_history_limit: _,
    } = a;
    *group_ref == b.group_ref
        && *display_name == b.display_name
        && *description == b.description
        && *auth == b.auth
        && *internal_only == b.internal_only
        && *request == b.request
        && *backend == b.backend
        && *response == b.response
}

// === impl ApiState ===

impl ApiState {
    /// The number that a stage is told to serve; none when there is no release to follow.
    pub(crate) fn asked(&self, told: Option<u64>) -> Option<u64> {
        told.or_else(|| self.releases.last().map(|newest| newest.number))
    }

    /// The release with this number.
    pub(crate) fn release(&self, number: u64) -> Option<&Arc<Release>> {
        self.releases
            .binary_search_by_key(&number, |release| release.number)
            .ok()
            .map(|at| &self.releases[at])
    }

    /// What to remember: `serving` is what the stages serve now. Releases beyond the limit go, but for those that a stage serves or
    /// names.
    pub(crate) fn memory(&self, serving: ByStage<Served>) -> Arc<ApiMemory> {
        let beyond = self.releases.len().saturating_sub(self.history);
        let needed = |number: u64| {
            self.stages.values().any(|told| *told == Some(number))
                || serving.values().any(|served| served.release == number)
        };
        let releases: Vec<_> = self
            .releases
            .iter()
            .enumerate()
            .filter(|(at, release)| *at >= beyond || needed(release.number))
            .map(|(_, release)| Arc::clone(release))
            .collect();
        let memory = ApiMemory {
            uid: self.uid.clone(),
            releases,
            stages: self.stages.clone(),
            serving,
        };
        let same = |before: &&Arc<ApiMemory>| {
            let pairs = before.releases.iter().zip(&memory.releases);
            ***before == memory && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
        };
        match self.before.as_ref().filter(same) {
            Some(before) => Arc::clone(before),
            None => Arc::new(memory),
        }
    }

    /// What to say beside a refusal of the draft. A draft that is only in somebody's way is not refused.
    pub(crate) fn effect(&self) -> String {
        match self.releases.last() {
            _ if self.problems.is_empty() => String::new(),
            Some(newest) => format!(
                "Release {} stays the newest, and the stages go on as they were",
                newest.number
            ),
            None => "There is no release to serve".to_owned(),
        }
    }
}

// === impl Drafts ===

impl Drafts {
    /// What a release means; `None` when this version cannot read it. `settings` are those for releases.
    pub(crate) fn parse(
        &mut self,
        name: &ObjectName,
        release: &Arc<Release>,
        settings: &Settings,
    ) -> Option<Arc<Draft>> {
        let at = match self.known.iter().position(|it| it.is_of(release)) {
            Some(at) => at,
            None => {
                self.known.push(parse_release(name, release, settings));
                self.known.len() - 1
            }
        };
        let parsed = &mut self.known[at];
        parsed.used = true;
        parsed.draft.as_ref().ok().cloned()
    }

    /// The same, for somebody who asks what would happen.
    pub(crate) fn copy(&self) -> Self {
        Self {
            known: self.known.clone(),
        }
    }

    /// Forgets what was not used since the last turn.
    pub(crate) fn turn(&mut self) {
        self.known.retain(|it| it.used);
        self.known.iter_mut().for_each(|it| it.used = false);
        self.known.shrink_to_fit();
    }
}

fn parse_release(name: &ObjectName, release: &Arc<Release>, settings: &Settings) -> Parsed {
    let mut check = Check::new(settings);
    let draft = parse::api::parse(name, &release.spec, &mut check);
    let unreadable = || Box::new((release.number, Arc::clone(&release.hash)));
    Parsed {
        draft: draft
            .map(|draft| Arc::new(Draft::new(draft, release)))
            .ok_or_else(unreadable),
        used: false,
    }
}

// === impl Parsed ===

impl Parsed {
    /// Whether it is what this release says: a release never changes.
    fn is_of(&self, release: &Release) -> bool {
        let (number, hash) = match &self.draft {
            Ok(draft) => (draft.api.release, &draft.api.hash),
            Err(unreadable) => (unreadable.0, &unreadable.1),
        };
        number == release.number && *hash == release.hash
    }
}

// === impl Draft ===

impl Draft {
    fn new(draft: api::Draft, release: &Release) -> Self {
        let mut api = draft.api;
        api.release = release.number;
        api.hash = Arc::clone(&release.hash);
        api.parameters.shrink_to_fit();
        api.dispatch.constants.shrink_to_fit();
        api.dispatch.system.shrink_to_fit();
        let sample = draft.sample;
        let has_sample = sample.content_type.is_some() || !sample.body.is_empty();
        Self {
            group: draft.group,
            api: Arc::new(api),
            path: draft.path.map(Into::into),
            variables: draft.variables,
            backend: match draft.backend {
                Choice::Service(name) => Where::Service(Box::new(name)),
                Choice::Inline(backend) => Where::Inline(backend),
            },
            sample: has_sample.then(|| Box::new(sample)),
            shape: draft.shape.into(),
        }
    }

    /// The backend service that it goes through.
    pub(crate) fn service(&self) -> Option<&ObjectName> {
        match &self.backend {
            Where::Service(name) => Some(name),
            Where::Inline(_) => None,
        }
    }
}

/// The settings that releases are read with: a limit that was lowered since takes nothing offline; an address that is no longer
/// allowed does.
pub(crate) fn lenient(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.limits.backend_timeout_ms = u32::MAX;
    settings
}
