//! The one task that owns the world: events in, values to write out.
//!
//! ```text
//! watches ─▶ World ─▶ Compiler ─▶ Shelf ─▶ Batch ─▶ API server ─▶ gateways
//!                        │                                            │
//!                        └──────▶ status ◀────────────────────────────┘ reports
//! ```
//!
//! Every turn takes all events that are there, compiles what they touch, and starts at most one batch of writes: what changes
//! while a batch is under way goes into the next. What cannot be written stays to be written, with back-off. A replica that does
//! not lead does the same but for the writes, so that it can admit objects, and can take over at once.

mod publishing;
mod queue;
mod statuses;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use paifang_compiler::{Compiler, Kind, MemoryKey, ObjectId, SecretToMake, Touched, Update};
use paifang_model::ObjectName;
use paifang_runtime::readiness::Hold;
use paifang_snapshot::{published::certificates_of, wire};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

use self::queue::{Queue, Why};
use crate::{
    Settings,
    fleet::{Fleet, News},
    lease::Leading,
    metrics::Metrics,
    pki::Material,
    publish::{Batch, Key, Outcome, Shelf},
    reports::{self, Heard},
    status::{Stated, Updates, Versions},
    store::{self, Stored},
    watch::{self as watches, Event, PodEvent, PublishedEvent},
    world::{Effect, World},
    write,
};

/// Between two looks at what time alone brings.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// Events that are taken in one turn.
const EVENTS_A_TURN: usize = 5_000;
/// Compiles in one turn before the rest waits for the next.
const COMPILES_A_TURN: usize = 8;
/// The first and the longest pause before a write that failed is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What admission looks at too.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) world: World,
    /// None until everything has synced.
    pub(crate) compiler: Option<Compiler>,
}

/// The task's own state.
pub(crate) struct Brain {
    pub(crate) client: Client,
    pub(crate) settings: Arc<Settings>,
    pub(crate) namespace: Arc<str>,
    pub(crate) shared: Arc<RwLock<Shared>>,
    pub(crate) leading: Leading,
    pub(crate) material: watch::Receiver<Arc<Material>>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) heard: mpsc::Sender<Heard>,
    pub(crate) metrics: Metrics,
    /// Given up when the first compile is done.
    pub(crate) unready: Option<Hold>,
    shelf: Shelf,
    fleet: Fleet,
    versions: Versions,
    updates: Updates,
    stored: BTreeMap<ObjectId, Stored>,
    salt: Option<String>,
    leads: bool,
    pending: Pending,
    in_flight: Option<InFlight>,
    /// When parts that nobody needs may be removed next.
    remove_next: Instant,
    /// Whose status is to be looked at.
    dirty: Queue,
    writing: JoinSet<(ObjectId, Stated, write::Result)>,
    under_way: BTreeSet<ObjectId>,
    failed: BTreeMap<ObjectId, (Instant, u32)>,
    clocks: BTreeMap<ObjectId, i64>,
    /// By the pod's uid: its address, which changes with its sandbox, and its reader.
    followers: BTreeMap<String, (IpAddr, AbortHandle)>,
    making: BTreeSet<ObjectName>,
    /// What was decided last lets more be decided.
    unsettled: bool,
    helpers: JoinSet<()>,
}

/// What is to be written next.
#[derive(Debug, Default)]
struct Pending {
    states: BTreeSet<ObjectId>,
    groups: BTreeSet<ObjectName>,
    apps: bool,
    /// Not before this, after a failure; and how many there were in a row.
    not_before: Option<Instant>,
    failures: u32,
}

struct InFlight {
    task: JoinHandle<Outcome>,
    /// What was stored before, for what fails.
    before: BTreeMap<ObjectId, Stored>,
    groups: BTreeSet<ObjectName>,
    began: Instant,
}

impl Brain {
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of a process, put together once"
    )]
    pub(crate) fn new(
        client: Client,
        settings: Arc<Settings>,
        shared: Arc<RwLock<Shared>>,
        leading: Leading,
        material: watch::Receiver<Arc<Material>>,
        events: mpsc::Sender<Event>,
        heard: mpsc::Sender<Heard>,
        metrics: Metrics,
        unready: Hold,
    ) -> Self {
        Self {
            namespace: settings.namespace.as_str().into(),
            client,
            settings,
            shared,
            leading,
            material,
            events,
            heard,
            metrics,
            unready: Some(unready),
            shelf: Shelf::default(),
            fleet: Fleet::default(),
            versions: Versions::default(),
            updates: Updates::default(),
            stored: BTreeMap::new(),
            salt: None,
            leads: false,
            pending: Pending::default(),
            in_flight: None,
            remove_next: Instant::now(),
            dirty: Queue::default(),
            writing: JoinSet::new(),
            under_way: BTreeSet::new(),
            failed: BTreeMap::new(),
            clocks: BTreeMap::new(),
            followers: BTreeMap::new(),
            making: BTreeSet::new(),
            unsettled: false,
            helpers: JoinSet::new(),
        }
    }

    /// Works for ever.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut heard: mpsc::Receiver<Heard>,
        mut leads: watch::Receiver<bool>,
    ) {
        let mut fast = tokio::time::interval(Duration::from_millis(20));
        fast.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slow =
            tokio::time::interval_at(tokio::time::Instant::now() + LOOK_AROUND, LOOK_AROUND);
        slow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                changed = leads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *leads.borrow_and_update();
                    self.leadership(now).await;
                }
                outcome = finished(&mut self.in_flight) => self.written(outcome),
                Some(event) = events.recv() => {
                    let mut all = vec![event];
                    while all.len() < EVENTS_A_TURN && let Ok(event) = events.try_recv() {
                        all.push(event);
                    }
                    self.turn(all);
                }
                Some(first) = heard.recv() => {
                    self.hear(first);
                    while let Ok(more) = heard.try_recv() {
                        self.hear(more);
                    }
                }
                Some(done) = self.writing.join_next() => {
                    if let Ok((id, stated, result)) = done {
                        self.stated(id, stated, result);
                    }
                }
                Some(_) = self.helpers.join_next() => {}
                _ = fast.tick() => {}
                _ = slow.tick() => self.look_around(),
            }
            self.start().await;
            if self.unsettled {
                self.compile(Touched::default(), false);
            }
            self.dispatch();
            self.write_statuses();
        }
    }

    /// Compiles everything once, when everything is there to be compiled.
    async fn start(&mut self) {
        if self.unready.is_none() || !self.shelf.is_synced() {
            return;
        }
        if !self
            .shared
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .world
            .is_synced()
        {
            return;
        }
        self.begin().await;
        self.unready = None;
    }

    /// A new compiler with what is stored; everything is compiled, and what differs from what is published is published.
    async fn begin(&mut self) {
        let began = Instant::now();
        let mut wait = BACK_OFF.0;
        let found = loop {
            match store::load(&self.client, &self.namespace).await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::warn!(error = %format!("{error:#}"), "what is stored cannot be read yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF.1);
                }
            }
        };
        self.salt = write::salt(&self.client, &self.namespace).await;
        self.stored = found.stored;
        self.pending = Pending::default();
        self.making.clear();
        let compiler = Compiler::new(found.memory, self.settings.meaning.clone());
        self.shared
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .compiler = Some(compiler);
        self.compile(Touched::everything(), true);
        tracing::info!(
            took_ms = began.elapsed().as_millis() as u64,
            objects = self.metrics.objects(),
            leads = self.leads,
            "everything is compiled"
        );
    }

    async fn leadership(&mut self, leads: bool) {
        if leads == self.leads {
            return;
        }
        self.leads = leads;
        self.metrics.leads(leads);
        tracing::info!(
            identity = self.settings.identity,
            leads,
            "leadership changed"
        );
        // What a batch of an earlier time left behind is seen by the watch, and compared again.
        if leads && self.unready.is_none() {
            self.begin().await;
            self.dirty_all();
        }
    }

    /// What happened.
    fn turn(&mut self, events: Vec<Event>) {
        let mut effect = Effect::default();
        let mut again = BTreeSet::new();
        let mut news = News::default();
        {
            let shared = Arc::clone(&self.shared);
            let mut shared = shared.write().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                match event {
                    Event::Published(event) => again.extend(self.published(event)),
                    Event::Pod(event) => news.extend(self.pod(event)),
                    event => apply(&mut shared.world, event, &mut effect),
                }
            }
        }
        for (name, look) in std::mem::take(&mut effect.look_at) {
            let (client, events) = (self.client.clone(), self.events.clone());
            self.helpers
                .spawn(watches::look_at(client, name, look, events));
        }
        for id in std::mem::take(&mut effect.restate) {
            self.mark(id, Why::Edited);
        }
        self.news(news);
        if self.unready.is_some() {
            return;
        }
        self.publish_again(again);
        if !effect.touched.is_empty() {
            self.compile(effect.touched, false);
        }
    }

    fn published(&mut self, event: PublishedEvent) -> BTreeSet<Key> {
        tracing::trace!(?event, "published");
        match event {
            PublishedEvent::Relist(type_) => {
                self.shelf.relist(type_);
                BTreeSet::new()
            }
            PublishedEvent::Relisted(type_) => self.shelf.relisted(type_),
            PublishedEvent::There(found) => self.shelf.there(*found),
            PublishedEvent::Gone(type_, name) => self.shelf.gone(type_, &name),
        }
    }

    fn pod(&mut self, event: PodEvent) -> News {
        let news = match event {
            PodEvent::Relist => {
                self.fleet.relist();
                News::default()
            }
            PodEvent::Relisted => self.fleet.relisted(),
            PodEvent::There(pod) => self.fleet.there(pod),
            PodEvent::Gone(uid) => self.fleet.gone(&uid),
        };
        self.follow();
        news
    }

    /// One reader for each pod with an address.
    fn follow(&mut self) {
        let wanted: BTreeMap<String, reports::Pod> = self
            .fleet
            .pods()
            .filter_map(|pod| {
                let followed = reports::Pod {
                    name: pod.name.clone(),
                    uid: pod.uid.clone(),
                    ip: pod.ip?,
                };
                Some((pod.uid.clone(), followed))
            })
            .collect();
        self.followers.retain(|uid, (ip, task)| {
            let keep = wanted.get(uid).is_some_and(|pod| pod.ip == *ip);
            if !keep {
                task.abort();
            }
            keep
        });
        for (uid, pod) in wanted {
            if !self.followers.contains_key(&uid) {
                let (ip, port) = (pod.ip, self.settings.gateway_port);
                let reader = reports::follow(pod, port, self.material.clone(), self.heard.clone());
                self.followers.insert(uid, (ip, self.helpers.spawn(reader)));
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        let news = match heard {
            Heard::Report { uid, report } => self.fleet.report(&uid, report),
            Heard::Lost { uid, why } => {
                match self.fleet.pod(&uid) {
                    Some(pod) if pod.ready => {
                        tracing::warn!(pod = pod.name, why, "nothing is heard from a gateway");
                    }
                    // One that starts, drains, or has gone.
                    pod => {
                        let pod = pod.map_or(uid.as_str(), |pod| pod.name.as_str());
                        tracing::info!(
                            pod,
                            why,
                            "nothing is heard from a gateway that is not ready"
                        );
                    }
                }
                self.fleet.silent(&uid)
            }
        };
        self.news(news);
    }

    fn news(&mut self, news: News) {
        if news == News::default() {
            return;
        }
        self.metrics
            .pods(self.fleet.pods().count(), self.fleet.all_ready().count());
        if !news.instances.is_empty() {
            self.dirty_all();
            return;
        }
        let mut ids = BTreeSet::new();
        {
            let shared = Arc::clone(&self.shared);
            let shared = shared.read().unwrap_or_else(PoisonError::into_inner);
            let Some(compiler) = &shared.compiler else {
                return;
            };
            for name in &news.groups {
                ids.insert(ObjectId::new(Kind::ApiGroup, name));
                if let Some(group) = compiler.snapshot().groups.get(name) {
                    self.concerned(group, &mut ids);
                }
            }
            if news.apps {
                ids.extend(
                    shared
                        .world
                        .facts
                        .keys()
                        .filter(|id| id.kind == Kind::App)
                        .cloned(),
                );
            }
        }
        ids.into_iter().for_each(|id| self.mark(id, Why::Followed));
    }

    /// Every object whose status says how far a group is.
    fn concerned(&self, group: &wire::Group, ids: &mut BTreeSet<ObjectId>) {
        for api in &group.apis {
            ids.insert(ObjectId::new(Kind::Api, &api.name));
            let services = self.updates.services(&api.name);
            ids.extend(services.map(|it| ObjectId::new(Kind::BackendService, it)));
        }
        let domains = group.domains.iter();
        ids.extend(domains.map(|it| ObjectId::new(Kind::DomainBinding, &it.name)));
        let grants = group.grants.iter();
        ids.extend(grants.map(|it| ObjectId::new(Kind::Authorization, &it.authorization)));
    }

    /// Compiles what was touched, and remembers what is to be written.
    fn compile(&mut self, touched: Touched, first: bool) {
        let began = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.write().unwrap_or_else(PoisonError::into_inner);
        let Shared { world, compiler } = &mut *shared;
        let Some(compiler) = compiler.as_mut() else {
            return;
        };
        let mut update = tokio::task::block_in_place(|| compiler.update(&world.objects, &touched));
        for _ in 0..COMPILES_A_TURN {
            if !update.unsettled {
                break;
            }
            let later = compiler.update(&world.objects, &Touched::default());
            update.extend(later);
        }
        self.unsettled = update.unsettled;
        // What is in force counts: an edit that is refused changes nothing.
        let remembered = update.memory.iter();
        let services = remembered.filter_map(|key| match key {
            MemoryKey::Object(id) if id.kind == Kind::BackendService => Some(&id.name),
            _ => None,
        });
        for name in services {
            note_service(&mut self.updates, world, compiler, name, first);
        }
        if first {
            for name in compiler.memory().backend_services.keys() {
                note_service(&mut self.updates, world, compiler, name, first);
            }
            self.pending
                .groups
                .extend(compiler.snapshot().groups.keys().cloned());
            self.pending.apps = true;
        }
        self.metrics.compiled(
            began.elapsed(),
            world.facts.len(),
            compiler.snapshot().groups.len(),
        );
        let marked = self.take(update, compiler);
        let to_make: Vec<SecretToMake> = compiler.secrets_to_make();
        let owners: Vec<(SecretToMake, String)> = to_make
            .into_iter()
            .filter_map(|make| {
                let facts = world.facts.get(&ObjectId::new(Kind::App, &make.app))?;
                Some((make, facts.uid.to_string()))
            })
            .collect();
        drop(shared);
        marked.into_iter().for_each(|id| self.mark(id, Why::Edited));
        self.make(owners);
    }

    /// Answers whose status is to be looked at.
    fn take(&mut self, update: Update, compiler: &Compiler) -> BTreeSet<ObjectId> {
        let mut ids: BTreeSet<ObjectId> = BTreeSet::new();
        for (id, verdict) in &update.verdicts {
            if id.kind == Kind::Api {
                let status = verdict.as_ref().map(|verdict| &verdict.status);
                let services = self.updates.api(&id.name, status);
                ids.extend(
                    services
                        .iter()
                        .map(|it| ObjectId::new(Kind::BackendService, it)),
                );
            }
            ids.insert(id.clone());
        }
        for key in update.memory {
            if let MemoryKey::Object(id) = key {
                self.pending.states.insert(id);
            }
        }
        self.pending.apps |= update.apps | update.credentials;
        if !update.certificates.is_empty() {
            let groups = compiler.snapshot().groups.iter();
            let users = groups.filter(|(_, group)| {
                certificates_of(group)
                    .iter()
                    .any(|name| update.certificates.contains(*name))
            });
            self.pending
                .groups
                .extend(users.map(|(name, _)| name.clone()));
        }
        self.pending.groups.extend(update.groups.into_keys());
        ids
    }

    /// What time alone brings.
    fn look_around(&mut self) {
        if self.unready.is_some() {
            let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            let waiting = shared.world.waiting_for();
            tracing::info!(
                stores = waiting.join(", "),
                "waiting for the first look at the cluster"
            );
            return;
        }
        let now = Timestamp::now().as_second();
        let due: Vec<ObjectId> = self
            .clocks
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.clocks.remove(&id);
            self.mark(id, Why::Followed);
        }
        if self.leads && self.in_flight.is_none() {
            self.shelf.look_for_unneeded(&self.fleet, Instant::now());
            let mut batch = Batch::default();
            self.shelf.plan_orphans(&mut batch);
            self.send(batch, BTreeMap::new(), BTreeSet::new());
        }
    }
}

fn note_service(
    updates: &mut Updates,
    world: &World,
    compiler: &Compiler,
    name: &ObjectName,
    first: bool,
) {
    let id = ObjectId::new(Kind::BackendService, name);
    let generation = world.facts.get(&id).map_or(0, |facts| facts.generation);
    let in_force = compiler.memory().backend_services.get(name);
    let spec = in_force.map(|it| (&*it.spec, generation));
    updates.service(name, spec, first);
}

fn apply(world: &mut World, event: Event, effect: &mut Effect) {
    match event {
        Event::Relist(store) => world.relist(store),
        Event::Relisted(store) => world.relisted(store, effect),
        Event::Object(seen) => world.apply(*seen, effect),
        Event::ObjectGone(kind, name) => world.delete(&ObjectId { kind, name }, effect),
        Event::SecretSeen(name, version) => world.secret_seen(&name, version.as_deref(), effect),
        Event::Secret(name, look, found) => world.secret(&name, look, found, effect),
        Event::Service(name, service) => world.service(name, service, effect),
        Event::Namespace(name, labels) => world.namespace(name, labels, effect),
        Event::ReferenceGrant(name, grant) => world.reference_grant(name, grant, effect),
        Event::Published(_) | Event::Pod(_) => {}
    }
}

fn back_off(failures: u32) -> Duration {
    let doubled = BACK_OFF.0 * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    doubled.min(BACK_OFF.1)
}

/// Waits for the batch under way; for ever when there is none.
async fn finished(in_flight: &mut Option<InFlight>) -> (InFlight, Outcome) {
    let outcome = match in_flight {
        Some(running) => (&mut running.task).await,
        None => std::future::pending().await,
    };
    let done = in_flight.take();
    match (done, outcome) {
        (Some(done), Ok(outcome)) => (done, outcome),
        (Some(done), Err(error)) => {
            tracing::error!(%error, "a batch of writes broke off; all of it is looked at again");
            let outcome = Outcome {
                unstored: done.before.keys().cloned().collect(),
                unpublished: done
                    .groups
                    .iter()
                    .cloned()
                    .map(Key::Group)
                    .chain([Key::Apps])
                    .collect(),
                ..Outcome::default()
            };
            (done, outcome)
        }
        (None, _) => std::future::pending().await,
    }
}
