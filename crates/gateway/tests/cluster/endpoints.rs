//! Endpoints are followed without a load of the configuration, and no request meets one that has gone.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use paifang_gateway::cluster;
use paifang_testkit::ControlPlane;
use serde_json::json;

use crate::support::*;

const READY: [bool; 3] = [true, true, false];
const LEAVING: [bool; 3] = [false, true, true];
const UNREADY: [bool; 3] = [false, false, false];

#[test]
fn endpoints_are_followed_and_cost_no_load() {
    let site = Site::new(ControlPlane::shared());
    let running = site.gateway();
    let address = own_address();
    let one = backend(address, 0, "one");
    // The same port elsewhere: all of 127/8 is this machine, but a slice may not name it. So the two differ in their port.
    let two = backend(address, 0, "two");
    site.put_slice("svc", one.port(), &[(address, READY, None)]);
    site.publish(
        &group("g", "x", Some((&site.namespace, "svc"))),
        &BTreeMap::new(),
    );
    // A Service that is new is known before the group that names it is served.
    running.await_answer("g.example.com", "/mock", 200, "x");
    assert_eq!(running.get("g.example.com", "/x"), (200, "one".to_owned()));
    let loads = running.metric("paifang_config_loads_total{result=\"ok\"}");

    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = running.get("g.example.com", "/x");
                    assert_eq!(status, 200, "{body}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            for at in [two, one] {
                site.put_slice("svc", at.port(), &[(address, READY, None)]);
                let name = if at == two { "two" } else { "one" };
                running.await_answer("g.example.com", "/x", 200, name);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    eprintln!(
        "{} requests while endpoints changed",
        served.load(Ordering::Relaxed)
    );
    // On its way out it is asked as long as there is no other.
    site.put_slice("svc", two.port(), &[(address, LEAVING, None)]);
    running.await_answer("g.example.com", "/x", 200, "two");
    site.put_slice("svc", two.port(), &[(address, UNREADY, None)]);
    running.await_answer("g.example.com", "/x", 504, "");
    assert_eq!(running.metric("paifang_services_without_endpoints"), 1);
    site.put_slice("svc", one.port(), &[(address, READY, None)]);
    running.await_answer("g.example.com", "/x", 200, "one");
    site.delete("endpointslices", "svc-1");
    running.await_answer("g.example.com", "/x", 504, "");
    assert_eq!(
        running.metric("paifang_config_loads_total{result=\"ok\"}"),
        loads,
        "nothing was loaded"
    );
}

#[test]
fn a_group_that_moves_to_another_service_loses_no_request() {
    let site = Site::new(ControlPlane::shared());
    let running = site.gateway();
    let address = own_address();
    for (name, service) in [("one", "one"), ("two", "two"), ("three", "three")] {
        let at = backend(address, 0, name);
        site.put_slice(service, at.port(), &[(address, READY, None)]);
    }
    let publish = |service: &str| {
        site.publish(
            &group("g", service, Some((&site.namespace, service))),
            &BTreeMap::new(),
        );
    };
    publish("one");
    running.await_answer("g.example.com", "/x", 200, "one");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = running.get("g.example.com", "/x");
                    assert_eq!(status, 200, "{body}");
                }
            });
        }
        for service in ["two", "three", "one", "three", "two"] {
            publish(service);
            running.await_answer("g.example.com", "/x", 200, service);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_own_zone_is_found_by_the_pods_address_and_asked_first() {
    let site = Site::new(ControlPlane::shared());
    let address = own_address();
    let pod: IpAddr = "10.11.12.13".parse().unwrap();
    site.put("endpointslices", &json!({
        "metadata": {"name": "gateways-1", "labels": {"kubernetes.io/service-name": "gateways"}},
        "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": [pod], "zone": "zone-b", "conditions": {"ready": false}}],
    }));
    let running = Running::start(cluster::Settings {
        pod_ip: Some(pod),
        ..site.settings()
    });
    running.await_ready();
    let at = backend(address, 0, "near");
    // Nobody answers there; what is far is not asked while something is near.
    let far: IpAddr = "192.0.2.200".parse().unwrap();
    site.put_slice(
        "svc",
        at.port(),
        &[
            (far, READY, Some("zone-a")),
            (address, READY, Some("zone-b")),
        ],
    );
    site.publish(
        &group("g", "x", Some((&site.namespace, "svc"))),
        &BTreeMap::new(),
    );
    running.await_answer("g.example.com", "/mock", 200, "x");
    thread::sleep(Duration::from_millis(200));
    for _ in 0..20 {
        let started = std::time::Instant::now();
        assert_eq!(running.get("g.example.com", "/x"), (200, "near".to_owned()));
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}
