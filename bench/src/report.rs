//! The table, for the terminal and for the docs.

use std::fmt::Write;

use crate::{
    backends::Case,
    bulk::Bulk,
    measure::{Cost, Count, Ratio},
    signing::Signature,
    table::TableCost,
};

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, Option<Cost>, Cost)>,
    ratios: Vec<(String, Ratio)>,
    pub(crate) table: Option<TableCost>,
    /// Instructions of a request to each type of backend.
    pub(crate) backends: Vec<(Case, Count)>,
    pub(crate) signatures: Vec<Signature>,
    pub(crate) bulk: Vec<Bulk>,
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

    /// What was measured, as Markdown.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.whole(), self.parts())
    }

    /// Types of backend, signatures, large objects.
    fn parts(&self) -> String {
        let mut out = String::new();
        if !self.backends.is_empty() {
            out.push_str(&self.backends());
        }
        if !self.signatures.is_empty() {
            out.push_str(&self.signatures());
        }
        if !self.bulk.is_empty() {
            out.push_str(&self.bulk());
        }
        out
    }

    fn backends(&self) -> String {
        let mut out = String::from(BACKENDS);
        for (case, count) in &self.backends {
            let beside = case.beside.and_then(|name| {
                let (beside, count) = self.backends.iter().find(|(it, _)| it.name == name)?;
                Some((beside.name, count))
            });
            let over = beside.map_or("– | –".to_owned(), |(name, of)| {
                let rest = count.all - count.hashing - (of.all - of.hashing);
                format!("{:+.0} to `{name}` | {rest:+.0}", count.all - of.all)
            });
            let _ = writeln!(
                out,
                "| `{}` | {} | {:.0} | {:.0} | {over} |",
                case.name, case.about, count.all, count.hashing
            );
        }
        out
    }

    fn signatures(&self) -> String {
        let mut out = String::from(SIGNATURES);
        for of in &self.signatures {
            let _ = writeln!(
                out,
                "| {} | {:.0} | {:.0} | {:.0} | {:.1} |",
                of.about,
                of.instructions,
                of.hashing,
                of.instructions - of.hashing,
                of.blocks
            );
        }
        out
    }

    fn bulk(&self) -> String {
        let mut out = String::from(BULK);
        let ratio = |[low, median, high]: [f64; 3]| format!("{median:.2} ({low:.2} to {high:.2})");
        for of in &self.bulk {
            let _ = writeln!(
                out,
                "| {} | {:.0} MiB | {:.0} MiB | {} | {} |",
                of.action,
                of.memory / MIB,
                of.memory_before / MIB,
                ratio(of.to_default),
                ratio(of.to_streaming),
            );
        }
        out
    }

    /// Whole requests beside nginx's, and the table of routes.
    fn whole(&self) -> String {
        if self.rows.is_empty() && self.table.is_none() {
            return String::new();
        }
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
        format!("{HEAD}{}{TAIL}{}{END}", self.whole(), self.parts())
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

const MIB: f64 = 1024.0 * 1024.0;

const BACKENDS: &str = "
## Types of backend

One gateway with an Api for each row; every backend is the same nginx, which answers 1 KiB. Callers send GET, or a JSON body of 176 bytes. User-mode
instructions of one request, from the caller's first byte to the last of the answer; how many of them hash, in software here; and how many more they
are than those of the row it is compared with, all and without those that hash.

| case | what | instructions | of them hashing | more | more, without hashing |
| --- | --- | --- | --- | --- | --- |
";

const SIGNATURES: &str = "
## Signatures by themselves

What the signing code takes, in a program that does nothing else, with the key ready. Hashing is in software here: with SHA instructions
a block costs a small part of it.

| signature | instructions | of them hashing | the rest | blocks of 64 bytes |
| --- | --- | --- | --- | --- |
";

const BULK: &str = "
## Objects of 1 GiB

Through an Api of type OSS (V4), one at a time, one worker; nginx proxies the same to the same store. Bytes for a second of processor time (user and
system), ours to nginx's: three rounds in turn, the median, and the lowest and highest. Memory is the most that was resident (`VmHWM`), program included.

| action | most memory | before the first | to nginx with its defaults | to nginx, buffering off, buffers of 64 KiB |
| --- | --- | --- | --- | --- |
";

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

const END: &str = "
What was aimed at, and why some of it is missed: [performance.md](performance.md).
";
