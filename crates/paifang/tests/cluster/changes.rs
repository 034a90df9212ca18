//! No request fails because of a change.

use std::time::Duration;

use paifang_testkit::{Net, load::Load};
use serde_json::json;

use crate::site::{Site, all, group, mock};

#[test]
fn edits_publications_and_removals_of_others_fail_no_request() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let mut objects = vec![group("g", &host), mock("steady", "g", "/steady", "here")];
    objects.extend((0..10).map(|number| {
        mock(
            &format!("other-{number}"),
            "g",
            &format!("/other/{number}"),
            "x",
        )
    }));
    site.plane().apply(&namespace, &all(&objects)).unwrap();
    site.until(&namespace, "apis", "steady", "Ready", "True");
    let running: Vec<_> = site
        .gateways
        .iter()
        .map(|gateway| {
            Load::new(&Net::Host, gateway.address(), &host, "/steady")
                .connections(4)
                .duration(Duration::from_secs(60))
                .pause(Duration::from_millis(2))
                .start()
        })
        .collect();
    for round in 0..5 {
        for number in 0..10 {
            let name = format!("other-{number}");
            match (round + number) % 4 {
                0 => site.patch(&namespace, "apis", &name, json!({"spec": {"backend": {"mock": {"body": format!("{round}")}}}})),
                // Wrong, then right again.
                1 => site.patch(&namespace, "apis", &name, json!({"spec": {"request": {"parameters": [{"name": "x", "in": "Query", "type": "String", "pattern": "("}]}}})),
                2 => site.patch(&namespace, "apis", &name, json!({"spec": {"request": {"parameters": null}, "stages": {"TEST": {}}}})),
                _ => site.patch(&namespace, "apis", "steady", json!({"spec": {"description": format!("edit {round} {number}")}})),
            }
        }
        site.patch(
            &namespace,
            "apigroups",
            "g",
            json!({"spec": {"qpsLimit": 900_000 + round}}),
        );
    }
    site.until(&namespace, "apis", "steady", "Ready", "True");
    for running in running {
        running.stop().must_be_flawless(200);
    }
}
