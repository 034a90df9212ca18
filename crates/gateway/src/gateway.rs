//! The gateway as a whole: its start, its configuration, its end.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use paifang_model::ObjectName;
use paifang_proxy::{Config, Endpoints, Ready, Shared};
use paifang_runtime::{
    admin::{Admin, Page, Pages},
    metrics::Metrics,
    readiness::{Hold, Readiness},
};
use paifang_snapshot::wire::{self, Snapshot};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    access_log::Writer,
    dump,
    listen::{self, Addresses},
    metrics::{self, ConfigMetrics, MOST_CERTIFICATES, Totals},
    settings::{Drain, Settings},
    tls::{self, TlsTable, certificate::CertificateFacts},
    worker::{Common, Ended, Phase, Start},
};

/// How often it is looked whether requests have let go of a configuration that was replaced. It is freed then, on a thread of its own:
/// it is large, and a worker that freed it would let its other requests wait.
const LET_GO: Duration = Duration::from_millis(5);

/// A running gateway. Dropping it ends it at once; [`Gateway::drain`] ends it well.
pub struct Gateway {
    feed: Feed,
    addresses: Addresses,
    workers: Vec<thread::JoinHandle<Ended>>,
    writer: Option<Writer>,
    admin: Option<Admin>,
}

/// Changes what a gateway serves, from any thread. Clones feed the same one.
#[derive(Clone)]
pub struct Feed(Arc<Feeding>);

struct Feeding {
    common: Arc<Common>,
    control: Control,
    loading: Mutex<Loading>,
    in_service: Arc<Mutex<dump::InService>>,
    registry: Metrics,
    metrics: ConfigMetrics,
}

/// What a load needs to know of the ones before.
struct Loading {
    /// Given up with the first configuration.
    unready: Option<Hold>,
    /// What is loaded now.
    callers: Callers,
    /// Those of the last snapshot.
    endpoints: Endpoints,
    /// Where configurations go that were replaced.
    retired: mpsc::Sender<Arc<Config>>,
}

/// Callers and certificates as they count for the version, and what that was made from.
#[derive(Default)]
struct Callers {
    apps: Arc<wire::Apps>,
    credentials: Arc<Vec<wire::Credential>>,
    certificates: Arc<BTreeMap<ObjectName, wire::Certificate>>,
    digest: [u8; 32],
}

/// Ends a gateway from any thread. Clones end the same one.
#[derive(Clone)]
pub struct Control(Arc<Ending>);

struct Ending {
    phase: watch::Sender<Phase>,
    readiness: Readiness,
    drain: Drain,
    begun: AtomicBool,
    draining: watch::Sender<bool>,
    hold: Mutex<Option<Hold>>,
}

/// What became of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Names the content that is in service now: equal content has equal versions, in every process. Secrets do not count.
    pub version: String,
    /// What could not be loaded, and what serves instead.
    pub problems: Vec<Problem>,
}

/// Something published that could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The ApiGroup object.
    pub group: ObjectName,
    /// The Api that answers closed, if it is one.
    pub api: Option<ObjectName>,
    /// The Secret that cannot be used, if it is one.
    pub certificate: Option<ObjectName>,
    /// For people: what is wrong, and what is done about it. Never a secret.
    pub message: String,
}

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because they took too long.
    pub cut: usize,
}

// === impl Gateway ===

impl Gateway {
    /// Binds every listener, then starts. Nothing is served before the first [`Gateway::apply`]: `/readyz` says no, and whoever connects
    /// all the same waits. (A Service still names a pod whose container has just been started again, and to answer that its host is
    /// unknown would be wrong.)
    ///
    /// # Errors
    /// When an address cannot be used, in one plain sentence that names listener and address; when the default certificate or the
    /// access log cannot be used; when the system gives no threads.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let table = TlsTable::new(settings.default_certificate.as_ref());
        let table = table
            .map_err(|error| anyhow::anyhow!("the default certificate cannot be used: {error}"))?;
        let (sockets, admin, addresses) = listen::bind(&settings)?;
        let writer = Writer::start(&settings.access_log)?;

        let readiness = Readiness::new();
        let unready = readiness.hold("the first configuration is not loaded");
        let (phase, _) = watch::channel(Phase::Starting);
        let control = Control(Arc::new(Ending {
            phase,
            readiness: readiness.clone(),
            drain: settings.drain,
            begun: AtomicBool::new(false),
            draining: watch::Sender::new(false),
            hold: Mutex::default(),
        }));
        let common = Arc::new(Common {
            proxy: Arc::new(Shared::new(settings.proxy.clone())),
            tls: ArcSwap::from_pointee(table),
            settings,
            open: Default::default(),
        });

        let registry = Metrics::new("paifang", env!("CARGO_PKG_VERSION"));
        let totals = Totals::new(sockets.len());
        let proxy = Arc::clone(&common.proxy);
        let metrics = metrics::register(&registry, Arc::clone(&totals), move || proxy.nonces.len());
        let in_service = Arc::<Mutex<dump::InService>>::default();
        let admin = match admin {
            Some(listener) => {
                let pages = pages(readiness, registry.clone(), &common, &in_service);
                Some(Admin::serve(listener, pages)?)
            }
            None => None,
        };

        let retired = free_retired()?;
        let mut workers = Vec::new();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let start = Start {
                number,
                sockets,
                common: Arc::clone(&common),
                phase: control.0.phase.subscribe(),
                tally: totals.tally(number),
                pen: writer.as_ref().map(Writer::pen),
            };
            workers.push(start.spawn()?);
        }
        tracing::info!(
            http = addresses.http.map(tracing::field::display),
            https = addresses.https.map(tracing::field::display),
            internal = addresses.internal.map(tracing::field::display),
            admin = addresses.admin.map(tracing::field::display),
            workers = workers.len(),
            "listening"
        );
        let feed = Feed(Arc::new(Feeding {
            common,
            control,
            loading: Mutex::new(Loading {
                unready: Some(unready),
                callers: Callers::default(),
                endpoints: Endpoints::default(),
                retired,
            }),
            in_service,
            registry,
            metrics,
        }));
        Ok(Self {
            feed,
            addresses,
            workers,
            writer,
            admin,
        })
    }

    /// A hand that changes what it serves while another thread waits for its end.
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// As [`Feed::apply`].
    pub fn apply(&self, snapshot: &Snapshot) -> Applied {
        self.feed.apply(snapshot)
    }

    /// Where it listens: the real ports, where port 0 was asked for.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where the admin port is.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// A hand to end it with while another thread waits.
    pub fn control(&self) -> Control {
        self.feed.0.control.clone()
    }

    /// Ends it well: [`Control::drain`], then waits until every worker has ended and the access log is written.
    pub fn drain(self) -> Drained {
        self.feed.0.control.drain();
        self.wait()
    }

    /// Waits until it was ended by its [`Control`].
    pub fn wait(mut self) -> Drained {
        let mut drained = Drained { cut: 0 };
        for worker in std::mem::take(&mut self.workers) {
            match worker.join() {
                Ok(ended) => drained.cut += ended.cut,
                Err(_) => tracing::error!("a worker had ended by a panic"),
            }
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        drained
    }

    /// Whether PEM material can be used, and what it says. Only the parts that are present are checked.
    ///
    /// # Errors
    /// The first thing that is wrong, with what to do about it: what cannot be read, a chain out of order, a key that does not
    /// belong to the leaf. Never shows key material.
    pub fn check_certificate(certificate: &wire::Certificate) -> Result<CertificateFacts, String> {
        tls::certificate::check(certificate)
    }
}

// === impl Feed ===

impl Feed {
    /// Serves `snapshot` from now on. Loads on the calling thread, then swaps; requests that are under way end with what they began
    /// with. What cannot be loaded is reported and keeps its previous version or answers closed; everything else is served. The
    /// first one makes the gateway ready.
    pub fn apply(&self, snapshot: &Snapshot) -> Applied {
        let endpoints: Endpoints = snapshot
            .endpoints
            .iter()
            .map(|((service, port), all)| {
                let ready = Ready::alike(all.iter().copied());
                (service.clone(), port, ready)
            })
            .collect();
        let before = {
            let mut loading = self
                .0
                .loading
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut loading.endpoints, endpoints.clone())
        };
        // First, so that no route leads to a Service of which nothing is known yet.
        self.apply_endpoints(endpoints.after(&before));
        self.apply_routing(snapshot)
    }

    /// As [`Feed::apply`], for someone who follows endpoints apart from the rest: those of `snapshot` do not count. What it costs
    /// depends on the groups that are different from the last one, by pointer, and hardly on how many there are.
    pub fn apply_routing(&self, snapshot: &Snapshot) -> Applied {
        let started = Instant::now();
        let mut loading = self
            .0
            .loading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let previous = self.0.common.proxy.config.load_full();
        let (config, table_problems) = Config::load(snapshot, &previous);
        let tls_before = self.0.common.tls.load_full();
        let (tls, tls_problems) = TlsTable::load(snapshot, &tls_before);
        loading.callers.update(snapshot);
        let applied = Applied {
            version: version(&config, snapshot, &loading.callers),
            problems: problems(table_problems, tls_problems),
        };

        // Certificates first: a host that is known can be connected to.
        self.0.common.tls.store(Arc::new(tls));
        self.0.common.proxy.config.store(Arc::new(config));
        loading.unready = None;
        self.0.control.0.begin();
        self.note(&applied, snapshot, &tls_before);
        tracing::info!(
            version = applied.version,
            problems = applied.problems.len(),
            groups = snapshot.groups.len(),
            took_us = started.elapsed().as_micros() as u64,
            "configuration in service"
        );
        // Only fails when the gateway is about to go.
        let _ = loading.retired.send(previous);
        applied
    }

    /// From now on the endpoints of Services are these. Costs nothing but a pointer: no table is loaded for it.
    pub fn apply_endpoints(&self, endpoints: Endpoints) {
        self.0.common.proxy.endpoints.store(Arc::new(endpoints));
    }

    /// Where metrics are registered that its admin port shows.
    pub fn metrics(&self) -> &Metrics {
        &self.0.registry
    }

    /// Whether it takes requests: it has a configuration and is not about to end.
    pub fn readiness(&self) -> &Readiness {
        &self.0.control.0.readiness
    }

    /// For metrics and the dump.
    fn note(&self, applied: &Applied, snapshot: &Snapshot, tls_before: &TlsTable) {
        let config = self.0.common.proxy.config.load_full();
        let metrics = &self.0.metrics;
        let result = if applied.problems.is_empty() {
            "ok"
        } else {
            "failed"
        };
        metrics.loads.get_or_create(&[("result", result)]).inc();
        metrics.version.clear();
        metrics
            .version
            .get_or_create(&[("version", applied.version.clone())])
            .set(1);
        metrics.groups.set(count(config.table.groups().count()));
        metrics.routes.set(count(
            config
                .table
                .groups()
                .map(|group| group.routes().count())
                .sum(),
        ));
        metrics.problems.set(count(applied.problems.len()));
        let tls = self.0.common.tls.load();
        if !tls.binds_as(tls_before) {
            metrics.certificate_ends.clear();
            for (host, bound) in tls.bounds().take(MOST_CERTIFICATES) {
                let ends = metrics
                    .certificate_ends
                    .get_or_create(&[("domain", host.to_string())]);
                ends.set(bound.not_after_ms.div_euclid(1_000));
            }
        }
        let mut in_service = self
            .0
            .in_service
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *in_service = dump::InService {
            version: applied.version.clone(),
            since: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            apps: snapshot.apps.apps.len(),
            problems: applied.problems.clone(),
        };
    }

    /// Tells of the moment when the gateway begins to end.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.0.control.0.draining.subscribe()
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.feed.0.control.force();
        for worker in std::mem::take(&mut self.workers) {
            let _ = worker.join();
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

fn pages(
    readiness: Readiness,
    registry: Metrics,
    common: &Arc<Common>,
    in_service: &Arc<Mutex<dump::InService>>,
) -> Pages {
    let (common, in_service) = (Arc::clone(common), Arc::clone(in_service));
    Pages::standard(readiness, registry).with(
        "/config",
        "the configuration in service as JSON, without secrets",
        move || {
            let in_service = in_service
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let config = common.proxy.config.load_full();
            Page::json(dump::dump(
                &config.table,
                &common.tls.load_full(),
                &in_service,
            ))
        },
    )
}

fn problems(
    table: Vec<paifang_snapshot::table::Problem>,
    tls: Vec<tls::TlsProblem>,
) -> Vec<Problem> {
    let table = table.into_iter().map(|problem| Problem {
        group: problem.group,
        api: problem.api,
        certificate: None,
        message: problem.message,
    });
    let tls = tls.into_iter().map(|problem| Problem {
        group: problem.group,
        api: None,
        certificate: Some(problem.certificate),
        message: problem.message,
    });
    table.chain(tls).collect()
}

/// The first 96 bits of a hash over what is in service. Groups bring digests of their own; of certificates the public part counts, of
/// credentials all but the secret.
fn version(config: &Config, snapshot: &Snapshot, callers: &Callers) -> String {
    let mut hash = Sha256::new();
    for group in config.table.groups() {
        add(&mut hash, &group.name.to_string());
        add(&mut hash, &group.digest.to_string());
    }
    hash.update(callers.digest);
    for ((service, port), addresses) in snapshot.endpoints.iter() {
        add(&mut hash, &format!("{service} {port} {addresses:?}"));
    }
    let hash = hash.finalize();
    hash.iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn callers(snapshot: &Snapshot) -> [u8; 32] {
    let mut hash = Sha256::new();
    for app in &snapshot.apps.apps {
        add(
            &mut hash,
            &format!("{} {} {}", app.name, app.id, app.disabled),
        );
    }
    for credential in snapshot.credentials.iter() {
        let wire::Credential {
            app,
            name,
            not_before_ms,
            expires_at_ms,
            proof,
        } = credential;
        let kind = match proof {
            wire::Proof::KeyPair { app_key, .. } => app_key,
            wire::Proof::AppCode { .. } => "",
        };
        let text = format!("{app} {name} {not_before_ms:?} {expires_at_ms:?} {kind}");
        add(&mut hash, &text);
    }
    for (name, certificate) in snapshot.certificates.iter() {
        add(&mut hash, &name.to_string());
        add(&mut hash, certificate.chain.as_deref().unwrap_or_default());
        add(&mut hash, certificate.ca.as_deref().unwrap_or_default());
    }
    hash.finalize().into()
}

fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

// === impl Callers ===

impl Callers {
    /// Looks at what is different from the last time.
    fn update(&mut self, snapshot: &Snapshot) {
        let same = Arc::ptr_eq(&self.apps, &snapshot.apps)
            && Arc::ptr_eq(&self.credentials, &snapshot.credentials)
            && Arc::ptr_eq(&self.certificates, &snapshot.certificates);
        if same {
            return;
        }
        *self = Self {
            apps: Arc::clone(&snapshot.apps),
            credentials: Arc::clone(&snapshot.credentials),
            certificates: Arc::clone(&snapshot.certificates),
            digest: callers(snapshot),
        };
    }
}

/// A thread that frees configurations once no request holds them any more. It ends with the gateway.
fn free_retired() -> anyhow::Result<mpsc::Sender<Arc<Config>>> {
    let (sender, receiver) = mpsc::channel::<Arc<Config>>();
    let free = move || {
        let mut held: Vec<Arc<Config>> = Vec::new();
        loop {
            let next = if held.is_empty() {
                receiver
                    .recv()
                    .map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                receiver.recv_timeout(LET_GO)
            };
            match next {
                Ok(config) => held.push(config),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            held.retain(|config| Arc::strong_count(config) > 1);
        }
    };
    thread::Builder::new()
        .name("retired".to_owned())
        .spawn(free)
        .context("no thread to free configurations")?;
    Ok(sender)
}

// === impl Control ===

impl Control {
    /// Begins to end: says that no more traffic is wanted; after the lame-duck time accepts no more, tells clients to go, lets requests
    /// end, and cuts what is left at the deadline. Returns at once. A second call changes nothing.
    pub fn drain(&self) {
        let ending = Arc::clone(&self.0);
        if ending.begun.swap(true, Ordering::SeqCst) {
            return;
        }
        let hold = ending.readiness.hold("draining");
        *ending.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        ending.draining.send_replace(true);
        tracing::info!(
            lame_duck_s = ending.drain.lame_duck.as_secs_f64(),
            deadline_s = ending.drain.deadline.as_secs_f64(),
            "draining"
        );
        if ending.drain.lame_duck.is_zero() {
            return ending.leave();
        }
        let later = Arc::clone(&ending);
        let spawned = thread::Builder::new()
            .name("drain".to_owned())
            .spawn(move || {
                thread::sleep(later.drain.lame_duck);
                later.leave();
            });
        if spawned.is_err() {
            ending.leave();
        }
    }

    /// Ends now: connections are cut.
    pub fn force(&self) {
        self.0.phase.send_replace(Phase::Forced);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("phase", &*self.0.phase.borrow())
            .finish_non_exhaustive()
    }
}

// === impl Ending ===

impl Ending {
    /// There is something to serve.
    fn begin(&self) {
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Serving;
            }
            starting
        });
    }

    fn leave(&self) {
        let until = Instant::now() + self.drain.deadline;
        self.phase.send_if_modified(|phase| {
            let going = matches!(*phase, Phase::Starting | Phase::Serving);
            if going {
                *phase = Phase::Draining { until };
            }
            going
        });
    }
}
