//! `paifang check`: the verdicts of a folder, without serving it.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use paifang_standalone::{Session, StateUse};

use crate::{listing, output, settings::Meaning};

/// Check a folder of YAML: the same verdicts as `standalone`, without listening
///
/// Every file is read and everything is compiled. What is wrong is said by file, line and field, with what to write instead. Nothing is
/// written and nothing listens.
///
/// A stage that follows a release by number (`RELEASE: {release: 3}`) can only be judged where a gateway ran before: its releases are read
/// from the state folder when there is one, otherwise the number is only warned about.
///
/// Exit code: 0 nothing is wrong (there may be warnings), 1 something is, 2 the command line is.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  Before a commit, or in CI:
      paifang check config/quickstart
  Warnings fail too:
      paifang check config/quickstart --strict
  For programs:
      paifang check config/quickstart -o json")]
pub(crate) struct Args {
    /// Folder with YAML files (*.yaml, *.yml, in sub-folders too)
    dir: PathBuf,

    /// How to print the verdicts
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,

    /// Fail on warnings too
    #[arg(long)]
    strict: bool,

    /// Print the conditions of every object, as a cluster's status would show them
    #[arg(long)]
    status: bool,

    /// State folder of a gateway, read for its releases [default: .paifang beside DIR, if there is one]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    #[command(flatten)]
    meaning: Meaning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, grouped by file
    Text,
    /// One JSON object
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state = args
        .state
        .clone()
        .unwrap_or_else(|| Session::default_state(&args.dir));
    let mut session = Session::open(
        &args.dir,
        &StateUse::Look(state),
        args.meaning.settings(true),
    )?;
    let outcome = session.load();
    match args.output {
        Format::Json => output::out(format!("{:#}\n", listing::json(&outcome)))?,
        Format::Text => {
            let mut text = listing::diagnostics(&args.dir, &outcome.diagnostics);
            if !text.is_empty() {
                text.push('\n');
            }
            if args.status {
                text += &listing::status(&outcome);
                text.push('\n');
            }
            text += &listing::summary(&args.dir, &outcome);
            text.push('\n');
            output::out(text)?;
        }
    }
    let fails = listing::fails(&outcome, args.strict);
    Ok(if fails {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
