//! From a set of objects to a snapshot, and a verdict on each object: a pure function.
//!
//! No clock, no I/O, no logging and no cryptography: whatever must be fetched or checked outside comes in as an argument. A mistake
//! of a user is part of the answer, never an error. Same input, same bytes out, in whatever order the objects were gathered.

mod compile;
mod inputs;
mod memory;
mod settings;
mod verdict;

pub use compile::{Compiled, SecretKind, SecretToMake, compile};
pub use inputs::{
    GrantFrom, GrantTo, Object, ObjectId, Objects, ReferenceGrant, Secret, Service, ServicePort,
    Written,
};
pub use memory::{Accepted, ApiMemory, Memory, MemoryKey, Release};
pub use settings::{AddressPolicy, CertificateFacts, Limits, Settings};
pub use verdict::{
    ApiStatus, AppStatus, BackendFailure, BackendServiceStatus, BackendStageStatus, Condition,
    ConditionKind, ConditionStatus, CredentialStatus, DomainStatus, GroupStatus, Problem, Reason,
    StageStatus, Status, Verdict,
};

pub use paifang_resources::Kind;
