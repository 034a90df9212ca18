//! Where a run of named entries ends: after a name whose own hash says so, or when the run has grown long.
//!
//! A boundary depends on one name, so that an entry that is added, changed or removed moves no boundary but its own.

use serde::Serialize;

use super::part::json;

/// One name in so many ends a run.
const MEAN: u64 = 32;
/// A run is ended at this length whatever the names.
const LONG: usize = 256 * 1024;

/// Cuts `entries`, ordered by name, into runs and gives each to `put` as the range it covers.
pub(super) fn runs<T: Serialize>(
    entries: &[T],
    name: impl Fn(&T) -> &str,
    mut put: impl FnMut(std::ops::Range<usize>),
) {
    let (mut from, mut length) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        length += json(entry).len();
        let next = entries.get(at + 1);
        // Entries of one name stay together.
        let last_of_name = next.is_none_or(|next| name(next) != name(entry));
        if length >= LONG || (last_of_name && ends_run(name(entry))) {
            put(from..at + 1);
            (from, length) = (at + 1, 0);
        }
    }
    if from < entries.len() {
        put(from..entries.len());
    }
}

/// FNV-1a: stable for ever, which the hash of a `HashMap` is not.
fn ends_run(name: &str) -> bool {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).is_multiple_of(MEAN)
}
