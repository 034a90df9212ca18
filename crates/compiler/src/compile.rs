//! The steps of a compile, in order.

use std::{collections::BTreeMap, sync::Arc};

use paifang_model::ObjectName;
use paifang_resources::Kind;
use paifang_snapshot::wire;

use crate::{
    Memory, ObjectId, Objects, SecretToMake, Settings, Verdict,
    apps::{self, Apps},
    certificates::Certificates,
    domains::{self, Domains},
    grants::{self, Grants},
    groups::{self, Groups, Routed, compile_group},
    releases::{self, ApiState, Drafts},
    routes::{self, Scene, StageOutcome},
    services::{self, Services},
    target::{Resolver, ready_endpoints},
};

/// What compile answers.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What a gateway loads.
    pub snapshot: wire::Snapshot,
    /// A verdict on each object of the six kinds; of one [`Compiler`], the very same `Arc` as before where nothing changed.
    pub verdicts: BTreeMap<ObjectId, Arc<Verdict>>,
    /// What to hand to the next compile. Store it before the snapshot is served.
    pub memory: Memory,
    /// Secrets of credentials without `secretRef` that are not there yet: make them with random content, then compile again.
    pub secrets_to_make: Vec<SecretToMake>,
}

/// Compiles again and again, and spares what did not change: releases are parsed once, and a group that came out as before is the
/// very same `Arc`. What it answers is what [`compile`] answers.
#[derive(Default)]
pub struct Compiler {
    drafts: Drafts,
    groups: BTreeMap<ObjectName, Arc<wire::Group>>,
    verdicts: BTreeMap<ObjectId, Arc<Verdict>>,
}

/// Compiles everything, once. `memory` is what the compile before returned; empty the first time.
pub fn compile(objects: &Objects, memory: &Memory, settings: &Settings) -> Compiled {
    Compiler::default().compile(objects, memory, settings)
}

// === impl Compiler ===

impl Compiler {
    /// Compiles everything. `memory` is what the compile before returned; empty the first time.
    pub fn compile(&mut self, objects: &Objects, memory: &Memory, settings: &Settings) -> Compiled {
        let mut resolver = Resolver {
            objects,
            settings,
            certificates: Certificates::new(objects, memory, settings),
        };
        // Each object for itself, with what it refers to. A mistake ends in its own verdict.
        let groups = groups::parse_all(objects, memory, settings);
        let services = services::parse_all(objects, memory, settings, &mut resolver);
        let states = releases::judge_all(objects, memory, settings);
        let apps = apps::decide(objects, memory, settings);
        // What only one may have: routes, hosts.
        let domains = domains::decide(
            objects,
            memory,
            settings,
            &groups,
            &mut resolver.certificates,
        );
        let release_settings = self.drafts.begin(settings);
        let mut scene = Scene {
            objects,
            settings,
            release_settings: &release_settings,
            groups: &groups,
            services: &services,
            resolver: &mut resolver,
            drafts: &mut self.drafts,
        };
        let outcomes = scene.decide(&states);
        let references = states
            .iter()
            .map(|state| scene.draft_references(state))
            .collect();
        self.drafts.turn();
        let published = outcomes
            .iter()
            .filter_map(|it| {
                let group = it.chosen.as_ref()?.group;
                Some(((states[it.api].name, &it.stage), group))
            })
            .collect();
        let grants = grants::decide(objects, memory, settings, &groups, &apps.names, &published);
        // Nothing left to refuse: put the groups together, one by one.
        let compiled = self.put_together(settings, &groups, &outcomes, &domains, &grants);
        let certificates = resolver
            .certificates
            .collect(compiled.iter().map(|group| &**group));
        let mut compiled = Parts {
            groups: &groups,
            services: &services,
            states: &states,
            outcomes: &outcomes,
            references,
            compiled,
        }
        .conclude(objects, memory, apps, domains, grants, certificates);
        for (id, verdict) in &mut compiled.verdicts {
            if let Some(same) = self.verdicts.get(id).filter(|before| *before == verdict) {
                *verdict = Arc::clone(same);
            }
        }
        self.verdicts.clone_from(&compiled.verdicts);
        compiled
    }

    fn put_together(
        &mut self,
        settings: &Settings,
        groups: &Groups<'_>,
        outcomes: &[StageOutcome],
        domains: &Domains,
        grants: &Grants,
    ) -> Vec<Arc<wire::Group>> {
        let mut routed: Vec<Vec<Routed<'_>>> = Vec::new();
        routed.resize_with(groups.entries.len(), Vec::new);
        for outcome in outcomes {
            if let Some(candidate) = &outcome.chosen {
                routed[candidate.group].push(Routed {
                    stage: &outcome.stage,
                    candidate,
                });
            }
        }
        let before = std::mem::take(&mut self.groups);
        for (at, (entry, routed)) in groups.entries.iter().zip(&routed).enumerate() {
            let domains = domains.published.get(&at).cloned().unwrap_or_default();
            let grants = grants.published.get(&at).cloned().unwrap_or_default();
            let group = compile_group(entry, settings, routed, domains, grants);
            let group = match before.get(entry.name) {
                Some(same) if **same == group => Arc::clone(same),
                _ => Arc::new(group),
            };
            self.groups.insert(entry.name.clone(), group);
        }
        groups
            .entries
            .iter()
            .map(|entry| Arc::clone(&self.groups[entry.name]))
            .collect()
    }
}

/// What was decided, to be told.
struct Parts<'p, 'a> {
    groups: &'p Groups<'a>,
    services: &'p Services<'a>,
    states: &'p [ApiState<'a>],
    /// Ordered by Api.
    outcomes: &'p [StageOutcome],
    /// Of each Api.
    references: Vec<Vec<crate::Problem>>,
    compiled: Vec<Arc<wire::Group>>,
}

// === impl Parts ===

impl Parts<'_, '_> {
    fn conclude(
        self,
        objects: &Objects,
        memory_before: &Memory,
        apps: Apps,
        domains: Domains,
        grants: Grants,
        certificates: BTreeMap<ObjectName, wire::Certificate>,
    ) -> Compiled {
        let mut memory = Memory {
            apis: BTreeMap::new(),
            groups: self.groups.memory(),
            backend_services: self.services.memory(),
            apps: apps.memory,
            authorizations: grants.memory,
            domain_bindings: domains.memory,
            certificates: remember(&certificates, memory_before),
        };
        let mut verdicts = BTreeMap::new();
        let mut tell = |kind, told: &mut dyn Iterator<Item = (ObjectName, Verdict)>| {
            verdicts
                .extend(told.map(|(name, verdict)| (ObjectId { kind, name }, Arc::new(verdict))));
        };
        let used = routes::service_usage(self.states, self.outcomes, self.groups);
        tell(Kind::ApiGroup, &mut self.groups.verdicts(&self.compiled));
        tell(Kind::BackendService, &mut self.services.verdicts(used));
        tell(Kind::App, &mut apps.verdicts.into_iter());
        tell(Kind::DomainBinding, &mut domains.verdicts.into_iter());
        tell(Kind::Authorization, &mut grants.verdicts.into_iter());
        let mut rest = self.outcomes;
        for (at, (state, references)) in self.states.iter().zip(self.references).enumerate() {
            let own = rest.iter().take_while(|it| it.api == at).count();
            let (own, others) = rest.split_at(own);
            rest = others;
            let verdict = routes::conclude(state, own, references, self.groups, &mut memory);
            verdicts.insert(ObjectId::new(Kind::Api, state.name), Arc::new(verdict));
        }
        let targets = self
            .compiled
            .iter()
            .flat_map(|group| &group.backends)
            .map(|backend| &backend.target);
        let endpoints = ready_endpoints(objects, targets);
        Compiled {
            snapshot: wire::Snapshot {
                groups: self
                    .compiled
                    .into_iter()
                    .map(|group| (group.name.clone(), group))
                    .collect(),
                apps: Arc::new(wire::Apps {
                    format: wire::FORMAT,
                    apps: apps.published,
                }),
                credentials: Arc::new(apps.credentials),
                certificates: Arc::new(certificates),
                endpoints: Arc::new(endpoints),
            },
            verdicts,
            memory,
            secrets_to_make: apps.to_make,
        }
    }
}

/// The material in use, as the very same entry where nothing changed.
fn remember(
    certificates: &BTreeMap<ObjectName, wire::Certificate>,
    before: &Memory,
) -> BTreeMap<ObjectName, Arc<wire::Certificate>> {
    certificates
        .iter()
        .map(|(name, now)| {
            let entry = match before.certificates.get(name) {
                Some(then) if **then == *now => Arc::clone(then),
                _ => Arc::new(now.clone()),
            };
            (name.clone(), entry)
        })
        .collect()
}
