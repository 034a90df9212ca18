//! Measures our gateway beside nginx, in the same run on the same machine, and writes `docs/benchmark.md`.
//!
//! `cargo run --release -p paifang-bench` runs everything (some minutes); names of scenarios run only those and print the table.
//! `--binary FILE` measures a gateway that is built already.
//! What decides are counts, which do not depend on the machine's mood: instructions per request (callgrind), system calls per
//! request (strace), bytes per Api. Wall-clock figures are ratios of rounds that alternate.
//!
//! Needs nginx, h2load, valgrind and strace; openssl makes the certificate.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool that prints its table"
)]

mod backends;
mod bulk;
mod folder;
mod load;
mod measure;
mod process;
mod report;
mod signing;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{
    folder::{Fleet, Site},
    load::Plan,
    measure::Bench,
    report::Report,
};

const SCENARIOS: [&str; 8] = [
    "plain", "tls", "call", "routes", "table", "backends", "signing", "objects",
];

fn main() -> Result<()> {
    let mut asked: Vec<String> = std::env::args().skip(1).collect();
    match &asked[..] {
        [command, file, apis] if command == table::LOAD_ONLY => {
            println!("{}", table::load_only(file.as_ref(), apis.parse()?)?);
            return Ok(());
        }
        [command, kind, times] if command == signing::SIGN_ONLY => {
            return signing::sign_only(kind, times.parse()?);
        }
        _ => {}
    }
    let binary = binary(&mut asked)?;
    if let Some(unknown) = asked
        .iter()
        .find(|name| !SCENARIOS.contains(&name.as_str()))
    {
        bail!("unknown scenario {unknown}: {}", SCENARIOS.join(", "));
    }
    let home = PathBuf::from("target/bench");
    let bench = Bench::new(&home, binary.as_deref())?;
    let report = measure(&bench, &home, &asked)?;
    print!("{}", report.text());
    if asked.is_empty() {
        std::fs::write("docs/benchmark.md", report.page())?;
        println!("written: docs/benchmark.md");
    }
    Ok(())
}

/// Takes `--binary FILE` out of the arguments.
fn binary(asked: &mut Vec<String>) -> Result<Option<PathBuf>> {
    let Some(at) = asked.iter().position(|argument| argument == "--binary") else {
        return Ok(None);
    };
    if at + 1 == asked.len() {
        bail!("--binary needs a file");
    }
    Ok(asked.drain(at..at + 2).nth(1).map(PathBuf::from))
}

/// Runs what was asked for, or everything.
fn measure(bench: &Bench, home: &Path, asked: &[String]) -> Result<Report> {
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|it| it == name);
    let mut report = Report::default();
    if wanted("table") {
        report.table = Some(table::measure(100_000, home)?);
    }
    if wanted("signing") {
        report.signatures = signing::measure()?;
    }
    let site = Site::new(home, bench.ports().http)?;
    if wanted("backends") {
        report.backends = backends::measure(bench, &site)?;
    }
    if wanted("objects") {
        report.bulk = bulk::measure(bench, &site)?;
    }
    for (name, tls) in [("plain", false), ("tls", true)] {
        if wanted(name) {
            let plan = Plan::plain(tls);
            report.add(
                name,
                bench.nginx(&site, &plan)?,
                bench.ours(&site.simple()?, &plan)?,
            );
            report.ratio(name, bench.throughput(&site, tls)?);
        }
    }
    if wanted("call") {
        let fleet = Fleet::signed(10_000);
        let folder = site.fleet("signed", &fleet)?;
        report.alone("call", bench.ours(&folder, &Plan::signed(&fleet))?);
    }
    if wanted("routes") {
        for count in [100, 100_000] {
            let fleet = Fleet::open(count);
            let folder = site.fleet(&format!("open-{count}"), &fleet)?;
            report.alone(
                &format!("routes-{count}"),
                bench.ours(&folder, &Plan::open(&fleet))?,
            );
        }
    }
    Ok(report)
}
