//! The `paifang` program: a gateway on a folder of YAML, and the tool for those who write and call APIs.
//!
//! Each subcommand is a module: what was said (clap), what it means, and what is done. Everything is assembled here and nothing decided.

mod call;
mod check;
mod cli;
mod client;
mod controller;
mod echo;
mod gateway;
mod listing;
mod live;
mod output;
mod route;
mod serving;
mod settings;
mod sign;
mod standalone;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// Requests allocate little and often, on threads of their own: what this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Standalone(args) => standalone::run(&args),
        Command::Controller(args) => controller::run(&args),
        Command::Gateway(args) => gateway::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Echo(args) => echo::run(&args),
    };
    match done {
        Ok(code) => code,
        // Whoever read our output has gone, as `head` does.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
