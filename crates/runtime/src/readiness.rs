//! Whether the process wants traffic: when nothing that it waits for is missing and it is not on its way out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What stands between a process and its traffic. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<u64, String>>>);

/// Holds readiness back until it is dropped.
#[derive(Debug)]
#[must_use = "readiness is held back only while this lives"]
pub struct Hold {
    readiness: Readiness,
    key: u64,
}

// === impl Readiness ===

impl Readiness {
    /// Nothing is waited for: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the answer is dropped. `reason` is for people: `the first configuration is not loaded`.
    pub fn hold(&self, reason: impl Into<String>) -> Hold {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = reasons.last_key_value().map_or(0, |(key, _)| key + 1);
        reasons.insert(key, reason.into());
        Hold {
            readiness: self.clone(),
            key,
        }
    }

    /// Why the process is not ready; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.values().cloned().collect()
    }

    /// Whether nothing holds it back.
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }
}

// === impl Hold ===

impl Drop for Hold {
    fn drop(&mut self) {
        let mut reasons = self
            .readiness
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reasons.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_hold_is_dropped() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let first = readiness.hold("a");
        let second = readiness.hold("b");
        assert_eq!(readiness.reasons(), ["a", "b"]);
        drop(first);
        let third = readiness.hold("c");
        assert_eq!(readiness.reasons(), ["b", "c"]);
        drop((second, third));
        assert!(readiness.is_ready());
    }
}
