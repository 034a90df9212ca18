//! `docs/tool.md` shows every help text. `UPDATE=1 cargo test -p paifang --test docs` writes it anew.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fmt::Write as _, path::Path, process::Command};

const INTRODUCTION: &str = "\
# The tool

<!-- Written by a test of crates/paifang; edit the help texts there and run it with UPDATE=1. -->

One program, `paifang`. `standalone` is the gateway on one machine; `check`, `call` and `sign` are what an API team uses beside it.
`controller` and `gateway` are what the chart runs in a cluster, and `echo` is a backend for trying things out.

- Exit codes: 0 when all is well; 1 when something is wrong with the input (for `check`: a problem was found); 2 for a mistake on the command
  line; `call` answers 4 for a status of 400 to 499 and 5 for one of 500 to 599.
- Secrets are read from the folder, from files or from the environment, never from the command line, and never printed.
- Only answers go to standard output; everything else to standard error.

## What `standalone` keeps

The state folder (`--state`, by default `.paifang` beside the watched folder, never inside it) holds releases, the last good state of every
object and file, and credentials that were made because an App asked for them. It is readable by its owner only. Deleting it makes every
Api start again at release 1.

## What can be seen

The admin port (loopback unless told otherwise) answers `GET` only: `/livez`, `/readyz` with the reason when it is not ready, `/metrics` for
Prometheus, and `/config`, the configuration in service without secrets. Each request is one JSON object in the access log: id, group, Api,
release, stage, App, status, error code with its cause, upstream, times and sizes; never a query, a header or a body.

## What `gateway` keeps

The folder of `--cache` holds the last good copy of everything that was published for it, secrets included, and is readable by its owner only.
It is used when the API server cannot be reached at the start, and for each group whose newer state cannot be read. Each file says what its
content hashes to: one that was cut short is not used. Deleting the folder costs nothing while the API server answers.
";

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_paifang"))
        .args(arguments)
        .arg("--help")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_help_text_is_in_the_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tool.md");
    let mut text = INTRODUCTION.to_owned();
    for command in [
        "standalone",
        "controller",
        "gateway",
        "check",
        "call",
        "sign",
        "echo",
    ] {
        let help = help(&[command]);
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(
            text,
            "\n## `paifang {command}`\n\n```text\n{}\n```\n",
            lines.join("\n").trim_end()
        )
        .unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, text,
        "docs/tool.md is stale: run this test with UPDATE=1"
    );
}
