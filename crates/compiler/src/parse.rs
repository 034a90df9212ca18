//! From what was written to what it means, one object at a time and without looking at any other.
//!
//! Every rule that one object alone can tell is checked here, also those of the schema: in a folder no API server has looked. All
//! problems of an object are found in one go.

pub(crate) mod api;
pub(crate) mod app;
pub(crate) mod authorization;
pub(crate) mod backend_service;
mod check;
pub(crate) mod domain_binding;
pub(crate) mod group;
mod parameter;
pub(crate) mod text;
pub(crate) mod variable;

pub(crate) use check::Check;
