//! Diagnostics and verdicts for people: by file, then object.

use std::{fmt::Write as _, path::Path};

use paifang_compiler::{ObjectId, Verdict};
use paifang_standalone::{Diagnostic, Outcome, Severity};
use serde_json::{Value, json};

use crate::output::counted;

/// All that is wrong, grouped by file, lines first.
pub(crate) fn diagnostics(dir: &Path, all: &[Diagnostic]) -> String {
    let mut text = String::new();
    let mut file = None;
    for said in all {
        if file != Some(&said.file) {
            if file.is_some() {
                text.push('\n');
            }
            if !said.file.as_os_str().is_empty() {
                let _ = writeln!(text, "{}", dir.join(&said.file).display());
            }
            file = Some(&said.file);
        }
        let at = said.at.map_or_else(String::new, |at| at.to_string());
        let _ = writeln!(text, "  {at:<8} {}: {}", said.severity, said.sentence());
    }
    text
}

/// One diagnostic in a line, `error: FILE:LINE:COLUMN: …`.
pub(crate) fn line(dir: &Path, said: &Diagnostic) -> String {
    let mut shown = said.clone();
    if !shown.file.as_os_str().is_empty() {
        shown.file = dir.join(&shown.file);
    }
    format!("{}: {shown}", said.severity)
}

/// How it ended: `5 objects in config/quickstart: no errors, 1 warning`.
pub(crate) fn summary(dir: &Path, outcome: &Outcome) -> String {
    let (errors, warnings) = outcome.counts();
    let number = |count: usize, thing| match count {
        0 => format!("no {thing}s"),
        count => counted(count, thing),
    };
    format!(
        "{} in {}: {}, {}",
        counted(outcome.verdicts.len(), "object"),
        dir.display(),
        number(errors, "error"),
        number(warnings, "warning")
    )
}

/// Conditions of every object, a line each.
pub(crate) fn status(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (id, verdict) in &outcome.verdicts {
        let _ = writeln!(text, "{id}");
        for condition in verdict.conditions.iter() {
            let _ = write!(
                text,
                "  {:<16} {:<8} {}",
                condition.kind.as_str(),
                condition.status.as_str(),
                condition.reason
            );
            if !condition.message.is_empty() {
                let _ = write!(text, ": {}", condition.message);
            }
            text.push('\n');
        }
    }
    text
}

/// Everything for programs.
pub(crate) fn json(outcome: &Outcome) -> Value {
    let (errors, warnings) = outcome.counts();
    let objects: Vec<Value> = outcome
        .verdicts
        .iter()
        .map(|(id, verdict)| object(id, verdict))
        .collect();
    json!({
        "errors": errors,
        "warnings": warnings,
        "diagnostics": outcome.diagnostics,
        "objects": objects,
    })
}

fn object(id: &ObjectId, verdict: &Verdict) -> Value {
    let conditions = verdict.conditions.iter().map(|condition| {
        json!({
            "type": condition.kind.as_str(),
            "status": condition.status.as_str(),
            "reason": condition.reason,
            "message": condition.message,
        })
    });
    json!({
        "kind": id.kind.name(),
        "namespace": &*id.name.namespace,
        "name": &*id.name.name,
        "conditions": conditions.collect::<Vec<_>>(),
    })
}

/// Whether `check` fails.
pub(crate) fn fails(outcome: &Outcome, strict: bool) -> bool {
    outcome
        .diagnostics
        .iter()
        .any(|said| strict || said.severity == Severity::Error)
}
