//! What a user may write: the six kinds of `paifang.dev/v1alpha1` as Rust types.
//!
//! Names, shapes, bounds and defaults live here, and so do the rules that one object alone can tell (as CEL in
//! the schema). Meaning does not: paths, addresses and durations stay the strings that were written, and the
//! compiler parses them. Unknown fields are ignored here because the API server prunes them.
//!
//! Timestamps are Kubernetes' own [`Time`]: RFC 3339, to the second. Conditions are Kubernetes' own [`Condition`].

#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column of #[kube] has a type of its own, which clippy takes for a repetition"
)]

mod api;
mod api_group;
mod app;
mod authorization;
mod backend;
mod backend_service;
mod common;
mod definitions;
mod domain_binding;
mod kind;
mod rules;
mod schema;

pub use api::*;
pub use api_group::*;
pub use app::*;
pub use authorization::*;
pub use backend::*;
pub use backend_service::*;
pub use common::*;
pub use definitions::definitions;
pub use domain_binding::*;
pub use kind::{Kind, UnknownKind};

/// The API group of all six kinds.
pub const GROUP: &str = "paifang.dev";

/// The version of all six kinds.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of all six kinds, as written in YAML.
pub const API_VERSION: &str = "paifang.dev/v1alpha1";
