//! What every process of ours needs beside its work: [`log`], [`metrics`], an [`admin`] port, [`readiness`], [`signal`]s.
//!
//! Nothing in here knows what a gateway or a controller is. The admin port reads only: whatever changes state is an object, a file or
//! a signal, never an HTTP request.

pub mod admin;
pub mod log;
pub mod metrics;
pub mod readiness;
pub mod signal;
