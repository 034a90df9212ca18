//! Statuses: which are looked at, when they are written, and what becomes of the writes.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use k8s_openapi::jiff::Timestamp;
use paifang_compiler::ObjectId;

use super::{BACK_OFF, Brain, back_off, queue::Why};
use crate::{
    status::{self, Stated, View},
    write,
};

/// Statuses that are written at a time.
const STATUSES_AT_ONCE: usize = 16;
/// Statuses that are computed in one turn, so that an edit never waits for many.
const STATUSES_A_TURN: usize = 100;

impl Brain {
    pub(super) fn mark(&mut self, id: ObjectId, why: Why) {
        self.dirty.add(id, why, Instant::now());
    }

    pub(super) fn dirty_all(&mut self) {
        let shared = Arc::clone(&self.shared);
        let shared = shared.read().unwrap_or_else(PoisonError::into_inner);
        for id in shared.world.facts.keys() {
            self.dirty.add(id.clone(), Why::Followed, Instant::now());
        }
    }

    /// Writes what settled and differs, as far as there is room.
    pub(super) fn write_statuses(&mut self) {
        if self.unready.is_some() || !self.leads {
            // A replica that takes over looks at everything.
            self.dirty.clear();
            self.metrics.statuses_waiting(0);
            return;
        }
        let now = Instant::now();
        let retry: Vec<ObjectId> = self
            .failed
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in retry {
            self.dirty.add_settled(id.clone(), now);
            if let Some((at, _)) = self.failed.get_mut(&id) {
                *at = now + BACK_OFF.1 * 100;
            }
        }
        let waiting = self.dirty.len() + self.under_way.len() + self.failed.len();
        self.metrics.statuses_waiting(waiting);
        let room = STATUSES_AT_ONCE.saturating_sub(self.under_way.len());
        if room == 0 || self.dirty.len() == 0 {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let shared = shared.read().unwrap_or_else(PoisonError::into_inner);
        let Some(compiler) = &shared.compiler else {
            return;
        };
        let mut started = 0;
        for _ in 0..STATUSES_A_TURN {
            if started == room {
                break;
            }
            let Some(id) = self.dirty.take(now, &self.under_way) else {
                break;
            };
            let view = View {
                world: &shared.world,
                compiler,
                shelf: &self.shelf,
                versions: &self.versions,
                fleet: &self.fleet,
                updates: &self.updates,
                now: Timestamp::now(),
            };
            match view.next_change(&id) {
                Some(at) => drop(self.clocks.insert(id.clone(), at)),
                None => drop(self.clocks.remove(&id)),
            }
            let Some(stated) = view.state(&id) else {
                continue;
            };
            if status::normal(&id, &shared.world.status(&id)) == stated.status {
                self.failed.remove(&id);
                continue;
            }
            let Some(facts) = shared.world.facts.get(&id) else {
                continue;
            };
            started += 1;
            self.under_way.insert(id.clone());
            let uid = facts.uid.to_string();
            let (client, leading) = (self.client.clone(), self.leading.clone());
            self.writing.spawn(async move {
                let result = write::status(&client, &leading, &id, &uid, &stated).await;
                (id, stated, result)
            });
        }
    }

    /// A status was written, or not.
    pub(super) fn stated(&mut self, id: ObjectId, stated: Stated, result: write::Result) {
        self.under_way.remove(&id);
        match result {
            write::Result::Done => {
                self.metrics.status_written();
                self.failed.remove(&id);
                let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
                if shared.world.facts.contains_key(&id) {
                    shared
                        .world
                        .statuses
                        .insert(id, stated.status.to_string().into());
                }
            }
            write::Result::Gone => drop(self.failed.remove(&id)),
            write::Result::Failed => {
                self.metrics.status_failed();
                let tries = self.failed.get(&id).map_or(1, |(_, tries)| tries + 1);
                self.failed
                    .insert(id, (Instant::now() + back_off(tries), tries));
            }
        }
    }
}
