//! Phase 4: how often a group may be called (Ref §10).
//!
//! The counters live with the group's table and outlast changes of its content. They are shared by all workers of a process; several
//! processes count apart.

use std::sync::atomic::{AtomicU64, Ordering};

/// Takes one of `per_second` requests, allowing a burst of one second's worth: the generic cell rate algorithm in one word, the time
/// at which the bucket is empty again. `now_ns` is any clock that does not go back.
pub(crate) fn take_per_second(cell: &AtomicU64, per_second: u32, now_ns: u64) -> bool {
    const SECOND: u64 = 1_000_000_000;
    if per_second == 0 {
        return false;
    }
    let step = SECOND / u64::from(per_second);
    let horizon = now_ns + SECOND;
    cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
        let next = empty_at.max(now_ns) + step;
        (next <= horizon).then_some(next)
    })
    .is_ok()
}

/// Takes one of `quota` calls of a UTC day. The day is the upper, the count the lower half of the word.
pub(crate) fn take_per_day(cell: &AtomicU64, quota: u32, day: u32) -> bool {
    let today = u64::from(day) << 32;
    cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
        let used = if word & !0xffff_ffff == today {
            word & 0xffff_ffff
        } else {
            0
        };
        (used < u64::from(quota)).then_some(today | (used + 1))
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_its_limit_through_and_no_more() {
        let cell = AtomicU64::new(0);
        let start = 5_000_000_000;
        let passed = (0..1000)
            .filter(|_| take_per_second(&cell, 100, start))
            .count();
        assert_eq!(passed, 100);
        let half = start + 500_000_000;
        let passed = (0..1000)
            .filter(|_| take_per_second(&cell, 100, half))
            .count();
        assert_eq!(passed, 50);
        assert!(!take_per_second(&cell, 0, start));
    }

    #[test]
    fn a_day_lets_its_quota_through_and_the_next_begins_anew() {
        let cell = AtomicU64::new(0);
        let passed = |day| (0..50).filter(|_| take_per_day(&cell, 10, day)).count();
        assert_eq!([passed(1), passed(1), passed(2)], [10, 0, 10]);
        assert!(!take_per_day(&AtomicU64::new(0), 0, 1));
    }
}
