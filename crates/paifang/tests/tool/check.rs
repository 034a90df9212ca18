//! `paifang check`

use std::fs;

use serde_json::Value;

use crate::run::{Scratch, run, samples};

#[test]
fn every_sample_passes() {
    let mut folders = 0;
    for entry in fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let done = run(["check", path.to_str().unwrap()]);
            assert_eq!(
                done.code,
                0,
                "{}:\n{}{}",
                path.display(),
                done.out,
                done.err
            );
            folders += 1;
        }
    }
    assert!(folders >= 5, "{folders}");
}

#[test]
fn a_good_folder_ends_with_0_and_a_count() {
    let scratch = Scratch::sample("quickstart");
    let done = run(["check", &scratch.at(), "--strict"]);
    assert_eq!(
        done.out,
        format!("9 objects in {}: no errors, no warnings\n", scratch.at())
    );
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(!scratch.state().exists(), "nothing is written");
}

#[test]
fn what_is_wrong_is_grouped_by_file_with_lines_and_fixes() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit("hello.yaml", "    path: /hello", "    pathh: /hello");
    scratch.edit(
        "forecast.yaml",
        "days, in: Query, type: Int",
        "days, in: Query, type: Integer",
    );
    scratch.write("other.yaml", "apiVersion: apps/v1\nkind: Deployment\n");
    let done = run(["check", &scratch.at()]);
    let dir = scratch.at();
    assert_eq!(
        done.out,
        format!(
            "{dir}/forecast.yaml
  31:31    error: Api default/get-forecast: spec.request.parameters[1].type: `Integer` is not a value it takes; use one of String, Int, Long, Float, Double, Boolean

{dir}/hello.yaml
  9:3      error: Api default/hello: spec.request.path: is missing; add it
  12:5     error: Api default/hello: spec.request.pathh: unknown field; did you mean `path`?

{dir}/other.yaml
  2:1      warning: kind: kind Deployment of apps/v1 is none that Paifang reads; it is ignored

9 objects in {dir}: 3 errors, 1 warning
"
        )
    );
    assert_eq!(done.code, 1);
}

#[test]
fn warnings_fail_only_when_asked() {
    let scratch = Scratch::sample("02-backend-services-per-stage");
    // Its backend service has nothing for this stage.
    scratch.edit(
        "apis.yaml",
        "path: /v2/orders}\n  stages: {",
        "path: /v2/orders}\n  stages: {PRE: {}, ",
    );
    let (plain, strict) = (
        run(["check", &scratch.at()]),
        run(["check", &scratch.at(), "--strict"]),
    );
    assert_eq!((plain.code, strict.code), (0, 1));
    assert_eq!(plain.out, strict.out);
    assert!(
        plain.out.ends_with("no errors, 1 warning\n"),
        "{}",
        plain.out
    );
}

#[test]
fn a_stage_at_a_release_that_nobody_knows_here_is_a_warning() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit("hello.yaml", "RELEASE: {}", "RELEASE: {release: 3}");
    let done = run(["check", &scratch.at()]);
    assert_eq!(done.code, 0, "{}", done.out);
    assert!(
        done.out
            .contains("warning: Api default/hello: spec.stages.RELEASE"),
        "{}",
        done.out
    );
}

#[test]
fn json_says_the_same_for_programs() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit("hello.yaml", "    path: /hello", "    pathh: /hello");
    let done = run(["check", &scratch.at(), "-o", "json"]);
    let json: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(
        (done.code, &json["errors"], &json["warnings"]),
        (1, &2.into(), &0.into())
    );
    assert_eq!(
        json["diagnostics"][1],
        serde_json::json!({
            "file": "hello.yaml", "line": 12, "column": 5, "severity": "error", "object": "Api default/hello",
            "field": "spec.request.pathh", "reason": "Malformed", "message": "unknown field", "fix": "did you mean `path`?"
        })
    );
    let objects = json["objects"].as_array().unwrap();
    let hello = objects
        .iter()
        .find(|object| object["name"] == "hello")
        .unwrap();
    assert_eq!(
        (
            &hello["kind"],
            &hello["conditions"][0]["type"],
            &hello["conditions"][0]["status"]
        ),
        (&"Api".into(), &"Accepted".into(), &"False".into())
    );
}

#[test]
fn status_shows_the_conditions_of_every_object() {
    let scratch = Scratch::sample("quickstart");
    let done = run(["check", &scratch.at(), "--status"]);
    let lines: Vec<&str> = done
        .out
        .lines()
        .skip_while(|line| *line != "Api default/hello")
        .take(5)
        .collect();
    assert_eq!(lines[1], "  Accepted         True     Accepted");
    assert_eq!(lines[2], "  ResolvedRefs     True     ResolvedRefs");
}

#[test]
fn the_same_settings_as_standalone_give_the_same_verdicts() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit(
        "forecast.yaml",
        "http://127.0.0.1:9000\", host: forecast.example.com",
        "http://169.254.1.1:9000\"",
    );
    assert_eq!(run(["check", &scratch.at()]).code, 1);
    assert_eq!(
        run(["check", &scratch.at(), "--allow-backend", "169.254.1.0/24"]).code,
        0
    );
    assert_eq!(
        run([
            "check",
            &scratch.at(),
            "--allow-backend",
            "169.254.1.0/24",
            "--max-backend-timeout",
            "4s"
        ])
        .code,
        1
    );
}

#[test]
fn a_folder_that_is_not_there_is_an_error_in_a_sentence() {
    let done = run(["check", "/nowhere/at/all"]);
    assert_eq!((done.code, done.out.as_str()), (1, ""));
    assert!(
        done.err
            .starts_with("error: /nowhere/at/all is not a folder that can be read: "),
        "{}",
        done.err
    );
}
