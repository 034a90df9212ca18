//! Controllers, the API server and gateways come and go.

use std::{thread, time::Duration};

use paifang_testkit::{Net, Signal, eventually, load::Load};
use serde_json::{Value, json};

use crate::site::{NAMESPACE, PATIENCE, Site, all, find, group, mock};

#[test]
fn a_controller_killed_at_any_step_leaves_nothing_half_done() {
    let site = Site::start(1, 1);
    let namespace = site.plane().namespace().unwrap();
    let mut objects = vec![group("g", "killed.example.com")];
    objects
        .extend((0..40).map(|number| mock(&format!("a{number}"), "g", &format!("/{number}"), "0")));
    site.plane().apply(&namespace, &all(&objects)).unwrap();
    site.until(&namespace, "apis", "a39", "Ready", "True");
    let running = Load::new(
        &Net::Host,
        site.gateways[0].address(),
        "killed.example.com",
        "/20",
    )
    .connections(2)
    .duration(Duration::from_secs(120))
    .pause(Duration::from_millis(5))
    .start();
    // Some milliseconds after a burst of edits, later each time: states, parts, manifests, statuses are all cut somewhere.
    for (round, wait) in [0_u64, 5, 10, 20, 35, 60, 100].into_iter().enumerate() {
        let body = format!("{}", round + 1);
        thread::scope(|scope| {
            for chunk in 0..4 {
                let (site, namespace, body) = (&site, &namespace, &body);
                scope.spawn(move || {
                    for number in (chunk * 10)..(chunk * 10 + 10) {
                        site.patch(
                            namespace,
                            "apis",
                            &format!("a{number}"),
                            json!({"spec": {"backend": {"mock": {"body": body}}}}),
                        );
                    }
                });
            }
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(40 + wait));
                site.kill_controllers();
            });
        });
        site.start_controller();
        for number in [0, 13, 39] {
            site.gateways[0].answers("killed.example.com", &format!("/{number}"), 200, &body);
            let api = site.until(&namespace, "apis", &format!("a{number}"), "Ready", "True");
            assert_eq!(
                api["status"]["latestRelease"],
                round as u64 + 2,
                "no release was lost or made twice"
            );
        }
    }
    running.stop().must_be_flawless(100);
}

#[test]
fn a_leader_that_was_paused_writes_nothing_when_it_wakes_up() {
    let site = Site::start(2, 1);
    let namespace = site.plane().namespace().unwrap();
    site.plane()
        .apply(
            &namespace,
            &all(&[
                group("g", "paused.example.com"),
                mock("a", "g", "/a", "one"),
            ]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    let holder = || {
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/paifang-controller"
        );
        let lease = site.plane().ask("GET", &path, &Value::Null).unwrap();
        lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let first = holder();
    let signal = |signal: Signal| {
        let controllers = site.controllers.lock().unwrap();
        let paused = controllers.iter().find(|it| {
            it.log()
                .contains(&format!("\"identity\":\"{first}\",\"leads\":true"))
        });
        paused
            .expect("the leader says that it leads")
            .signal(signal)
            .unwrap();
    };
    signal(Signal::STOP);
    // It has not seen this edit; its successor serves it.
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"backend": {"mock": {"body": "two"}}}}),
    );
    site.gateways[0].answers("paused.example.com", "/a", 200, "two");
    assert_ne!(holder(), first);
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"backend": {"mock": {"body": "three"}}}}),
    );
    site.gateways[0].answers("paused.example.com", "/a", 200, "three");
    site.until(&namespace, "apis", "a", "Ready", "True");
    let before = site.settled();
    signal(Signal::CONT);
    thread::sleep(Duration::from_secs(6));
    let now = site.versions();
    let different: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(different.is_empty(), "{different:?}");
    site.gateways[0].answers("paused.example.com", "/a", 200, "three");
    assert_ne!(holder(), first);
}

#[test]
fn with_the_api_server_down_gateways_serve_and_start_from_their_last_good_copy() {
    let site = Site::start(1, 2);
    let namespace = site.plane().namespace().unwrap();
    site.plane()
        .apply(
            &namespace,
            &all(&[group("g", "down.example.com"), mock("a", "g", "/a", "one")]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    let running = Load::new(
        &Net::Host,
        site.gateways[0].address(),
        "down.example.com",
        "/a",
    )
    .connections(2)
    .duration(Duration::from_secs(120))
    .pause(Duration::from_millis(5))
    .start();
    site.plane().stop_apiserver().unwrap();
    thread::sleep(Duration::from_secs(3));
    let restarted = &site.gateways[1];
    restarted.kill();
    restarted.start(site.plane());
    restarted.await_ready();
    restarted.answers("down.example.com", "/a", 200, "one");
    thread::sleep(Duration::from_secs(5));
    site.plane().start_apiserver().unwrap();
    site.patch(
        &namespace,
        "apis",
        "a",
        json!({"spec": {"backend": {"mock": {"body": "two"}}}}),
    );
    site.all_answer("down.example.com", "/a", 200, "two");
    site.until(&namespace, "apis", "a", "Ready", "True");
    running.stop().must_be_flawless(100);
}

#[test]
fn watches_begin_again_after_etcd_was_compacted() {
    let site = Site::start(1, 1);
    let namespace = site.plane().namespace().unwrap();
    site.plane()
        .apply(
            &namespace,
            &all(&[
                group("g", "compact.example.com"),
                mock("a", "g", "/a", "one"),
                mock("b", "g", "/b", "one"),
            ]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    site.plane().pause_apiserver().unwrap();
    site.plane().resume_apiserver().unwrap();
    for round in 0..3 {
        site.plane().compact_etcd().unwrap();
        site.plane().stop_apiserver().unwrap();
        site.plane().start_apiserver().unwrap();
        let body = format!("round {round}");
        site.patch(
            &namespace,
            "apis",
            "a",
            json!({"spec": {"backend": {"mock": {"body": body}}}}),
        );
        site.all_answer("compact.example.com", "/a", 200, &body);
    }
    site.delete(&namespace, "apis", "b");
    site.all_answer("compact.example.com", "/b", 404, "");
    site.until(&namespace, "apis", "a", "Ready", "True");
}

#[test]
fn a_bad_edit_keeps_the_last_good_release_over_a_restart_of_everything() {
    let site = Site::start(1, 1);
    let namespace = site.plane().namespace().unwrap();
    site.plane()
        .apply(
            &namespace,
            &all(&[
                group("g", "restart.example.com"),
                mock("a", "g", "/a", "good"),
            ]),
        )
        .unwrap();
    site.until(&namespace, "apis", "a", "Ready", "True");
    // The edit comes while no controller runs.
    site.kill_controllers();
    let bad = json!({"spec": {"request": {"parameters": [{"name": "x", "in": "Query", "type": "String", "pattern": "("}]}, "backend": {"mock": {"body": "bad"}}}});
    site.patch(&namespace, "apis", "a", bad);
    site.patch(
        &namespace,
        "domainbindings",
        "g",
        json!({"spec": {"tls": {"secretRef": {"name": "nowhere"}}}}),
    );
    site.plane().stop_apiserver().unwrap();
    site.gateways[0].kill();
    site.plane().start_apiserver().unwrap();
    site.gateways[0].start(site.plane());
    site.start_controller();
    site.gateways[0].await_ready();
    site.all_answer("restart.example.com", "/a", 200, "good");
    let api = site.until(&namespace, "apis", "a", "Accepted", "False");
    assert_eq!(api["status"]["stages"]["RELEASE"]["release"], 1);
    let domain = site.until(&namespace, "domainbindings", "g", "ResolvedRefs", "False");
    assert_eq!(find(&domain, "ResolvedRefs")["reason"], "SecretNotFound");
    site.all_answer("restart.example.com", "/a", 200, "good");
}

#[test]
fn a_certificate_replaced_by_garbage_stays_as_it_was() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![host.clone()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "tls", "namespace": namespace},
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
    });
    site.plane()
        .ask(
            "POST",
            &format!("/api/v1/namespaces/{namespace}/secrets"),
            &secret,
        )
        .unwrap();
    let domain = group("g", &host).replace(
        &format!("domain: {host}"),
        &format!("domain: {host}, tls: {{secretRef: {{name: tls}}}}"),
    );
    site.plane()
        .apply(&namespace, &all(&[domain, mock("a", "g", "/a", "one")]))
        .unwrap();
    site.until(&namespace, "domainbindings", "g", "Ready", "True");
    let garbage = json!({"stringData": {"tls.crt": "garbage", "tls.key": "garbage"}});
    site.plane()
        .ask(
            "PATCH",
            &format!("/api/v1/namespaces/{namespace}/secrets/tls"),
            &garbage,
        )
        .unwrap();
    let domain = site.until(&namespace, "domainbindings", "g", "ResolvedRefs", "False");
    assert_eq!(find(&domain, "ResolvedRefs")["reason"], "SecretInvalid");
    site.all_answer(&host, "/a", 200, "one");
    // Right again, with another pair.
    let other = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![host.clone()])
        .unwrap()
        .self_signed(&other)
        .unwrap();
    let good =
        json!({"stringData": {"tls.crt": certificate.pem(), "tls.key": other.serialize_pem()}});
    site.plane()
        .ask(
            "PATCH",
            &format!("/api/v1/namespaces/{namespace}/secrets/tls"),
            &good,
        )
        .unwrap();
    site.until(&namespace, "domainbindings", "g", "Ready", "True");
    eventually(
        "no certificate is left over in the status",
        PATIENCE,
        || {
            let domain = site.get(&namespace, "domainbindings", "g")?;
            anyhow::ensure!(find(&domain, "CertificateExpiring").is_null(), "{domain}");
            Ok(())
        },
    );
}
