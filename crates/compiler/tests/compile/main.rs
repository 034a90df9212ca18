//! Compile as a whole: pairs of files, one mistake at a time, sequences of edits, and what must hold for any input.

mod cases;
mod properties;
mod refusals;
mod sequences;
mod support;
