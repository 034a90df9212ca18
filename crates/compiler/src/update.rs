//! What a caller says is different, and what an update says is different because of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::ObjectName;
use paifang_snapshot::wire;

use crate::{MemoryKey, ObjectId, SecretToMake, Verdict};

/// What is different in [`Objects`](crate::Objects) since the update before: the names of what came, changed or went. One name too
/// many is harmless, one too few is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Objects of the six kinds.
    pub objects: BTreeSet<ObjectId>,
    /// Secrets.
    pub secrets: BTreeSet<ObjectName>,
    /// Services, or their endpoints.
    pub services: BTreeSet<ObjectName>,
    /// Namespaces whose labels are different.
    pub namespaces: BTreeSet<String>,
    /// ReferenceGrants.
    pub reference_grants: BTreeSet<ObjectName>,
    /// Anything at all: looks at every object.
    pub everything: bool,
}

/// What an update changed, for whoever publishes, stores and tells. `None` stands for what is gone.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// ApiGroups that are published otherwise than before.
    pub groups: BTreeMap<ObjectName, Option<Arc<wire::Group>>>,
    /// Verdicts that are different.
    pub verdicts: BTreeMap<ObjectId, Option<Arc<Verdict>>>,
    /// Entries of the memory that are different: read them with [`Memory::entry`](crate::Memory::entry), and store them before the
    /// groups are served.
    pub memory: BTreeSet<MemoryKey>,
    /// Whether the callers are different: `snapshot().apps`.
    pub apps: bool,
    /// Whether their credentials are: `snapshot().credentials`.
    pub credentials: bool,
    /// Secrets whose published material is different or gone.
    pub certificates: BTreeSet<ObjectName>,
    /// Services, with the name of the port, whose ready endpoints are different or gone.
    pub endpoints: BTreeSet<(ObjectName, String)>,
    /// Secrets that Apps ask for and did not ask for before: make them with random content, then say that they are touched.
    pub secrets_to_make: Vec<SecretToMake>,
    /// What is remembered has changed, and with it perhaps what the same objects mean: an edit that `deletionPolicy: Block` refused for
    /// an Api that went offline in this very update, say. Update again with nothing touched until this is false; it costs what the
    /// update before changed.
    pub unsettled: bool,
}

// === impl Touched ===

impl Touched {
    /// Anything may be different.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// One object of the six kinds.
    pub fn object(id: ObjectId) -> Self {
        Self {
            objects: BTreeSet::from([id]),
            ..Self::default()
        }
    }

    /// Whether nothing was named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what `more` names.
    pub fn extend(&mut self, more: Self) {
        self.objects.extend(more.objects);
        self.secrets.extend(more.secrets);
        self.services.extend(more.services);
        self.namespaces.extend(more.namespaces);
        self.reference_grants.extend(more.reference_grants);
        self.everything |= more.everything;
    }
}

// === impl Update ===

impl Update {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.verdicts.is_empty()
            && self.memory.is_empty()
            && !self.apps
            && !self.credentials
            && self.certificates.is_empty()
            && self.endpoints.is_empty()
            && self.secrets_to_make.is_empty()
    }

    /// Adds what the update after this one changed.
    pub fn extend(&mut self, later: Self) {
        self.groups.extend(later.groups);
        self.verdicts.extend(later.verdicts);
        self.memory.extend(later.memory);
        self.apps |= later.apps;
        self.credentials |= later.credentials;
        self.certificates.extend(later.certificates);
        self.endpoints.extend(later.endpoints);
        self.secrets_to_make.extend(later.secrets_to_make);
        self.secrets_to_make.sort();
        self.secrets_to_make.dedup();
        self.unsettled = later.unsettled;
    }
}
