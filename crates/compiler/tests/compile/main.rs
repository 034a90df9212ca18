//! Compile as a whole: pairs of files, one mistake at a time, sequences of edits, and what must hold for any input.

// The helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

mod admission;
mod cases;
mod changes;
mod properties;
mod refusals;
mod sequences;
mod support;
