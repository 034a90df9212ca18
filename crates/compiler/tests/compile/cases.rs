//! Pairs `cases/<name>.in.yaml` and `cases/<name>.out.yaml`. `UPDATE=1` writes the second from what compile answers; the review is
//! reading its difference, with suspicion.

use std::{env, fs, path::PathBuf};

use paifang_snapshot::table::Table;

use crate::support::{compile_documents, documents, render, yaml};

#[test]
fn every_case_compiles_as_written_down() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".in.yaml"))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 8, "the cases are missing");
    let mut different = Vec::new();
    for input in inputs {
        let compiled = compile_documents(&documents(&fs::read_to_string(&input).unwrap()));
        // What compile accepts, a gateway loads.
        let (_, refused) = Table::load(&compiled.snapshot, &Table::empty());
        assert!(refused.is_empty(), "{}: {refused:?}", input.display());
        let answer = yaml(&render(&compiled));
        let output = PathBuf::from(input.to_string_lossy().replace(".in.yaml", ".out.yaml"));
        if env::var_os("UPDATE").is_some() {
            fs::write(&output, &answer).unwrap();
        }
        let expected = fs::read_to_string(&output).unwrap_or_default();
        if answer != expected {
            let at = answer
                .lines()
                .zip(expected.lines())
                .position(|(a, b)| a != b);
            let line = at.unwrap_or_else(|| answer.lines().count().min(expected.lines().count()));
            different.push(format!(
                "{} line {}:\n  now:    {}\n  before: {}",
                output.display(),
                line + 1,
                answer.lines().nth(line).unwrap_or(""),
                expected.lines().nth(line).unwrap_or("")
            ));
        }
    }
    assert!(
        different.is_empty(),
        "{}\nrun with UPDATE=1 and read the difference",
        different.join("\n")
    );
}

#[test]
fn secrets_appear_nowhere_in_verdicts_and_groups() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let text = fs::read_to_string(folder.join("apps.in.yaml")).unwrap();
    assert!(text.contains("hidden-secret") && text.contains("hidden-code"));
    let compiled = compile_documents(&documents(&text));
    for shown in [
        yaml(&render(&compiled)),
        format!("{:?}", compiled.verdicts),
        format!("{:?}", compiled.snapshot),
        format!("{:?}", compiled.memory),
    ] {
        assert!(!shown.contains("hidden-"), "{shown}");
    }
}
