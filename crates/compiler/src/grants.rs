//! Authorizations: which App may call what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Stage};
use paifang_resources::AuthorizationSpec;
use paifang_snapshot::wire;

use crate::{
    Accepted, Memory, Objects, Problem, Reason, Settings, Status, Verdict,
    groups::{Groups, keep},
    memory::recall,
    parse::{
        self,
        authorization::{Authorization, Opens},
        group::Allowed,
    },
    settle::{effect, settle},
};

/// What becomes of the Authorizations.
#[derive(Default)]
pub(crate) struct Grants {
    /// By position of the group.
    pub(crate) published: BTreeMap<usize, Vec<wire::Grant>>,
    pub(crate) memory: BTreeMap<ObjectName, Arc<Accepted<AuthorizationSpec>>>,
    pub(crate) verdicts: Vec<(ObjectName, Verdict)>,
}

/// Which group each Api is published in, per stage.
pub(crate) type Published<'s> = BTreeMap<(&'s ObjectName, &'s Stage), usize>;

/// Decides every Authorization.
pub(crate) fn decide(
    objects: &Objects,
    memory: &Memory,
    settings: &Settings,
    groups: &Groups<'_>,
    apps: &BTreeSet<ObjectName>,
    published: &Published<'_>,
) -> Grants {
    let mut grants = Grants::default();
    let mut by_group: ByGroup<'_> = BTreeMap::new();
    for (&(api, stage), &group) in published {
        by_group.entry((group, stage)).or_default().push(api);
    }
    let scene = Scene {
        objects,
        groups,
        published,
        by_group: &by_group,
    };
    for (name, object) in &objects.authorizations {
        let before = recall(&memory.authorizations, name, object.uid.as_deref());
        let (in_force, mut problems) = settle(object, before, settings, |spec, check| {
            parse::authorization::parse(name, spec, check)
        })
        .take();
        let is_in_force = in_force.is_some();
        if let Some(in_force) = in_force {
            let model = &in_force.model;
            let opened = scene.opened(name, model, &mut problems);
            let known = known_apps(model, apps, &mut problems);
            grants.add(name, model, &opened, &known);
            let accepted = keep(before, object.uid.clone(), in_force.spec, BTreeSet::new());
            grants.memory.insert(name.clone(), accepted);
        }
        let verdict = Verdict::judge(problems, effect(is_in_force), &[], Status::Authorization);
        grants.verdicts.push((name.clone(), verdict));
    }
    grants
}

/// The Apis that a group publishes in a stage.
type ByGroup<'s> = BTreeMap<(usize, &'s Stage), Vec<&'s ObjectName>>;

/// What Authorizations are looked up in.
struct Scene<'s, 'a> {
    objects: &'s Objects,
    groups: &'s Groups<'a>,
    published: &'s Published<'s>,
    by_group: &'s ByGroup<'s>,
}

// === impl Scene ===

impl<'s> Scene<'s, '_> {
    /// Groups and Apis that are opened; no Api means every one of the group. An Api that is not published needs no grant.
    fn opened<'m>(
        &self,
        name: &ObjectName,
        model: &'m Authorization,
        problems: &mut Vec<Problem>,
    ) -> Vec<(usize, Option<&'m ObjectName>)>
    where
        's: 'm,
    {
        match &model.opens {
            Opens::Apis(apis) => self.opened_apis(model, apis, problems),
            Opens::Group(group) => match self.groups.position(group) {
                Some(at) => self.opened_group(name, group, at, &model.stage),
                None => {
                    problems.push(Problem::new(
                        "spec.group",
                        Reason::GroupNotFound,
                        format!("there is no ApiGroup {group} in force"),
                        "create it, or correct the name",
                    ));
                    Vec::new()
                }
            },
        }
    }

    fn opened_apis<'m>(
        &self,
        model: &'m Authorization,
        apis: &'m [ObjectName],
        problems: &mut Vec<Problem>,
    ) -> Vec<(usize, Option<&'m ObjectName>)> {
        let mut opened = Vec::new();
        for (at, api) in apis.iter().enumerate() {
            if !self.objects.apis.contains_key(api) {
                problems.push(Problem::new(
                    format!("spec.apis[{at}].name"),
                    Reason::ApiNotFound,
                    format!("there is no Api {api}"),
                    "create it, or correct the name",
                ));
            }
            if let Some(&group) = self.published.get(&(api, &model.stage)) {
                opened.push((group, Some(api)));
            }
        }
        opened
    }

    /// Where nobody else's Apis can join, all of them are of this namespace; elsewhere one by one.
    fn opened_group(
        &self,
        name: &ObjectName,
        group: &ObjectName,
        at: usize,
        stage: &Stage,
    ) -> Vec<(usize, Option<&'s ObjectName>)> {
        let allowed = &self.groups.entries[at].model.allowed;
        if group.namespace == name.namespace && matches!(allowed, Allowed::Same) {
            return vec![(at, None)];
        }
        let apis = self.by_group.get(&(at, stage)).into_iter().flatten();
        apis.filter(|api| api.namespace == name.namespace)
            .map(|&api| (at, Some(api)))
            .collect()
    }
}

fn known_apps<'m>(
    model: &'m Authorization,
    apps: &BTreeSet<ObjectName>,
    problems: &mut Vec<Problem>,
) -> Vec<&'m ObjectName> {
    let mut known = Vec::new();
    for (at, app) in model.apps.iter().enumerate() {
        if apps.contains(app) {
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

// === impl Grants ===

impl Grants {
    fn add(
        &mut self,
        name: &ObjectName,
        model: &Authorization,
        opened: &[(usize, Option<&ObjectName>)],
        apps: &[&ObjectName],
    ) {
        for (group, api) in opened {
            let grants = self.published.entry(*group).or_default();
            grants.extend(apps.iter().map(|app| wire::Grant {
                app: (*app).clone(),
                stage: model.stage.clone(),
                api: api.cloned(),
                expires_at_ms: model.expires_at_ms,
                authorization: name.clone(),
            }));
        }
    }
}
