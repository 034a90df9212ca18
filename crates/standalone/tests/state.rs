//! What survives bad edits and restarts.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod folder;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use folder::{Scratch, lines, settings};
use paifang_compiler::{Kind, ObjectId, Status};
use paifang_model::ObjectName;
use paifang_snapshot::wire::{Proof, Target};
use paifang_standalone::{Outcome, Session, StateUse, Touched};

fn head(kind: &str, name: &str) -> String {
    format!("apiVersion: paifang.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

fn group() -> String {
    head("ApiGroup", "g") + "spec: {}\n"
}

fn api(body: &str) -> String {
    head("Api", "a")
        + &format!(
            "spec:\n  groupRef: {{name: g}}\n  auth: {{type: Anonymous}}\n  request: {{protocols: [HTTP], method: GET, path: /a, mode: Passthrough}}\n  backend: {{mock: {{statusCode: 200, body: '{body}'}}}}\n  stages: {{RELEASE: {{}}}}\n"
        )
}

fn served(outcome: &Outcome) -> Option<(u64, String)> {
    let group = outcome.snapshot.groups.values().next()?;
    let route = group.routes.first()?;
    let Target::Mock(mock) = &group.backends[route.backend as usize].target else {
        return None;
    };
    Some((group.apis[route.api as usize].release, mock.body.clone()))
}

fn serves(outcome: &Outcome, release: u64, body: &str) {
    assert_eq!(
        served(outcome),
        Some((release, body.to_owned())),
        "{:#?}",
        lines(outcome)
    );
}

fn touch(session: &mut Session, name: &str) -> Option<Outcome> {
    session.refresh(&Touched::Files([name.into()].into()))
}

#[test]
fn releases_count_up_and_survive_a_restart() {
    let scratch = Scratch::new();
    scratch.write("group.yaml", &group());
    scratch.write("api.yaml", &api("one"));
    let mut session = scratch.keep();
    serves(&session.load(), 1, "one");
    scratch.write("api.yaml", &api("two"));
    serves(&touch(&mut session, "api.yaml").unwrap(), 2, "two");
    assert!(touch(&mut session, "api.yaml").is_none(), "nothing changed");
    drop(session);
    serves(&scratch.keep().load(), 2, "two");
    let release = scratch.state().join("apis/default/a/releases/1.json");
    assert!(release.exists(), "release 1 is kept");
    scratch.write(
        "api.yaml",
        &api("two").replace("RELEASE: {}", "RELEASE: {release: 1}"),
    );
    serves(&scratch.keep().load(), 1, "one");
}

#[test]
fn whatever_is_broken_the_last_good_goes_on_also_after_a_restart() {
    let breaks: [(&str, String); 5] = [
        ("api.yaml", api("two") + "  nonsense: 1\n"),
        ("api.yaml", api("two").replace("/a", "no-slash")),
        ("api.yaml", "broken: [".to_owned()),
        ("group.yaml", "broken: [".to_owned()),
        ("group.yaml", group().replace("{}", "{basePath: 5}")),
    ];
    for (file, text) in breaks {
        let scratch = Scratch::new();
        scratch.write("group.yaml", &group());
        scratch.write("api.yaml", &api("one"));
        let mut session = scratch.keep();
        session.load();
        scratch.write(file, &text);
        let outcome = touch(&mut session, file).unwrap();
        assert_eq!(outcome.counts().0, 1, "{text}: {:#?}", lines(&outcome));
        serves(&outcome, 1, "one");
        drop(session);
        let outcome = scratch.keep().load();
        assert_eq!(
            outcome.counts().0,
            1,
            "after a restart: {text}: {:#?}",
            lines(&outcome)
        );
        serves(&outcome, 1, "one");
    }
}

#[test]
fn a_broken_secret_keeps_its_last_good_value_and_its_neighbours_change() {
    let app = head("App", "app")
        + "spec: {credentials: [{name: c, type: AppCode, secretRef: {name: s}}]}\n---\n";
    let secret =
        |data: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{data}\n---\n");
    let code = |outcome: &Outcome| match outcome
        .snapshot
        .credentials
        .first()
        .map(|credential| credential.proof.clone())
    {
        Some(Proof::AppCode { app_code }) => Some(app_code.expose().clone()),
        _ => None,
    };
    let scratch = Scratch::new();
    scratch.write(
        "all.yaml",
        &(app.clone() + &secret("stringData: {appCode: first}") + &group()),
    );
    let mut session = scratch.keep();
    assert_eq!(code(&session.load()).as_deref(), Some("first"));
    let changed = group().replace("{}", "{qpsLimit: 7}");
    scratch.write(
        "all.yaml",
        &(app + &secret("data: {appCode: '*'}") + &changed),
    );
    let outcome = touch(&mut session, "all.yaml").unwrap();
    assert_eq!(code(&outcome).as_deref(), Some("first"));
    assert_eq!(
        outcome.snapshot.groups.values().next().unwrap().qps_limit,
        7
    );
    drop(session);
    assert_eq!(code(&scratch.keep().load()).as_deref(), Some("first"));
}

#[test]
fn a_copy_of_a_file_changes_nothing() {
    let scratch = Scratch::new();
    scratch.write("b.yaml", &(group() + "---\n" + &api("one")));
    let mut session = scratch.keep();
    session.load();
    scratch.write("a.yaml", &api("copy"));
    let outcome = touch(&mut session, "a.yaml").unwrap();
    serves(&outcome, 1, "one");
    assert!(
        lines(&outcome)[0].contains("is in b.yaml:"),
        "{:#?}",
        lines(&outcome)
    );
    drop(session);
    serves(&scratch.keep().load(), 1, "one");
}

#[test]
fn an_emptied_or_removed_file_takes_its_objects_away() {
    for empty in [true, false] {
        let scratch = Scratch::new();
        scratch.write("group.yaml", &group());
        scratch.write("api.yaml", &api("one"));
        let mut session = scratch.keep();
        session.load();
        if empty {
            scratch.write("api.yaml", "");
        } else {
            fs::remove_file(scratch.path("api.yaml")).unwrap();
        }
        assert_eq!(served(&touch(&mut session, "api.yaml").unwrap()), None);
        drop(session);
        assert_eq!(served(&scratch.keep().load()), None);
        assert!(!scratch.state().join("apis/default/a").exists());
    }
}

#[test]
fn a_folder_that_vanishes_keeps_everything_in_service() {
    let scratch = Scratch::new();
    scratch.write("group.yaml", &(group() + "---\n" + &api("one")));
    let mut session = scratch.keep();
    session.load();
    fs::rename(scratch.path(""), scratch.state().with_file_name("away")).unwrap();
    assert!(
        session
            .refresh(&Touched::Anything)
            .is_none_or(|outcome| served(&outcome).is_some())
    );
}

#[test]
fn damaged_state_is_set_aside_and_said_and_nothing_else_suffers() {
    let damage: [(&str, &[u8]); 5] = [
        ("apis/default/a/api.json", b"{\"format\":1,"),
        ("apis/default/a/releases/1.json", b"\0\0\0"),
        (
            "objects/ApiGroup/default/g.json",
            b"{\"format\":99,\"entry\":{}}",
        ),
        (
            "objects/ApiGroup/default/g.json",
            b"{\"format\":1,\"entry\":{\"spec\":7}}",
        ),
        ("files", b""),
    ];
    for (file, bytes) in damage {
        let scratch = Scratch::new();
        scratch.write("all.yaml", &(group() + "---\n" + &api("one")));
        scratch.keep().load();
        let mut path = scratch.state().join(file);
        if path.is_dir() {
            path = fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
        }
        fs::write(&path, bytes).unwrap();
        let outcome = scratch.keep().load();
        let said = lines(&outcome);
        assert!(
            said.len() == 1 && said[0].contains("cannot be read, as if it had never been stored"),
            "{file}: {said:#?}"
        );
        serves(&outcome, 1, "one");
        assert_eq!(
            fs::read_dir(scratch.state().join("damaged"))
                .unwrap()
                .count(),
            1,
            "{file}"
        );
        assert_eq!(
            scratch.keep().load().diagnostics.len(),
            0,
            "{file}: said once"
        );
    }
}

#[test]
fn with_damaged_stages_the_releases_are_still_there() {
    let scratch = Scratch::new();
    scratch.write("all.yaml", &(group() + "---\n" + &api("one")));
    let mut session = scratch.keep();
    session.load();
    scratch.write("all.yaml", &(group() + "---\n" + &api("two")));
    serves(&touch(&mut session, "all.yaml").unwrap(), 2, "two");
    drop(session);
    fs::write(scratch.state().join("apis/default/a/api.json"), "").unwrap();
    scratch.write("all.yaml", &(group() + "---\n" + &api("three")));
    serves(&scratch.keep().load(), 3, "three");
}

#[test]
fn only_its_owner_can_read_it_and_git_ignores_it() {
    fn walk(path: &Path, check: &mut dyn FnMut(&Path, u32)) {
        let metadata = fs::metadata(path).unwrap();
        check(path, metadata.permissions().mode() & 0o777);
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), check);
            }
        }
    }
    let scratch = Scratch::new();
    scratch.write("all.yaml", &(group() + "---\n" + &api("one")));
    scratch.keep().load();
    walk(&scratch.state(), &mut |path, mode| {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    });
    assert_eq!(
        fs::read_to_string(scratch.state().join(".gitignore")).unwrap(),
        "*\n"
    );
}

#[test]
fn credentials_that_are_made_stay_the_same() {
    let scratch = Scratch::new();
    let app = "spec: {credentials: [{name: next, type: KeyPair}, {name: code, type: AppCode}]}\n";
    scratch.write("app.yaml", &(head("App", "app") + app));
    let mut session = scratch.keep();
    let outcome = session.load();
    assert_eq!(outcome.made.len(), 2, "{:#?}", lines(&outcome));
    assert_eq!(outcome.diagnostics.len(), 0);
    let first = outcome.snapshot.credentials.clone();
    assert_eq!(first.len(), 2);
    let path = session
        .made_path(&ObjectName::new("default", "app-next"))
        .unwrap();
    assert!(fs::read_to_string(path).unwrap().contains("appSecret"));
    drop(session);
    let again = scratch.keep().load();
    assert_eq!((again.made.len(), &again.snapshot.credentials), (0, &first));
    let looked = scratch.open(&StateUse::Look(scratch.state())).load();
    assert_eq!(looked.snapshot.credentials, first);
}

#[test]
fn state_folders_that_cannot_be_used_are_refused_with_a_fix() {
    let scratch = Scratch::new();
    let refused = |state: &Path| {
        let opened = Session::open(
            &scratch.path(""),
            &StateUse::Keep(state.to_owned()),
            settings(),
        );
        opened
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(refused(&scratch.path("inside/state")).contains("is inside"));
    assert!(!scratch.path("inside").exists(), "nothing is made there");
    let _first = scratch.keep();
    assert!(refused(&scratch.state()).contains("is in use by another paifang"));
    let foreign = scratch.state().with_file_name("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "").unwrap();
    assert!(refused(&foreign).contains("is not empty and no state folder"));
    fs::write(foreign.join("format"), "paifang state 2\n").unwrap();
    assert!(refused(&foreign).contains("has format 2, this Paifang knows 1"));
    let missing = Session::open(&scratch.path("nowhere"), &StateUse::Without, settings());
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("is not a folder that can be read")
    );
}

#[test]
fn an_api_that_was_never_good_serves_nothing() {
    let scratch = Scratch::new();
    scratch.write(
        "all.yaml",
        &(group() + "---\n" + &api("one") + "  nonsense: 1\n"),
    );
    let outcome = scratch.keep().load();
    assert_eq!(served(&outcome), None);
    let verdict = &outcome.verdicts[&ObjectId::new(Kind::Api, &ObjectName::new("default", "a"))];
    assert!(matches!(&verdict.status, Status::Api(api) if api.latest_release.is_none()));
}
