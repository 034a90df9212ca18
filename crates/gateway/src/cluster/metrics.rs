//! What the subscription counts, beside what the gateway counts anyway.

use std::time::{SystemTime, UNIX_EPOCH};

use paifang_proxy::Endpoints;
use paifang_runtime::metrics::Metrics;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

/// Services whose endpoints are counted each; the rest only in the sum.
const MOST_SERVICES: usize = 200;

type Watch = [(&'static str, &'static str); 1];

#[derive(Debug, Clone, Default)]
pub(super) struct SubscriptionMetrics {
    last_event: Family<Watch, Gauge>,
    events: Family<Watch, Counter>,
    lists: Family<Watch, Counter>,
    watch_errors: Family<Watch, Counter>,
    pub(super) stale_groups: Gauge,
    pub(super) missing_parts: Gauge,
    pub(super) from_cache: Gauge,
    pub(super) cache_writes: Counter,
    pub(super) cache_errors: Counter,
    services: Gauge,
    empty_services: Gauge,
    endpoints: Gauge,
    service_endpoints: Family<[(&'static str, String); 2], Gauge>,
    pub(super) readers: Gauge,
}

// === impl SubscriptionMetrics ===

impl SubscriptionMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let all = Self::default();
        metrics.register(|registry| {
            registry.register(
                "subscription_last_event_timestamp_seconds",
                "When the API server last told something, by watch",
                all.last_event.clone(),
            );
            registry.register(
                "subscription_events",
                "Changes that the API server told, by watch",
                all.events.clone(),
            );
            registry.register(
                "subscription_lists",
                "Complete lists received, by watch; more than one each means that the watch was too far behind",
                all.lists.clone(),
            );
            registry.register(
                "subscription_watch_errors",
                "Watches that broke or could not be begun, by watch",
                all.watch_errors.clone(),
            );
            registry.register(
                "stale_groups",
                "Groups that are not in force as they were published last",
                all.stale_groups.clone(),
            );
            registry.register(
                "missing_parts",
                "Parts of the configuration that a manifest names and that cannot be had",
                all.missing_parts.clone(),
            );
            registry.register(
                "config_from_cache",
                "1 while the configuration is that of the last good copy on disk, as the API server could not be reached",
                all.from_cache.clone(),
            );
            registry.register(
                "cache_writes",
                "Files of the last good copy written or removed",
                all.cache_writes.clone(),
            );
            registry.register(
                "cache_errors",
                "Times that the last good copy could not be written",
                all.cache_errors.clone(),
            );
            registry.register(
                "services",
                "Services whose endpoints are followed, each port counted",
                all.services.clone(),
            );
            registry.register(
                "services_without_endpoints",
                "Of those, how many have no endpoint that takes requests",
                all.empty_services.clone(),
            );
            registry.register(
                "endpoints",
                "Endpoints that take requests, of all Services",
                all.endpoints.clone(),
            );
            registry.register(
                "service_endpoints",
                "Endpoints that take requests, by Service; of the first 200 Services",
                all.service_endpoints.clone(),
            );
            registry.register(
                "report_readers",
                "Connections that read reports",
                all.readers.clone(),
            );
        });
        all
    }

    pub(super) fn event(&self, watch: &'static str, list: bool) {
        let label = [("watch", watch)];
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.last_event.get_or_create(&label).set(seconds);
        let counter = if list { &self.lists } else { &self.events };
        counter.get_or_create(&label).inc();
    }

    pub(super) fn failed(&self, watch: &'static str) {
        self.watch_errors.get_or_create(&[("watch", watch)]).inc();
    }

    pub(super) fn endpoints(&self, all: &Endpoints) {
        let (mut services, mut empty, mut count) = (0, 0, 0);
        let mut each: Vec<_> = all.iter().collect();
        each.sort_by_key(|(service, port, _)| (*service, *port));
        self.service_endpoints.clear();
        for (at, (service, port, ready)) in each.into_iter().enumerate() {
            services += 1;
            empty += i64::from(ready.is_empty());
            let ready = i64::try_from(ready.len()).unwrap_or(i64::MAX);
            count += ready;
            if at < MOST_SERVICES {
                let labels = [("service", service.to_string()), ("port", port.to_owned())];
                self.service_endpoints.get_or_create(&labels).set(ready);
            }
        }
        self.services.set(services);
        self.empty_services.set(empty);
        self.endpoints.set(count);
    }
}
