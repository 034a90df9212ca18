//! Objects and what is said about them: conditions, releases, bad edits.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde_json::json;

use crate::site::{PATIENCE, Site, all, find, group, mock};
use paifang_testkit::{eventually, program, repository};

const KINDS: [(&str, &str); 6] = [
    ("apigroup", "weather"),
    ("backendservice", "forecast"),
    ("api", "get-forecast"),
    ("app", "mobile"),
    ("authorization", "mobile-weather-release"),
    ("domainbinding", "demo-localtest"),
];

/// The folder that README begins with, in a namespace of the test's own.
fn quickstart() -> (&'static Site, String) {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let folder = repository().join("config/quickstart");
    site.plane()
        .admin()
        .apply_path(&namespace, &folder)
        .unwrap();
    (site, namespace)
}

#[test]
fn every_kind_turns_ready_and_kubectl_shows_it() {
    let (site, namespace) = quickstart();
    let plane = site.plane();
    for (kind, name) in KINDS {
        plane
            .admin()
            .wait(
                &namespace,
                &format!("{kind}/{name}"),
                "condition=Ready",
                PATIENCE,
            )
            .unwrap();
    }
    let shown = plane
        .kubectl(&["get", "apis", "-n", &namespace, "-o", "wide"])
        .unwrap();
    let hello = shown
        .lines()
        .find(|line| line.starts_with("hello"))
        .unwrap();
    for column in ["weather", "GET", "/hello", "True", "Serving", "2/2", "mock"] {
        assert!(hello.contains(column), "no {column} in:\n{shown}");
    }
    let api = site.get(&namespace, "apis", "hello").unwrap();
    assert_eq!(find(&api, "Ready")["message"], "");
    assert_eq!(
        find(&api, "Programmed")["message"],
        "all 2 ready gateways serve it"
    );
    site.all_answer("demo.localtest", "/hello", 200, "world");
    plane
        .kubectl(&["delete", "namespace", &namespace, "--wait=false"])
        .unwrap();
}

/// What the library of Flux and Helm makes of every object of ours in a namespace: a line each.
fn kstatus(site: &Site, namespace: &str) -> String {
    let listed = site
        .plane()
        .kubectl(&["get", "paifang", "-n", namespace, "-o", "json"])
        .unwrap();
    let mut child = Command::new(program("paifang-kstatus").unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(listed.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn kstatus_agrees_with_ready() {
    let (site, namespace) = quickstart();
    let plane = site.plane();
    eventually("kstatus calls every object current", PATIENCE, || {
        let said = kstatus(site, &namespace);
        for (kind, _) in KINDS {
            let of_kind = |line: &&str| line.to_lowercase().starts_with(&format!("{kind} "));
            anyhow::ensure!(said.lines().any(|line| of_kind(&line)), "no {kind}: {said}");
        }
        let current = |line: &str| line.contains(" Current ");
        anyhow::ensure!(said.lines().all(current), "{said}");
        Ok(())
    });
    // An edit that cannot be right: nothing that waits for it may go on.
    site.patch(
        &namespace,
        "apis",
        "hello",
        json!({"spec": {"groupRef": {"name": "nobody"}}}),
    );
    eventually("kstatus says that it is not", PATIENCE, || {
        let said = kstatus(site, &namespace);
        let hello = said.lines().find(|line| line.starts_with("Api hello "));
        let hello = hello.context("no hello")?;
        anyhow::ensure!(hello.starts_with("Api hello InProgress "), "{hello}");
        anyhow::ensure!(hello.contains("nobody"), "{hello}");
        Ok(())
    });
    plane
        .kubectl(&["delete", "namespace", &namespace, "--wait=false"])
        .unwrap();
}

#[test]
fn a_bad_edit_changes_nothing_in_traffic_and_says_why() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let objects = all(&[
        group("g", &host),
        mock("a", "g", "/a", "one"),
        mock("neighbour", "g", "/n", "still"),
    ]);
    site.plane().apply(&namespace, &objects).unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    site.all_answer(&host, "/a", 200, "one");

    // The schema lets it pass; the compiler does not.
    let bad = json!({"spec": {"request": {"parameters": [{"name": "x", "in": "Query", "type": "String", "pattern": "("}]}}});
    site.patch(&namespace, "apis", "a", bad);
    let api = site.until(&namespace, "apis", "a", "Accepted", "False");
    let accepted = find(&api, "Accepted");
    assert_eq!(accepted["reason"], "InvalidPattern");
    let message = accepted["message"].as_str().unwrap();
    assert!(
        message.contains("spec.request.parameters[0].pattern"),
        "{message}"
    );
    assert!(message.contains("Release 1 stays the newest"), "{message}");
    assert_eq!(find(&api, "Ready")["status"], "False");
    assert_eq!(api["status"]["stages"]["RELEASE"]["release"], 1);
    site.all_answer(&host, "/a", 200, "one");
    site.all_answer(&host, "/n", 200, "still");

    let good =
        json!({"spec": {"request": {"parameters": null}, "backend": {"mock": {"body": "two"}}}});
    site.patch(&namespace, "apis", "a", good);
    let api = site.until(&namespace, "apis", "a", "Ready", "True");
    assert_eq!(api["status"]["stages"]["RELEASE"]["release"], 2);
    assert_eq!(api["status"]["latestRelease"], 2);
    site.all_answer(&host, "/a", 200, "two");
}

#[test]
fn a_stage_stays_at_its_number_and_goes_back() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    site.plane()
        .apply(
            &namespace,
            &all(&[group("g", &host), mock("a", "g", "/a", "one")]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    site.patch(&namespace, "apis", "a", json!({"spec": {"stages": {"RELEASE": {"release": 1}, "TEST": {}}, "backend": {"mock": {"body": "two"}}}}));
    let api = site.until(&namespace, "apis", "a", "Ready", "True");
    assert_eq!(api["status"]["stages"]["RELEASE"]["release"], 1);
    assert_eq!(api["status"]["stages"]["TEST"]["release"], 2);
    site.all_answer(&host, "/a", 200, "one");
    // Promoted, then back.
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"stages": {"RELEASE": {"release": 2}}}}),
    );
    site.all_answer(&host, "/a", 200, "two");
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"stages": {"RELEASE": {"release": 1}}}}),
    );
    site.all_answer(&host, "/a", 200, "one");
    // Offline.
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"stages": {"RELEASE": null}}}),
    );
    site.all_answer(&host, "/a", 404, "");
    let revisions = site
        .plane()
        .kubectl(&["get", "controllerrevisions", "-n", &namespace, "-o", "name"])
        .unwrap();
    assert_eq!(
        revisions.matches("paifang-api-a-").count(),
        2,
        "{revisions}"
    );
}

#[test]
fn releases_beyond_the_limit_go_but_never_one_that_a_stage_serves() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    site.plane()
        .apply(
            &namespace,
            &all(&[group("g", &host), mock("a", "g", "/a", "1")]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    site.patch(&namespace, "apis", "a", json!({"spec": {"revisionHistoryLimit": 2, "stages": {"RELEASE": {"release": 1}, "TEST": {}}}}));
    for number in 2..=5 {
        site.patch(
            &namespace,
            "apis",
            "a",
            json!({"spec": {"backend": {"mock": {"body": number.to_string()}}}}),
        );
        eventually("the release is made", PATIENCE, || {
            let api = site.get(&namespace, "apis", "a")?;
            anyhow::ensure!(
                api["status"]["latestRelease"] == number,
                "{}",
                api["status"]
            );
            Ok(())
        });
    }
    eventually("only what is needed is kept", PATIENCE, || {
        let revisions = site.plane().kubectl(&[
            "get",
            "controllerrevisions",
            "-n",
            &namespace,
            "-o",
            "name",
        ])?;
        let kept: Vec<&str> = revisions
            .lines()
            .filter_map(|line| line.rsplit_once("paifang-api-a-"))
            .map(|it| it.1)
            .collect();
        anyhow::ensure!(kept == ["1", "4", "5"], "{kept:?}");
        Ok(())
    });
    site.all_answer(&host, "/a", 200, "1");
}

#[test]
fn what_is_missing_is_named_and_its_arrival_matters() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let api = mock("a", "g", "/a", "x").replace("mock: {body: 'x'}", "serviceRef: {name: later}");
    site.plane()
        .apply(&namespace, &all(&[group("g", &host), api]))
        .unwrap();
    let api = site.until(&namespace, "apis", "a", "ResolvedRefs", "False");
    assert_eq!(find(&api, "ResolvedRefs")["reason"], "BackendNotFound");
    let service = "apiVersion: paifang.dev/v1alpha1\nkind: BackendService\nmetadata: {name: later}\nspec: {type: Mock, stages: {TEST: {mock: {body: there}}}}";
    site.plane().apply(&namespace, service).unwrap();
    let api = site.until(&namespace, "apis", "a", "PartiallyInvalid", "True");
    assert_eq!(
        find(&api, "PartiallyInvalid")["reason"],
        "BackendStageMissing"
    );
    assert_eq!(api["status"]["stages"]["RELEASE"]["state"], "Offline");
    site.patch(
        &namespace,
        "backendservices",
        "later",
        json!({"spec": {"stages": {"RELEASE": {"mock": {"body": "there"}}}}}),
    );
    site.until(&namespace, "apis", "a", "Ready", "True");
    site.all_answer(&host, "/a", 200, "there");
}

#[test]
fn what_is_told_as_an_event_is_on_the_object() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    site.plane()
        .apply(
            &namespace,
            &all(&[group("g", &host), mock("a", "g", "/a", "1")]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    eventually("kubectl describe shows it", PATIENCE, || {
        let shown = site
            .plane()
            .kubectl(&["describe", "api", "a", "-n", &namespace])?;
        anyhow::ensure!(
            shown.contains("release 1 is published in stage RELEASE"),
            "{shown}"
        );
        Ok(())
    });
}
