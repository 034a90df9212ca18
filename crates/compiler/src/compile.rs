//! The steps of a compile, in order.

use std::collections::BTreeMap;

use paifang_model::ObjectName;
use paifang_resources::CredentialType;
use paifang_snapshot::wire;

use crate::{Memory, ObjectId, Objects, Settings, Verdict};

/// What compile answers.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What a gateway loads.
    pub snapshot: wire::Snapshot,
    /// A verdict on each object of the six kinds.
    pub verdicts: BTreeMap<ObjectId, Verdict>,
    /// What to hand to the next compile. Store it before the snapshot is served.
    pub memory: Memory,
    /// Secrets of credentials without `secretRef` that are not there yet: make them with random content, then compile again.
    pub secrets_to_make: Vec<SecretToMake>,
}

/// A Secret for a credential without `secretRef`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretToMake {
    /// Name of the Secret: `<app>-<credential>`, in the App's namespace.
    pub secret: ObjectName,
    /// The App that owns it.
    pub app: ObjectName,
    /// Whether it has the keys `appKey` and `appSecret`, or `appCode`.
    pub kind: SecretKind,
}

/// What a made Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    /// `appKey` and `appSecret`.
    KeyPair,
    /// `appCode`.
    AppCode,
}

/// Compiles everything. `memory` is what the compile before returned; empty the first time.
pub fn compile(objects: &Objects, memory: &Memory, settings: &Settings) -> Compiled {
    let _ = (objects, memory, settings);
    Compiled {
        snapshot: wire::Snapshot::default(),
        verdicts: BTreeMap::new(),
        memory: Memory::default(),
        secrets_to_make: Vec::new(),
    }
}

impl From<CredentialType> for SecretKind {
    fn from(kind: CredentialType) -> Self {
        match kind {
            CredentialType::KeyPair => Self::KeyPair,
            CredentialType::AppCode => Self::AppCode,
        }
    }
}
