//! Phase 1: nothing that could mean two things to two programs goes any further.
//!
//! [`wire`] judges HTTP/1.1 as bytes, before the library parses them; [`head`] judges the parsed head of either version.

pub mod head;
pub mod wire;
