//! A whole gateway in this process, real sockets, real bytes.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; helpers are tests too"
)]

mod cost;
mod ending;
mod plain;
mod secure;
mod seeing;
mod support;
