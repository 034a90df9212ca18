//! Upgrades, a rollback, uninstalling and installing again, with Helm itself, while requests are on their way.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use paifang_testkit::eventually;

use crate::{
    backends,
    cluster::{PATIENCE, SYSTEM, Scene, install_lines},
};

const CHART: &str = "charts/paifang --namespace paifang-system";

#[test]
fn an_upgrade_and_a_rollback_fail_no_request() {
    let scene = Scene::alone();
    backends::echo(&scene);
    let mut before: BTreeSet<_> = names(&scene);
    for change in [
        format!(
            "helm upgrade paifang {CHART} --reset-then-reuse-values --set instanceDefaults.logLevel=debug --set controller.logLevel=debug"
        ),
        "helm rollback paifang --namespace paifang-system".to_owned(),
    ] {
        let kept = scene.load("/echo?delay=20").start();
        let fresh = scene.fresh_load("/hello").start();
        scene.shell(&change).unwrap();
        scene.rolled_out(SYSTEM, "paifang-gateway-default");
        scene.rolled_out(SYSTEM, "paifang-controller");
        scene.settled();
        for (name, running) in [("kept", kept), ("fresh", fresh)] {
            let outcome = running.stop();
            eprintln!("{change}, {name} connections: {outcome}");
            outcome.must_be_flawless(300);
        }
        let after = names(&scene);
        assert!(
            before.is_disjoint(&after),
            "all pods should be new: {before:?} {after:?}"
        );
        before = after;
        scene.served_by("hello", "2/2");
    }
}

#[test]
fn uninstalling_keeps_definitions_and_objects_and_installing_again_serves_them_at_once() {
    let scene = Scene::alone();
    backends::echo(&scene);
    let revisions = || {
        let list = scene
            .kubectl()
            .get(&["controllerrevisions", "-n", &scene.namespace])?;
        let mut found = Vec::new();
        for item in list["items"].as_array().into_iter().flatten() {
            found.push((
                item["metadata"]["name"].to_string(),
                item["metadata"]["uid"].to_string(),
            ));
        }
        anyhow::Ok(found)
    };
    let before = revisions().unwrap();
    assert!(before.len() >= 3, "a release of each Api: {before:?}");

    scene
        .shell(&format!("helm uninstall paifang --namespace {SYSTEM}"))
        .unwrap();
    eventually("Paifang is gone", 2 * PATIENCE, || {
        let pods = scene.node.pods(SYSTEM, "app.kubernetes.io/name=paifang")?;
        ensure!(pods.is_empty(), "{} pods are left", pods.len());
        Ok(())
    });
    let left = scene.shell("kubectl get crd -o name").unwrap();
    assert_eq!(left.matches(".paifang.dev").count(), 6, "{left}");
    assert_eq!(
        scene
            .kubectl()
            .run(&["get", "apis", "-n", &scene.namespace, "-o", "name"])
            .unwrap()
            .lines()
            .count(),
        3
    );
    assert_eq!(revisions().unwrap(), before);

    let line = install_lines().unwrap().remove(1);
    let line = line.replace("registry.example.com/paifang", "paifang.test/paifang");
    let began = Instant::now();
    scene.shell(&line).unwrap();
    // A ready gateway has everything: the very first answer that comes is the right one.
    let gateway = eventually("the gateways take connections", PATIENCE, || {
        scene
            .node
            .reach(SYSTEM, "paifang-default", "http", Duration::ZERO)
    });
    let answer = scene.call_at(gateway, "/hello").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    eprintln!("served {:?} after helm install", began.elapsed());
    scene.settled();
    scene.ready(&["api/hello", "api/echo", "apigroup/demo"]);
    scene.served_by("hello", "2/2");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(
        revisions().unwrap(),
        before,
        "installing again makes no new releases"
    );
}

fn names(scene: &Scene) -> BTreeSet<String> {
    let pods = scene.pods("app.kubernetes.io/name=paifang").unwrap();
    pods.into_iter().map(|pod| pod.name).collect()
}
