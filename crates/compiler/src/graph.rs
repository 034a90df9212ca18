//! Who has looked at what: so that a change is followed to what it reaches, and no further.
//!
//! Whatever is worked out for an object records what it read beside the object itself. When something that was read turns out
//! different, its readers are worked out again. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet};

use paifang_model::ObjectName;
use paifang_resources::Kind;

use crate::{ObjectId, certificates::Judgements};

/// Something that objects look at in others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dep {
    /// An ApiGroup in force.
    Group(ObjectName),
    /// A BackendService in force.
    Backend(ObjectName),
    /// Whether an Api is there, and which group publishes it in which stage.
    Api(ObjectName),
    /// Which Apis a group publishes.
    Members(ObjectName),
    /// Whether an App is in force.
    App(ObjectName),
    /// A Secret.
    Secret(ObjectName),
    /// A Service.
    Service(ObjectName),
    /// The ReferenceGrants of a namespace.
    Grants(Box<str>),
    /// The labels of a namespace.
    Labels(Box<str>),
}

/// Records what is read while something is worked out.
pub(crate) struct Trace<'t> {
    /// What was read.
    pub(crate) deps: BTreeSet<Dep>,
    /// What is known of certificates.
    pub(crate) judgements: &'t mut Judgements,
}

/// The readers of everything that is read.
#[derive(Debug, Default)]
pub(crate) struct Readers(BTreeMap<Dep, BTreeSet<ObjectId>>);

/// What has to be worked out again in this update.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// ApiGroups to parse.
    pub(crate) groups: BTreeSet<ObjectName>,
    /// Apis to parse.
    pub(crate) drafts: BTreeSet<ObjectName>,
    /// BackendServices to parse and resolve.
    pub(crate) services: BTreeSet<ObjectName>,
    /// Apis whose stages are to be worked out.
    pub(crate) apis: BTreeSet<ObjectName>,
    /// Apis to put a verdict on.
    pub(crate) told: BTreeSet<ObjectName>,
    /// BackendServices to put a verdict on.
    pub(crate) used: BTreeSet<ObjectName>,
    /// Apps.
    pub(crate) apps: BTreeSet<ObjectName>,
    /// DomainBindings.
    pub(crate) domains: BTreeSet<ObjectName>,
    /// Authorizations.
    pub(crate) authorizations: BTreeSet<ObjectName>,
    /// ApiGroups to put together.
    pub(crate) published: BTreeSet<ObjectName>,
    /// Secrets whose published material is to be looked at.
    pub(crate) secrets: BTreeSet<ObjectName>,
    /// Services whose endpoints are to be looked at.
    pub(crate) endpoints: BTreeSet<(ObjectName, String)>,
}

// === impl Trace ===

impl<'t> Trace<'t> {
    pub(crate) fn new(judgements: &'t mut Judgements) -> Self {
        Self {
            deps: BTreeSet::new(),
            judgements,
        }
    }

    /// Records that `dep` was read.
    pub(crate) fn reads(&mut self, dep: Dep) {
        self.deps.insert(dep);
    }
}

// === impl Readers ===

impl Readers {
    /// `id` reads `now` from now on, and no longer what it read `before`.
    pub(crate) fn replace(&mut self, id: &ObjectId, before: &BTreeSet<Dep>, now: &BTreeSet<Dep>) {
        for dep in before.difference(now) {
            if let Some(readers) = self.0.get_mut(dep) {
                readers.remove(id);
                if readers.is_empty() {
                    self.0.remove(dep);
                }
            }
        }
        for dep in now.difference(before) {
            match self.0.get_mut(dep) {
                Some(readers) => {
                    readers.insert(id.clone());
                }
                None => {
                    self.0.insert(dep.clone(), BTreeSet::from([id.clone()]));
                }
            }
        }
    }

    fn of(&self, dep: &Dep) -> impl Iterator<Item = &ObjectId> {
        self.0.get(dep).into_iter().flatten()
    }

    /// The readers of one kind.
    pub(crate) fn of_kind(&self, dep: &Dep, kind: Kind) -> impl Iterator<Item = &ObjectName> {
        self.of(dep)
            .filter(move |id| id.kind == kind)
            .map(|id| &id.name)
    }
}

// === impl Dirty ===

impl Dirty {
    /// `dep` is different: whoever reads it is worked out again.
    pub(crate) fn fire(&mut self, dep: &Dep, readers: &Readers) {
        for id in readers.of(dep) {
            let set = match id.kind {
                Kind::Api => &mut self.apis,
                Kind::BackendService => &mut self.services,
                Kind::App => &mut self.apps,
                Kind::DomainBinding => &mut self.domains,
                Kind::Authorization => &mut self.authorizations,
                // A group means what it says, whatever else there is.
                Kind::ApiGroup => continue,
            };
            if !set.contains(&id.name) {
                set.insert(id.name.clone());
            }
        }
    }
}
