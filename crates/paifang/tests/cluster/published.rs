//! Published objects: what a change writes, what a steady cluster writes, what is repaired, and where secrets are.

use std::{collections::BTreeSet, thread, time::Duration};

use paifang_testkit::eventually;
use serde_json::{Value, json};

use crate::site::{NAMESPACE, PATIENCE, Site, all, group, mock};

/// The published objects of routing with a label.
fn published(site: &Site, label: &str) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector={label}");
    let maps = site.plane().ask("GET", &path, &Value::Null).unwrap();
    maps["items"].as_array().unwrap().clone()
}

/// The parts that some manifest names; older ones wait to be collected, and nobody misses them.
fn parts(site: &Site) -> BTreeSet<String> {
    let manifests: String = published(site, "paifang.dev/manifest")
        .iter()
        .map(|manifest| manifest["data"]["manifest"].to_string())
        .collect();
    published(site, "paifang.dev/part")
        .iter()
        .map(|part| part["metadata"]["name"].as_str().unwrap().to_owned())
        .filter(|name| manifests.contains(name.trim_start_matches("paifang-part-")))
        .collect()
}

#[test]
fn a_change_writes_its_part_and_a_steady_cluster_writes_nothing() {
    let site = Site::start(2, 1);
    let namespace = site.plane().namespace().unwrap();
    let mut objects = vec![group("g", "steady.example.com")];
    objects.extend(
        (0..120).map(|number| mock(&format!("api-{number:03}"), "g", &format!("/{number}"), "x")),
    );
    site.plane().apply(&namespace, &all(&objects)).unwrap();
    for number in [0, 60, 119] {
        site.until(
            &namespace,
            "apis",
            &format!("api-{number:03}"),
            "Ready",
            "True",
        );
    }
    let before = site.settled();
    // Longer than a renewal, a heartbeat, a resync and a collection.
    thread::sleep(Duration::from_secs(12));
    let now = site.versions();
    let different: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        different.iter().all(|line| line.contains("/events")),
        "{different:?}"
    );

    let known = parts(&site);
    site.patch(
        &namespace,
        "apis",
        "api-060",
        json!({"spec": {"backend": {"mock": {"body": "changed"}}}}),
    );
    site.all_answer("steady.example.com", "/60", 200, "changed");
    let new = parts(&site).difference(&known).count();
    assert_eq!(new, 1, "one Api of 120 changed");

    // A restart of the controllers alone is no reason to write.
    site.until(&namespace, "apis", "api-060", "Ready", "True");
    thread::sleep(Duration::from_secs(2));
    let before = site.versions();
    site.kill_controllers();
    site.start_controller();
    thread::sleep(Duration::from_secs(10));
    let now = site.versions();
    let different: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(different.is_empty(), "{different:?}");
}

#[test]
fn a_part_that_somebody_deletes_or_replaces_is_repaired_and_the_last_good_one_serves() {
    let site = Site::start(1, 1);
    let namespace = site.plane().namespace().unwrap();
    site.plane()
        .apply(
            &namespace,
            &all(&[
                group("g", "repair.example.com"),
                mock("a", "g", "/a", "good"),
            ]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    let path = |name: &str| format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{name}");
    let mut seen = 0;
    for part in parts(&site) {
        let found = site.plane().ask("GET", &path(&part), &Value::Null).unwrap();
        site.plane()
            .ask("DELETE", &path(&part), &Value::Null)
            .unwrap();
        // Somebody puts something else in its place.
        let forged = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "binaryData": {"part": "AAAA"},
            "metadata": {"name": part, "labels": found["metadata"]["labels"]},
        });
        let _ = site.plane().ask(
            "POST",
            &format!("/api/v1/namespaces/{NAMESPACE}/configmaps"),
            &forged,
        );
        eventually("it is as it was", PATIENCE, || {
            let now = site.plane().ask("GET", &path(&part), &Value::Null)?;
            anyhow::ensure!(now["binaryData"] == found["binaryData"], "{now}");
            Ok(())
        });
        site.all_answer("repair.example.com", "/a", 200, "good");
        seen += 1;
    }
    assert!(seen >= 2, "{seen} parts");
    // The manifest too.
    let manifest = &published(&site, "paifang.dev/manifest")[0];
    let name = manifest["metadata"]["name"].as_str().unwrap();
    site.plane()
        .ask("PATCH", &path(name), &json!({"data": {"manifest": "{}"}}))
        .unwrap();
    eventually("the manifest is as it was", PATIENCE, || {
        let now = site.plane().ask("GET", &path(name), &Value::Null)?;
        anyhow::ensure!(now["data"] == manifest["data"], "{now}");
        Ok(())
    });
    site.all_answer("repair.example.com", "/a", 200, "good");
}

#[test]
fn secrets_are_in_secrets_and_nowhere_else() {
    const APP_SECRET: &str = "s3cr3t-0f-an-app-0123456789";
    const APP_CODE: &str = "c0de-0f-an-app-9876543210";
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let secrets = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\nstringData: {{appKey: 'key{namespace}', appSecret: {APP_SECRET}}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: code}}\nstringData: {{appCode: {APP_CODE}{namespace}}}\n"
    );
    let app = "apiVersion: paifang.dev/v1alpha1\nkind: App\nmetadata: {name: app}\nspec:\n  credentials:\n  - {name: one, type: KeyPair, secretRef: {name: key}}\n  - {name: two, type: AppCode, secretRef: {name: code}}\n";
    site.plane()
        .apply(
            &namespace,
            &all(&[
                secrets,
                app.to_owned(),
                group("g", &host),
                mock("a", "g", "/a", "x"),
            ]),
        )
        .unwrap();
    site.until(&namespace, "apps", "app", "Ready", "True");
    site.gateways[0]
        .get(
            &host,
            "/a",
            &[("Authorization", &format!("APPCODE {APP_CODE}{namespace}"))],
        )
        .unwrap();
    let mut everything = String::new();
    for path in [
        "/api/v1/configmaps",
        "/apis/apps/v1/controllerrevisions",
        "/api/v1/events",
        "/apis/paifang.dev/v1alpha1/apps",
        "/apis/paifang.dev/v1alpha1/authorizations",
        "/apis/coordination.k8s.io/v1/leases",
    ] {
        everything += &site
            .plane()
            .ask("GET", path, &Value::Null)
            .unwrap()
            .to_string();
    }
    for controller in site.controllers.lock().unwrap().iter() {
        everything += &controller.log();
    }
    for gateway in &site.gateways {
        everything += &gateway.log();
    }
    let base64 = |text: &str| {
        site.plane()
            .ask(
                "GET",
                &format!("/api/v1/namespaces/{namespace}/secrets/{text}"),
                &Value::Null,
            )
            .unwrap()
    };
    let encoded = base64("key")["data"]["appSecret"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        everything.contains(&format!("key{namespace}")),
        "the AppKey is public and shown"
    );
    for secret in [APP_SECRET, APP_CODE, &encoded] {
        assert!(
            !everything.contains(secret),
            "{secret} is somewhere it should not be"
        );
    }
}
