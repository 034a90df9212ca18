//! Who may call what, until when.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use paifang_model::ObjectName;
use sha2::{Digest as _, Sha256};

use super::{digest::head, group::StageIndex};

/// A short name for an App: the first 128 bits of the SHA-256 of `namespace/name`. The same in every process and over loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(u128);

/// Whether an App may call an Api in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Granted,
    /// It might until some time ago.
    Expired,
    /// It never might.
    None,
}

/// The grants of one group.
#[derive(Default)]
pub(super) struct Grants {
    entries: HashTable<Entry>,
    hasher: RandomState,
}

/// An App's permission for one Api, or for all of them, in one stage. The id is kept in halves: 32 bytes, not 48.
struct Entry {
    app: [u64; 2],
    /// Exclusive, in milliseconds since the epoch; `i64::MAX` for no end.
    ends_at_ms: i64,
    /// [`super::Route::grant_key`], or [`EVERY_API`].
    api: u32,
    stage: StageIndex,
}

/// In place of an Api's key.
pub(super) const EVERY_API: u32 = u32::MAX;

// === impl AppId ===

impl AppId {
    /// The id of the App object with this name.
    pub fn of(name: &ObjectName) -> Self {
        let mut hash = Sha256::new();
        hash.update(name.namespace.as_bytes());
        hash.update(b"/");
        hash.update(name.name.as_bytes());
        Self(u128::from_be_bytes(head(&hash.finalize())))
    }

    fn halves(self) -> [u64; 2] {
        let low = u128::from(u64::MAX);
        [self.0 >> 64, self.0 & low].map(|half| u64::try_from(half).unwrap_or_default())
    }
}

// === impl Grants ===

impl Grants {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: HashTable::with_capacity(capacity),
            hasher: RandomState::default(),
        }
    }

    /// Of several grants for the same, the one that lasts longest counts.
    pub(super) fn add(&mut self, app: AppId, stage: StageIndex, api: u32, ends_at_ms: Option<i64>) {
        let ends_at_ms = ends_at_ms.unwrap_or(i64::MAX);
        let app = app.halves();
        let hasher = &self.hasher;
        let hash = hasher.hash_one((app, api, stage));
        self.entries
            .entry(
                hash,
                |it| it.is(app, api, stage),
                |it| hasher.hash_one((it.app, it.api, it.stage)),
            )
            .and_modify(|it| it.ends_at_ms = it.ends_at_ms.max(ends_at_ms))
            .or_insert(Entry {
                app,
                ends_at_ms,
                api,
                stage,
            });
    }

    pub(super) fn shrink(&mut self) {
        let hasher = &self.hasher;
        self.entries
            .shrink_to_fit(|it| hasher.hash_one((it.app, it.api, it.stage)));
    }

    pub(super) fn permission(
        &self,
        app: AppId,
        stage: StageIndex,
        api: u32,
        now_ms: i64,
    ) -> Permission {
        let app = app.halves();
        let ends_at_ms = self
            .end(app, stage, api)
            .max(self.end(app, stage, EVERY_API));
        match ends_at_ms {
            None => Permission::None,
            Some(end) if end == i64::MAX || now_ms < end => Permission::Granted,
            Some(_) => Permission::Expired,
        }
    }

    fn end(&self, app: [u64; 2], stage: StageIndex, api: u32) -> Option<i64> {
        let hash = self.hasher.hash_one((app, api, stage));
        let entry = self.entries.find(hash, |it| it.is(app, api, stage))?;
        Some(entry.ends_at_ms)
    }
}

// === impl Entry ===

impl Entry {
    fn is(&self, app: [u64; 2], api: u32, stage: StageIndex) -> bool {
        self.app == app && self.api == api && self.stage == stage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grant_that_lasts_longest_wins() {
        let app = |name: &str| AppId::of(&ObjectName::new("ns", name));
        let (test, release) = (StageIndex(0), StageIndex(1));
        let mut grants = Grants::default();
        grants.add(app("timed"), release, 1, Some(100));
        grants.add(app("timed"), release, 1, Some(200));
        grants.add(app("timed"), release, 1, Some(150));
        grants.add(app("group"), release, EVERY_API, None);
        grants.add(app("group"), release, 1, Some(100));
        grants.shrink();
        let rows = [
            ("timed", release, 1, 199, Permission::Granted),
            ("timed", release, 1, 200, Permission::Expired),
            ("timed", release, 2, 100, Permission::None),
            ("timed", test, 1, 100, Permission::None),
            ("group", release, 1, i64::MAX, Permission::Granted),
            ("group", release, 7, 0, Permission::Granted),
            ("group", test, 1, 0, Permission::None),
            ("other", release, 1, 0, Permission::None),
        ];
        for (name, stage, api, now, expected) in rows {
            let found = grants.permission(app(name), stage, api, now);
            assert_eq!(found, expected, "{name} {stage:?} {api} {now}");
        }
    }

    #[test]
    fn ids_are_the_same_in_every_process() {
        // printf ns/app | sha256sum
        let id = AppId::of(&ObjectName::new("ns", "app"));
        assert_eq!(format!("{:032x}", id.0), "01b09f0b53b30091eda33d1bedf3adf0");
    }
}
