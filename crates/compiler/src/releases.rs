//! Releases: which drafts become one, which are kept, and what each stage is told to serve.
//!
//! A draft that is valid in itself becomes the next release whenever it differs from the newest, whether any stage follows or not.
//! What it refers to plays no part here: a release whose references are missing is not served, and the stage keeps what it had.

use std::{collections::BTreeMap, sync::Arc};

use paifang_model::{ObjectName, Stage};
use paifang_resources::ApiSpec;

use crate::{
    ApiMemory, Object, Problem, Release, Served, Settings, Written, ids,
    inputs::{Age, age},
    memory::recall,
    parse::{
        self, Check,
        api::{Choice, Draft},
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
    pub(crate) stages: BTreeMap<Stage, Option<u64>>,
    /// What each stage served.
    pub(crate) served: BTreeMap<Stage, Served>,
    /// The backend service that the draft names, valid or not.
    pub(crate) drafted_service: Option<ObjectName>,
    uid: Option<String>,
    /// How many releases are kept.
    history: usize,
    before: Option<Arc<ApiMemory>>,
}

/// Parsed releases of one Api. A release never changes, so that one that was parsed before need not be parsed again.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    known: Vec<Parsed>,
    used: Vec<Parsed>,
}

#[derive(Debug, Clone)]
struct Parsed {
    release: Arc<Release>,
    draft: Option<Arc<Draft>>,
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

fn drafted_service(name: &ObjectName, object: &Object<ApiSpec>) -> Option<ObjectName> {
    let service = object.spec()?.backend.service_ref.as_ref()?;
    Some(ObjectName::new(
        name.namespace.clone(),
        service.name.as_str(),
    ))
}

/// The backend services that a published Api goes through, with the stage, as far as is remembered.
pub(crate) fn in_use(
    name: &ObjectName,
    object: &Object<ApiSpec>,
    remembered: &BTreeMap<ObjectName, Arc<ApiMemory>>,
) -> Vec<(ObjectName, Stage)> {
    let Some(api) = remembered.get(name) else {
        return Vec::new();
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
            Some((service, stage.clone()))
        })
        .collect()
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
    pub(crate) fn memory(&self, serving: BTreeMap<Stage, Served>) -> Arc<ApiMemory> {
        let beyond = self.releases.len().saturating_sub(self.history);
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
            uid: self.uid.clone(),
            releases,
            stages: self.stages.clone(),
            serving,
        };
        match &self.before {
            Some(before) if **before == memory => Arc::clone(before),
            _ => Arc::new(memory),
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
        let same = |it: &Parsed| Arc::ptr_eq(&it.release, release);
        if let Some(used) = self.used.iter().find(|it| same(it)) {
            return used.draft.clone();
        }
        let parsed = match self.known.iter().position(same) {
            Some(known) => self.known.swap_remove(known),
            None => parse_release(name, release, settings),
        };
        let draft = parsed.draft.clone();
        self.used.push(parsed);
        draft
    }

    /// The same, for somebody who asks what would happen.
    pub(crate) fn copy(&self) -> Self {
        Self {
            known: self.known.clone(),
            used: Vec::new(),
        }
    }

    /// Forgets what was not used since the last turn.
    pub(crate) fn turn(&mut self) {
        self.known = std::mem::take(&mut self.used);
    }
}

fn parse_release(name: &ObjectName, release: &Arc<Release>, settings: &Settings) -> Parsed {
    let mut check = Check::new(settings);
    let draft = parse::api::parse(name, &release.spec, &mut check);
    Parsed {
        release: Arc::clone(release),
        draft: draft.map(|mut draft| {
            draft.api.release = release.number;
            draft.api.hash.clone_from(&release.hash);
            Arc::new(draft)
        }),
    }
}

/// The settings that releases are read with: a limit that was lowered since takes nothing offline; an address that is no longer
/// allowed does.
pub(crate) fn lenient(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.limits.backend_timeout_ms = u32::MAX;
    settings
}

/// The backend service that a draft goes through.
pub(crate) fn service_of(draft: &Draft) -> Option<&ObjectName> {
    match &draft.backend {
        Choice::Service(name) => Some(name),
        Choice::Inline(_) => None,
    }
}
