//! The log of the process: what changes in the world, as fields. Requests are in the access log, not here.

use std::io::{self, IsTerminal};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// The environment variable that says what is logged, in the syntax of `tracing_subscriber::EnvFilter`: `debug`,
/// `info,paifang_proxy=trace`.
pub const VARIABLE: &str = "PAIFANG_LOG";

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log to standard error. What is logged comes from [`VARIABLE`], else is `default` (such as `info`).
///
/// # Errors
/// When the variable cannot be understood, or a log was set up before.
pub fn init(format: Format, default: &str) -> anyhow::Result<()> {
    let wanted = std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&wanted)
        .with_context(|| format!("{VARIABLE}={wanted} is not a log filter; write for example `info` or `info,paifang_proxy=debug`"))?;
    let terminal = io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter)
        .with_target(!terminal);
    let set = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    set.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))
}
