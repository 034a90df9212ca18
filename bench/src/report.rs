//! The table, for the terminal and for the docs.

use std::fmt::Write;

use crate::{
    measure::{Cost, Ratio},
    table::TableCost,
};

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, Option<Cost>, Cost)>,
    ratios: Vec<(String, Ratio)>,
    pub(crate) table: Option<TableCost>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &str, nginx: Cost, ours: Cost) {
        self.rows.push((name.to_owned(), Some(nginx), ours));
    }

    pub(crate) fn alone(&mut self, name: &str, ours: Cost) {
        self.rows.push((name.to_owned(), None, ours));
    }

    pub(crate) fn ratio(&mut self, name: &str, ratio: Ratio) {
        self.ratios.push((name.to_owned(), ratio));
    }

    /// The rows as Markdown.
    pub(crate) fn text(&self) -> String {
        let mut out = String::from(
            "| scenario | nginx, instructions | ours, instructions | ratio | nginx, system calls | ours, system calls |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for (name, nginx, ours) in &self.rows {
            let of = |value: Option<f64>, digits: usize| {
                value.map_or("–".to_owned(), |v| format!("{v:.digits$}"))
            };
            let _ = writeln!(
                out,
                "| {} | {} | {:.0} | {} | {} | {:.2} |",
                describe(name),
                of(nginx.map(|n| n.instructions), 0),
                ours.instructions,
                of(nginx.map(|n| ours.instructions / n.instructions), 2),
                of(nginx.map(|n| n.calls), 2),
                ours.calls,
            );
        }
        out.push('\n');
        for (name, ratio) in &self.ratios {
            let _ = writeln!(
                out,
                "- {}: {:.2} times nginx's requests per second (lowest round {:.2}, highest {:.2})",
                describe(name),
                ratio.median,
                ratio.lowest,
                ratio.highest
            );
        }
        if let (Some(small), Some(large)) = (self.ours("routes-100"), self.ours("routes-100000")) {
            let _ = writeln!(
                out,
                "- 100 to 100,000 Apis: {:+.1} % instructions a request",
                (large / small - 1.0) * 100.0
            );
        }
        if let (Some(tls), Some(call)) = (self.ours("tls"), self.ours("call")) {
            let _ = writeln!(
                out,
                "- the signed call adds {:.0} instructions to a plain one over TLS",
                call - tls
            );
        }
        if let Some(table) = self.table {
            let _ = writeln!(
                out,
                "- {} Apis with three parameters each: loaded in {:.2} s from their published form, {:.0} bytes of memory an Api; compiled in {:.2} s; {:.0} bytes of JSON an Api",
                table.apis,
                table.load_seconds,
                table.table_bytes,
                table.compile_seconds,
                table.published_bytes
            );
        }
        out
    }

    fn ours(&self, name: &str) -> Option<f64> {
        self.rows
            .iter()
            .find(|(row, _, _)| row == name)
            .map(|(_, _, ours)| ours.instructions)
    }

    /// The page for the docs.
    pub(crate) fn page(&self) -> String {
        format!("{HEAD}{}{TAIL}", self.text())
    }
}

fn describe(name: &str) -> &str {
    match name {
        "plain" => "plain proxy, HTTP/1.1, kept connections",
        "tls" => "the same over TLS 1.3",
        "call" => "full signed call over TLS, 10,000 Apis",
        "routes-100" => "mapped call, 100 Apis",
        "routes-100000" => "mapped call, 100,000 Apis",
        other => other,
    }
}

const HEAD: &str = "# Benchmark

Written by `cargo run --release -p paifang-bench`; do not edit.

nginx and ours run one after the other on the same machine: one worker on one core, 64 kept connections, an upstream (another nginx on the other
core) that answers 200 with 1 KiB. Instructions are user-mode instructions per request as callgrind counts them, start-up and warm-up left out;
system calls are the difference of two runs under strace. Both depend on the program and not on the machine's load. Callgrind shows programs a
processor without SHA instructions, so hashing (HMAC, in the signed call) counts for more than it costs on most machines.

";

const TAIL: &str = "
The signed call is everything a caller of an App-authenticated Api gets: TLS, one of 10,000 Apis found, HMAC-SHA256 verified, nonce remembered,
authorization and group limit checked, three parameters validated and mapped (one from path to query, one checked as an integer, one from query to
header). Rates are ratios of alternating rounds of 3 s; the second core is shared by the client and the upstream, so they say less than the counts.
";
