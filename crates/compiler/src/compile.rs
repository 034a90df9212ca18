//! The steps of an update, in order.
//!
//! There is one way through: a compile from nothing is an update to which everything is new. Each step works out again what was
//! touched and whatever has read something that came out different ([`crate::graph`]), and nothing else; so that what an update costs
//! depends on what it reaches, not on how many objects there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::ObjectName;
use paifang_resources::Kind;
use paifang_snapshot::wire;

use crate::{
    Memory, MemoryKey, ObjectId, Objects, SecretToMake, Settings, Touched, Update, Verdict,
    apps::{self, AppNode},
    backend::ready_endpoints,
    certificates::{Certificates, Judgements, Uses},
    domains::{self, DomainNode},
    grants::AuthorizationNode,
    graph::{Dep, Dirty, Readers},
    groups::{GroupEntry, GroupNode},
    memory, releases,
    routes::ApiNode,
    services::{InUse, ServiceEntry, ServiceNode, Usage},
};

/// What compile answers.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What a gateway loads.
    pub snapshot: wire::Snapshot,
    /// A verdict on each object of the six kinds.
    pub verdicts: BTreeMap<ObjectId, Arc<Verdict>>,
    /// What to hand to the next compile. Store it before the snapshot is served.
    pub memory: Memory,
    /// Secrets of credentials without `secretRef` that are not there yet: make them with random content, then compile again.
    pub secrets_to_make: Vec<SecretToMake>,
}

/// Compiles change after change. What it says after an update is what [`compile`] says of the same objects with the memory from before
/// that update; an unchanged group or verdict is the very same `Arc`.
#[derive(Debug)]
pub struct Compiler {
    pub(crate) settings: Settings,
    /// Those that releases are read with.
    pub(crate) release_settings: Settings,
    pub(crate) memory: Memory,
    pub(crate) snapshot: wire::Snapshot,
    verdicts: BTreeMap<ObjectId, Arc<Verdict>>,
    pub(crate) world: World,
    /// What the update before changed in the memory: what was worked out with the old entries is worked out again.
    carried: BTreeSet<MemoryKey>,
    /// Whether the next update looks at everything.
    afresh: bool,
}

/// What is known of every object, and who shares what.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) groups: BTreeMap<ObjectName, GroupNode>,
    pub(crate) services: BTreeMap<ObjectName, ServiceNode>,
    pub(crate) apis: BTreeMap<ObjectName, Box<ApiNode>>,
    pub(crate) apps: BTreeMap<ObjectName, AppNode>,
    pub(crate) domains: BTreeMap<ObjectName, DomainNode>,
    pub(crate) authorizations: BTreeMap<ObjectName, AuthorizationNode>,
    pub(crate) judgements: Judgements,
    pub(crate) readers: Readers,
    /// The Apis that ask for something in a group.
    pub(crate) claimants: BTreeMap<ObjectName, BTreeSet<Arc<ObjectId>>>,
    /// The Apps that hold a key.
    pub(crate) app_keys: BTreeMap<apps::Key, BTreeSet<ObjectName>>,
    /// The DomainBindings that ask for a host.
    pub(crate) hosts: BTreeMap<domains::Key, BTreeSet<ObjectName>>,
    /// The DomainBindings that a group publishes.
    pub(crate) bound: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// The Authorizations that open something in a group.
    pub(crate) granted: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// The stages of BackendServices that are in use, as far as is remembered.
    pub(crate) in_use: BTreeMap<ObjectName, InUse>,
    /// Who goes through each BackendService.
    pub(crate) usage: BTreeMap<ObjectName, Usage>,
    /// How the published groups use Secrets.
    pub(crate) secret_uses: Uses,
    /// How many published groups call each port of a Service.
    pub(crate) endpoint_uses: BTreeMap<(ObjectName, String), usize>,
}

/// The groups and backend services that others are looked up in.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    groups: &'a BTreeMap<ObjectName, GroupNode>,
    services: &'a BTreeMap<ObjectName, ServiceNode>,
    /// Those that releases are read with.
    pub(crate) release_settings: &'a Settings,
    /// One group as it would be, for somebody who asks what would happen; none in it when it would not be in force.
    pub(crate) group_instead: Option<(&'a ObjectName, Option<&'a Arc<GroupEntry>>)>,
    /// The same for one backend service.
    pub(crate) service_instead: Option<(&'a ObjectName, Option<&'a ServiceEntry>)>,
}

/// An update under way.
pub(crate) struct Step<'c> {
    pub(crate) compiler: &'c mut Compiler,
    pub(crate) objects: &'c Objects,
    pub(crate) dirty: Dirty,
    pub(crate) update: Update,
}

/// Compiles everything, once. `memory` is what the compile before returned; empty the first time.
pub fn compile(objects: &Objects, memory: &Memory, settings: &Settings) -> Compiled {
    let mut compiler = Compiler::new(memory.clone(), settings.clone());
    compiler.update(objects, &Touched::default());
    compiler.into_compiled()
}

// === impl Compiler ===

impl Compiler {
    /// Nothing is known but what earlier compiles decided. The first update looks at everything, whatever is touched.
    pub fn new(memory: Memory, settings: Settings) -> Self {
        Self {
            release_settings: releases::lenient(&settings),
            settings,
            memory,
            snapshot: wire::Snapshot {
                apps: Arc::new(wire::Apps {
                    format: wire::FORMAT,
                    apps: Vec::new(),
                }),
                ..wire::Snapshot::default()
            },
            verdicts: BTreeMap::new(),
            world: World::default(),
            carried: BTreeSet::new(),
            afresh: true,
        }
    }

    /// Takes over what `touched` says is different in `objects`, and answers what is different because of it.
    pub fn update(&mut self, objects: &Objects, touched: &Touched) -> Update {
        let mut step = Step {
            compiler: self,
            objects,
            dirty: Dirty::default(),
            update: Update::default(),
        };
        step.begin(touched);
        // Each object for itself, with what it refers to. A mistake ends in its own verdict.
        step.parse_groups();
        step.parse_apis();
        step.resolve_services();
        // What only one may have: routes, keys, hosts.
        step.settle_routes();
        step.settle_apps();
        step.settle_domains();
        step.judge_authorizations();
        // Nothing is left to refuse: put the groups together, one by one.
        step.publish_groups();
        step.publish_certificates();
        step.publish_endpoints();
        step.tell_services();
        let mut update = step.update;
        update.unsettled = !update.memory.is_empty();
        self.carried.clone_from(&update.memory);
        self.afresh = false;
        update
    }

    /// Other settings: the next update looks at everything.
    pub fn set_settings(&mut self, settings: Settings) {
        self.release_settings = releases::lenient(&settings);
        self.settings = settings;
        for api in self.world.apis.values_mut() {
            api.forget_drafts();
        }
        self.afresh = true;
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is to be remembered.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What gateways load.
    pub fn snapshot(&self) -> &wire::Snapshot {
        &self.snapshot
    }

    /// A verdict on each object of the six kinds.
    pub fn verdicts(&self) -> &BTreeMap<ObjectId, Arc<Verdict>> {
        &self.verdicts
    }

    /// The verdict on one object.
    pub fn verdict(&self, id: &ObjectId) -> Option<&Arc<Verdict>> {
        self.verdicts.get(id)
    }

    /// Every Secret of a credential without `secretRef` that is not there.
    pub fn secrets_to_make(&self) -> Vec<SecretToMake> {
        let apps = self.world.apps.values().filter(|app| app.is_in_force());
        let mut secrets: Vec<SecretToMake> =
            apps.flat_map(|app| app.to_make.iter().cloned()).collect();
        secrets.sort();
        secrets
    }

    #[cfg(test)]
    pub(crate) fn forget_verdicts(&mut self) {
        self.verdicts = BTreeMap::new();
    }

    fn into_compiled(self) -> Compiled {
        Compiled {
            secrets_to_make: self.secrets_to_make(),
            snapshot: self.snapshot,
            verdicts: self.verdicts,
            memory: self.memory,
        }
    }
}

// === impl View ===

impl<'a> View<'a> {
    /// Everything as it is.
    pub(crate) fn new(
        groups: &'a BTreeMap<ObjectName, GroupNode>,
        services: &'a BTreeMap<ObjectName, ServiceNode>,
        release_settings: &'a Settings,
    ) -> Self {
        Self {
            groups,
            services,
            release_settings,
            group_instead: None,
            service_instead: None,
        }
    }

    /// A group in force.
    pub(crate) fn group(self, name: &ObjectName) -> Option<&'a Arc<GroupEntry>> {
        if let Some((_, instead)) = self.group_instead.filter(|(it, _)| *it == name) {
            return instead;
        }
        self.groups.get(name)?.entry.as_ref()
    }

    /// A backend service in force.
    pub(crate) fn service(self, name: &ObjectName) -> Option<&'a ServiceEntry> {
        if let Some((_, instead)) = self.service_instead.filter(|(it, _)| *it == name) {
            return instead;
        }
        self.services.get(name)?.entry.as_ref()
    }
}

// === impl Step ===

impl Step<'_> {
    /// What is to be worked out first: what was touched, and what was worked out with memory that has changed since.
    fn begin(&mut self, touched: &Touched) {
        if self.compiler.afresh || touched.everything {
            self.touch_everything();
            return;
        }
        for key in std::mem::take(&mut self.compiler.carried) {
            match key {
                MemoryKey::Object(id) => self.touch(&id),
                MemoryKey::Certificate(name) => self.touch_secret(&name),
            }
        }
        for id in &touched.objects {
            self.touch(id);
        }
        for name in &touched.secrets {
            self.touch_secret(name);
        }
        let world = &self.compiler.world;
        let deps = touched
            .services
            .iter()
            .map(|name| Dep::Service(name.clone()));
        let labels = touched.namespaces.iter();
        let deps = deps.chain(labels.map(|it| Dep::Labels(it.as_str().into())));
        let grants = touched.reference_grants.iter();
        for dep in deps.chain(grants.map(|it| Dep::Grants(it.namespace.clone()))) {
            self.dirty.fire(&dep, &world.readers);
        }
        for name in &touched.services {
            let from = (name.clone(), String::new());
            let ports = world.endpoint_uses.range(from..);
            let ports = ports.map(|(port, _)| port);
            let ports = ports.take_while(|(service, _)| service == name);
            self.dirty.endpoints.extend(ports.cloned());
        }
    }

    fn touch(&mut self, id: &ObjectId) {
        let dirty = &mut self.dirty;
        let set = match id.kind {
            Kind::ApiGroup => &mut dirty.groups,
            Kind::BackendService => &mut dirty.services,
            Kind::Api => &mut dirty.drafts,
            Kind::App => &mut dirty.apps,
            Kind::Authorization => &mut dirty.authorizations,
            Kind::DomainBinding => &mut dirty.domains,
        };
        set.insert(id.name.clone());
    }

    fn touch_secret(&mut self, name: &ObjectName) {
        let world = &mut self.compiler.world;
        world.judgements.forget(name);
        self.dirty.fire(&Dep::Secret(name.clone()), &world.readers);
        self.dirty.secrets.insert(name.clone());
    }

    /// Everything that is there, was there, or is remembered.
    fn touch_everything(&mut self) {
        let compiler = &mut *self.compiler;
        let (objects, memory, world) = (self.objects, &compiler.memory, &mut compiler.world);
        let dirty = &mut self.dirty;
        world.judgements.clear();
        dirty.groups = names(&objects.groups, &world.groups, &memory.groups);
        dirty.services = names(
            &objects.backend_services,
            &world.services,
            &memory.backend_services,
        );
        dirty.drafts = names(&objects.apis, &world.apis, &memory.apis);
        dirty.apps = names(&objects.apps, &world.apps, &memory.apps);
        dirty.domains = names(
            &objects.domain_bindings,
            &world.domains,
            &memory.domain_bindings,
        );
        dirty.authorizations = names(
            &objects.authorizations,
            &world.authorizations,
            &memory.authorizations,
        );
        dirty.secrets = world.secret_uses.names().cloned().collect();
        dirty.secrets.extend(memory.certificates.keys().cloned());
        dirty.endpoints = world.endpoint_uses.keys().cloned().collect();
        compiler.carried.clear();
    }

    /// The material of the Secrets that are to be looked at.
    fn publish_certificates(&mut self) {
        for name in std::mem::take(&mut self.dirty.secrets) {
            let compiler = &mut *self.compiler;
            let certificates = Certificates {
                objects: self.objects,
                remembered: &compiler.memory.certificates,
                settings: &compiler.settings,
            };
            let world = &mut compiler.world;
            let now = certificates.published(&name, &world.secret_uses, &mut world.judgements);
            let published = &mut compiler.snapshot.certificates;
            if published.get(&name) != now.as_ref() {
                let published = Arc::make_mut(published);
                match now.clone() {
                    Some(now) => published.insert(name.clone(), now),
                    None => published.remove(&name),
                };
                self.update.certificates.insert(name.clone());
            }
            let remembered = &mut compiler.memory.certificates;
            if memory::replace(remembered, &name, now.map(Arc::new)) {
                self.update.memory.insert(MemoryKey::Certificate(name));
            }
        }
    }

    /// The endpoints of the Services that are to be looked at.
    fn publish_endpoints(&mut self) {
        for key in std::mem::take(&mut self.dirty.endpoints) {
            let called = self.compiler.world.endpoint_uses.contains_key(&key);
            let (name, port) = &key;
            let now = ready_endpoints(self.objects, name, port).filter(|_| called);
            let published = &mut self.compiler.snapshot.endpoints;
            if published.get(&key) == now.as_ref() {
                continue;
            }
            let published = Arc::make_mut(published);
            match now {
                Some(now) => published.insert(key.clone(), now),
                None => published.remove(&key),
            };
            self.update.endpoints.insert(key);
        }
    }

    /// This is the verdict on an object from now on; none when it is gone.
    pub(crate) fn tell(&mut self, id: ObjectId, verdict: Option<Verdict>) {
        let verdicts = &mut self.compiler.verdicts;
        let Some(verdict) = verdict else {
            if verdicts.remove(&id).is_some() {
                self.update.verdicts.insert(id, None);
            }
            return;
        };
        if verdicts.get(&id).is_some_and(|before| **before == verdict) {
            return;
        }
        let verdict = Arc::new(verdict);
        verdicts.insert(id.clone(), Arc::clone(&verdict));
        self.update.verdicts.insert(id, Some(verdict));
    }
}

fn names<A, B, C>(
    objects: &BTreeMap<ObjectName, A>,
    nodes: &BTreeMap<ObjectName, B>,
    remembered: &BTreeMap<ObjectName, C>,
) -> BTreeSet<ObjectName> {
    let gone = nodes.keys().chain(remembered.keys());
    let gone = gone.filter(|name| !objects.contains_key(*name));
    objects.keys().chain(gone).cloned().collect()
}
