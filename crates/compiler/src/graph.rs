//! Who has looked at what: so that a change is followed to what it reaches, and no further.
//!
//! Whatever is worked out for an object records what it read beside the object itself. When something that was read turns out
//! different, its readers are worked out again. Nothing here decides anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

/// What was read for an object, in order. Those of the same thing share it once its reader is known ([`Readers::replace`]).
#[derive(Debug, Default)]
pub(crate) struct Deps(Vec<Arc<Dep>>);

/// Records what is read while something is worked out.
pub(crate) struct Trace<'t> {
    /// What was read.
    pub(crate) deps: Deps,
    /// What is known of certificates.
    pub(crate) judgements: &'t mut Judgements,
}

/// The readers of everything that is read.
#[derive(Debug, Default)]
pub(crate) struct Readers(BTreeMap<Arc<Dep>, ReadBy>);

/// Who reads something. Most things are read by one or by a few.
#[derive(Debug)]
enum ReadBy {
    One(Arc<ObjectId>),
    Many(BTreeSet<Arc<ObjectId>>),
}

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
            deps: Deps::default(),
            judgements,
        }
    }

    /// Records that `dep` was read.
    pub(crate) fn reads(&mut self, dep: Dep) {
        self.deps.insert(dep);
    }
}

// === impl Deps ===

impl Deps {
    /// Adds one.
    pub(crate) fn insert(&mut self, dep: Dep) {
        if let Err(at) = self.find(&dep) {
            self.0.insert(at, Arc::new(dep));
        }
    }

    fn contains(&self, dep: &Dep) -> bool {
        self.find(dep).is_ok()
    }

    fn find(&self, dep: &Dep) -> Result<usize, usize> {
        self.0.binary_search_by(|it| (**it).cmp(dep))
    }
}

// === impl ReadBy ===

impl ReadBy {
    fn insert(&mut self, id: &Arc<ObjectId>) {
        match self {
            Self::One(only) if only == id => {}
            Self::One(only) => {
                let both = [Arc::clone(only), Arc::clone(id)];
                *self = Self::Many(both.into());
            }
            Self::Many(all) => {
                all.insert(Arc::clone(id));
            }
        }
    }

    /// Says whether nobody is left.
    fn remove(&mut self, id: &ObjectId) -> bool {
        match self {
            Self::One(only) => **only == *id,
            Self::Many(all) => {
                all.remove(id);
                all.is_empty()
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &ObjectId> {
        let (one, many) = match self {
            Self::One(only) => (Some(only), None),
            Self::Many(all) => (None, Some(all)),
        };
        one.into_iter()
            .chain(many.into_iter().flatten())
            .map(|id| &**id)
    }
}

// === impl Readers ===

impl Readers {
    /// `id` reads `now` from now on, and no longer what it read `before`.
    pub(crate) fn replace(
        &mut self,
        id: &Arc<ObjectId>,
        before: Option<&Deps>,
        now: Option<&mut Deps>,
    ) {
        let none = Deps::default();
        let mut no_more = Deps::default();
        let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&mut no_more));
        for dep in before.0.iter().filter(|dep| !now.contains(dep)) {
            if let Some(readers) = self.0.get_mut(dep)
                && readers.remove(id)
            {
                self.0.remove(dep);
            }
        }
        for dep in &mut now.0 {
            let is_new = !before.contains(dep);
            match self.0.get_key_value(dep) {
                Some((known, _)) => *dep = Arc::clone(known),
                None => {
                    self.0.insert(Arc::clone(dep), ReadBy::One(Arc::clone(id)));
                    continue;
                }
            }
            if is_new && let Some(readers) = self.0.get_mut(dep) {
                readers.insert(id);
            }
        }
        now.0.shrink_to_fit();
    }

    fn of(&self, dep: &Dep) -> impl Iterator<Item = &ObjectId> {
        self.0.get(dep).into_iter().flat_map(ReadBy::iter)
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
