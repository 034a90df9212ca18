//! The process's metrics: one registry, written as OpenMetrics text.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::{encoding::text, metrics::info::Info, registry::Registry};

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a process. Clones share one registry.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<RwLock<Registry>>);

// === impl Metrics ===

impl Metrics {
    /// An empty registry whose names all begin with `prefix` and an underscore, and an info metric that tells the version.
    pub fn new(prefix: &str, version: &str) -> Self {
        let mut registry = Registry::with_prefix(prefix);
        let build = Info::new([("version", version.to_owned())]);
        registry.register("build", "What this process was built from", build);
        Self(Arc::new(RwLock::new(registry)))
    }

    /// Adds metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics as they are now.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        let registry = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = text::encode(&mut out, &registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn names_carry_the_prefix() {
        let metrics = Metrics::new("paifang", "0.0.0");
        let counter = Counter::<u64>::default();
        metrics.register(|registry| registry.register("calls", "Calls", counter.clone()));
        counter.inc_by(3);
        let text = metrics.text();
        assert!(text.contains("paifang_calls_total 3\n"), "{text}");
        assert!(
            text.contains("paifang_build_info{version=\"0.0.0\"} 1\n"),
            "{text}"
        );
    }
}
