//! What is published is served; what is not sound is not, and disturbs nothing.

use std::{collections::BTreeMap, net::TcpStream, sync::Arc, thread, time::Duration};

use paifang_model::Redacted;
use paifang_snapshot::{
    published::{Hash, publish_apps, publish_group},
    wire::{App, Apps, Auth, Certificate, Credential, Grant, Proof},
};
use paifang_testkit::ControlPlane;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;

use crate::support::*;

fn none() -> BTreeMap<paifang_model::ObjectName, paifang_snapshot::wire::Certificate> {
    BTreeMap::new()
}

#[test]
fn groups_come_change_and_go() {
    let site = Site::new(ControlPlane::shared());
    let running = site.gateway();
    assert_eq!(
        running.get("g.example.com", "/mock").0,
        404,
        "an empty namespace is a configuration too"
    );

    site.publish(&group("g", "one", None), &none());
    running.await_answer("g.example.com", "/mock", 200, "one");
    site.publish(&group("h", "other", None), &none());
    running.await_answer("h.example.com", "/mock", 200, "other");
    let mut took = Vec::new();
    for change in 0..20 {
        let body = format!("change {change}");
        site.publish(&group("g", &body, None), &none());
        took.push(running.await_answer("g.example.com", "/mock", 200, &body));
    }
    took.sort();
    eprintln!(
        "served after its manifest was written: half within {:?}, all within {:?}",
        took[10], took[19]
    );
    assert!(took[10] < Duration::from_millis(500), "{took:?}");
    site.delete("configmaps", "paifang-group-g");
    running.await_answer("g.example.com", "/mock", 404, "");
    assert_eq!(running.get("h.example.com", "/mock").0, 200);
    // Another fleet's group is none of ours, nor is one without a label.
    site.put("configmaps", &json!({
        "metadata": {"name": "paifang-group-x", "labels": {"paifang.dev/instance": "other", "paifang.dev/manifest": "group"}},
        "data": {"manifest": "garbage"},
    }));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(running.metric("paifang_stale_groups"), 0);
}

#[test]
fn what_is_unreadable_or_incomplete_changes_nothing_and_is_told() {
    let site = Site::new(ControlPlane::shared());
    let running = site.gateway();
    site.publish(&group("g", "good", None), &none());
    running.await_answer("g.example.com", "/mock", 200, "good");

    site.put_manifest("g", "garbage");
    eventually("told", || running.metric("paifang_stale_groups") == 1);
    assert_eq!(
        running.get("g.example.com", "/mock"),
        (200, "good".to_owned())
    );
    // A manifest of which one part is missing, then there.
    let next = publish_group(&group("g", "next", None), |_| None);
    let before = publish_group(&group("g", "good", None), |_| None);
    let is_new = |hash: &Hash| !before.parts.contains_key(hash);
    let (_, last) = next.parts.iter().find(|(hash, _)| is_new(hash)).unwrap();
    for part in next.parts.values().filter(|part| part.hash != last.hash) {
        site.put_part(part);
    }
    site.put_manifest("g", &next.manifest.text());
    eventually("told", || running.metric("paifang_missing_parts") >= 1);
    assert_eq!(
        running.get("g.example.com", "/mock"),
        (200, "good".to_owned())
    );
    // Somebody puts something else under the name of the part.
    site.put("configmaps", &json!({
        "metadata": {"name": format!("paifang-part-{}", last.hash), "labels": {"paifang.dev/instance": "default", "paifang.dev/part": "routing"}},
        "binaryData": {"part": "YWJj"},
    }));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(
        running.get("g.example.com", "/mock"),
        (200, "good".to_owned())
    );
    site.delete("configmaps", &format!("paifang-part-{}", last.hash));
    site.put_part(last);
    running.await_answer("g.example.com", "/mock", 200, "next");
    eventually("healed", || running.metric("paifang_stale_groups") == 0);
    // A part that is in use is deleted: nothing happens.
    site.delete("configmaps", &format!("paifang-part-{}", last.hash));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(
        running.get("g.example.com", "/mock"),
        (200, "next".to_owned())
    );
    let mut head = group("g", "next", None);
    head.qps_limit = 77;
    let after = publish_group(&head, |_| None);
    let new = after
        .parts
        .values()
        .filter(|part| !next.parts.contains_key(&part.hash));
    new.for_each(|part| site.put_part(part));
    site.put_manifest("g", &after.manifest.text());
    eventually("in force from the part that was kept", || {
        running.page("/config").contains("\"qpsLimit\": 77")
    });
}

#[test]
fn revoking_counts_at_once() {
    let site = Site::new(ControlPlane::shared());
    let running = site.gateway();
    let mut secured = group("g", "secret", None);
    Arc::make_mut(&mut secured.apis[0]).auth = Auth::App(
        serde_json::from_value(json!({
            "appCode": "Header", "allowSha1": false, "allowSha256": true, "requireNonce": false,
        }))
        .unwrap(),
    );
    let app = paifang_model::ObjectName::new("ns", "app");
    secured.grants.push(Arc::new(Grant {
        app: app.clone(),
        stage: "RELEASE".parse().unwrap(),
        api: None,
        expires_at_ms: None,
        authorization: app.clone(),
    }));
    site.publish(&secured, &none());
    let apps = Apps {
        format: 1,
        apps: vec![App {
            name: app.clone(),
            id: 1,
            disabled: false,
        }],
    };
    let credential = |code: &str| Credential {
        app: app.clone(),
        name: "c".to_owned(),
        not_before_ms: None,
        expires_at_ms: None,
        proof: Proof::AppCode {
            app_code: Redacted::new(code.to_owned()),
        },
    };
    let call = |code: &str| {
        let host = format!("g.example.com\r\nAuthorization: APPCODE {code}");
        running.get(&host, "/mock").0
    };
    site.publish_apps(&publish_apps(&apps, &[credential("old")], "salt"));
    eventually("the credential counts", || call("old") == 200);
    site.publish_apps(&publish_apps(&apps, &[credential("new")], "salt"));
    let started = std::time::Instant::now();
    eventually("the old one counts no more", || call("old") != 200);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(call("new"), 200);
    site.delete("secrets", "paifang-apps");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(call("new"), 200, "the last known callers stay");
}

/// The certificate that a host is answered with.
fn shown(running: &Running, host: &str, roots: &[&str]) -> Result<Vec<u8>, String> {
    let mut believed = RootCertStore::empty();
    for pem in roots {
        believed
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
    }
    let config = ClientConfig::builder()
        .with_root_certificates(believed)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(running.gateway.addresses().https.unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    session
        .complete_io(&mut socket)
        .map_err(|error| error.to_string())?;
    Ok(session.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn certificates_are_published_rotated_and_never_replaced_by_half_a_pair() {
    let site = Site::new(ControlPlane::shared());
    let running = site.gateway();
    let make = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["g.example.com".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        (made.pem(), made.der().to_vec(), key.serialize_pem())
    };
    let (one, two) = (make(), make());
    let roots = [one.0.as_str(), two.0.as_str()];
    let secret = paifang_model::ObjectName::new("ns", "tls");
    let publish = |chain: &str, key: &str| {
        let mut secured = group("g", "x", None);
        secured.domains[0].tls = Some(serde_json::from_value(json!({
            "certificate": "ns/tls", "clientCa": null, "passClientSubject": false, "redirectHttp": false,
        })).unwrap());
        let material = Certificate {
            chain: Some(chain.to_owned()),
            key: Some(Redacted::new(key.to_owned())),
            ..Certificate::default()
        };
        site.publish(&secured, &[(secret.clone(), material)].into());
    };
    publish(&one.0, &one.2);
    eventually("TLS", || {
        shown(&running, "g.example.com", &roots).is_ok_and(|leaf| leaf == one.1)
    });
    publish(&two.0, &two.2);
    eventually("the other certificate", || {
        shown(&running, "g.example.com", &roots).is_ok_and(|leaf| leaf == two.1)
    });
    publish(&one.0, &two.2);
    eventually("told", || running.metric("paifang_config_problems") == 1);
    assert_eq!(shown(&running, "g.example.com", &roots).unwrap(), two.1);
    publish(&one.0, &one.2);
    eventually("the pair", || {
        shown(&running, "g.example.com", &roots).is_ok_and(|leaf| leaf == one.1)
    });
    assert_eq!(running.metric("paifang_config_problems"), 0);
}
