//! How many ready gateways really serve something.

use std::{collections::BTreeMap, sync::Arc};

use paifang_compiler::StageStatus;
use paifang_model::{ObjectName, Stage};
use paifang_snapshot::{published::Hash, wire};

use super::View;
use crate::{fleet::Member, publish::Key};

/// Versions of a group that are remembered.
const KEPT: usize = 4;

/// What each manifest that was published lately stood for.
#[derive(Debug, Default)]
pub(crate) struct Versions(BTreeMap<ObjectName, Vec<(Hash, Arc<wire::Group>)>>);

/// How far something is on the gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Ready gateways that serve it.
    pub(crate) serving: usize,
    /// Ready gateways that should.
    pub(crate) ready: usize,
    /// Whether it is published at all.
    pub(crate) published: bool,
    /// A pod that does not serve it yet, and what it says about that.
    why: Option<String>,
    /// That there is nothing to serve is complete, in these words.
    nothing: Option<&'static str>,
}

// === impl Versions ===

impl Versions {
    /// Remembers what a manifest stands for.
    pub(crate) fn remember(&mut self, name: &ObjectName, hash: Hash, group: Arc<wire::Group>) {
        let versions = self.0.entry(name.clone()).or_default();
        versions.retain(|(known, _)| *known != hash);
        versions.push((hash, group));
        if versions.len() > KEPT {
            versions.remove(0);
        }
    }

    /// Forgets a group.
    pub(crate) fn forget(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }

    fn get(&self, name: &ObjectName, hash: &Hash) -> Option<&Arc<wire::Group>> {
        let versions = self.0.get(name)?;
        versions
            .iter()
            .find(|(known, _)| known == hash)
            .map(|(_, group)| group)
    }
}

// === impl Reach ===

impl Reach {
    /// Nothing is to be served, and why.
    pub(crate) fn nothing(why: &'static str) -> Self {
        Self {
            serving: 0,
            ready: 0,
            published: true,
            why: None,
            nothing: Some(why),
        }
    }

    /// Whether every gateway that should serve it does.
    pub(crate) fn is_complete(&self) -> bool {
        self.nothing.is_some() || (self.published && self.ready > 0 && self.serving == self.ready)
    }

    /// For people.
    pub(crate) fn message(&self) -> String {
        if let Some(nothing) = self.nothing {
            return nothing.to_owned();
        }
        let Self { serving, ready, .. } = self;
        if !self.published {
            return "not published yet".to_owned();
        }
        match (&self.why, ready) {
            (Some(why), 0) => why.clone(),
            (Some(why), _) => format!("{serving} of {ready} ready gateways serve it: {why}"),
            (None, 1) => "the one ready gateway serves it".to_owned(),
            (None, _) => format!("all {ready} ready gateways serve it"),
        }
    }

    /// The one that is further from complete.
    pub(crate) fn worse(self, other: Self) -> Self {
        let missing = |it: &Self| {
            (
                !it.is_complete(),
                !it.published,
                it.ready.saturating_sub(it.serving),
            )
        };
        // What serves something says more than what serves nothing.
        if missing(&other) > missing(&self) || (self.nothing.is_some() && other.is_complete()) {
            other
        } else {
            self
        }
    }
}

// === impl View ===

impl View<'_> {
    /// How far a stage of an Api is. One that is offline is complete when no gateway serves it any more.
    pub(crate) fn stage_reach(
        &self,
        api: &ObjectName,
        stage: &Stage,
        facts: &StageStatus,
    ) -> Reach {
        // One that is offline was in the group that its spec names, if in any.
        let group = facts
            .group
            .clone()
            .or_else(|| self.group_of(api).map(Arc::new));
        let Some(group) = &group else {
            return Reach::nothing("not published in this stage");
        };
        let Some(now) = self.compiler.snapshot().groups.get(group) else {
            return Reach::nothing("its group is not published");
        };
        let wanted = served(now, api, stage);
        self.count(
            group,
            &now.instance,
            |version| Arc::ptr_eq(version, now) || served(version, api, stage) == wanted,
            Some(api),
        )
    }

    fn group_of(&self, api: &ObjectName) -> Option<ObjectName> {
        let group = &self.world.objects.apis.get(api)?.spec()?.group_ref;
        let namespace = group.namespace.as_deref().unwrap_or(&api.namespace);
        Some(ObjectName::new(namespace, group.name.as_str()))
    }

    /// How far a whole group is.
    pub(crate) fn group_reach(&self, group: &ObjectName) -> Reach {
        let Some(now) = self.compiler.snapshot().groups.get(group) else {
            return Reach::nothing("nothing of it is published");
        };
        self.count(
            group,
            &now.instance,
            |version| Arc::ptr_eq(version, now) || *version == *now,
            None,
        )
    }

    fn count(
        &self,
        group: &ObjectName,
        instance: &str,
        same: impl Fn(&Arc<wire::Group>) -> bool,
        api: Option<&ObjectName>,
    ) -> Reach {
        let key = Key::Group(group.clone());
        let wanted = self
            .shelf
            .wanted(&key)
            .and_then(|it| self.versions.get(group, &it.hash));
        let published = self.shelf.is_published(&key) && wanted.is_some_and(&same);
        let mut reach = Reach {
            serving: 0,
            ready: 0,
            published,
            why: None,
            nothing: None,
        };
        for member in self.fleet.ready(instance) {
            reach.ready += 1;
            let version = member
                .serves(group)
                .and_then(|hash| self.versions.get(group, hash));
            let problem = member.problem(group, api);
            if problem.is_none() && version.is_some_and(&same) {
                reach.serving += 1;
            } else if reach.why.is_none() {
                reach.why = Some(why(member, problem));
            }
        }
        if reach.ready == 0 {
            reach.why = Some(format!("no gateway of instance `{instance}` is ready"));
        }
        reach
    }

    /// How far all Apps with their credentials are.
    pub(crate) fn apps_reach(&self) -> Reach {
        let wanted = self.shelf.wanted(&Key::Apps).map(|it| &it.hash);
        let mut reach = Reach {
            serving: 0,
            ready: 0,
            published: self.shelf.is_published(&Key::Apps) && wanted.is_some(),
            why: None,
            nothing: None,
        };
        for member in self.fleet.all_ready() {
            reach.ready += 1;
            let reported = member.reported.as_ref();
            if reported.is_some_and(|it| it.apps.as_ref() == wanted) {
                reach.serving += 1;
            } else if reach.why.is_none() {
                reach.why = Some(why(member, None));
            }
        }
        if reach.ready == 0 {
            reach.why = Some("no gateway is ready".to_owned());
        }
        reach
    }
}

fn why(member: &Member, problem: Option<&str>) -> String {
    let pod = &member.pod.name;
    match (problem, &member.reported) {
        (Some(problem), _) => format!("pod {pod} says: {problem}"),
        (None, Some(_)) => format!("pod {pod} does not yet"),
        (None, None) => format!("nothing is heard from pod {pod}"),
    }
}

type Served<'g> = Vec<(
    &'g wire::Api,
    Option<&'g wire::Backend>,
    &'g BTreeMap<String, String>,
)>;

/// What a version of a group serves of an Api in a stage: with equal values, callers see the same.
fn served<'g>(group: &'g wire::Group, api: &ObjectName, stage: &Stage) -> Served<'g> {
    let from = group.apis.partition_point(|it| it.name < *api);
    let own = group.apis[from..].iter().take_while(|it| it.name == *api);
    let mut served = Vec::new();
    for (at, api) in own.enumerate() {
        let Ok(at) = u32::try_from(from + at) else {
            continue;
        };
        let route = group
            .routes
            .binary_search_by(|route| (&route.stage, route.api).cmp(&(stage, at)));
        if let Ok(route) = route {
            let route = &group.routes[route];
            let backend = usize::try_from(route.backend)
                .ok()
                .and_then(|at| group.backends.get(at));
            served.push((&**api, backend, &route.variables));
        }
    }
    served
}
