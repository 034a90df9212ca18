//! One API group in service.

use std::sync::{Arc, atomic::AtomicU64};

use paifang_model::{BasePath, HostPattern, HttpsPolicy, Method, ObjectName, Stage};

use super::{
    Domain, Problem,
    api::Route,
    captures::Captures,
    digest::Digest,
    grants::{AppId, Grants, Permission},
    trie::Trie,
};

/// An API group in service, see [`crate::wire::Group`]. Made by [`super::Table::load`] and shared until its content changes.
pub struct Group {
    /// The ApiGroup object.
    pub name: ObjectName,
    /// The stable id that its sub-domains begin with.
    pub id: Box<str>,
    /// The fleet of gateways that serves it.
    pub instance: Box<str>,
    /// In front of every path of the group.
    pub base_path: BasePath,
    /// Requests a second, all of the group's APIs together.
    pub qps_limit: u32,
    /// Calls a day (UTC) on the public sub-domain.
    pub daily_quota: u32,
    /// Whether the AppCode is removed before the backend sees the request.
    pub filter_app_code: bool,
    /// HTTP and TLS versions on its bound domains.
    pub https_policy: HttpsPolicy,
    /// Its automatic name on the public listeners, if switched on.
    pub public_sub_domain: Option<HostPattern>,
    /// Its automatic name on the internal listener, if switched on.
    pub internal_sub_domain: Option<HostPattern>,
    /// Bound domains, ordered by host.
    pub domains: Box<[Arc<Domain>]>,
    /// What has been used of the limits. Kept over loads for the group's name, also when its content changes.
    pub counters: Arc<Counters>,
    /// Names the content that this was loaded from.
    pub digest: Digest,
    /// Sorted; a [`StageIndex`] is a position in here.
    pub(super) stages: Box<[Arc<Stage>]>,
    /// One per stage.
    pub(super) tries: Box<[Trie]>,
    pub(super) routes: Box<[Arc<Route>]>,
    pub(super) grants: Grants,
    pub(super) problems: Arc<[Problem]>,
}

/// State of a group's limits, opaque to the table: the proxy says what the numbers mean.
#[derive(Debug, Default)]
pub struct Counters {
    /// For requests a second.
    pub qps: AtomicU64,
    /// For calls a day.
    pub day: AtomicU64,
}

/// A stage of one [`Group`]; means nothing to another, nor to another version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageIndex(pub(super) u16);

// === impl Group ===

impl Group {
    /// The stage a caller or a domain names: `TEST`, `PRE`, `RELEASE`, one that a domain pins, or one that some route serves.
    pub fn stage(&self, name: &str) -> Option<StageIndex> {
        let at = self
            .stages
            .binary_search_by(|stage| stage.as_str().cmp(name))
            .ok()?;
        Some(StageIndex(u16::try_from(at).ok()?))
    }

    /// The route for a request. `path` is what follows the base path, beginning with `/`, normalised, still percent-encoded; `method`
    /// is the request's. On success `captures` has what the template captured; otherwise nothing that counts.
    ///
    /// Segment by segment from the left, an equal literal goes before a parameter, and that before a final `*`; a branch in which no
    /// Api answers is left again. Literals compare decoded. A parameter never matches an empty segment; `*` matches whatever follows
    /// its slash, also nothing. An Api for this very method goes before one for `ANY` on the same template.
    pub fn find<'p>(
        &self,
        stage: StageIndex,
        method: Method,
        path: &'p str,
        captures: &mut Captures<'p>,
    ) -> Option<&Arc<Route>> {
        captures.clear();
        let trie = self.tries.get(usize::from(stage.0))?;
        let route = trie.find(path, Some(method), captures)?;
        self.routes.get(usize::try_from(route).ok()?)
    }

    /// Whether [`Group::find`] would find a route for some method.
    pub fn path_exists(&self, stage: StageIndex, path: &str) -> bool {
        self.tries
            .get(usize::from(stage.0))
            .is_some_and(|trie| trie.find(path, None, &mut Captures::new()).is_some())
    }

    /// Whether `app` may call `route` (one of this group's) at `now_ms`, in milliseconds since the epoch. Of several grants the one
    /// that lasts longest counts, one for every Api of the group included. A grant ends with the instant it names.
    pub fn grant(&self, app: AppId, route: &Route, now_ms: i64) -> Permission {
        self.grants
            .permission(app, route.stage_index, route.grant_key, now_ms)
    }

    /// Every stage that [`Group::stage`] knows, in order.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().map(|stage| &**stage)
    }

    /// Every route, ordered as published.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }
}
