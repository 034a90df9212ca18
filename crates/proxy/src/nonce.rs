//! Nonces seen in the last 15 minutes (Ref §1.5), one set for all workers of a process.
//!
//! What is remembered is a keyed 128-bit hash and a time, so that an entry has 24 bytes whatever clients send. Two hashes that
//! collide would refuse a fresh nonce; with random keys that happens once in 10^20 requests. When the set is full, requests with a
//! nonce are refused rather than let through unchecked.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How long a nonce may not be used again, in seconds.
pub(crate) const WINDOW_S: u64 = 15 * 60;

const SHARDS: usize = 64;

/// The set.
pub struct Nonces {
    shards: Vec<Mutex<Shard>>,
    keys: [RandomState; 2],
    capacity: usize,
    len: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    seen: HashMap<u128, u32, foldhash::fast::RandomState>,
    /// When expired entries were last dropped, in seconds of the caller's clock.
    swept: u64,
}

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It was not seen in the window, and is remembered now.
    Fresh,
    /// It was seen in the window.
    Repeated,
    /// There is no room to remember it.
    Full,
}

// === impl Nonces ===

impl Nonces {
    /// For at most `capacity` entries, about 40 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys: [RandomState::new(), RandomState::new()],
            capacity,
            len: AtomicUsize::new(0),
        }
    }

    /// Uses up a nonce of an AppKey at `now_s`, seconds of any clock that does not go back. It is remembered for the window from
    /// `counts_from_s` on: later than now when the request's time stamp is, or else the request could be repeated once the nonce is
    /// forgotten and before the time stamp is.
    pub(crate) fn take(&self, app_key: &str, nonce: &str, now_s: u64, counts_from_s: u64) -> Use {
        let hash = self.hash(app_key, nonce);
        let shard = &self.shards[usize::try_from(hash % SHARDS as u128).unwrap_or(0)];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let from = u32::try_from(counts_from_s).unwrap_or(u32::MAX);
        if now_s.saturating_sub(shard.swept) >= WINDOW_S / 4 {
            self.sweep(&mut shard, now_s);
        }
        if let Some(at) = shard.seen.get_mut(&hash) {
            if now_s.saturating_sub(u64::from(*at)) < WINDOW_S {
                return Use::Repeated;
            }
            *at = from;
            return Use::Fresh;
        }
        if self.len.load(Ordering::Relaxed) >= self.capacity {
            // Once a second is enough: nothing else can have expired, and a full set has work enough.
            if shard.swept < now_s {
                self.sweep(&mut shard, now_s);
            }
            if self.len.load(Ordering::Relaxed) >= self.capacity {
                return Use::Full;
            }
        }
        shard.seen.insert(hash, from);
        self.len.fetch_add(1, Ordering::Relaxed);
        Use::Fresh
    }

    /// How many nonces are remembered.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sweep(&self, shard: &mut Shard, now_s: u64) {
        let before = shard.seen.len();
        shard
            .seen
            .retain(|_, at| now_s.saturating_sub(u64::from(*at)) < WINDOW_S);
        shard.swept = now_s;
        self.len
            .fetch_sub(before - shard.seen.len(), Ordering::Relaxed);
    }

    fn hash(&self, app_key: &str, nonce: &str) -> u128 {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write_usize(app_key.len());
            hasher.write(app_key.as_bytes());
            hasher.write(nonce.as_bytes());
            u128::from(hasher.finish())
        };
        half(&self.keys[0]) << 64 | half(&self.keys[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_once_in_fifteen_minutes_for_each_app_key() {
        let nonces = Nonces::new(100);
        let rows = [
            ("a", "1", 0, Use::Fresh),
            ("a", "1", 0, Use::Repeated),
            ("a", "1", WINDOW_S - 1, Use::Repeated),
            ("b", "1", WINDOW_S - 1, Use::Fresh),
            ("a", "1", WINDOW_S, Use::Fresh),
            ("a", "1", WINDOW_S + 1, Use::Repeated),
            ("a1", "", 0, Use::Fresh),
        ];
        for (key, nonce, now, expected) in rows {
            assert_eq!(
                nonces.take(key, nonce, now, now),
                expected,
                "{key} {nonce} {now}"
            );
        }
    }

    #[test]
    fn a_nonce_outlives_a_time_stamp_from_the_future() {
        let nonces = Nonces::new(100);
        let ahead = WINDOW_S - 1;
        assert_eq!(nonces.take("a", "1", 0, ahead), Use::Fresh);
        // The time stamp counts until `ahead` and another window have passed.
        for now in [1, WINDOW_S, ahead + WINDOW_S - 1] {
            assert_eq!(nonces.take("a", "1", now, now), Use::Repeated, "{now}");
        }
        let now = ahead + WINDOW_S;
        assert_eq!(nonces.take("a", "1", now, now), Use::Fresh);
    }

    #[test]
    fn a_full_set_refuses_and_recovers() {
        let nonces = Nonces::new(10);
        for n in 0..10 {
            assert_eq!(nonces.take("a", &n.to_string(), 0, 0), Use::Fresh);
        }
        assert_eq!(nonces.take("a", "more", 1, 1), Use::Full);
        for n in 0..1000 {
            nonces.take("a", &format!("later {n}"), WINDOW_S, WINDOW_S);
        }
        assert!(nonces.len() <= 10);
        assert!(!nonces.is_empty());
    }

    #[test]
    fn exactly_one_of_many_at_once_is_fresh() {
        let nonces = Nonces::new(1000);
        let fresh = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        if nonces.take("a", "same", 5, 5) == Use::Fresh {
                            fresh.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(fresh.into_inner(), 1);
    }
}
