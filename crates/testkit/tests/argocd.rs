//! Argo CD beside a control plane: it syncs, tells of what is wrong, heals and prunes. What it makes of Paifang's kinds is tested with Paifang.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, time::Duration};

use paifang_testkit::{ArgoCd, ControlPlane, GitRepository, eventually};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

/// Health by what a ConfigMap says of itself.
const HEALTH: &str = r#"
if obj.data ~= nil and obj.data.good == "no" then return { status = "Degraded", message = "it says so" } end
return { status = "Healthy" }
"#;

#[test]
fn a_repository_is_synced_healed_and_pruned() {
    let plane = ControlPlane::start().unwrap();
    plane.start_controllers().unwrap();
    let argo = ArgoCd::start(
        &plane,
        &json!({"resource.customizations.health.ConfigMap": HEALTH}),
    )
    .unwrap();
    let repository = GitRepository::create(&plane, "samples").unwrap();
    let write = |good: &str| {
        fs::create_dir_all(repository.folder().join("app")).unwrap();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"good": good}});
        fs::write(repository.folder().join("app/map.yaml"), map.to_string()).unwrap();
        repository.commit().unwrap()
    };
    let first = write("yes");
    argo.create("app", &repository, "app", "team").unwrap();
    argo.wait("app", &first, "Healthy", MINUTE).unwrap();

    let map = "/api/v1/namespaces/team/configmaps/m";
    plane
        .ask("PATCH", map, &json!({"data": {"good": "by hand"}}))
        .unwrap();
    eventually("it is healed", MINUTE, || {
        match plane.ask("GET", map, &Value::Null)?["data"]["good"] {
            ref good if good == "yes" => Ok(()),
            ref good => Err(anyhow::anyhow!("{good}")),
        }
    });

    let bad = write("no");
    argo.refresh("app").unwrap();
    let application = argo.wait("app", &bad, "Degraded", MINUTE).unwrap();
    assert_eq!(application.unhealthy, ["ConfigMap/m: Degraded: it says so"]);

    fs::remove_file(repository.folder().join("app/map.yaml")).unwrap();
    fs::write(
        repository.folder().join("app/other.yaml"),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {}})
            .to_string(),
    )
    .unwrap();
    let pruned = repository.commit().unwrap();
    argo.refresh("app").unwrap();
    argo.wait("app", &pruned, "Healthy", MINUTE).unwrap();
    plane.ask("GET", map, &Value::Null).unwrap_err();

    argo.delete("app").unwrap();
    plane
        .ask(
            "GET",
            "/api/v1/namespaces/team/configmaps/other",
            &Value::Null,
        )
        .unwrap_err();
}
