//! Tasks of the repository that are not part of the product: `cargo xtask codegen [--check]`, `cargo xtask cluster up|down`.
//!
//! Arguments are few and read by hand, so that building this stays cheap.

mod cluster;
mod codegen;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask codegen [--check]
       cargo xtask cluster up [--bare] | down

codegen          writes crds/*.yaml and the chart paifang-crds from the types in crates/resources
codegen --check  writes nothing; fails and names the files that are stale
cluster up       starts a Kubernetes node on this machine, installs Paifang with its charts, and prints what to try; needs root and e2e/setup.sh
cluster up --bare  the node only
cluster down     takes all of it away";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["cluster", "up"] => cluster::up(cluster::With::Paifang),
        ["cluster", "up", "--bare"] => cluster::up(cluster::With::Nothing),
        ["cluster", "down"] => cluster::down(),
        _ => bail!("unknown arguments {args:?}\n{USAGE}"),
    }
}
