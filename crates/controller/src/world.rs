//! Everything that was seen in the cluster, as plain values: what an event changes, and what is still waited for.
//!
//! A watch calls `apply`, `delete` and the three steps of a relist. Nothing here waits, writes or decides. An object whose Secrets
//! were never looked at is held back until they are, so that nobody is told that a Secret is missing that is only on its way; what
//! it said before stays in force meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use paifang_compiler::{Kind, ObjectId, Objects, ReferenceGrant, Secret, Service, Touched};
use paifang_model::ObjectName;

use crate::object::{self, Facts, Seen};

/// What one store holds, for relists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Store {
    /// One of the six kinds.
    Objects(Kind),
    /// Metadata of Secrets.
    Secrets,
    /// Services.
    Services,
    /// Namespaces, for their labels.
    Namespaces,
    /// ReferenceGrants.
    ReferenceGrants,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// What is compiled.
    pub(crate) objects: Objects,
    /// Of each object among `objects`.
    pub(crate) facts: BTreeMap<ObjectId, Facts>,
    /// What stands in the status of each object, to write it only when it is different. As text: a parsed one takes many times the room.
    pub(crate) statuses: BTreeMap<ObjectId, Box<str>>,
    /// Secrets that were looked at: the version, or none for one that was not there.
    looked_at: BTreeMap<ObjectName, Option<String>>,
    /// The last look at each Secret that was asked for. Looks may end in another order than they began: an older one says nothing.
    looks: BTreeMap<ObjectName, u64>,
    next_look: u64,
    /// Who names each Secret.
    named_by: BTreeMap<ObjectName, BTreeSet<ObjectId>>,
    names: BTreeMap<ObjectId, BTreeSet<ObjectName>>,
    held: BTreeMap<ObjectId, Seen>,
    relists: BTreeMap<Store, BTreeSet<ObjectName>>,
    synced: BTreeSet<Store>,
}

/// What follows from an event.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// To compile.
    pub(crate) touched: Touched,
    /// Secrets to look at, each with the number of the look.
    pub(crate) look_at: BTreeMap<ObjectName, u64>,
    /// Objects whose status was written by somebody else, or whose edit needs no compile but a new `observedGeneration`.
    pub(crate) restate: BTreeSet<ObjectId>,
}

impl Store {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let rest = [
            Self::Secrets,
            Self::Services,
            Self::Namespaces,
            Self::ReferenceGrants,
        ];
        Kind::ALL.into_iter().map(Self::Objects).chain(rest)
    }
}

// === impl World ===

impl World {
    /// Whether every store was read whole once, and every Secret that is named was looked at.
    pub(crate) fn is_synced(&self) -> bool {
        Store::all().all(|store| self.synced.contains(&store)) && self.held.is_empty()
    }

    /// The stores that were not read yet, for people.
    pub(crate) fn waiting_for(&self) -> Vec<String> {
        Store::all()
            .filter(|store| !self.synced.contains(store))
            .map(|store| format!("{store:?}"))
            .collect()
    }

    /// An object was added or changed.
    pub(crate) fn apply(&mut self, seen: Seen, effect: &mut Effect) {
        self.note(Store::Objects(seen.id.kind), &seen.id.name);
        let known = self.facts.get(&seen.id);
        let same = known == Some(&seen.facts) && !self.held.contains_key(&seen.id);
        let status: Box<str> = seen.status.to_string().into();
        if self.statuses.get(&seen.id) != Some(&status) {
            self.statuses.insert(seen.id.clone(), status);
            effect.restate.insert(seen.id.clone());
        }
        if same {
            return;
        }
        let secrets = seen.secrets();
        self.refer(&seen.id, secrets.clone());
        let missing: Vec<ObjectName> = secrets
            .into_iter()
            .filter(|secret| !self.looked_at.contains_key(secret))
            .collect();
        if missing.is_empty() {
            self.held.remove(&seen.id);
            self.put(&seen, effect);
        } else {
            for secret in missing {
                self.look_at(secret, effect);
            }
            self.held.insert(seen.id.clone(), seen);
        }
    }

    fn put(&mut self, seen: &Seen, effect: &mut Effect) {
        seen.insert(&mut self.objects);
        self.facts.insert(seen.id.clone(), seen.facts.clone());
        effect.touched.objects.insert(seen.id.clone());
        effect.restate.insert(seen.id.clone());
    }

    /// An object is gone.
    pub(crate) fn delete(&mut self, id: &ObjectId, effect: &mut Effect) {
        self.held.remove(id);
        self.statuses.remove(id);
        self.refer(id, BTreeSet::new());
        if self.facts.remove(id).is_some() {
            object::remove(id, &mut self.objects);
            effect.touched.objects.insert(id.clone());
        }
    }

    /// A Secret was added, changed or removed: `version` is its resourceVersion, none when it is gone. Those that nobody names are
    /// not looked at.
    pub(crate) fn secret_seen(
        &mut self,
        name: &ObjectName,
        version: Option<&str>,
        effect: &mut Effect,
    ) {
        if version.is_some() {
            self.note(Store::Secrets, name);
        }
        if !self.named_by.contains_key(name) {
            return;
        }
        match (self.looked_at.get(name), version) {
            (Some(Some(then)), Some(now)) if then == now => {}
            (Some(None), None) | (None, None) => {}
            (_, None) => {
                let look = self.look(name.clone());
                self.secret(name, look, None, effect);
            }
            (_, Some(_)) => self.look_at(name.clone(), effect),
        }
    }

    /// Whether it is known of a Secret that it is there, and what it holds, or that it is not.
    pub(crate) fn knows_secret(&self, name: &ObjectName) -> bool {
        self.looked_at.contains_key(name)
    }

    /// Begins a look: what an earlier one still brings does not count any more.
    fn look(&mut self, name: ObjectName) -> u64 {
        self.next_look += 1;
        self.looks.insert(name, self.next_look);
        self.next_look
    }

    fn look_at(&mut self, name: ObjectName, effect: &mut Effect) {
        let look = self.look(name.clone());
        effect.look_at.insert(name, look);
    }

    /// A Secret was looked at. What is older than the last look is passed over.
    pub(crate) fn secret(
        &mut self,
        name: &ObjectName,
        look: u64,
        found: Option<(String, Secret)>,
        effect: &mut Effect,
    ) {
        if self.looks.get(name) != Some(&look) {
            return;
        }
        let (version, secret) = found.unzip();
        self.looked_at.insert(name.clone(), version);
        let before = match &secret {
            Some(secret) => self.objects.secrets.insert(name.clone(), secret.clone()),
            None => self.objects.secrets.remove(name),
        };
        if before != secret {
            effect.touched.secrets.insert(name.clone());
        }
        let waiting: Vec<ObjectId> = self
            .named_by
            .get(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for id in waiting {
            let complete = self.held.get(&id).is_some_and(|held| {
                let mut secrets = held.secrets().into_iter();
                secrets.all(|secret| self.looked_at.contains_key(&secret))
            });
            if complete && let Some(seen) = self.held.remove(&id) {
                self.put(&seen, effect);
            }
        }
    }

    /// A Service was added or changed.
    pub(crate) fn service(
        &mut self,
        name: ObjectName,
        service: Option<Service>,
        effect: &mut Effect,
    ) {
        if service.is_some() {
            self.note(Store::Services, &name);
        }
        let before = match service.clone() {
            Some(service) => self.objects.services.insert(name.clone(), service),
            None => self.objects.services.remove(&name),
        };
        if before != service {
            effect.touched.services.insert(name);
        }
    }

    /// The labels of a namespace; none when it is gone.
    pub(crate) fn namespace(
        &mut self,
        name: String,
        labels: Option<BTreeMap<String, String>>,
        effect: &mut Effect,
    ) {
        if labels.is_some() {
            self.note(Store::Namespaces, &ObjectName::new("", name.as_str()));
        }
        let before = match labels.clone() {
            Some(labels) => self.objects.namespaces.insert(name.clone(), labels),
            None => self.objects.namespaces.remove(&name),
        };
        if before != labels {
            effect.touched.namespaces.insert(name);
        }
    }

    /// A ReferenceGrant; none when it is gone.
    pub(crate) fn reference_grant(
        &mut self,
        name: ObjectName,
        grant: Option<ReferenceGrant>,
        effect: &mut Effect,
    ) {
        if grant.is_some() {
            self.note(Store::ReferenceGrants, &name);
        }
        let before = match grant.clone() {
            Some(grant) => self.objects.reference_grants.insert(name.clone(), grant),
            None => self.objects.reference_grants.remove(&name),
        };
        if before != grant {
            effect.touched.reference_grants.insert(name);
        }
    }

    /// What stands in the status of an object; null when there is nothing.
    pub(crate) fn status(&self, id: &ObjectId) -> serde_json::Value {
        let text = self.statuses.get(id);
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// A store is about to be read whole.
    pub(crate) fn relist(&mut self, store: Store) {
        self.relists.insert(store, BTreeSet::new());
    }

    /// It was: what was not seen is gone.
    pub(crate) fn relisted(&mut self, store: Store, effect: &mut Effect) {
        let seen = self.relists.remove(&store).unwrap_or_default();
        self.synced.insert(store);
        match store {
            Store::Objects(kind) => {
                let ids = self.facts.keys().chain(self.held.keys());
                let gone: Vec<ObjectId> = ids
                    .filter(|id| id.kind == kind && !seen.contains(&id.name))
                    .cloned()
                    .collect();
                gone.iter().for_each(|id| self.delete(id, effect));
            }
            Store::Secrets => {
                let gone = missing(self.objects.secrets.keys(), &seen);
                for name in gone {
                    self.secret_seen(&name, None, effect);
                }
            }
            Store::Services => {
                let gone = missing(self.objects.services.keys(), &seen);
                gone.into_iter()
                    .for_each(|name| self.service(name, None, effect));
            }
            Store::Namespaces => {
                let names: Vec<String> = self.objects.namespaces.keys().cloned().collect();
                for name in names {
                    if !seen.contains(&ObjectName::new("", name.as_str())) {
                        self.namespace(name, None, effect);
                    }
                }
            }
            Store::ReferenceGrants => {
                let gone = missing(self.objects.reference_grants.keys(), &seen);
                gone.into_iter()
                    .for_each(|name| self.reference_grant(name, None, effect));
            }
        }
    }

    fn note(&mut self, store: Store, name: &ObjectName) {
        if let Some(seen) = self.relists.get_mut(&store) {
            seen.insert(name.clone());
        }
    }

    /// Remembers which Secrets an object names, and forgets those that nobody names any more.
    fn refer(&mut self, id: &ObjectId, now: BTreeSet<ObjectName>) {
        let before = self.names.remove(id).unwrap_or_default();
        for name in before.difference(&now) {
            let Some(by) = self.named_by.get_mut(name) else {
                continue;
            };
            by.remove(id);
            if by.is_empty() {
                self.named_by.remove(name);
                self.looked_at.remove(name);
                self.looks.remove(name);
                self.objects.secrets.remove(name);
            }
        }
        for name in &now {
            self.named_by
                .entry(name.clone())
                .or_default()
                .insert(id.clone());
        }
        if !now.is_empty() {
            self.names.insert(id.clone(), now);
        }
    }
}

fn missing<'n>(
    names: impl Iterator<Item = &'n ObjectName>,
    seen: &BTreeSet<ObjectName>,
) -> Vec<ObjectName> {
    names
        .filter(|name| !seen.contains(*name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn api(name: &str, generation: i64, spec: Value) -> Seen {
        seen(Kind::Api, name, generation, spec)
    }

    fn seen(kind: Kind, name: &str, generation: i64, spec: Value) -> Seen {
        let object = json!({
            "apiVersion": "paifang.dev/v1alpha1", "kind": kind.name(),
            "metadata": {"namespace": "demo", "name": name, "uid": name, "generation": generation},
            "spec": spec,
        });
        Seen::read(kind, serde_json::from_value(object).unwrap()).unwrap()
    }

    fn sync(world: &mut World) -> Effect {
        let mut effect = Effect::default();
        for store in Store::all() {
            world.relist(store);
            world.relisted(store, &mut effect);
        }
        effect
    }

    fn touched(effect: &Effect) -> Vec<String> {
        effect
            .touched
            .objects
            .iter()
            .map(|id| id.name.to_string())
            .collect()
    }

    #[test]
    fn nothing_is_synced_before_every_store_is() {
        let mut world = World::default();
        let mut effect = Effect::default();
        let stores: Vec<Store> = Store::all().collect();
        let (last, others) = stores.split_last().unwrap();
        for store in others {
            world.relist(*store);
            world.relisted(*store, &mut effect);
        }
        assert!(!world.is_synced());
        world.relist(*last);
        world.relisted(*last, &mut effect);
        assert!(world.is_synced());
    }

    #[test]
    fn a_status_that_was_written_is_not_an_edit() {
        let mut world = World::default();
        let mut effect = Effect::default();
        world.apply(api("a", 1, json!({})), &mut effect);
        assert_eq!(touched(&effect), ["demo/a"]);
        let mut effect = Effect::default();
        let mut same = api("a", 1, json!({}));
        same.status = json!({"latestRelease": 1});
        world.apply(same, &mut effect);
        assert!(effect.touched.is_empty());
        assert_eq!(effect.restate.len(), 1);
        world.apply(api("a", 2, json!({})), &mut effect);
        assert_eq!(touched(&effect), ["demo/a"]);
    }

    #[test]
    fn an_object_waits_for_a_secret_that_was_never_looked_at_and_its_last_state_goes_on() {
        let mut world = World::default();
        sync(&mut world);
        let domain = |generation, secret: Option<&str>| {
            let spec = match secret {
                Some(name) => {
                    json!({"groupRef": {"name": "g"}, "domain": "a.example.com", "tls": {"secretRef": {"name": name}}})
                }
                None => json!({"groupRef": {"name": "g"}, "domain": "a.example.com"}),
            };
            seen(Kind::DomainBinding, "d", generation, spec)
        };
        let mut effect = Effect::default();
        world.apply(domain(1, None), &mut effect);
        let mut effect = Effect::default();
        world.apply(domain(2, Some("tls")), &mut effect);
        let secret = ObjectName::new("demo", "tls");
        let look = effect.look_at[&secret];
        assert!(effect.touched.is_empty());
        assert!(!world.is_synced());
        let mut effect = Effect::default();
        world.secret(
            &secret,
            look,
            Some(("7".to_owned(), Secret::default())),
            &mut effect,
        );
        assert_eq!(touched(&effect), ["demo/d"]);
        assert!(world.is_synced());
        assert!(world.objects.secrets.contains_key(&secret));

        let mut effect = Effect::default();
        world.secret_seen(&secret, Some("7"), &mut effect);
        assert!(effect.look_at.is_empty(), "the same version");
        world.secret_seen(&secret, Some("8"), &mut effect);
        assert_eq!(effect.look_at.len(), 1);
        world.secret_seen(&secret, None, &mut effect);
        assert!(effect.touched.secrets.contains(&secret));
        assert!(world.objects.secrets.is_empty());

        let mut effect = Effect::default();
        world.apply(domain(3, None), &mut effect);
        world.secret_seen(&secret, Some("9"), &mut effect);
        assert!(effect.look_at.is_empty(), "nobody names it any more");
    }

    #[test]
    fn an_older_look_says_nothing_after_a_newer_one_or_a_deletion() {
        let mut world = World::default();
        sync(&mut world);
        let spec = json!({"tls": {"secretRef": {"name": "tls"}}});
        let mut effect = Effect::default();
        world.apply(seen(Kind::DomainBinding, "d", 1, spec), &mut effect);
        let secret = ObjectName::new("demo", "tls");
        let first = effect.look_at[&secret];
        let mut effect = Effect::default();
        world.secret_seen(&secret, Some("8"), &mut effect);
        let second = effect.look_at[&secret];
        let with = |version: &str| Some((version.to_owned(), Secret::default()));
        world.secret(&secret, second, with("8"), &mut effect);
        world.secret(&secret, first, None, &mut effect);
        assert!(
            world.objects.secrets.contains_key(&secret),
            "the first look was before"
        );
        world.secret_seen(&secret, Some("9"), &mut effect);
        let third = effect.look_at[&secret];
        world.secret_seen(&secret, None, &mut effect);
        world.secret(&secret, third, with("9"), &mut effect);
        assert!(
            world.objects.secrets.is_empty(),
            "it is gone, and with it what it opened"
        );
    }

    #[test]
    fn what_a_relist_does_not_show_is_gone() {
        let mut world = World::default();
        let mut effect = Effect::default();
        let store = Store::Objects(Kind::Api);
        world.apply(api("a", 1, json!({})), &mut effect);
        world.apply(api("b", 1, json!({})), &mut effect);
        let mut effect = Effect::default();
        world.relist(store);
        world.apply(api("b", 1, json!({})), &mut effect);
        world.relisted(store, &mut effect);
        assert_eq!(touched(&effect), ["demo/a"]);
        assert_eq!(world.objects.apis.len(), 1);
    }
}
