//! Tasks of the repository that are not part of the product: `cargo xtask codegen [--check]`.
//!
//! Arguments are few and read by hand, so that building this stays cheap.

mod codegen;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask codegen [--check]

codegen          writes crds/*.yaml and the chart paifang-crds from the types in crates/resources
codegen --check  writes nothing; fails and names the files that are stale";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        _ => bail!("unknown arguments {args:?}\n{USAGE}"),
    }
}
