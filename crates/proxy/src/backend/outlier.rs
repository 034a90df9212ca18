//! Endpoints that cannot be connected to are left out for a while, so that not every request finds out for itself.
//!
//! Each worker judges by its own attempts. What is left out comes back by itself: when its time is over one request tries it, and the
//! others wait for the outcome. Never more than half of a backend's endpoints are left out: if most seem to be gone it is more likely
//! that the way there is, and then every one is worth trying. Answers do not count, whatever their status: a backend that answers is
//! there.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::record::{Change, Observe};

/// Failures in a row after which an endpoint is left out.
const FAILURES: u32 = 5;
/// How long at first; each failed try doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// How long at most.
const LONGEST: Duration = Duration::from_secs(30);
/// How long an endpoint is remembered that nobody tried again.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What a worker thinks of endpoints. Those without failures are not in it.
#[derive(Default)]
pub(crate) struct Outliers {
    failing: RefCell<HashMap<SocketAddr, Failing, foldhash::fast::RandomState>>,
    /// How many of them are left out, or being tried again.
    ejected: Cell<usize>,
    observer: Option<Rc<dyn Observe>>,
}

/// Endpoints that are left out of a choice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) endpoints: Vec<SocketAddr>,
    /// One whose time is over, to be tried by whoever asked.
    pub(crate) again: Option<SocketAddr>,
}

struct Failing {
    failures: u32,
    /// Left out until then, once it had failed often enough; the request that tries it again moves this.
    until: Option<Instant>,
    /// How long it was left out last.
    rest: Duration,
    last: Instant,
}

// === impl Outliers ===

impl Outliers {
    /// `observer` is told of every endpoint that is left out, and of its return.
    pub(crate) fn new(observer: Rc<dyn Observe>) -> Self {
        Self {
            observer: Some(observer),
            ..Self::default()
        }
    }

    /// Whether every endpoint is well.
    pub(crate) fn is_empty(&self) -> bool {
        self.ejected.get() == 0
    }

    /// No connection could be made.
    pub(crate) fn failed(&self, endpoint: SocketAddr) {
        let now = Instant::now();
        let mut all = self.failing.borrow_mut();
        let failing = all.entry(endpoint).or_insert(Failing {
            failures: 0,
            until: None,
            rest: Duration::ZERO,
            last: now,
        });
        failing.failures += 1;
        failing.last = now;
        if failing.failures < FAILURES {
            return;
        }
        if failing.until.is_none() {
            self.ejected.set(self.ejected.get() + 1);
            self.tell(Change::Ejected);
            tracing::warn!(%endpoint, failures = failing.failures, "an endpoint cannot be reached: it is left out for a while");
        }
        failing.rest = (failing.rest * 2).clamp(FIRST, LONGEST);
        failing.until = Some(now + failing.rest);
    }

    /// A connection was made.
    pub(crate) fn reached(&self, endpoint: SocketAddr) {
        if self.failing.borrow().is_empty() {
            return;
        }
        let failing = self.failing.borrow_mut().remove(&endpoint);
        if failing.is_some_and(|failing| failing.until.is_some()) {
            self.returned();
            tracing::info!(%endpoint, "an endpoint that was left out can be reached again");
        }
    }

    /// Which of `near` and `far` are left out now: at most half of all.
    pub(crate) fn left_out(&self, near: &[SocketAddr], far: &[SocketAddr]) -> Out {
        let now = Instant::now();
        let mut all = self.failing.borrow_mut();
        let mut out: Vec<(Instant, SocketAddr)> = Vec::new();
        let mut again = None;
        for endpoint in near.iter().chain(far) {
            let Some(failing) = all.get_mut(endpoint) else {
                continue;
            };
            match failing.until {
                Some(until) if until > now || again.is_some() => out.push((until, *endpoint)),
                Some(_) => {
                    // Stays left out for others until this try has had its time.
                    again = Some(*endpoint);
                    failing.until = Some(now + failing.rest.max(FIRST));
                }
                None => {}
            }
        }
        // Those that return last are left out first.
        out.sort_by(|(a, _), (b, _)| b.cmp(a));
        out.truncate((near.len() + far.len()) / 2);
        Out {
            endpoints: out.into_iter().map(|(_, endpoint)| endpoint).collect(),
            again,
        }
    }

    /// Puts those that are left out behind the others.
    pub(crate) fn put_last(&self, addresses: &mut [SocketAddr]) {
        if self.is_empty() {
            return;
        }
        let out = self.left_out(addresses, &[]);
        addresses.sort_by_key(|address| out.endpoints.contains(address));
    }

    /// Forgets endpoints that are there no more; called now and then.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut gone = 0;
        self.failing.borrow_mut().retain(|_, failing| {
            let kept = now.duration_since(failing.last) < FORGOTTEN + failing.rest;
            gone += usize::from(!kept && failing.until.is_some());
            kept
        });
        for _ in 0..gone {
            self.returned();
        }
    }

    fn returned(&self) {
        self.ejected.set(self.ejected.get().saturating_sub(1));
        self.tell(Change::Returned);
    }

    fn tell(&self, change: Change) {
        if let Some(observer) = &self.observer {
            observer.noticed(change);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn endpoints<const N: usize>() -> [SocketAddr; N] {
        std::array::from_fn(|n| SocketAddr::from(([10, 0, 0, n as u8], 80)))
    }

    fn fail(outliers: &Outliers, endpoint: SocketAddr, times: u32) {
        for _ in 0..times {
            outliers.failed(endpoint);
        }
    }

    fn end_rest(outliers: &Outliers, endpoint: SocketAddr) {
        let mut all = outliers.failing.borrow_mut();
        all.get_mut(&endpoint).unwrap().until = Some(Instant::now());
    }

    #[test]
    fn left_out_after_failures_in_a_row_only() {
        let (outliers, all) = (Outliers::default(), endpoints::<4>());
        fail(&outliers, all[0], FAILURES - 1);
        assert!(outliers.is_empty() && outliers.left_out(&all, &[]) == Out::default());
        outliers.reached(all[0]);
        fail(&outliers, all[0], FAILURES - 1);
        assert!(outliers.is_empty());
        fail(&outliers, all[0], 1);
        assert_eq!(outliers.left_out(&all, &[]).endpoints, [all[0]]);
        outliers.reached(all[0]);
        assert!(outliers.is_empty());
    }

    #[test]
    fn never_more_than_half() {
        let outliers = Outliers::default();
        let all = endpoints::<5>();
        for endpoint in all {
            fail(&outliers, endpoint, FAILURES);
        }
        assert_eq!(outliers.left_out(&all, &[]).endpoints.len(), 2);
        assert_eq!(outliers.left_out(&all[..3], &all[3..]).endpoints.len(), 2);
        let only = outliers.left_out(&all[..1], &[]);
        assert_eq!(only, Out::default(), "the only one is always asked");
    }

    #[test]
    fn one_request_tries_again_and_the_rest_doubles() {
        let (outliers, all) = (Outliers::default(), endpoints::<4>());
        fail(&outliers, all[0], FAILURES);
        let rest = |outliers: &Outliers| outliers.failing.borrow()[&all[0]].rest;
        assert_eq!(rest(&outliers), FIRST);
        end_rest(&outliers, all[0]);
        let first = outliers.left_out(&all, &[]);
        assert_eq!((first.again, &*first.endpoints), (Some(all[0]), &[][..]));
        let others = outliers.left_out(&all, &[]);
        assert_eq!((others.again, &*others.endpoints), (None, &all[..1]));
        for _ in 0..20 {
            fail(&outliers, all[0], 1);
        }
        assert_eq!(rest(&outliers), LONGEST);
    }

    #[test]
    fn the_same_endpoints_come_last_among_addresses_of_a_name() {
        let (outliers, mut all) = (Outliers::default(), endpoints::<3>());
        let first = all[0];
        fail(&outliers, first, FAILURES);
        outliers.put_last(&mut all);
        assert_eq!(all[2], first);
    }
}
