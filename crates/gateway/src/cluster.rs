//! Where a gateway pod's configuration comes from: what the controller published in its namespace, and the endpoints of the Services
//! that this names.
//!
//! A [`Subscription`] follows ConfigMaps and Secrets, puts groups together ([`store`]), follows EndpointSlices ([`endpoints`]), feeds
//! the [`crate::Gateway`], keeps the last good copy on disk ([`cache`]) and tells what is in force ([`report`]). It only ever reads
//! from the cluster.
//!
//! A complete list is the truth: a namespace in which nothing is published is a configuration too, of a gateway that knows no host.
//! What an error, a missing part or something unreadable leaves is the last good state, group by group.

mod cache;
mod endpoints;
mod metrics;
mod report;
mod store;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use paifang_model::ObjectName;
use paifang_proxy::Endpoints;
use paifang_snapshot::{
    published::Hash,
    report::{Problem, Reported},
    wire::Certificate,
};
use tokio::{
    sync::{mpsc, oneshot, watch as cell},
    task::AbortHandle,
};

use self::{
    cache::{Cache, Writer},
    endpoints::{Known, Place, Slice},
    metrics::SubscriptionMetrics,
    report::Server,
    store::{Content, Object, Service, Source, Store},
    watch::{Own, Told},
};
use crate::{Applied, Feed, listen};

/// The Secret with the manifest of all callers.
const APPS: &str = "paifang-apps";
/// The disk's copy is brought up to date at most once in this time.
const KEEP: Duration = Duration::from_millis(200);
/// At most one load in this time.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the API server may be out of reach at the start before the last good copy is used.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same when it has not failed, and only says nothing.
const MORE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection to the API server may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Most Services of one namespace that are followed by name; beyond that all of the namespace are.
const MOST_NAMES: usize = 100;
/// Inputs that may wait. A watch that is faster waits itself.
const QUEUE: usize = 1024;
/// How often the own zone is looked for: at first, and at most.
const ZONE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What a subscription is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the API server is reached; absent: by `KUBECONFIG`, else by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the controller and of all gateways.
    pub namespace: String,
    /// The fleet of gateways that this one belongs to.
    pub instance: String,
    /// This pod.
    pub pod: String,
    /// Its address, by which its zone and address family are known.
    pub pod_ip: Option<IpAddr>,
    /// Its zone; looked for in the EndpointSlices of its own namespace when it is not given.
    pub zone: Option<String>,
    /// Where the last good copy is kept; nowhere if absent.
    pub cache: Option<PathBuf>,
    /// Where it answers with reports; nowhere if absent.
    pub report: Option<SocketAddr>,
}

/// Feeds a gateway from the cluster. Dropping it ends that; the gateway goes on with what it has.
pub struct Subscription {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    report: Option<Server>,
}

/// What comes in.
enum Input {
    Own(Source, Told<Own>),
    /// Of a namespace's slices, from the watch that was begun so manieth.
    Slices(Box<str>, u64, Told<Slice>),
    Zone(String),
}

/// The thread's state.
struct Following {
    settings: Settings,
    feed: Feed,
    client: Client,
    store: Store,
    known: Known,
    slices: HashMap<Box<str>, Namespace>,
    begun: u64,
    inputs: mpsc::Sender<Input>,
    phase: Phase,
    /// Which of the two lists are complete.
    listed: [bool; 2],
    failing: BTreeMap<String, String>,
    last_load: Option<Instant>,
    /// Manifests that the gateway really serves, by group.
    loaded: BTreeMap<ObjectName, Hash>,
    applied: Option<Applied>,
    writer: Option<Writer>,
    state: cell::Sender<Arc<Reported>>,
    tls: cell::Sender<report::Tls>,
    tls_problem: Option<String>,
    /// What the report port was given.
    tls_from: Option<Certificate>,
    metrics: SubscriptionMetrics,
    /// Whether the disk's copy is behind.
    keep_routing: bool,
    keep_endpoints: bool,
    last_kept: Option<Instant>,
}

enum Phase {
    /// Nothing is served yet.
    Starting {
        since: Instant,
        failed: bool,
        /// How old the copy on disk is, if there is one.
        copy: Option<Duration>,
        /// When both lists were complete.
        listed: Option<Instant>,
    },
    Serving,
}

/// The watch of one namespace's slices.
struct Namespace {
    number: u64,
    handle: AbortHandle,
    /// What the watch covers; `None` is everything.
    covered: Option<BTreeSet<Box<str>>>,
    /// What is needed.
    names: BTreeSet<Box<str>>,
}

// === impl Subscription ===

impl Subscription {
    /// Starts to follow, on a thread of its own. Returns at once; the gateway becomes ready with its first whole configuration.
    ///
    /// # Errors
    /// When it is not said how the API server is reached, the report address or the cache folder cannot be used, or the system gives
    /// no threads. That the API server does not answer is no error: it is tried again.
    pub fn start(settings: Settings, feed: Feed) -> anyhow::Result<Self> {
        let metrics = SubscriptionMetrics::register(feed.metrics());
        let cache = match &settings.cache {
            Some(dir) => Some(Cache::open(dir, &settings.instance)?),
            None => None,
        };
        let state = cell::Sender::new(Arc::new(Reported {
            pod: settings.pod.clone(),
            instance: settings.instance.clone(),
            zone: settings.zone.clone().unwrap_or_default(),
            ..Reported::default()
        }));
        let tls = cell::Sender::new(None);
        let report = match settings.report {
            Some(address) => {
                let sources = report::Sources {
                    state: state.subscribe(),
                    tls: tls.subscribe(),
                    readers: metrics.readers.clone(),
                };
                let listener = listen::bind_one("report", address)?;
                Some(Server::start(listener, sources)?)
            }
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime to follow the cluster")?;
        let client = runtime.block_on(client(settings.kubeconfig.as_deref()))?;

        let (inputs, received) = mpsc::channel(QUEUE);
        let mut following = Following {
            store: Store::new(&settings.instance),
            known: Known::new(Place::default(), Endpoints::default()),
            slices: HashMap::new(),
            begun: 0,
            inputs,
            phase: Phase::Starting {
                since: Instant::now(),
                failed: false,
                copy: None,
                listed: None,
            },
            listed: [false; 2],
            failing: BTreeMap::new(),
            last_load: None,
            loaded: BTreeMap::new(),
            applied: None,
            writer: None,
            state,
            tls,
            tls_problem: None,
            tls_from: None,
            metrics,
            keep_routing: false,
            keep_endpoints: false,
            last_kept: None,
            settings,
            feed,
            client,
        };
        following.restore(cache)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || runtime.block_on(following.run(received, stopped)))
            .context("no thread to follow the cluster")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            report,
        })
    }

    /// Where it answers with reports: the real port, where port 0 was asked for.
    pub fn report_address(&self) -> Option<SocketAddr> {
        self.report.as_ref().map(Server::address)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)
                .with_context(|| format!("{} is no kubeconfig", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("{} cannot be used", path.display()))?
        }
        None => kube::Config::infer().await.context(
            "it is not known how the API server is reached; run in a pod with a service account, or set KUBECONFIG",
        )?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("the API server cannot be spoken to")
}

// === impl Following ===

impl Following {
    /// Takes in the copy on disk: the last good state of each group until the cluster says more.
    fn restore(&mut self, cache: Option<Cache>) -> anyhow::Result<()> {
        let place = Place {
            ip: self.settings.pod_ip,
            zone: self.settings.zone.as_deref().map(Into::into),
        };
        let Some(cache) = cache else {
            self.known = Known::new(place, Endpoints::default());
            return Ok(());
        };
        let now = Instant::now();
        let found = cache.load();
        for unusable in &found.unusable {
            tracing::error!(
                file = unusable,
                "a file of the last good copy cannot be used"
            );
        }
        for (hash, packed) in found.saved.parts {
            if let Err(reason) = self.store.restore(hash.clone(), packed) {
                tracing::error!(part = %hash, reason, "a part of the last good copy cannot be used");
            }
        }
        for (name, manifest) in found.saved.groups {
            let content = Content::Group {
                text: manifest.text,
                about: None,
            };
            self.put(Source::Routing, name, manifest.version, content, now);
        }
        if let Some(manifest) = found.saved.apps {
            let content = Content::Apps(manifest.text);
            self.put(Source::Secrets, APPS.into(), manifest.version, content, now);
        }
        self.store.assemble();
        self.store.promote(|_| true, now);
        for lost in self.store.not_in_force() {
            tracing::error!(
                group = lost,
                "the last good copy of a group is not complete and is not used"
            );
        }
        self.known = Known::new(place, found.endpoints);
        if let Phase::Starting { copy, .. } = &mut self.phase {
            *copy = found.age;
        }
        let counts = cache::Counts {
            written: self.metrics.cache_writes.clone(),
            failed: self.metrics.cache_errors.clone(),
        };
        self.writer = Some(cache.start(counts)?);
        Ok(())
    }

    fn put(
        &mut self,
        source: Source,
        name: Box<str>,
        version: u64,
        content: Content,
        now: Instant,
    ) {
        let object = Object {
            name,
            version,
            content,
        };
        self.store.put(source, object, now);
    }

    async fn run(
        mut self,
        mut received: mpsc::Receiver<Input>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        self.follow_own();
        let mut draining = self.feed.draining();
        let mut told_draining = false;
        loop {
            let wake = self.wake();
            let next = {
                let sleep = tokio::time::sleep_until(wake.into());
                let mut sleep = std::pin::pin!(sleep);
                let drained = draining.wait_for(|draining| *draining);
                let mut drained = std::pin::pin!(drained);
                std::future::poll_fn(|cx| {
                    use std::task::Poll;
                    if std::pin::Pin::new(&mut stopped).poll(cx).is_ready() {
                        return Poll::Ready(Next::Stop);
                    }
                    if !told_draining && drained.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Next::Draining);
                    }
                    if let Poll::Ready(input) = received.poll_recv(cx) {
                        return Poll::Ready(input.map_or(Next::Stop, Next::Input));
                    }
                    sleep.as_mut().poll(cx).map(|()| Next::Time)
                })
                .await
            };
            match next {
                Next::Stop => return,
                Next::Draining => told_draining = true,
                Next::Time => {}
                Next::Input(input) => {
                    self.take(input);
                    while let Ok(input) = received.try_recv() {
                        self.take(input);
                    }
                }
            }
            self.step();
        }
    }

    /// When to look again although nothing comes.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut at = now + Duration::from_secs(1);
        if let Some(deadline) = self.store.deadline(now) {
            at = at.min(deadline);
        }
        if let Some(last) = self.last_load
            && last + PAUSE > now
        {
            at = at.min(last + PAUSE);
        }
        if let Some(last) = self.last_kept
            && (self.keep_routing || self.keep_endpoints)
        {
            at = at.min((last + KEEP).max(now));
        }
        at
    }

    fn follow_own(&mut self) {
        let namespace = &self.settings.namespace;
        let selector = watch::selector(&self.settings.instance);
        watch::follow(
            Api::<ConfigMap>::namespaced(self.client.clone(), namespace),
            &selector,
            watch::config_map,
            |told| Input::Own(Source::Routing, told),
            self.inputs.clone(),
        );
        watch::follow(
            Api::<Secret>::namespaced(self.client.clone(), namespace),
            &selector,
            watch::secret,
            |told| Input::Own(Source::Secrets, told),
            self.inputs.clone(),
        );
        if let (None, Some(ip)) = (&self.settings.zone, self.settings.pod_ip) {
            let slices = Api::namespaced(self.client.clone(), namespace);
            tokio::spawn(find_zone(slices, ip, self.inputs.clone()));
        }
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Own(source, told) => self.take_own(source, told, now),
            Input::Slices(namespace, number, told) => {
                if self
                    .slices
                    .get(&namespace)
                    .is_some_and(|it| it.number == number)
                {
                    self.take_slices(&namespace, told);
                }
            }
            Input::Zone(zone) => {
                tracing::info!(zone, "found the own zone");
                self.known.set_zone(&zone);
            }
        }
    }

    fn take_own(&mut self, source: Source, told: Told<Own>, now: Instant) {
        self.note(source.as_str(), &told);
        match told {
            Told::Listed(all) => {
                let (objects, tls) = watch::split(all);
                tracing::info!(
                    watch = source.as_str(),
                    objects = objects.len(),
                    "listed what is published"
                );
                self.store.listed(source, objects, now);
                self.listed[source as usize] = true;
                match tls {
                    Some(certificate) => self.take_tls(&certificate),
                    None if source == Source::Secrets && self.tls_from.is_some() => {
                        tracing::warn!(
                            "the certificate of the report port is there no more; the last one stays in use"
                        );
                    }
                    None => {}
                }
            }
            Told::Put(Own::Published(object)) => self.store.put(source, object, now),
            Told::Put(Own::ReportTls(certificate)) => self.take_tls(&certificate),
            Told::Gone(own) => {
                if let Some((name, part)) = own.gone() {
                    self.store.gone(source, name, part);
                }
            }
            Told::Put(Own::Other) | Told::Failed(_) => {}
        }
    }

    /// What a watch tells of itself.
    fn note<T>(&mut self, name: &'static str, told: &Told<T>) {
        self.note_of(name, name.to_owned(), told);
    }

    fn note_of<T>(&mut self, name: &'static str, watch: String, told: &Told<T>) {
        match told {
            Told::Failed(error) => {
                self.metrics.failed(name);
                if let Phase::Starting { failed, .. } = &mut self.phase {
                    *failed = true;
                }
                if self.failing.insert(watch.clone(), error.clone()).is_none() {
                    tracing::warn!(
                        watch,
                        error,
                        "the API server cannot be followed; what is in force stays so"
                    );
                }
            }
            told => {
                self.metrics.event(name, matches!(told, Told::Listed(_)));
                if self.failing.remove(&watch).is_some() {
                    tracing::info!(watch, "the API server is followed again");
                }
            }
        }
    }

    fn take_tls(&mut self, certificate: &Certificate) {
        if self.tls_from.as_ref() == Some(certificate) {
            return;
        }
        self.tls_from = Some(certificate.clone());
        match report::server_config(certificate) {
            Ok(config) => {
                tracing::info!("the report port has a certificate");
                self.tls_problem = None;
                self.tls.send_replace(Some(config));
            }
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the certificate of the report port cannot be used; the last good one stays in use"
                );
                self.tls_problem = Some(reason);
            }
        }
    }

    fn take_slices(&mut self, namespace: &str, told: Told<Slice>) {
        self.note_of(
            "endpointslices",
            format!("endpointslices of {namespace}"),
            &told,
        );
        match told {
            Told::Listed(all) => {
                let covered = self
                    .slices
                    .get(namespace)
                    .and_then(|it| it.covered.as_ref());
                self.known.listed(namespace, covered, all);
            }
            Told::Put(slice) => self.known.put(slice),
            Told::Gone(slice) => self.known.gone(&slice),
            Told::Failed(_) => {}
        }
    }

    /// Puts in force what can be, and tells.
    fn step(&mut self) {
        let now = Instant::now();
        self.store.assemble();
        if let Some(services) = self.store.changed_services() {
            self.known.want(&services, now);
            self.follow_slices(&services);
        }
        if let Some(endpoints) = self.known.changed() {
            self.metrics.endpoints(&endpoints);
            self.feed.apply_endpoints(endpoints);
            self.keep_endpoints = true;
        }
        if self.is_due(now) {
            let changed = self.store.promote(|service| self.known.knows(service), now);
            if changed || self.applied.is_none() {
                self.load();
                self.last_load = Some(Instant::now());
            }
        }
        self.tell(now);
        self.keep(now);
    }

    /// Whether something may be put in force now.
    fn is_due(&mut self, now: Instant) -> bool {
        let all_listed = self.listed == [true; 2];
        match &mut self.phase {
            Phase::Serving => {
                if all_listed {
                    self.metrics.from_cache.set(0);
                }
                self.last_load.is_none_or(|last| last + PAUSE <= now)
            }
            Phase::Starting { listed, .. } if all_listed => {
                let listed = *listed.get_or_insert(now);
                // What a group waits for is likely to be here in a moment; one that it never comes for must not hold up the others.
                let whole = self
                    .store
                    .is_whole_when(|service| self.known.knows(service));
                let waited = now.saturating_duration_since(listed) >= store::GRACE;
                if whole || waited {
                    tracing::info!("the configuration is that of the cluster");
                    self.phase = Phase::Serving;
                }
                whole || waited
            }
            Phase::Starting {
                since,
                failed,
                copy: Some(age),
                ..
            } => {
                let patience = if *failed { PATIENCE } else { MORE_PATIENCE };
                let due = now.saturating_duration_since(*since) >= patience;
                if due {
                    tracing::warn!(
                        age_s = age.as_secs(),
                        "the API server cannot be reached: the last good copy on disk is served"
                    );
                    self.metrics.from_cache.set(1);
                    self.phase = Phase::Serving;
                }
                due
            }
            Phase::Starting { .. } => false,
        }
    }

    fn load(&mut self) {
        let applied = self.feed.apply_routing(self.store.snapshot());
        let kept: BTreeSet<&ObjectName> = applied
            .problems
            .iter()
            .filter(|problem| problem.api.is_none() && problem.certificate.is_none())
            .map(|problem| &problem.group)
            .collect();
        let mut loaded = self.store.groups();
        for group in kept {
            // The gateway goes on with the version before, if it had one.
            match self.loaded.remove(group) {
                Some(before) => drop(loaded.insert(group.clone(), before)),
                None => drop(loaded.remove(group)),
            }
        }
        self.loaded = loaded;
        for problem in &applied.problems {
            let known = self
                .applied
                .as_ref()
                .is_some_and(|it| it.problems.contains(problem));
            if !known {
                tracing::error!(
                    group = %problem.group,
                    api = problem.api.as_ref().map(tracing::field::display),
                    certificate = problem.certificate.as_ref().map(tracing::field::display),
                    problem = problem.message,
                    "something published cannot be served"
                );
            }
        }
        self.applied = Some(applied);
        self.keep_routing = true;
    }

    /// Hands what is different to the disk, now and then.
    fn keep(&mut self, now: Instant) {
        let wanted = (self.keep_routing || self.keep_endpoints)
            && matches!(self.phase, Phase::Serving)
            && self.last_kept.is_none_or(|last| last + KEEP <= now);
        if !wanted {
            return;
        }
        self.last_kept = Some(now);
        let (routing, endpoints) = (
            std::mem::take(&mut self.keep_routing),
            std::mem::take(&mut self.keep_endpoints),
        );
        let Some(writer) = &self.writer else { return };
        if routing {
            writer.keep(self.store.saved());
        }
        if endpoints {
            writer.keep_endpoints(Arc::new(self.known.ready().clone()));
        }
    }

    /// What is in force now, for readers of reports and for metrics.
    fn tell(&self, now: Instant) {
        let (stale, missing) = self.store.stale();
        self.metrics
            .stale_groups
            .set(i64::try_from(stale).unwrap_or(i64::MAX));
        self.metrics
            .missing_parts
            .set(i64::try_from(missing).unwrap_or(i64::MAX));
        let reported = Reported {
            ready: self.feed.readiness().is_ready(),
            pod: self.settings.pod.clone(),
            instance: self.settings.instance.clone(),
            zone: self.known.zone().unwrap_or_default().to_owned(),
            groups: self.loaded.clone(),
            apps: self.applied.as_ref().and_then(|_| self.store.apps()),
            problems: self.problems(now),
        };
        self.state.send_if_modified(|state| {
            let different = **state != reported;
            if different {
                *state = Arc::new(reported);
            }
            different
        });
    }

    fn problems(&self, now: Instant) -> BTreeSet<Problem> {
        let general = |message: String| Problem {
            group: None,
            api: None,
            certificate: None,
            message,
        };
        let mut problems: BTreeSet<Problem> = self.store.problems(now).into_iter().collect();
        problems.extend(self.applied.iter().flat_map(|applied| {
            applied.problems.iter().map(|problem| Problem {
                group: Some(problem.group.clone()),
                api: problem.api.clone(),
                certificate: problem.certificate.clone(),
                message: problem.message.clone(),
            })
        }));
        problems.extend(self.failing.iter().map(|(watch, error)| {
            general(format!(
                "the API server cannot be followed ({watch}): {error}"
            ))
        }));
        problems.extend(self.known.problems().map(general));
        problems.extend(self.tls_problem.iter().map(|reason| {
            general(format!(
                "the certificate of the report port cannot be used: {reason}"
            ))
        }));
        problems
    }

    /// Watches the slices of the Services that are needed, and of few others.
    fn follow_slices(&mut self, services: &BTreeSet<Service>) {
        let mut wanted: HashMap<Box<str>, BTreeSet<Box<str>>> = HashMap::new();
        for (service, _) in services {
            let names = wanted.entry(service.namespace.clone()).or_default();
            names.insert(service.name.clone());
        }
        self.slices.retain(|namespace, watch| {
            let kept = wanted.contains_key(namespace);
            if !kept {
                watch.handle.abort();
                self.failing
                    .remove(&format!("endpointslices of {namespace}"));
            }
            kept
        });
        for (namespace, names) in wanted {
            if let Some(watch) = self.slices.get_mut(&namespace) {
                // Fewer names need no new watch. Others, also ones that were needed before, must be listed.
                let covered = names.is_subset(&watch.names);
                watch.names = names.clone();
                if covered {
                    continue;
                }
                watch.handle.abort();
            }
            let watch = self.watch_slices(&namespace, names);
            self.slices.insert(namespace, watch);
        }
    }

    fn watch_slices(&mut self, namespace: &str, names: BTreeSet<Box<str>>) -> Namespace {
        self.begun += 1;
        let number = self.begun;
        let covered = (names.len() <= MOST_NAMES).then(|| names.clone());
        let selector = match &covered {
            Some(names) => watch::slices_of(names.iter().map(|name| &**name)),
            None => watch::ALL_SLICES.to_owned(),
        };
        let of: Box<str> = namespace.into();
        let handle = watch::follow(
            Api::<EndpointSlice>::namespaced(self.client.clone(), namespace),
            &selector,
            watch::slice,
            move |told| Input::Slices(of.clone(), number, told),
            self.inputs.clone(),
        );
        Namespace {
            number,
            handle,
            covered,
            names,
        }
    }
}

enum Next {
    Stop,
    Draining,
    Time,
    Input(Input),
}

/// Looks for the slice that lists this pod, which says what zone it is in.
async fn find_zone(slices: Api<EndpointSlice>, ip: IpAddr, inputs: mpsc::Sender<Input>) {
    let ip = ip.to_string();
    let mut pause = ZONE.0;
    loop {
        if let Ok(all) = slices.list(&ListParams::default()).await {
            let endpoints = all.items.iter().flat_map(|slice| &slice.endpoints);
            let own = endpoints.clone().find(|it| it.addresses.contains(&ip));
            if let Some(zone) = own.and_then(|own| own.zone.clone()) {
                let _ = inputs.send(Input::Zone(zone)).await;
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ZONE.1);
    }
}
