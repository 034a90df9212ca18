//! Releases: which drafts become one, which are kept, and what each stage is told to serve.
//!
//! A draft that is valid in itself becomes the next release whenever it differs from the newest, whether any stage follows or not.
//! What it refers to plays no part here: a release whose references are missing is not served, and the stage keeps what it had.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::ApiSpec;

use crate::{
    AddressPolicy, ApiMemory, Memory, Object, Objects, Problem, Release, Served, Settings, Written,
    ids,
    inputs::seniority,
    memory::recall,
    parse::{
        self, Check,
        api::{Choice, Draft},
    },
};

/// One Api: its releases, and what its stages should serve.
pub(crate) struct ApiState<'a> {
    pub(crate) name: &'a ObjectName,
    pub(crate) object: &'a Object<ApiSpec>,
    /// What is wrong with the draft and with `stages`.
    pub(crate) problems: Vec<Problem>,
    /// Oldest first, with the one that this draft became.
    pub(crate) releases: Vec<Arc<Release>>,
    /// What each stage is told: a number, or none to follow the draft.
    pub(crate) stages: BTreeMap<Stage, Option<u64>>,
    /// What each stage served.
    pub(crate) served: BTreeMap<Stage, Served>,
    before: Option<&'a Arc<ApiMemory>>,
}

/// Parsed releases. A release never changes, so that one that was parsed before need not be parsed again.
#[derive(Default)]
pub(crate) struct Drafts {
    known: HashMap<usize, Parsed>,
    used: HashMap<usize, Parsed>,
    /// The settings that releases were parsed with.
    addresses: AddressPolicy,
}

/// The release is held so that its address belongs to nobody else.
#[derive(Clone)]
struct Parsed {
    _release: Arc<Release>,
    draft: Option<Arc<Draft>>,
}

/// Looks at every Api, the oldest first.
pub(crate) fn judge_all<'a>(
    objects: &'a Objects,
    memory: &'a Memory,
    settings: &Settings,
) -> Vec<ApiState<'a>> {
    let mut states: Vec<ApiState<'a>> = objects
        .apis
        .iter()
        .map(|(name, object)| judge(name, object, memory, settings))
        .collect();
    states.sort_by_cached_key(|state| seniority(state.name, state.object));
    states
}

fn judge<'a>(
    name: &'a ObjectName,
    object: &'a Object<ApiSpec>,
    memory: &'a Memory,
    settings: &Settings,
) -> ApiState<'a> {
    let before = recall(&memory.apis, name, object.uid.as_deref());
    let mut check = Check::new(settings);
    let mut releases = before.map(|it| it.releases.clone()).unwrap_or_default();
    let mut stages = None;
    match &object.written {
        Written::Malformed(problems) => check.problems.extend(problems.iter().cloned()),
        Written::Spec(spec) => {
            let newest = releases.last();
            if !newest.is_some_and(|newest| same_content(&newest.spec, spec)) {
                releases.extend(release(name, spec, newest, &mut check).map(Arc::new));
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
    let stages = stages.unwrap_or_else(|| before.map(|it| it.stages.clone()).unwrap_or_default());
    let mut served = before.map(|it| it.serving.clone()).unwrap_or_default();
    served.retain(|stage, _| stages.contains_key(stage));
    ApiState {
        name,
        object,
        problems: check.problems,
        releases,
        stages,
        served,
        before,
    }
}

/// The release that the draft becomes, if it is valid.
fn release(
    name: &ObjectName,
    spec: &ApiSpec,
    newest: Option<&Arc<Release>>,
    check: &mut Check<'_>,
) -> Option<Release> {
    let mark = check.problems.len();
    parse::api::parse(name, spec, check);
    parse::api::compile_rules(spec, check);
    if !check.clean_since(mark) {
        return None;
    }
    let content = ApiSpec {
        stages: BTreeMap::new(),
        revision_history_limit: 0,
        ..spec.clone()
    };
    Some(Release {
        number: newest.map_or(1, |newest| newest.number + 1),
        hash: ids::content_hash(&content),
        spec: Arc::new(content),
    })
}

/// Whether two specs are the same but for `stages` and `revisionHistoryLimit`.
fn same_content(a: &ApiSpec, b: &ApiSpec) -> bool {
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

impl ApiState<'_> {
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
    pub(crate) fn memory(&self, serving: BTreeMap<Stage, Served>) -> Arc<ApiMemory> {
        let limit = self.object.spec().map_or(usize::MAX, |spec| {
            usize::try_from(spec.revision_history_limit.clamp(1, 100)).unwrap_or(100)
        });
        let beyond = self.releases.len().saturating_sub(limit);
        let needed = |number: u64| {
            self.stages.values().any(|told| *told == Some(number))
                || serving.values().any(|served| served.release == number)
        };
        let releases = self
            .releases
            .iter()
            .enumerate()
            .filter(|(at, release)| *at >= beyond || needed(release.number))
            .map(|(_, release)| Arc::clone(release))
            .collect();
        let memory = ApiMemory {
            uid: self.object.uid.clone(),
            releases,
            stages: self.stages.clone(),
            serving,
        };
        match self.before {
            Some(before) if **before == memory => Arc::clone(before),
            _ => Arc::new(memory),
        }
    }

    /// The backend service that the draft names, valid or not.
    pub(crate) fn drafted_service(&self) -> Option<ObjectName> {
        let spec = self.object.spec()?;
        let service = spec.backend.service_ref.as_ref()?;
        Some(ObjectName::new(
            self.name.namespace.clone(),
            service.name.as_str(),
        ))
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
    /// Begins a compile with these settings: those for releases. A limit that was lowered since takes nothing offline; an address that
    /// is no longer allowed does.
    pub(crate) fn begin(&mut self, settings: &Settings) -> Settings {
        if self.addresses != settings.addresses {
            self.known.clear();
            self.addresses = settings.addresses;
        }
        let mut settings = settings.clone();
        settings.limits.backend_timeout_ms = u32::MAX;
        settings
    }

    /// What a release means; `None` when this version cannot read it. The settings are those of [`Drafts::begin`].
    pub(crate) fn parse(
        &mut self,
        name: &ObjectName,
        release: &Arc<Release>,
        settings: &Settings,
    ) -> Option<Arc<Draft>> {
        let address = Arc::as_ptr(release).addr();
        if let Some(used) = self.used.get(&address) {
            return used.draft.clone();
        }
        let parsed = match self.known.remove(&address) {
            Some(known) => known,
            None => {
                let mut check = Check::new(settings);
                let draft = parse::api::parse(name, &release.spec, &mut check);
                Parsed {
                    _release: Arc::clone(release),
                    draft: draft.map(|mut draft| {
                        draft.api.release = release.number;
                        draft.api.hash.clone_from(&release.hash);
                        Arc::new(draft)
                    }),
                }
            }
        };
        let draft = parsed.draft.clone();
        self.used.insert(address, parsed);
        draft
    }

    /// Forgets what the compile that ends here did not use.
    pub(crate) fn turn(&mut self) {
        self.known = std::mem::take(&mut self.used);
    }
}

/// The backend service that a draft goes through.
pub(crate) fn service_of(draft: &Draft) -> Option<&ObjectName> {
    match &draft.backend {
        Choice::Service(name) => Some(name),
        Choice::Inline(_) => None,
    }
}
