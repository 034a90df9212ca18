//! What is counted, with a bounded number of series.
//!
//! Each worker counts in memory of its own, without locks and without read-modify-write cycles on shared cache lines: a [`Count`] has
//! one writer. Whoever scrapes adds the workers up.

mod backends;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use paifang_model::ObjectName;
use paifang_proxy::{Change, Record, refusal::Code};
use paifang_runtime::metrics::Metrics;
use paifang_snapshot::table::{Counters, Group};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::Counter, exemplar::Exemplar, family::Family, gauge::Gauge},
};

use crate::listen::Listener;

/// Groups with a series of their own; the rest is counted as `other`.
const MOST_GROUPS: usize = 1_000;
/// Domains whose certificate's end is shown.
pub(crate) const MOST_CERTIFICATES: usize = 1_000;
/// Upper bounds of durations, in nanoseconds: from 500 µs to 30 s.
const BOUNDS: [u64; 15] = [
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A number that one thread raises and others read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

/// Why a TLS handshake did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client named no domain that has a certificate.
    UnknownName,
    /// The client showed no certificate, or one that the domain's CA did not issue.
    ClientCertificate,
    /// No TLS, or no version, cipher or protocol in common.
    Protocol,
    /// The connection was lost.
    Connection,
}

/// What one worker counts.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounts {
    refusals: PerCode,
    requests: Durations,
    backends: backends::ByType,
    opened: [Count; Listener::ALL.len()],
    closed: [Count; Listener::ALL.len()],
    turned_away: [Count; Listener::ALL.len()],
    handshake_failures: [Count; HandshakeFailure::ALL.len()],
    accept_errors: Count,
    panics: Count,
    pub(crate) log_lines_dropped: Count,
    pub(crate) idle_backend_connections: Count,
    ejected: Count,
    returned: Count,
    tunnels_opened: Count,
    tunnels_closed: Count,
}

#[derive(Debug)]
struct PerCode([Count; Code::ALL.len()]);

#[derive(Debug, Default)]
struct Durations {
    /// The last is for what is over all bounds.
    buckets: [Count; BOUNDS.len() + 1],
    sum_ns: Count,
}

/// The requests of one group, counted by each worker on a cache line of its own.
#[derive(Debug)]
struct GroupSeries {
    name: String,
    workers: Box<[Classes]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Classes([Count; CLASSES.len()]);

/// All workers' counts, for the registry.
#[derive(Debug)]
pub(crate) struct Totals {
    workers: Box<[Arc<WorkerCounts>]>,
    groups: Mutex<BTreeMap<ObjectName, Arc<GroupSeries>>>,
    unknown: Arc<GroupSeries>,
    other: Arc<GroupSeries>,
    backends: backends::Backends,
}

/// A group that a worker has met.
type Known = (Arc<Counters>, Arc<GroupSeries>);

/// A worker's hand on [`Totals`]. Stays on its thread.
pub(crate) struct Tally {
    totals: Arc<Totals>,
    worker: usize,
    counts: Arc<WorkerCounts>,
    /// By the address of a group's counters, which outlive versions of the group. They are kept so that no other group gets the address.
    groups: RefCell<HashMap<usize, Known, foldhash::fast::RandomState>>,
    backends: backends::Known,
}

/// Numbers about the configuration in service.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigMetrics {
    pub(crate) loads: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) version: Family<[(&'static str, String); 1], Gauge>,
    pub(crate) groups: Gauge,
    pub(crate) routes: Gauge,
    pub(crate) problems: Gauge,
    pub(crate) certificate_ends: Family<[(&'static str, String); 1], Gauge>,
}

// === impl Count ===

impl Count {
    /// Only the thread that owns this may call it.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

// === impl HandshakeFailure ===

impl HandshakeFailure {
    const ALL: [Self; 5] = [
        Self::Timeout,
        Self::UnknownName,
        Self::ClientCertificate,
        Self::Protocol,
        Self::Connection,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::UnknownName => "unknown_name",
            Self::ClientCertificate => "client_certificate",
            Self::Protocol => "protocol",
            Self::Connection => "connection",
        }
    }
}

// === impl WorkerCounts ===

impl WorkerCounts {
    pub(crate) fn opened(&self, listener: Listener) {
        self.opened[listener as usize].add(1);
    }

    pub(crate) fn closed(&self, listener: Listener) {
        self.closed[listener as usize].add(1);
    }

    pub(crate) fn turned_away(&self, listener: Listener) {
        self.turned_away[listener as usize].add(1);
    }

    pub(crate) fn handshake_failed(&self, reason: HandshakeFailure) {
        self.handshake_failures[reason as usize].add(1);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.add(1);
    }

    /// Counts what changed among the connections to backends.
    pub(crate) fn noticed(&self, change: Change) {
        let count = match change {
            Change::Ejected => &self.ejected,
            Change::Returned => &self.returned,
            Change::TunnelOpened => &self.tunnels_opened,
            Change::TunnelClosed => &self.tunnels_closed,
        };
        count.add(1);
    }

    pub(crate) fn panicked(&self) {
        self.panics.add(1);
    }
}

// === impl PerCode ===

impl Default for PerCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

// === impl Durations ===

impl Durations {
    #[inline]
    fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS
            .iter()
            .position(|&bound| ns <= bound)
            .unwrap_or(BOUNDS.len());
        self.buckets[at].add(1);
        self.sum_ns.add(ns);
    }
}

// === impl GroupSeries ===

impl GroupSeries {
    fn new(name: String, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            workers: (0..workers).map(|_| Classes::default()).collect(),
        })
    }
}

// === impl Totals ===

impl Totals {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            groups: Mutex::default(),
            unknown: GroupSeries::new("unknown".to_owned(), workers),
            other: GroupSeries::new("other".to_owned(), workers),
            backends: backends::Backends::default(),
        })
    }

    /// The hand of one worker, on its own thread.
    pub(crate) fn tally(self: &Arc<Self>, worker: usize) -> Tally {
        Tally {
            counts: Arc::clone(&self.workers[worker]),
            totals: Arc::clone(self),
            worker,
            groups: RefCell::default(),
            backends: backends::Known::default(),
        }
    }

    /// The series of a group; a lock, taken once for each group and worker.
    fn series(&self, name: &ObjectName) -> Arc<GroupSeries> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = groups.get(name) {
            return Arc::clone(series);
        }
        if groups.len() >= MOST_GROUPS {
            return Arc::clone(&self.other);
        }
        let series = GroupSeries::new(name.to_string(), self.workers.len());
        groups.insert(name.clone(), Arc::clone(&series));
        series
    }

    fn sum(&self, which: impl Fn(&WorkerCounts) -> &Count) -> u64 {
        self.workers.iter().map(|worker| which(worker).read()).sum()
    }
}

// === impl Tally ===

impl Tally {
    pub(crate) fn counts(&self) -> &WorkerCounts {
        &self.counts
    }

    /// Counts a request that is over.
    pub(crate) fn request(&self, record: &Record) {
        let class = class_of(record.status);
        match &record.group {
            None => self.totals.unknown.workers[self.worker].0[class].add(1),
            Some(group) => self.group(group, |series| series.workers[self.worker].0[class].add(1)),
        }
        self.counts.requests.record(record.started.elapsed());
        let worker = (self.worker, self.totals.workers.len());
        let (backends, durations) = (&self.totals.backends, &self.counts.backends);
        self.backends.count(record, worker, backends, durations);
        if let Some(refusal) = &record.refusal {
            self.counts.refusals.0[refusal.code as usize].add(1);
        }
    }

    fn group(&self, group: &Group, count: impl FnOnce(&GroupSeries)) {
        let key = Arc::as_ptr(&group.counters) as usize;
        let mut groups = self.groups.borrow_mut();
        let (_, series) = groups
            .entry(key)
            .or_insert_with(|| (Arc::clone(&group.counters), self.totals.series(&group.name)));
        count(series);
    }
}

/// Adds everything to the registry. `nonces` says how many are remembered.
pub(crate) fn register(
    metrics: &Metrics,
    totals: Arc<Totals>,
    nonces: impl Fn() -> usize + Send + Sync + 'static,
) -> ConfigMetrics {
    let config = ConfigMetrics::default();
    metrics.register(|registry| {
        registry.register(
            "config_loads",
            "Configurations loaded, by result",
            config.loads.clone(),
        );
        registry.register(
            "config_info",
            "Version of the configuration in service",
            config.version.clone(),
        );
        registry.register("groups", "API groups in service", config.groups.clone());
        registry.register(
            "routes",
            "APIs in service, each stage counted",
            config.routes.clone(),
        );
        registry.register(
            "config_problems",
            "Parts of the configuration that could not be loaded",
            config.problems.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "End of the validity of a domain's certificate",
            config.certificate_ends.clone(),
        );
        registry.register_collector(Box::new(Collected {
            totals,
            nonces: Box::new(nonces),
        }));
    });
    config
}

struct Collected {
    totals: Arc<Totals>,
    nonces: Box<dyn Fn() -> usize + Send + Sync>,
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").finish_non_exhaustive()
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = &*self.totals;
        let out = &mut encoder;
        encode_requests(totals, out)?;
        let codes = || Code::ALL.iter().map(|code| (*code as usize, code.as_str()));
        let refusals =
            codes().map(|(at, code)| (code, totals.sum(|worker| &worker.refusals.0[at])));
        counters(
            out,
            "refusals",
            "Requests refused, by X-Ca-Error-Code",
            "code",
            refusals.filter(|(_, n)| *n > 0),
        )?;
        durations(
            totals,
            out,
            "request_duration_seconds",
            "From a request's head to the end of its answer",
            |worker| &worker.requests,
        )?;
        let of_type = |at: usize| totals.workers.iter().map(|it| &it.backends[at]).collect();
        totals.backends.encode(of_type, out)?;
        encode_connections(totals, out)?;
        let failures = HandshakeFailure::ALL.map(|reason| {
            (
                reason.as_str(),
                totals.sum(|worker| &worker.handshake_failures[reason as usize]),
            )
        });
        counters(
            out,
            "tls_handshake_failures",
            "TLS handshakes that failed, by reason",
            "reason",
            failures.into_iter(),
        )?;
        counter(
            out,
            "accept_errors",
            "Connections that could not be accepted",
            totals.sum(|worker| &worker.accept_errors),
        )?;
        counter(
            out,
            "panics",
            "Connections that ended by a panic",
            totals.sum(|worker| &worker.panics),
        )?;
        counter(
            out,
            "access_log_lines_dropped",
            "Lines lost because the log is too slow",
            totals.sum(|worker| &worker.log_lines_dropped),
        )?;
        gauge(
            out,
            "backend_connections_idle",
            "Connections to backends that wait",
            totals.sum(|worker| &worker.idle_backend_connections),
        )?;
        encode_ejections(totals, out)?;
        encode_tunnels(totals, out)?;
        gauge(out, "nonces", "Nonces remembered", (self.nonces)() as u64)
    }
}

fn encode_ejections(totals: &Totals, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    // In this order: what has returned by then has been left out before.
    let returned = totals.sum(|worker| &worker.returned);
    let ejected = totals.sum(|worker| &worker.ejected);
    counter(
        out,
        "backend_ejections",
        "Times that a worker left out an endpoint that could not be reached",
        ejected,
    )?;
    gauge(
        out,
        "backend_endpoints_ejected",
        "Endpoints left out now, each worker counted",
        ejected.saturating_sub(returned),
    )
}

fn encode_tunnels(totals: &Totals, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let closed = totals.sum(|worker| &worker.tunnels_closed);
    let opened = totals.sum(|worker| &worker.tunnels_opened);
    counter(
        out,
        "upgrades",
        "Connections that went over to WebSocket",
        opened,
    )?;
    gauge(
        out,
        "upgrades_open",
        "Connections on which WebSocket is spoken now",
        opened.saturating_sub(closed),
    )
}

fn encode_requests(totals: &Totals, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = out.encode_descriptor(
        "requests",
        "Requests that are over, by group and status",
        None,
        MetricType::Counter,
    )?;
    let groups: Vec<Arc<GroupSeries>> = {
        let groups = totals.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.values().cloned().collect()
    };
    for series in groups.iter().chain([&totals.unknown, &totals.other]) {
        for (at, class) in CLASSES.iter().enumerate() {
            let count: u64 = series
                .workers
                .iter()
                .map(|worker| worker.0[at].read())
                .sum();
            if count > 0 {
                let labels = [("group", series.name.as_str()), ("class", class)];
                metric
                    .encode_family(&labels)?
                    .encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)?;
            }
        }
    }
    Ok(())
}

fn encode_connections(totals: &Totals, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let each = |which: fn(&WorkerCounts) -> &[Count; Listener::ALL.len()]| {
        Listener::ALL.map(|listener| {
            (
                listener.as_str(),
                totals.sum(|worker| &which(worker)[listener as usize]),
            )
        })
    };
    let (opened, closed) = (each(|worker| &worker.opened), each(|worker| &worker.closed));
    let mut open = out.encode_descriptor(
        "connections_open",
        "Client connections, by listener",
        None,
        MetricType::Gauge,
    )?;
    for ((listener, opened), (_, closed)) in opened.iter().zip(closed) {
        open.encode_family(&[("listener", *listener)])?
            .encode_gauge(&whole(opened.saturating_sub(closed)))?;
    }
    counters(
        out,
        "connections",
        "Client connections accepted, by listener",
        "listener",
        opened.into_iter(),
    )?;
    let turned_away = each(|worker| &worker.turned_away);
    counters(
        out,
        "connections_over_limit",
        "Client connections closed at once, by listener",
        "listener",
        turned_away.into_iter(),
    )
}

fn counters(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        metric
            .encode_family(&[(label, value)])?
            .encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)?;
    }
    Ok(())
}

fn counter(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = Gauge::<i64>::default();
    gauge.set(whole(value));
    gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn durations(
    totals: &Totals,
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    which: impl Fn(&WorkerCounts) -> &Durations,
) -> fmt::Result {
    let all: Vec<&Durations> = totals.workers.iter().map(|worker| which(worker)).collect();
    let (sum, count, buckets) = histogram(&all);
    let mut metric = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

/// Sum, count and buckets of several, taken together.
fn histogram(all: &[&Durations]) -> (f64, u64, Vec<(f64, u64)>) {
    let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
    let bounds = BOUNDS.iter().map(|&ns| seconds(ns)).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds
        .enumerate()
        .map(|(at, bound)| (bound, all.iter().map(|it| it.buckets[at].read()).sum()))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = seconds(all.iter().map(|it| it.sum_ns.read()).sum());
    (sum, count, buckets)
}

/// The class of a status, as a position in [`CLASSES`].
fn class_of(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}
