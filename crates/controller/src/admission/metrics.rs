//! What is counted of admission: no label has values that users choose.

use std::time::Duration;

use paifang_runtime::metrics::Metrics;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Unit,
};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Nothing to say.
    Allowed,
    /// Allowed, with warnings.
    Warned,
    /// Refused.
    Refused,
    /// Allowed without a look: it is none of ours, or there was not enough known yet.
    Unchecked,
    /// Allowed because looking went wrong.
    Failed,
}

/// Counters and durations of admission. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionMetrics {
    requests: Family<[(&'static str, &'static str); 3], Counter>,
    duration: Histogram,
}

// === impl Outcome ===

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Refused => "refused",
            Self::Unchecked => "unchecked",
            Self::Failed => "failed",
        }
    }
}

// === impl AdmissionMetrics ===

impl AdmissionMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &Metrics) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Histogram::new([
                0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
            ]),
        };
        registry.register(|registry| {
            registry.register(
                "admission_requests",
                "Objects the API server asked about, by kind, operation and result",
                metrics.requests.clone(),
            );
            registry.register_with_unit(
                "admission_duration",
                "Time from the whole question to the answer",
                Unit::Seconds,
                metrics.duration.clone(),
            );
        });
        metrics
    }

    /// Counts one.
    pub(super) fn count(
        &self,
        kind: &'static str,
        operation: &'static str,
        outcome: Outcome,
        took: Duration,
    ) {
        let labels = [
            ("kind", kind),
            ("operation", operation),
            ("result", outcome.as_str()),
        ];
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }
}
