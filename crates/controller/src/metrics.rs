//! Metrics of a controller. No label carries a name of a user's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use paifang_runtime::metrics::Metrics as Registry;
use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};

/// All of them. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    leads: Gauge,
    objects: Gauge,
    groups: Gauge,
    pods: Gauge,
    ready_pods: Gauge,
    compile: Histogram,
    publish: Histogram,
    writes: Counter,
    publish_failures: Counter,
    statuses: Counter,
    status_failures: Counter,
    statuses_waiting: Gauge,
    certificates: Family<[(&'static str, &'static str); 1], Gauge>,
    seen: Arc<AtomicU64>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> Self {
        let buckets = || {
            Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
            ])
        };
        let metrics = Self {
            leads: Gauge::default(),
            objects: Gauge::default(),
            groups: Gauge::default(),
            pods: Gauge::default(),
            ready_pods: Gauge::default(),
            compile: buckets(),
            publish: buckets(),
            writes: Counter::default(),
            publish_failures: Counter::default(),
            statuses: Counter::default(),
            status_failures: Counter::default(),
            statuses_waiting: Gauge::default(),
            certificates: Family::default(),
            seen: Arc::default(),
        };
        let Self {
            leads,
            objects,
            groups,
            pods,
            ready_pods,
            compile,
            publish,
            writes,
            publish_failures,
            statuses,
            status_failures,
            statuses_waiting,
            certificates,
            seen: _,
        } = metrics.clone();
        registry.register(|to| {
            to.register("controller_leader", "1 while this replica leads", leads);
            to.register(
                "controller_objects",
                "Objects of the six kinds that were compiled",
                objects,
            );
            to.register("controller_groups", "ApiGroups in force", groups);
            to.register(
                "controller_gateway_pods",
                "Gateway pods that are there",
                pods,
            );
            to.register(
                "controller_gateway_pods_ready",
                "Gateway pods that are ready",
                ready_pods,
            );
            to.register("controller_compile_seconds", "Time of one compile", compile);
            to.register(
                "controller_publish_seconds",
                "Time of one batch of writes",
                publish,
            );
            to.register(
                "controller_writes",
                "Writes of published configuration and stored states",
                writes,
            );
            to.register(
                "controller_publish_failures",
                "Batches of which some write failed",
                publish_failures,
            );
            to.register("controller_status_writes", "Statuses written", statuses);
            to.register(
                "controller_status_failures",
                "Statuses that could not be written and are tried again",
                status_failures,
            );
            to.register(
                "controller_statuses_waiting",
                "Objects whose status is to be looked at or written",
                statuses_waiting,
            );
            to.register(
                "controller_internal_certificate_expiry_timestamp_seconds",
                "End of each internal certificate, by the Secret it stands in, in seconds since 1970",
                certificates,
            );
        });
        metrics
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    pub(crate) fn compiled(&self, took: Duration, objects: usize, groups: usize) {
        self.compile.observe(took.as_secs_f64());
        self.objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
        self.groups.set(i64::try_from(groups).unwrap_or(i64::MAX));
        self.seen.store(objects as u64, Ordering::Relaxed);
    }

    /// Objects of the last compile.
    pub(crate) fn objects(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub(crate) fn published(&self, took: Duration, writes: u64) {
        self.publish.observe(took.as_secs_f64());
        self.writes.inc_by(writes);
    }

    pub(crate) fn publish_failed(&self) {
        self.publish_failures.inc();
    }

    pub(crate) fn status_written(&self) {
        self.statuses.inc();
    }

    pub(crate) fn status_failed(&self) {
        self.status_failures.inc();
    }

    pub(crate) fn statuses_waiting(&self, number: usize) {
        self.statuses_waiting
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// The certificate that a Secret of ours holds ends at a time, in seconds since 1970.
    pub(crate) fn certificate_ends(&self, secret: &'static str, at: u64) {
        let end = i64::try_from(at).unwrap_or(i64::MAX);
        self.certificates
            .get_or_create(&[("secret", secret)])
            .set(end);
    }

    pub(crate) fn pods(&self, all: usize, ready: usize) {
        self.pods.set(i64::try_from(all).unwrap_or(i64::MAX));
        self.ready_pods
            .set(i64::try_from(ready).unwrap_or(i64::MAX));
    }
}
