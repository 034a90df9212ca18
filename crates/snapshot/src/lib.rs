//! The contract between what compiles and what serves.
//!
//! [`wire`] is the versioned form that is published and stored; [`published`] is how it travels through a cluster; [`table`] is what a
//! gateway loads from it, built once off the hot path and never changed afterwards; [`report`] is what a gateway says of it. This crate
//! opens no socket, reads no clock and holds no Kubernetes type. Routing refers to secrets by name; the material itself travels apart,
//! in [`wire::Credential`] and [`wire::Certificate`].

pub mod published;
pub mod report;
pub mod table;
pub mod wire;
