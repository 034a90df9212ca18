//! Authorizations: which App may call what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::{AuthorizationSpec, Kind};
use paifang_snapshot::wire;

use crate::{
    Accepted, Object, ObjectId, Objects, Problem, Reason, Settings, Status, Verdict,
    compile::{Step, World},
    graph::{Dep, Deps},
    groups::keep,
    memory::{recall, replace},
    parse::{
        self,
        authorization::{Authorization, Opens},
        group::Allowed,
    },
    routes::StageOutcome,
    settle::{effect, settle},
};

/// What is known of an Authorization.
#[derive(Debug)]
pub(crate) struct AuthorizationNode {
    /// What it opens, by group.
    pub(crate) grants: BTreeMap<ObjectName, Vec<Arc<wire::Grant>>>,
    deps: Deps,
}

/// What follows from an Authorization.
pub(crate) struct Judged {
    pub(crate) grants: BTreeMap<ObjectName, Vec<Arc<wire::Grant>>>,
    deps: Deps,
    memory: Option<Arc<Accepted<AuthorizationSpec>>>,
    pub(crate) verdict: Verdict,
}

/// What Authorizations are looked up in.
struct Scene<'s> {
    objects: &'s Objects,
    world: &'s World,
    deps: Deps,
}

/// Apis that an App may not call in a stage any more.
pub(crate) type Lost = BTreeMap<(ObjectName, Stage), BTreeSet<ObjectName>>;

/// A group with one Api of it, or with all.
type Opened<'m> = (ObjectName, Option<&'m ObjectName>);

/// Parses an Authorization and looks up what it opens to whom.
pub(crate) fn judge(
    name: &ObjectName,
    object: &Object<AuthorizationSpec>,
    remembered: &BTreeMap<ObjectName, Arc<Accepted<AuthorizationSpec>>>,
    objects: &Objects,
    world: &World,
    settings: &Settings,
) -> Judged {
    let before = recall(remembered, name, object.uid.as_deref());
    let (in_force, mut problems) = settle(object, before, settings, |spec, check| {
        parse::authorization::parse(name, spec, check)
    })
    .take();
    let mut scene = Scene {
        objects,
        world,
        deps: Deps::default(),
    };
    let effect = effect(in_force.is_some());
    let mut grants = BTreeMap::new();
    let memory = in_force.map(|in_force| {
        let model = &in_force.model;
        let opened = scene.opened(name, model, &mut problems);
        let apps = scene.known_apps(model, &mut problems);
        grants = publish(name, model, &opened, &apps);
        keep(before, object.uid.clone(), in_force.spec, BTreeSet::new())
    });
    Judged {
        grants,
        deps: scene.deps,
        memory,
        verdict: Verdict::judge(problems, effect, &[], Status::Authorization),
    }
}

fn publish(
    name: &ObjectName,
    model: &Authorization,
    opened: &[Opened<'_>],
    apps: &[&ObjectName],
) -> BTreeMap<ObjectName, Vec<Arc<wire::Grant>>> {
    let mut published: BTreeMap<ObjectName, Vec<Arc<wire::Grant>>> = BTreeMap::new();
    // A group without a grant is of no interest.
    let opened = opened.iter().filter(|_| !apps.is_empty());
    for (group, api) in opened {
        let grants = published.entry(group.clone()).or_default();
        grants.extend(apps.iter().map(|app| {
            Arc::new(wire::Grant {
                app: (*app).clone(),
                stage: model.stage.clone(),
                api: api.cloned(),
                expires_at_ms: model.expires_at_ms,
                authorization: name.clone(),
            })
        }));
    }
    for grants in published.values_mut() {
        grants.shrink_to_fit();
    }
    published
}

// === impl Scene ===

impl<'s> Scene<'s> {
    /// Groups and Apis that are opened; no Api means every one of the group. An Api that is not published needs no grant.
    fn opened<'m>(
        &mut self,
        name: &ObjectName,
        model: &'m Authorization,
        problems: &mut Vec<Problem>,
    ) -> Vec<Opened<'m>>
    where
        's: 'm,
    {
        let group = match &model.opens {
            Opens::Apis(apis) => return self.opened_apis(model, apis, problems),
            Opens::Group(group) => group,
        };
        self.deps.insert(Dep::Group(group.clone()));
        let entry = self
            .world
            .groups
            .get(group)
            .and_then(|it| it.entry.as_ref());
        let Some(entry) = entry else {
            problems.push(Problem::new(
                "spec.group",
                Reason::GroupNotFound,
                format!("there is no ApiGroup {group} in force"),
                "create it, or correct the name",
            ));
            return Vec::new();
        };
        // Where nobody else's Apis can join, all of them are of this namespace; elsewhere one by one.
        if group.namespace == name.namespace && matches!(entry.model.allowed, Allowed::Same) {
            return vec![(group.clone(), None)];
        }
        self.deps.insert(Dep::Members(group.clone()));
        let world = self.world;
        let apis = world.claimants(group);
        apis.filter(|api| api.namespace == name.namespace)
            .filter(|api| world.publishes(api, &model.stage) == Some(group))
            .map(|api| (group.clone(), Some(api)))
            .collect()
    }

    fn opened_apis<'m>(
        &mut self,
        model: &'m Authorization,
        apis: &'m [ObjectName],
        problems: &mut Vec<Problem>,
    ) -> Vec<Opened<'m>> {
        let mut opened = Vec::new();
        for (at, api) in apis.iter().enumerate() {
            self.deps.insert(Dep::Api(api.clone()));
            if !self.objects.apis.contains_key(api) {
                problems.push(Problem::new(
                    format!("spec.apis[{at}].name"),
                    Reason::ApiNotFound,
                    format!("there is no Api {api}"),
                    "create it, or correct the name",
                ));
            }
            if let Some(group) = self.world.publishes(api, &model.stage) {
                opened.push((group.clone(), Some(api)));
            }
        }
        opened
    }

    fn known_apps<'m>(
        &mut self,
        model: &'m Authorization,
        problems: &mut Vec<Problem>,
    ) -> Vec<&'m ObjectName> {
        let mut known = Vec::new();
        for (at, app) in model.apps.iter().enumerate() {
            self.deps.insert(Dep::App(app.clone()));
            if self.world.apps.get(app).is_some_and(|it| it.is_in_force()) {
                known.push(app);
            } else {
                problems.push(Problem::new(
                    format!("spec.apps[{at}]"),
                    Reason::AppNotFound,
                    format!("there is no App {app} in force"),
                    "create it, or correct the name",
                ));
            }
        }
        known
    }
}

// === impl World ===

impl World {
    /// What nobody opens any more when an Authorization opens `now` instead of what it opens. Ends of Authorizations are not looked at.
    pub(crate) fn lost(
        &self,
        name: &ObjectName,
        now: &BTreeMap<ObjectName, Vec<Arc<wire::Grant>>>,
    ) -> Lost {
        let mut lost = Lost::new();
        let before = self.authorizations.get(name).map(|it| &it.grants);
        for (group, before) in before.into_iter().flatten() {
            let others = self.granted.get(group).into_iter().flatten();
            let others = others
                .filter(|other| *other != name)
                .filter_map(|other| self.authorizations.get(other)?.grants.get(group));
            let open: Vec<&wire::Grant> = others
                .chain(now.get(group))
                .flatten()
                .map(|grant| &**grant)
                .collect();
            for grant in before {
                let apis = match &grant.api {
                    Some(api) => BTreeSet::from([api.clone()]),
                    None => self.published_in(group, &grant.stage),
                };
                let opened = |api: &ObjectName| {
                    open.iter().any(|it| {
                        it.app == grant.app
                            && it.stage == grant.stage
                            && it.api.as_ref().is_none_or(|it| it == api)
                    })
                };
                let apis: BTreeSet<ObjectName> =
                    apis.into_iter().filter(|api| !opened(api)).collect();
                if !apis.is_empty() {
                    let whose = (grant.app.clone(), grant.stage.clone());
                    lost.entry(whose).or_default().extend(apis);
                }
            }
        }
        lost
    }

    /// The Apis that a group publishes in a stage.
    fn published_in(&self, group: &ObjectName, stage: &Stage) -> BTreeSet<ObjectName> {
        self.claimants(group)
            .filter(|api| self.publishes(api, stage) == Some(group))
            .cloned()
            .collect()
    }

    /// The group that publishes an Api in a stage.
    fn publishes(&self, api: &ObjectName, stage: &Stage) -> Option<&ObjectName> {
        let outcomes = &self.apis.get(api)?.outcomes;
        let outcome = outcomes.iter().find(|it| it.stage == *stage)?;
        StageOutcome::group(outcome)
    }
}

// === impl Step ===

impl Step<'_> {
    /// Looks at the Authorizations that are to be looked at.
    pub(crate) fn judge_authorizations(&mut self) {
        for name in std::mem::take(&mut self.dirty.authorizations) {
            let compiler = &mut *self.compiler;
            let object = self.objects.authorizations.get(&name);
            let remembered = &compiler.memory.authorizations;
            let judged = object.map(|object| {
                let (world, settings) = (&compiler.world, &compiler.settings);
                judge(&name, object, remembered, self.objects, world, settings)
            });
            let (node, memory, verdict) = match judged {
                Some(it) => {
                    let Judged {
                        grants,
                        deps,
                        memory,
                        verdict,
                    } = it;
                    let node = AuthorizationNode { grants, deps };
                    (Some(node), memory, Some(verdict))
                }
                None => (None, None, None),
            };
            self.grant(&name, node);
            if replace(&mut self.compiler.memory.authorizations, &name, memory) {
                self.remembers(Kind::Authorization, &name);
            }
            self.tell(ObjectId::new(Kind::Authorization, &name), verdict);
        }
    }

    /// An Authorization opens this from now on.
    fn grant(&mut self, name: &ObjectName, mut node: Option<AuthorizationNode>) {
        let world = &mut self.compiler.world;
        let before = world.authorizations.remove(name);
        world.readers.replace(
            &Arc::new(ObjectId::new(Kind::Authorization, name)),
            before.as_ref().map(|it| &it.deps),
            node.as_mut().map(|it| &mut it.deps),
        );
        let (no_grants, mut none_now) = (BTreeMap::new(), BTreeMap::new());
        let then = before.as_ref().map_or(&no_grants, |it| &it.grants);
        let now = node.as_mut().map(|it| &mut it.grants);
        let now = now.unwrap_or(&mut none_now);
        for (group, grants) in then {
            if let Some(same) = now.get_mut(group).filter(|it| *it == grants) {
                // As the group publishes them: shared.
                same.clone_from(grants);
                continue;
            }
            if !now.contains_key(group)
                && let Some(names) = world.granted.get_mut(group)
            {
                names.remove(name);
                if names.is_empty() {
                    world.granted.remove(group);
                }
            }
            self.dirty.published.insert(group.clone());
        }
        for group in now.keys().filter(|group| !then.contains_key(*group)) {
            let names = world.granted.entry(group.clone()).or_default();
            names.insert(name.clone());
            self.dirty.published.insert(group.clone());
        }
        if let Some(node) = node {
            world.authorizations.insert(name.clone(), node);
        }
    }
}
