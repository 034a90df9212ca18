//! What was published, as far as it is known, and what of it is in force: a state machine without a socket or a clock.
//!
//! Objects go in as they come from the API server or from the cache; what comes out is the newest state of each group of which every
//! part is there and sound. Until then the last good one goes on. A part that is there once stays for as long as a manifest names it,
//! whatever happens to its object: its name says what it holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use paifang_model::ObjectName;
use paifang_snapshot::{
    published::{self, AppsManifest, GroupManifest, Hash, InvalidPart},
    report::Problem,
    wire::{self, Certificate, Endpoints, Snapshot, Target},
};

/// How long a group may wait for parts before anybody is told. Publishing writes parts first; two watches are not in step.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// How long a group waits until the endpoints of all its Services are known.
pub(super) const ENDPOINTS: Duration = Duration::from_secs(1);

/// A Service and the name of its port.
pub(super) type Service = (ObjectName, String);

/// Where an object comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// ConfigMaps.
    Routing,
    /// Secrets.
    Secrets,
}

/// An object, as far as it matters here.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) name: Box<str>,
    /// Its resource version; later ones are larger.
    pub(super) version: u64,
    pub(super) content: Content,
}

#[derive(Clone)]
pub(super) enum Content {
    /// A part as it is stored, packed; or why it is none.
    Part(Hash, Result<Arc<[u8]>, String>),
    /// A group's manifest, and what its object says that it is about.
    Group {
        text: Arc<str>,
        about: Option<ObjectName>,
    },
    /// The manifest of all callers. Secret.
    Apps(Arc<str>),
}

/// What is known.
pub(super) struct Store {
    instance: String,
    parts: HashMap<Hash, Part>,
    /// Parts that are there and cannot be used.
    bad: HashMap<Hash, String>,
    groups: BTreeMap<Box<str>, Group>,
    apps: Apps,
    /// How many groups, in force or about to be, need each Service.
    services: BTreeMap<Service, usize>,
    services_changed: bool,
    /// Groups to look at again.
    dirty: BTreeSet<Box<str>>,
    snapshot: Snapshot,
    /// Which material each Secret has in `snapshot`.
    materials: BTreeMap<ObjectName, Hash>,
}

struct Part {
    packed: Arc<[u8]>,
    /// Where its object is, if there still is one.
    object: Option<Source>,
}

/// A group by the object that its manifest is in.
struct Group {
    about: Option<ObjectName>,
    wanted: Wanted<GroupManifest>,
    /// Complete, and waiting for endpoints.
    candidate: Option<Box<Loaded>>,
    served: Option<Box<Loaded>>,
    /// Since when `wanted` is not served.
    since: Instant,
}

/// What an object says now.
enum Wanted<M> {
    Manifest(Arc<Named<M>>),
    /// Nothing that can be read.
    Unreadable(String),
}

/// A manifest and its name.
pub(super) struct Named<M> {
    manifest: M,
    hash: Hash,
    pub(super) text: Arc<str>,
    pub(super) version: u64,
}

/// A group that was put together.
struct Loaded {
    named: Arc<Named<GroupManifest>>,
    group: Arc<wire::Group>,
    certificates: BTreeMap<ObjectName, (Hash, Arc<Certificate>)>,
    services: BTreeSet<Service>,
}

#[derive(Default)]
struct Apps {
    wanted: Option<Wanted<AppsManifest>>,
    served: Option<Arc<Named<AppsManifest>>>,
    gone: bool,
    since: Option<Instant>,
    dirty: bool,
}

/// What is in force, to be kept on disk.
#[derive(Default, Clone)]
pub(super) struct Saved {
    /// Manifests of groups by the name of their object.
    pub(super) groups: BTreeMap<Box<str>, Manifest>,
    /// The manifest of all callers.
    pub(super) apps: Option<Manifest>,
    /// Every part that they name.
    pub(super) parts: HashMap<Hash, Arc<[u8]>>,
}

/// A manifest as it was published.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) text: Arc<str>,
    pub(super) version: u64,
}

// === impl Store ===

impl Store {
    pub(super) fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            parts: HashMap::new(),
            bad: HashMap::new(),
            groups: BTreeMap::new(),
            apps: Apps::default(),
            services: BTreeMap::new(),
            services_changed: false,
            dirty: BTreeSet::new(),
            snapshot: Snapshot::default(),
            materials: BTreeMap::new(),
        }
    }

    /// An object came or changed.
    pub(super) fn put(&mut self, source: Source, object: Object, now: Instant) {
        let Object {
            name,
            version,
            content,
        } = object;
        match content {
            Content::Part(hash, stored) => self.put_part(source, hash, stored),
            Content::Group { text, about } => self.put_group(name, version, &text, about, now),
            Content::Apps(text) => self.put_apps(version, &text, now),
        }
    }

    fn put_part(&mut self, source: Source, hash: Hash, stored: Result<Arc<[u8]>, String>) {
        if let Some(known) = self.parts.get_mut(&hash) {
            known.object = Some(source);
            // Content never changes under one name; a copy that is different now was altered, and ours is the good one.
            if let Err(reason) = sound(&hash, stored) {
                tracing::warn!(part = %hash, reason, "a part that is known has become unusable; what was received before is used");
            }
            return;
        }
        match sound(&hash, stored) {
            Ok(packed) => {
                self.bad.remove(&hash);
                let part = Part {
                    packed,
                    object: Some(source),
                };
                self.wake(&hash);
                self.parts.insert(hash, part);
            }
            Err(reason) => {
                tracing::error!(part = %hash, reason, "a part cannot be used");
                self.bad.insert(hash, reason);
            }
        }
    }

    /// Looks again at what may have waited for a part.
    fn wake(&mut self, hash: &Hash) {
        for (name, group) in &self.groups {
            if let Wanted::Manifest(wanted) = &group.wanted
                && !group.is_in_force()
                && needed(&wanted.manifest).any(|needed| needed == hash)
            {
                self.dirty.insert(name.clone());
            }
        }
        if let Some(Wanted::Manifest(wanted)) = &self.apps.wanted
            && wanted.manifest.parts().any(|needed| needed == hash)
        {
            self.apps.dirty = true;
        }
    }

    fn put_group(
        &mut self,
        name: Box<str>,
        version: u64,
        text: &Arc<str>,
        about: Option<ObjectName>,
        now: Instant,
    ) {
        let known = self.groups.get_mut(&name);
        if let Some(Group {
            wanted: Wanted::Manifest(named),
            ..
        }) = &known
            && named.text == *text
        {
            return;
        }
        let wanted = match GroupManifest::read(text) {
            Ok(manifest) if manifest.instance != self.instance => Wanted::Unreadable(format!(
                "its manifest is for the gateways of instance `{}`",
                manifest.instance
            )),
            Ok(manifest) => Wanted::Manifest(Arc::new(Named {
                manifest,
                hash: Hash::of(text.as_bytes()),
                text: Arc::clone(text),
                version,
            })),
            Err(error) => Wanted::Unreadable(error.to_string()),
        };
        if let Wanted::Unreadable(reason) = &wanted {
            tracing::error!(object = %name, group = about.as_ref().map(tracing::field::display), reason, "a manifest cannot be used; the last good one stays in force");
        }
        let about = match &wanted {
            Wanted::Manifest(named) => Some(named.manifest.group.clone()),
            Wanted::Unreadable(_) => about,
        };
        match known {
            Some(group) => {
                group.wanted = wanted;
                group.about = about.or(group.about.take());
                group.since = now;
                let dropped = group.candidate.take();
                self.release(dropped.as_deref());
            }
            None => {
                let group = Group {
                    about,
                    wanted,
                    candidate: None,
                    served: None,
                    since: now,
                };
                self.groups.insert(name.clone(), group);
            }
        }
        self.dirty.insert(name);
    }

    fn put_apps(&mut self, version: u64, text: &Arc<str>, now: Instant) {
        let apps = &mut self.apps;
        apps.gone = false;
        if let Some(Wanted::Manifest(named)) = &apps.wanted
            && named.text == *text
        {
            return;
        }
        apps.wanted = Some(match AppsManifest::read(text) {
            Ok(manifest) => Wanted::Manifest(Arc::new(Named {
                manifest,
                hash: Hash::of(text.as_bytes()),
                text: Arc::clone(text),
                version,
            })),
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(
                    reason,
                    "the manifest of all callers cannot be used; the last good one stays in force"
                );
                Wanted::Unreadable(reason)
            }
        });
        apps.since = Some(now);
        apps.dirty = true;
    }

    /// A part that was kept on disk. What cannot be used is only said to be so: the real one may come yet.
    pub(super) fn restore(&mut self, hash: Hash, packed: Arc<[u8]>) -> Result<(), String> {
        let packed = sound(&hash, Ok(packed))?;
        self.wake(&hash);
        let part = Part {
            packed,
            object: None,
        };
        self.parts.entry(hash).or_insert(part);
        Ok(())
    }

    /// An object is there no more.
    pub(super) fn gone(&mut self, source: Source, name: &str, part: Option<&Hash>) {
        if let Some(hash) = part {
            self.bad.remove(hash);
            if let Some(part) = self.parts.get_mut(hash) {
                part.object = None;
            }
        } else if source == Source::Routing {
            self.remove_group(name);
        } else if name == super::APPS {
            self.lose_apps();
        }
    }

    /// Everything that there is.
    pub(super) fn listed(&mut self, source: Source, all: Vec<Object>, now: Instant) {
        for part in self.parts.values_mut() {
            part.object = part.object.filter(|object| *object != source);
        }
        match source {
            Source::Routing => {
                let manifests: HashSet<&str> = all
                    .iter()
                    .filter(|object| matches!(object.content, Content::Group { .. }))
                    .map(|object| &*object.name)
                    .collect();
                let gone: Vec<Box<str>> = self
                    .groups
                    .keys()
                    .filter(|name| !manifests.contains(&***name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.remove_group(&name);
                }
            }
            Source::Secrets => {
                let apps = |object: &Object| matches!(object.content, Content::Apps(_));
                if !all.iter().any(apps) {
                    self.lose_apps();
                }
            }
        }
        // Parts first, so that nothing is taken for missing that comes later in the list.
        let (parts, manifests): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|object| matches!(object.content, Content::Part(..)));
        for object in parts.into_iter().chain(manifests) {
            self.put(source, object, now);
        }
    }

    fn remove_group(&mut self, name: &str) {
        let Some(group) = self.groups.remove(name) else {
            return;
        };
        tracing::info!(
            object = name,
            group = group.about.as_ref().map(tracing::field::display),
            "a group is published no more"
        );
        self.release(group.candidate.as_deref());
        self.release(group.served.as_deref());
        self.dirty.insert(name.into());
    }

    /// Nobody publishes "no callers" by removing the manifest: who is revoked is revoked by a new one.
    fn lose_apps(&mut self) {
        let apps = &mut self.apps;
        if apps.served.is_some() && !std::mem::replace(&mut apps.gone, true) {
            tracing::error!(
                "the manifest of all callers is there no more; the last one stays in force"
            );
        }
    }

    /// Puts together what can be. What cannot stays as it was.
    pub(super) fn assemble(&mut self) {
        for name in std::mem::take(&mut self.dirty) {
            let Some(group) = self.groups.get(&name) else {
                continue;
            };
            let Wanted::Manifest(wanted) = &group.wanted else {
                continue;
            };
            if group.is_in_force() || group.candidate.is_some() {
                continue;
            }
            let wanted = Arc::clone(wanted);
            match self.load(&wanted, group.served.as_deref()) {
                Ok(loaded) => {
                    self.retain(&loaded);
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.candidate = Some(Box::new(loaded));
                    }
                }
                Err(InvalidPart::Missing(hash)) => {
                    tracing::debug!(group = %wanted.manifest.group, part = %hash, "waits for a part");
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::error!(group = %wanted.manifest.group, reason, "a group cannot be put together; the last good one stays in force");
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.wanted = Wanted::Unreadable(reason);
                    }
                }
            }
        }
    }

    fn load(
        &self,
        named: &Arc<Named<GroupManifest>>,
        before: Option<&Loaded>,
    ) -> Result<Loaded, InvalidPart> {
        let raw = self.unpacked(needed_routing(&named.manifest))?;
        let find = |hash: &Hash| raw.get(hash).map(Vec::as_slice);
        let mut certificates = BTreeMap::new();
        for (name, hash) in &named.manifest.certificates {
            let known = before.and_then(|before| before.certificates.get(name));
            let material = match known {
                Some((same, material)) if same == hash => Arc::clone(material),
                _ => {
                    let raw = self.unpacked([hash])?;
                    let raw = raw.get(hash).map(Vec::as_slice).unwrap_or_default();
                    Arc::new(published::certificate(hash, raw)?)
                }
            };
            certificates.insert(name.clone(), (hash.clone(), material));
        }
        let group = published::assemble_group(&named.manifest, find)?;
        Ok(Loaded {
            named: Arc::clone(named),
            services: services(&group),
            group: Arc::new(group),
            certificates,
        })
    }

    fn unpacked<'h>(
        &self,
        hashes: impl IntoIterator<Item = &'h Hash>,
    ) -> Result<HashMap<Hash, Vec<u8>>, InvalidPart> {
        let mut all = HashMap::new();
        for hash in hashes {
            let part = self.parts.get(hash);
            let part = part.ok_or_else(|| InvalidPart::Missing(hash.clone()))?;
            all.insert(hash.clone(), published::unpack(hash, &part.packed)?);
        }
        Ok(all)
    }

    /// Puts in force what is complete, once the endpoints of its Services are `known` or were waited for long enough. Whether anything
    /// is different then.
    pub(super) fn promote(&mut self, known: impl Fn(&Service) -> bool, now: Instant) -> bool {
        let mut served: HashSet<&ObjectName> = self.snapshot.groups.keys().collect();
        for group in self.groups.values() {
            for loaded in [&group.candidate, &group.served].into_iter().flatten() {
                served.remove(&loaded.group.name);
            }
        }
        let mut changed = !served.is_empty();
        let mut replaced = Vec::new();
        for group in self.groups.values_mut() {
            let Some(candidate) = &group.candidate else {
                continue;
            };
            let waited = now.saturating_duration_since(group.since) >= ENDPOINTS;
            if !waited && !candidate.services.iter().all(&known) {
                continue;
            }
            replaced.extend(std::mem::replace(&mut group.served, group.candidate.take()));
            changed = true;
        }
        for loaded in replaced {
            self.release(Some(&loaded));
        }
        changed |= self.assemble_apps();
        if changed {
            self.rebuild();
            self.forget_parts();
        }
        changed
    }

    fn assemble_apps(&mut self) -> bool {
        if !std::mem::take(&mut self.apps.dirty) {
            return false;
        }
        let Some(Wanted::Manifest(wanted)) = &self.apps.wanted else {
            return false;
        };
        let wanted = Arc::clone(wanted);
        if self
            .apps
            .served
            .as_ref()
            .is_some_and(|served| served.hash == wanted.hash)
        {
            return false;
        }
        let assembled = self.unpacked(wanted.manifest.parts()).and_then(|raw| {
            published::assemble_apps(&wanted.manifest, |hash| raw.get(hash).map(Vec::as_slice))
        });
        match assembled {
            Ok((apps, credentials)) => {
                self.snapshot.apps = Arc::new(apps);
                self.snapshot.credentials = Arc::new(credentials);
                self.apps.served = Some(wanted);
                true
            }
            Err(InvalidPart::Missing(hash)) => {
                tracing::debug!(part = %hash, "the callers wait for a part");
                false
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(
                    reason,
                    "the callers cannot be put together; the last good ones stay in force"
                );
                self.apps.wanted = Some(Wanted::Unreadable(reason));
                false
            }
        }
    }

    /// The snapshot of what is in force.
    fn rebuild(&mut self) {
        let mut groups: BTreeMap<ObjectName, &Loaded> = BTreeMap::new();
        let mut materials: BTreeMap<&ObjectName, (u64, &Hash, &Arc<Certificate>)> = BTreeMap::new();
        for loaded in self
            .groups
            .values()
            .filter_map(|group| group.served.as_deref())
        {
            let version = loaded.named.version;
            let newer = |other: u64| version >= other;
            let name = &loaded.group.name;
            if groups
                .get(name)
                .is_none_or(|other| newer(other.named.version))
            {
                groups.insert(name.clone(), loaded);
            }
            // Of two groups that were published one after the other, the later one knows the Secret as it is.
            for (secret, (hash, material)) in &loaded.certificates {
                if materials
                    .get(secret)
                    .is_none_or(|(other, ..)| newer(*other))
                {
                    materials.insert(secret, (version, hash, material));
                }
            }
        }
        let hashes: BTreeMap<ObjectName, Hash> = materials
            .iter()
            .map(|(secret, (_, hash, _))| ((*secret).clone(), (*hash).clone()))
            .collect();
        if hashes != self.materials {
            let certificates = materials
                .into_iter()
                .map(|(secret, (_, _, material))| (secret.clone(), (**material).clone()));
            self.snapshot.certificates = Arc::new(certificates.collect());
            self.materials = hashes;
        }
        self.snapshot.groups = groups
            .into_iter()
            .map(|(name, loaded)| (name, Arc::clone(&loaded.group)))
            .collect();
    }

    /// Drops parts that no manifest names and no object holds.
    fn forget_parts(&mut self) {
        if self.parts.values().all(|part| part.object.is_some()) {
            return;
        }
        let mut named: HashSet<&Hash> = HashSet::new();
        for group in self.groups.values() {
            if let Wanted::Manifest(wanted) = &group.wanted {
                named.extend(needed(&wanted.manifest));
            }
            if let Some(served) = &group.served {
                named.extend(needed(&served.named.manifest));
            }
        }
        if let Some(Wanted::Manifest(wanted)) = &self.apps.wanted {
            named.extend(wanted.manifest.parts());
        }
        if let Some(served) = &self.apps.served {
            named.extend(served.manifest.parts());
        }
        self.parts
            .retain(|hash, part| part.object.is_some() || named.contains(hash));
    }

    fn retain(&mut self, loaded: &Loaded) {
        for service in &loaded.services {
            match self.services.get_mut(service) {
                Some(count) => *count += 1,
                None => {
                    self.services.insert(service.clone(), 1);
                    self.services_changed = true;
                }
            }
        }
    }

    fn release(&mut self, loaded: Option<&Loaded>) {
        for service in loaded.into_iter().flat_map(|loaded| &loaded.services) {
            if let Some(count) = self.services.get_mut(service) {
                *count -= 1;
                if *count == 0 {
                    self.services.remove(service);
                    self.services_changed = true;
                }
            }
        }
    }

    /// The Services that are needed, when they are others than at the last call.
    pub(super) fn changed_services(&mut self) -> Option<BTreeSet<Service>> {
        std::mem::take(&mut self.services_changed).then(|| self.services.keys().cloned().collect())
    }

    /// What is in force.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The manifest of each group in force.
    pub(super) fn groups(&self) -> BTreeMap<ObjectName, Hash> {
        let mut all: BTreeMap<ObjectName, (u64, &Hash)> = BTreeMap::new();
        for loaded in self
            .groups
            .values()
            .filter_map(|group| group.served.as_deref())
        {
            let Named { hash, version, .. } = &*loaded.named;
            let name = &loaded.group.name;
            if all.get(name).is_none_or(|(other, _)| version >= other) {
                all.insert(name.clone(), (*version, hash));
            }
        }
        all.into_iter()
            .map(|(name, (_, hash))| (name, hash.clone()))
            .collect()
    }

    /// The manifest of the callers in force.
    pub(super) fn apps(&self) -> Option<Hash> {
        self.apps.served.as_ref().map(|served| served.hash.clone())
    }

    /// Everything that is not in force as it was published, and why.
    pub(super) fn problems(&self, now: Instant) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (object, group) in &self.groups {
            let Some(reason) = group.problem(now, self) else {
                continue;
            };
            let instead = match group.served {
                Some(_) => "the last good version stays in force",
                None => "there is none before it, so that the group is not served",
            };
            problems.push(Problem {
                group: group.about.clone(),
                api: None,
                certificate: None,
                message: format!("ConfigMap {object}: {reason}; {instead}"),
            });
        }
        if let Some(reason) = self.apps_problem(now) {
            let instead = match self.apps.served {
                Some(_) => "the last good ones stay in force",
                None => "there are none before them, so that no App may call",
            };
            problems.push(Problem {
                group: None,
                api: None,
                certificate: None,
                message: format!(
                    "Secret {}, Apps and credentials: {reason}; {instead}",
                    super::APPS
                ),
            });
        }
        problems
    }

    fn apps_problem(&self, now: Instant) -> Option<String> {
        let apps = &self.apps;
        if apps.gone {
            return Some("it is there no more".to_owned());
        }
        match apps.wanted.as_ref()? {
            Wanted::Unreadable(reason) => Some(reason.clone()),
            Wanted::Manifest(wanted) => {
                if apps
                    .served
                    .as_ref()
                    .is_some_and(|served| served.hash == wanted.hash)
                {
                    return None;
                }
                let late = now.saturating_duration_since(apps.since?) >= GRACE;
                late.then(|| self.missing(wanted.manifest.parts()))
            }
        }
    }

    fn missing<'h>(&self, needed: impl Iterator<Item = &'h Hash>) -> String {
        let missing: Vec<&Hash> = needed
            .filter(|hash| !self.parts.contains_key(*hash))
            .collect();
        let Some(first) = missing.first() else {
            return "it waits for the endpoints of its Services".to_owned();
        };
        let why = match self.bad.get(*first) {
            Some(reason) => reason.clone(),
            None => "it is not there".to_owned(),
        };
        match missing.len() {
            1 => format!("it needs part {first}: {why}"),
            count => format!("it needs {count} parts that cannot be had, the first {first}: {why}"),
        }
    }

    /// How many groups are not in force as they were published, and how many parts are missing.
    pub(super) fn stale(&self) -> (usize, usize) {
        let stale = self.groups.values().filter(|group| !group.is_in_force());
        let mut missing: HashSet<&Hash> = HashSet::new();
        let mut count = 0;
        for group in stale {
            count += 1;
            if let Wanted::Manifest(wanted) = &group.wanted {
                missing.extend(
                    needed(&wanted.manifest).filter(|hash| !self.parts.contains_key(*hash)),
                );
            }
        }
        if let Some(Wanted::Manifest(wanted)) = &self.apps.wanted {
            missing.extend(
                wanted
                    .manifest
                    .parts()
                    .filter(|hash| !self.parts.contains_key(*hash)),
            );
        }
        (count, missing.len())
    }

    /// When to look again although nothing comes.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let waiting = self.groups.values().filter(|group| !group.is_in_force());
        let mut times: Vec<Instant> = waiting
            .flat_map(|group| [group.since + ENDPOINTS, group.since + GRACE])
            .collect();
        times.extend(self.apps.since.map(|since| since + GRACE));
        times.into_iter().filter(|time| *time > now).min()
    }

    /// Whether [`Store::promote`] would put everything in force that can be read.
    pub(super) fn is_whole_when(&self, known: impl Fn(&Service) -> bool) -> bool {
        let complete = |group: &Group| match &group.wanted {
            Wanted::Unreadable(_) => true,
            Wanted::Manifest(_) => {
                let candidate = group.candidate.as_ref();
                group.is_in_force() || candidate.is_some_and(|it| it.services.iter().all(&known))
            }
        };
        let apps = match &self.apps.wanted {
            Some(Wanted::Manifest(wanted)) => wanted
                .manifest
                .parts()
                .all(|hash| self.parts.contains_key(hash)),
            _ => true,
        };
        apps && self.groups.values().all(complete)
    }

    /// Groups that are not in force as they are wanted.
    pub(super) fn not_in_force(&self) -> impl Iterator<Item = String> {
        let lost = self.groups.iter().filter(|(_, group)| !group.is_in_force());
        lost.map(|(object, group)| match &group.about {
            Some(group) => group.to_string(),
            None => object.to_string(),
        })
    }

    /// What is in force, for the cache.
    pub(super) fn saved(&self) -> Saved {
        let mut saved = Saved::default();
        let mut keep = |hash: &Hash| {
            if let Some(part) = self.parts.get(hash) {
                saved.parts.insert(hash.clone(), Arc::clone(&part.packed));
            }
        };
        for (name, group) in &self.groups {
            if let Some(served) = &group.served {
                needed(&served.named.manifest).for_each(&mut keep);
                saved
                    .groups
                    .insert(name.clone(), Manifest::of(&served.named));
            }
        }
        if let Some(served) = &self.apps.served {
            served.manifest.parts().for_each(&mut keep);
            saved.apps = Some(Manifest::of(served));
        }
        saved
    }
}

// === impl Group ===

impl Group {
    fn is_in_force(&self) -> bool {
        match (&self.wanted, &self.served) {
            (Wanted::Manifest(wanted), Some(served)) => served.named.hash == wanted.hash,
            _ => false,
        }
    }

    fn problem(&self, now: Instant, store: &Store) -> Option<String> {
        match &self.wanted {
            Wanted::Unreadable(reason) => Some(reason.clone()),
            Wanted::Manifest(wanted) => {
                let late = now.saturating_duration_since(self.since) >= GRACE;
                (late && !self.is_in_force()).then(|| store.missing(needed(&wanted.manifest)))
            }
        }
    }
}

impl Manifest {
    fn of<M>(named: &Named<M>) -> Self {
        Self {
            text: Arc::clone(&named.text),
            version: named.version,
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Part(hash, stored) => write!(f, "Part({hash}, {})", stored.is_ok()),
            Self::Group { about, .. } => write!(f, "Group({about:?})"),
            Self::Apps(_) => f.write_str("Apps"),
        }
    }
}

/// Every part that a group needs.
fn needed(manifest: &GroupManifest) -> impl Iterator<Item = &Hash> {
    manifest.parts().chain(manifest.certificates.values())
}

fn needed_routing(manifest: &GroupManifest) -> impl Iterator<Item = &Hash> {
    manifest.parts()
}

/// A part whose bytes are those that its name stands for.
fn sound(hash: &Hash, stored: Result<Arc<[u8]>, String>) -> Result<Arc<[u8]>, String> {
    let stored = stored?;
    published::unpack(hash, &stored).map_err(|error| error.to_string())?;
    Ok(stored)
}

fn services(group: &wire::Group) -> BTreeSet<Service> {
    let service = |backend: &wire::Backend| match &backend.target {
        Target::Vpc(vpc) => match &vpc.endpoints {
            Endpoints::Service { name, port } => Some((name.clone(), port.clone())),
            Endpoints::Fixed(_) => None,
        },
        _ => None,
    };
    group.backends.iter().filter_map(service).collect()
}

#[cfg(test)]
mod tests;
