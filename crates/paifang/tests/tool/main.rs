//! The built program, as its users run it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod call;
mod check;
mod echo;
mod help;
mod live;
mod run;
mod sign;
