//! Status says what gateways report, and nothing that they do not.

use std::time::Duration;

use paifang_testkit::{Signal, eventually};
use serde_json::json;

use crate::site::{PATIENCE, Site, all, find, group, mock};

#[test]
fn ready_follows_what_gateways_say_within_seconds() {
    let site = Site::start(1, 2);
    let namespace = site.plane().namespace().unwrap();
    site.plane()
        .apply(
            &namespace,
            &all(&[group("g", "truth.example.com"), mock("a", "g", "/a", "one")]),
        )
        .unwrap();
    let api = site.until(&namespace, "apis", "a", "Ready", "True");
    assert_eq!(api["status"]["stages"]["RELEASE"]["gateways"], "2/2");

    // One falls silent: it may serve, but nobody knows.
    let silent = &site.gateways[1];
    silent.signal(Signal::STOP);
    let api = eventually("status says so", PATIENCE, || {
        let api = site.get(&namespace, "apis", "a")?;
        anyhow::ensure!(
            api["status"]["stages"]["RELEASE"]["gateways"] == "1/2",
            "{}",
            api["status"]
        );
        Ok(api)
    });
    assert_eq!(api["status"]["stages"]["RELEASE"]["state"], "Pending");
    let ready = find(&api, "Ready");
    assert_eq!(ready["status"], "False");
    assert!(
        ready["message"].as_str().unwrap().contains(&silent.pod),
        "{ready}"
    );

    // An edit is served by the other one, and is not Ready before both have it.
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"backend": {"mock": {"body": "two"}}}}),
    );
    site.gateways[0].answers("truth.example.com", "/a", 200, "two");
    std::thread::sleep(Duration::from_secs(1));
    let api = site.get(&namespace, "apis", "a").unwrap();
    assert_ne!(find(&api, "Ready")["status"], "True", "{api}");
    silent.signal(Signal::CONT);
    site.until(&namespace, "apis", "a", "Ready", "True");
    silent.answers("truth.example.com", "/a", 200, "two");

    // A pod that takes no traffic does not count.
    site.set_ready(silent, false);
    eventually("one of one", PATIENCE, || {
        let api = site.get(&namespace, "apis", "a")?;
        anyhow::ensure!(
            api["status"]["stages"]["RELEASE"]["gateways"] == "1/1",
            "{}",
            api["status"]
        );
        Ok(())
    });
}

#[test]
fn a_change_of_address_shows_its_progress_and_each_failure() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let service = |body: &str| {
        format!(
            "apiVersion: paifang.dev/v1alpha1\nkind: BackendService\nmetadata: {{name: s}}\nspec: {{type: Mock, stages: {{RELEASE: {{mock: {{body: {body}}}}}}}}}\n"
        )
    };
    let mut objects = vec![group("g", &host), service("before")];
    for number in 0..20 {
        let api = mock(&format!("a{number}"), "g", &format!("/{number}"), "x");
        objects.push(api.replace("mock: {body: 'x'}", "serviceRef: {name: s}"));
    }
    // One goes through the service too, and cannot be published: the path is taken.
    objects
        .push(mock("late", "g", "/0", "x").replace("mock: {body: 'x'}", "serviceRef: {name: s}"));
    site.plane().apply(&namespace, &all(&objects)).unwrap();
    eventually("all go through it", PATIENCE, || {
        let service = site.get(&namespace, "backendservices", "s")?;
        anyhow::ensure!(
            service["status"]["stages"]["RELEASE"]["apis"] == 20,
            "{}",
            service["status"]
        );
        Ok(())
    });
    site.plane().apply(&namespace, &service("after")).unwrap();
    site.all_answer(&host, "/7", 200, "after");
    let update = eventually("all are moved", PATIENCE, || {
        let service = site.get(&namespace, "backendservices", "s")?;
        let update = service["status"]["stages"]["RELEASE"]["update"].clone();
        anyhow::ensure!(
            update["succeeded"] == 20 && !update["finishedAt"].is_null(),
            "{}",
            service["status"]
        );
        Ok(update)
    });
    assert_eq!(update["generation"], 2);
    assert_eq!(update["inProgress"], 0);
    assert_eq!(update["waiting"], 0);
    let total = update["succeeded"].as_u64().unwrap() + update["failed"].as_u64().unwrap();
    assert_eq!(update["total"], total, "{update}");
    for failure in update["failures"].as_array().into_iter().flatten() {
        assert_eq!(failure["api"], "late");
        assert_eq!(failure["reason"], "Conflicted");
    }
}
