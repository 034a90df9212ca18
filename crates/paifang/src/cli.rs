//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::{call, check, controller, echo, gateway, sign, standalone};

/// An API gateway that speaks the protocol of Alibaba Cloud API Gateway, and the tool for those who write and call its APIs.
#[derive(Debug, Parser)]
#[command(
    name = "paifang",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Use `paifang COMMAND --help` for all options and examples, `paifang COMMAND -h` for a summary."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Standalone(Box<standalone::Args>),
    Controller(Box<controller::Args>),
    Gateway(Box<gateway::Args>),
    Check(Box<check::Args>),
    Call(Box<call::Args>),
    Sign(Box<sign::Args>),
    Echo(Box<echo::Args>),
}
