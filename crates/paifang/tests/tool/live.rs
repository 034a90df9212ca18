//! `paifang standalone`: the start, edits, restarts, the end.

use std::fs;

use crate::run::{Running, Scratch, finish, paifang};

const HOST: &str = "demo.localtest";
const WORLD: &str = "{\"hello\":\"world\"}";
const THERE: &str = "{\"hello\":\"there\"}";

#[test]
fn a_newcomer_is_told_what_to_do_next() {
    let scratch = Scratch::sample("quickstart");
    let gateway = Running::start(&scratch, &[]);
    for listener in ["http", "https", "internal", "admin", "echo"] {
        assert!(
            gateway.addresses[listener].starts_with("127.0.0.1:"),
            "{listener}"
        );
    }
    gateway.says("default/report-weather");
    let said = gateway.err();
    for expected in [
        "1 group, 3 Apis, 1 backend service, 1 App, 2 authorizations, 1 domain",
        "(loopback) are allowed",
        &format!(
            "GET http://{HOST}:{}/hello",
            gateway.addresses["http"].rsplit_once(':').unwrap().1
        ),
        &format!("curl -H 'Host: {HOST}' {}/hello", gateway.url()),
        "paifang call default/get-forecast --dir ",
        "--path city=VALUE",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
    assert!(!said.contains("not-for-production"), "{said}");
    assert_eq!(gateway.end(), 0);
}

#[test]
fn a_saved_file_is_served_and_a_broken_one_changes_nothing() {
    let scratch = Scratch::sample("quickstart");
    let gateway = Running::start(&scratch, &[]);
    assert_eq!(gateway.get(HOST, "/hello"), (200, WORLD.to_owned()));

    scratch.edit("hello.yaml", "world", "there");
    gateway.serves(HOST, "/hello", THERE);
    gateway.says("~ api default/hello  release 2 → RELEASE, TEST\n");

    scratch.edit("hello.yaml", "    path: /hello", "    pathh: /hello");
    gateway.says("hello.yaml:12:5: Api default/hello: spec.request.pathh: unknown field; did you mean `path`?\n");
    gateway.says("! api default/hello  refused; still release 2 → RELEASE, TEST\n");
    assert_eq!(gateway.get(HOST, "/hello"), (200, THERE.to_owned()));

    scratch.write("hello.yaml", "kind: [");
    gateway.says("hello.yaml:1:7: is not YAML: ");
    assert_eq!(gateway.get(HOST, "/hello"), (200, THERE.to_owned()));
    assert_eq!(gateway.end(), 0);

    let again = Running::start(&scratch, &[]);
    assert_eq!(again.get(HOST, "/hello"), (200, THERE.to_owned()));
    again.says("is not YAML: ");
    fs::remove_file(scratch.dir().join("hello.yaml")).unwrap();
    again.says("- api default/hello\n");
    again.says("nothing is wrong any more\n");
    assert_eq!(again.get(HOST, "/hello").0, 404);
}

#[test]
fn a_stage_stays_at_its_release_over_restarts() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit("hello.yaml", "RELEASE: {}", "RELEASE: {release: 1}");
    let gateway = Running::start(&scratch, &[]);
    scratch.edit("hello.yaml", "world", "there");
    gateway.says("~ api default/hello  release 2 → TEST; release 1 → RELEASE\n");
    assert_eq!(gateway.get(HOST, "/hello").1, WORLD);
    assert_eq!(gateway.end(), 0);
    let again = Running::start(&scratch, &[]);
    assert_eq!(again.get(HOST, "/hello").1, WORLD);
    scratch.edit(
        "hello.yaml",
        "RELEASE: {release: 1}",
        "RELEASE: {release: 2}",
    );
    again.serves(HOST, "/hello", THERE);
}

#[test]
fn an_editor_that_replaces_the_file_is_followed() {
    let scratch = Scratch::sample("quickstart");
    let gateway = Running::start(&scratch, &[]);
    let (file, temporary) = (
        scratch.dir().join("hello.yaml"),
        scratch.dir().join(".hello.yaml.swp"),
    );
    for (from, to, served) in [
        ("world", "there", THERE),
        ("there", "world", WORLD),
        ("world", "there", THERE),
    ] {
        let text = fs::read_to_string(&file).unwrap().replace(from, to);
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, &file).unwrap();
        gateway.serves(HOST, "/hello", served);
    }
}

#[test]
fn a_credential_that_is_made_works_and_is_not_shown() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit(
        "app.yaml",
        "type: KeyPair, secretRef: {name: mobile-key}",
        "type: KeyPair",
    );
    let gateway = Running::start(&scratch, &[]);
    let path = scratch.state().join("secrets/default/mobile-primary.json");
    gateway.says(&format!(
        "made Secret default/mobile-primary for App default/mobile; see it in {}",
        path.display()
    ));
    let echo = gateway.addresses["echo"].clone();
    scratch.edit("forecast.yaml", "127.0.0.1:9000", &echo);
    gateway.says("served after");
    let secret: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let secret = secret["stringData"]["appSecret"].as_str().unwrap();
    let done = gateway.call(&scratch, "get-forecast", ["--path", "city=x", "-v"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(!gateway.err().contains(secret) && !done.err.contains(secret));
}

#[test]
fn a_change_can_be_checked_beside_a_running_gateway() {
    let scratch = Scratch::sample("quickstart");
    scratch.edit("hello.yaml", "RELEASE: {}", "RELEASE: {release: 1}");
    let gateway = Running::start(&scratch, &[]);
    assert_eq!(
        finish(paifang().arg("check").arg(scratch.dir()).arg("--strict")).code,
        0,
        "it knows the release"
    );
    scratch.edit(
        "hello.yaml",
        "RELEASE: {release: 1}",
        "RELEASE: {release: 7}",
    );
    assert_eq!(finish(paifang().arg("check").arg(scratch.dir())).code, 1);
    assert_eq!(gateway.end(), 0);
}

#[test]
fn two_gateways_do_not_share_a_state_folder() {
    let scratch = Scratch::sample("quickstart");
    let _gateway = Running::start(&scratch, &[]);
    let second = finish(paifang().arg("standalone").arg(scratch.dir()));
    assert_eq!(second.code, 1);
    assert!(
        second.err.contains(
            "is in use by another paifang: stop it, or choose another folder with --state"
        ),
        "{}",
        second.err
    );
    let inside = finish(
        paifang()
            .arg("standalone")
            .arg(scratch.dir())
            .arg("--state")
            .arg(scratch.dir().join("state")),
    );
    assert_eq!(inside.code, 1);
    assert!(inside.err.contains("is inside"), "{}", inside.err);
}

#[test]
fn an_address_that_is_taken_ends_it_with_a_sentence() {
    let scratch = Scratch::sample("quickstart");
    let gateway = Running::start(&scratch, &[]);
    let other = Scratch::sample("quickstart");
    let echo = gateway.addresses["echo"].as_str();
    let taken = finish(
        paifang()
            .arg("standalone")
            .arg(other.dir())
            .args(["--echo", echo]),
    );
    assert_eq!(taken.code, 1);
    assert!(
        taken.err.contains(&format!(
            "the echo server cannot listen on {echo}: choose another address with --echo=ADDR"
        )),
        "{}",
        taken.err
    );
}

#[test]
fn listeners_can_be_off() {
    let scratch = Scratch::sample("quickstart");
    let gateway = Running::start(&scratch, &["--https", "off", "--internal", "off"]);
    assert_eq!(
        gateway.addresses.keys().collect::<Vec<_>>(),
        ["admin", "echo", "http"]
    );
}
