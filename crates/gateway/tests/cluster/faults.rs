//! The API server goes and comes; gateways are started in the meantime.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use paifang_gateway::cluster;
use paifang_testkit::ControlPlane;

use crate::support::*;

#[test]
fn serves_without_the_api_server_and_starts_from_the_last_good_copy() {
    let plane = ControlPlane::start().unwrap();
    let site = Site::new(&plane);
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let with_cache = || cluster::Settings {
        cache: Some(cache.clone()),
        ..site.settings()
    };
    let none = BTreeMap::new();
    let address = own_address();
    let at = backend(address, 0, "backend");
    site.put_slice("svc", at.port(), &[(address, [true, true, false], None)]);
    let running = Running::start(with_cache());
    running.await_ready();
    site.publish(&group("g", "good", Some((&site.namespace, "svc"))), &none);
    site.publish(&group("h", "good", None), &none);
    running.await_answer("g.example.com", "/mock", 200, "good");
    running.await_answer("g.example.com", "/x", 200, "backend");
    running.await_answer("h.example.com", "/mock", 200, "good");
    eventually("the copy is written", || {
        cache.join("groups/paifang-group-h").exists() && cache.join("endpoints").exists()
    });
    thread::sleep(Duration::from_millis(500));

    plane.stop_apiserver().unwrap();
    eventually("told", || {
        running
            .page("/metrics")
            .contains("paifang_subscription_watch_errors_total{watch=\"configmaps\"}")
    });
    assert_eq!(running.get("g.example.com", "/mock").0, 200);
    assert_eq!(
        running.get("g.example.com", "/x"),
        (200, "backend".to_owned())
    );

    // A part of one group was cut short.
    let manifest = fs::read_to_string(cache.join("groups/paifang-group-h")).unwrap();
    let part = manifest
        .split('"')
        .find(|it| it.len() == 40 && cache.join("parts").join(it).exists())
        .unwrap()
        .to_owned();
    let hashes: Vec<&str> = manifest.split('"').filter(|it| it.len() == 40).collect();
    let own = hashes.iter().find(|hash| {
        let g = fs::read_to_string(cache.join("groups/paifang-group-g")).unwrap();
        !g.contains(**hash) && cache.join("parts").join(hash).exists()
    });
    let torn = cache.join("parts").join(own.copied().unwrap_or(&part));
    fs::write(&torn, b"torn").unwrap();

    let restarted = Running::start(with_cache());
    restarted.await_ready();
    assert_eq!(restarted.metric("paifang_config_from_cache"), 1);
    assert_eq!(
        restarted.get("g.example.com", "/mock"),
        (200, "good".to_owned())
    );
    assert_eq!(
        restarted.get("g.example.com", "/x"),
        (200, "backend".to_owned()),
        "endpoints were kept too"
    );
    assert_eq!(
        restarted.get("h.example.com", "/mock").0,
        404,
        "what was torn is not served"
    );
    let bare = Running::start(site.settings());
    thread::sleep(Duration::from_secs(3));
    assert!(
        !bare.is_ready(),
        "without a copy it does not know what to serve"
    );

    plane.start_apiserver().unwrap();
    bare.await_ready();
    restarted.await_answer("h.example.com", "/mock", 200, "good");
    eventually("from the cluster again", || {
        restarted.metric("paifang_config_from_cache") == 0
    });
    site.publish(
        &group("g", "changed", Some((&site.namespace, "svc"))),
        &none,
    );
    for gateway in [&running, &restarted, &bare] {
        gateway.await_answer("g.example.com", "/mock", 200, "changed");
        assert_eq!(gateway.get("g.example.com", "/x").0, 200);
    }

    // While nobody watches, the history is thrown away: everything must be listed again, and what went is gone.
    plane.pause_apiserver().unwrap();
    plane.resume_apiserver().unwrap();
    site.publish(&group("g", "before", None), &none);
    running.await_answer("g.example.com", "/mock", 200, "before");
    plane.compact_etcd().unwrap();
    plane.stop_apiserver().unwrap();
    thread::sleep(Duration::from_millis(300));
    plane.start_apiserver().unwrap();
    site.delete("configmaps", "paifang-group-h");
    site.publish(&group("g", "after", None), &none);
    for gateway in [&running, &restarted, &bare] {
        gateway.await_answer("g.example.com", "/mock", 200, "after");
        gateway.await_answer("h.example.com", "/mock", 404, "");
    }
}
