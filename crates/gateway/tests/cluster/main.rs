//! A gateway on a real API server: what is published there by hand is served, whatever happens to either.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; helpers are tests too"
)]

mod endpoints;
mod faults;
mod following;
mod report;
mod support;
