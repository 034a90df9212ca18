//! Publishing: what is to be written, one batch at a time, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Instant,
};

use paifang_compiler::{ObjectId, SecretToMake};
use paifang_model::ObjectName;
use paifang_snapshot::published::publish_apps;

use super::{Brain, InFlight, back_off};
use crate::{
    fleet::News,
    publish::{Batch, Key, Outcome},
    store::{self, Stored},
    write,
};

/// How much longer than a batch the pause is before parts that nobody needs are removed.
const REST: u32 = 4;

impl Brain {
    /// Makes the Secrets that Apps ask for. They come back by the watch.
    pub(super) fn make(&mut self, wanted: Vec<(SecretToMake, String)>) {
        let names: BTreeSet<ObjectName> = wanted.iter().map(|(it, _)| it.secret.clone()).collect();
        self.making.retain(|name| names.contains(name));
        if !self.leads {
            return;
        }
        for (make, uid) in wanted {
            if self.making.insert(make.secret.clone()) {
                let (client, leading, events) = (
                    self.client.clone(),
                    self.leading.clone(),
                    self.events.clone(),
                );
                self.helpers
                    .spawn(write::make_secret(client, leading, make, uid, events));
            }
        }
    }

    /// Starts the next batch, when there is something to write and nothing is under way.
    pub(super) fn dispatch(&mut self) {
        if !self.leads || self.in_flight.is_some() || self.unready.is_some() {
            return;
        }
        let pending = &self.pending;
        if pending.states.is_empty() && pending.groups.is_empty() && !pending.apps {
            self.remove_some();
            return;
        }
        if pending
            .not_before
            .is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        let mut batch = Batch::default();
        let mut before = BTreeMap::new();
        let groups = std::mem::take(&mut self.pending.groups);
        let states = std::mem::take(&mut self.pending.states);
        let apps = std::mem::take(&mut self.pending.apps);
        {
            let shared = Arc::clone(&self.shared);
            let shared = shared.read().unwrap_or_else(PoisonError::into_inner);
            let Some(compiler) = &shared.compiler else {
                return;
            };
            for id in states {
                let stored = self.stored.remove(&id).unwrap_or_default();
                let uid = shared.world.facts.get(&id).map(|facts| &*facts.uid);
                let (writes, after) = store::changes(&id, uid, compiler.memory(), &stored);
                if uid.is_some() {
                    self.stored.insert(id.clone(), after);
                }
                if !writes.is_empty() {
                    before.insert(id.clone(), stored);
                    batch.states.push((id, writes));
                }
            }
            let snapshot = compiler.snapshot();
            for name in &groups {
                let group = snapshot.groups.get(name);
                let planned = self.shelf.plan_group(
                    name,
                    group.map(|group| &**group),
                    &snapshot.certificates,
                    &mut batch,
                );
                match (planned, group) {
                    (Some(hash), Some(group)) => {
                        self.versions.remember(name, hash, Arc::clone(group))
                    }
                    _ => self.versions.forget(name),
                }
            }
            if apps {
                let salt = self.salt.get_or_insert_with(write::random_salt);
                let published = publish_apps(&snapshot.apps, &snapshot.credentials, salt);
                self.shelf.plan_apps(published, &mut batch);
            }
        }
        self.restate_groups(&groups, apps);
        self.send(batch, before, groups);
    }

    /// Removes a few parts that nobody needs, while there is nothing else to write. The pause after them is a few times what they
    /// took: a change that comes seldom finds them under way, and never waits for many.
    fn remove_some(&mut self) {
        if Instant::now() < self.remove_next {
            return;
        }
        let mut batch = Batch::default();
        self.shelf.plan_removal_of_parts(&mut batch);
        self.send(batch, BTreeMap::new(), BTreeSet::new());
    }

    /// What a group is planned to be decides what counts as served.
    fn restate_groups(&mut self, groups: &BTreeSet<ObjectName>, apps: bool) {
        self.news(News {
            groups: groups.clone(),
            apps,
            instances: BTreeSet::new(),
        });
    }

    pub(super) fn send(
        &mut self,
        batch: Batch,
        before: BTreeMap<ObjectId, Stored>,
        groups: BTreeSet<ObjectName>,
    ) {
        if batch.is_empty() {
            return;
        }
        tracing::debug!(
            states = batch.states.len(),
            parts = batch.parts.len(),
            manifests = batch.manifests.len(),
            unneeded = batch.unneeded.len(),
            "writing"
        );
        let run = batch.run(
            self.client.clone(),
            Arc::clone(&self.namespace),
            self.leading.clone(),
        );
        self.in_flight = Some(InFlight {
            task: tokio::spawn(run),
            before,
            groups,
            began: Instant::now(),
        });
    }

    /// A batch is done.
    pub(super) fn written(&mut self, (in_flight, outcome): (InFlight, Outcome)) {
        let took = in_flight.began.elapsed();
        self.remove_next = Instant::now() + took * REST;
        self.metrics.published(took, outcome.writes);
        tracing::debug!(
            writes = outcome.writes,
            unstored = outcome.unstored.len(),
            unpublished = outcome.unpublished.len(),
            took_ms = took.as_millis() as u64,
            "written"
        );
        let mut before = in_flight.before;
        for id in &outcome.unstored {
            if let Some(stored) = before.remove(id) {
                self.stored.insert(id.clone(), stored);
            }
        }
        let failed = !outcome.unstored.is_empty() || !outcome.unpublished.is_empty();
        self.pending.states.extend(outcome.unstored);
        for key in outcome.unpublished {
            match key {
                Key::Group(group) => drop(self.pending.groups.insert(group)),
                Key::Apps => self.pending.apps = true,
            }
        }
        self.pending.failures = if failed { self.pending.failures + 1 } else { 0 };
        self.pending.not_before = failed.then(|| Instant::now() + back_off(self.pending.failures));
        if failed {
            self.metrics.publish_failed();
        }
        for found in outcome.there {
            self.shelf.was_written(found);
        }
        let mut again = BTreeSet::new();
        for (type_, name) in outcome.gone {
            again.extend(self.shelf.gone(type_, &name));
        }
        self.publish_again(again);
        self.restate_groups(&in_flight.groups, false);
    }

    /// Somebody changed or removed what was published.
    pub(super) fn publish_again(&mut self, again: BTreeSet<Key>) {
        for key in again {
            tracing::debug!(?key, "published objects are not as they should be");
            match key {
                Key::Group(group) => drop(self.pending.groups.insert(group)),
                Key::Apps => self.pending.apps = true,
            }
        }
    }
}
