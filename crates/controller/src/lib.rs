//! The controller: watches, remembers, compiles, publishes, reports status, admits.
//!
//! One task owns the world: every event becomes a change of plain values, a compile of what it touches, and values to write. Writers
//! take those values, retry them, and never decide. Nothing is published before every store has synced, and nothing is written by a
//! replica that does not lead.

mod settings;

pub use settings::{Lease, Settings, Webhook};
