//! From a set of objects to a snapshot, and a verdict on each object: a pure function.
//!
//! No clock, no I/O, no logging and no cryptography: whatever must be fetched or checked outside comes in as an argument. A mistake
//! of a user is part of the answer, never an error. Same input, same bytes out, in whatever order the objects were gathered.
//!
//! [`compile`] looks at everything once. A [`Compiler`] answers the same change after change, looking only at what each reaches, and
//! says beforehand what a change would do ([`Compiler::admit`]).

mod admit;
mod apps;
mod backend;
mod by_stage;
mod certificates;
mod claims;
mod compile;
mod domains;
#[cfg(test)]
mod footprint;
mod grants;
mod graph;
mod groups;
mod ids;
mod inputs;
mod made;
mod memory;
mod parse;
mod releases;
mod routes;
mod services;
mod settings;
mod settle;
mod update;
mod verdict;

pub use admit::{Admission, AnyObject, Request, problems_of_spec};
pub use apps::{SecretKind, SecretToMake};
pub use by_stage::{ByStage, Stages};
pub use compile::{Compiled, Compiler, compile};
pub use inputs::{
    GrantFrom, GrantTo, Object, ObjectId, Objects, ReferenceGrant, Secret, Service, ServicePort,
    Written,
};
pub use memory::{Accepted, ApiMemory, Memory, MemoryKey, Release, Served};
pub use settings::{AddressPolicy, CertificateFacts, Limits, Settings};
pub use update::{Touched, Update};
pub use verdict::{
    ApiStatus, AppStatus, BackendFailure, BackendServiceStatus, BackendStageStatus, Condition,
    ConditionKind, ConditionStatus, CredentialStatus, DomainStatus, GroupStatus, Problem, Reason,
    StageStatus, Status, Verdict,
};

pub use paifang_resources::Kind;
