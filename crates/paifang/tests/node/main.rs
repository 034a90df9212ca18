//! Paifang as a user runs it: installed by its two charts on a real node, with real pods behind real Services, while pods, controllers, the API server and
//! charts come and go under load. Needs root and the programs of `e2e/setup.sh`.
//!
//! One node serves all tests of this process (about 2 GB). What only applies objects runs beside others of its kind; what rolls, kills or upgrades runs alone.
//! What one program can show by itself is tested nearer to it: the gateway in `crates/gateway`, publishing and status in `crates/controller`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod argocd;
mod backends;
mod chapters;
mod cluster;
mod faults;
mod helm;
mod install;
mod rollouts;
mod security;
