//! Without a controller, and without an API server: what serves goes on serving, and what starts again does so from what was published, or from its own copy.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use paifang_testkit::{Signal, eventually, run};
use serde_json::Value;

use crate::{
    backends,
    cluster::{ADMIN, CONTROLLERS, HTTP, PATIENCE, Pod, SYSTEM, Scene},
};

/// How long the API server is away: longer than a lease lasts, and than anything that looks from time to time waits in between. (Once a look for
/// ReferenceGrants that fell into an outage kept the controller from ever publishing again.)
const OUTAGE: Duration = Duration::from_secs(35);
const A_WHILE: Duration = Duration::from_secs(5);

#[test]
fn gateways_serve_and_start_without_a_controller_and_its_return_writes_nothing() {
    let scene = Scene::alone();
    backends::echo(&scene);
    scene.served_by("hello", "2/2");
    let written = quiet(&scene);
    let running = scene.load("/hello").start();

    for pod in scene.pods(CONTROLLERS).unwrap() {
        scene.node.signal(SYSTEM, &pod.name, Signal::KILL).unwrap();
    }
    let controllers = Controllers::none(&scene);
    // Each gateway in turn, so that in the end no pod is left that has ever been seen by a controller.
    for pod in scene.pods(crate::cluster::GATEWAYS).unwrap() {
        scene
            .kubectl()
            .run(&["delete", "pod", "-n", SYSTEM, &pod.name, "--wait"])
            .unwrap();
        scene.rolled_out(SYSTEM, "paifang-gateway-default");
    }
    let outcome = running.stop();
    eprintln!("gateways replaced without a controller: {outcome}");
    outcome.must_be_flawless(300);
    for pod in scene.pods(crate::cluster::GATEWAYS).unwrap() {
        serves(&scene, &pod);
    }
    drop(controllers);

    scene.settled();
    scene.served_by("hello", "2/2");
    assert_eq!(
        published(&scene).unwrap(),
        written,
        "published objects were written again"
    );
    // And it works: an edit is served.
    scene.patch(
        "api/hello",
        r#"{"spec":{"backend":{"mock":{"body":"edited"}}}}"#,
    );
    scene.answers("/hello", "edited");
    scene.ready(&["api/hello"]);
}

#[test]
fn gateways_serve_without_an_api_server_and_one_starts_from_its_own_copy() {
    let scene = Scene::alone();
    backends::echo(&scene);
    scene.served_by("hello", "2/2");
    let gateways = scene.settled();
    let pids = scene.node.pids(SYSTEM, &gateways[0].name).unwrap();
    let [pid] = pids[..] else {
        panic!("one process in {}: {pids:?}", gateways[0].name)
    };
    let running = scene.load("/echo?delay=5").start();

    let server = ApiServer::none(&scene);
    let began = Instant::now();
    thread::sleep(Duration::from_secs(3));
    let outcome = running.stop();
    eprintln!("without an API server: {outcome}");
    outcome.must_be_flawless(300);

    // kubelet needs no API server to start a container again, on the volume that the last one left.
    run(Command::new("kill").args(["-KILL", &pid.to_string()])).unwrap();
    eventually("the process is gone", PATIENCE, || {
        ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        Ok(())
    });
    eventually("the killed gateway serves again", PATIENCE, || {
        try_serve(&scene, &gateways[0])
    });
    eprintln!(
        "a gateway served from its own copy {:?} into the outage",
        began.elapsed()
    );
    assert!(server.is_down(), "the API server came back too early");
    // All through the outage and the return, when everybody looks at everything anew.
    let running = scene.load("/echo?delay=5").start();
    thread::sleep(OUTAGE.saturating_sub(began.elapsed()));
    drop(server);

    scene.settled();
    scene.served_by("hello", "2/2");
    thread::sleep(A_WHILE);
    let outcome = running.stop();
    eprintln!("without an API server, after a restart, and when it is back: {outcome}");
    outcome.must_be_flawless(500);
    scene.patch(
        "api/hello",
        r#"{"spec":{"backend":{"mock":{"body":"edited"}}}}"#,
    );
    for pod in scene.pods(crate::cluster::GATEWAYS).unwrap() {
        // Watches begin again within seconds, although they had given up for longer and longer.
        eventually("the edit is served by each", 2 * A_WHILE, || {
            let answer = scene.call_at(pod.at(HTTP), "/hello")?;
            ensure!(answer.text() == "edited", "{}", answer.text());
            Ok(())
        });
    }
}

fn serves(scene: &Scene, pod: &Pod) {
    eventually(&format!("{} serves", pod.name), PATIENCE, || {
        try_serve(scene, pod)
    });
}

/// Both the Api without a backend and the one whose backend's pods must be known.
fn try_serve(scene: &Scene, pod: &Pod) -> Result<()> {
    let ready = scene
        .node
        .client(pod.at(ADMIN), "admin")
        .request("GET", "/readyz", &[], &[])?;
    ensure!(ready.status == 200, "not ready: {}", ready.text());
    for path in ["/hello", "/echo"] {
        let answer = scene.call_at(pod.at(HTTP), path)?;
        ensure!(
            answer.status == 200,
            "{path}: {}: {}",
            answer.status,
            answer.text()
        );
    }
    Ok(())
}

/// What the controller has published, by name, with the versions of the objects.
fn published(scene: &Scene) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for kind in ["configmaps", "secrets"] {
        let path = format!(
            "/api/v1/namespaces/{SYSTEM}/{kind}?labelSelector=app.kubernetes.io/managed-by%3Dpaifang-controller"
        );
        let list = scene.node.plane().ask("GET", &path, &Value::Null)?;
        for item in list["items"].as_array().context("a list")? {
            let text = |name: &str| {
                item["metadata"][name]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            all.insert(format!("{kind}/{}", text("name")), text("resourceVersion"));
        }
    }
    ensure!(!all.is_empty(), "nothing is published");
    Ok(all)
}

/// As [`published`], once it has stood still for a while.
fn quiet(scene: &Scene) -> BTreeMap<String, String> {
    eventually("nothing is written any more", PATIENCE, || {
        let before = published(scene)?;
        thread::sleep(Duration::from_secs(3));
        ensure!(published(scene)? == before, "objects are still written");
        Ok(before)
    })
}

/// While it lives there is no controller.
struct Controllers<'s>(&'s Scene);

impl<'s> Controllers<'s> {
    fn none(scene: &'s Scene) -> Self {
        let this = Self(scene);
        this.scale(0);
        eventually("no controller is left", PATIENCE, || {
            let pods = scene.node.pods(SYSTEM, CONTROLLERS)?;
            ensure!(pods.is_empty(), "{} are", pods.len());
            Ok(())
        });
        this
    }

    fn scale(&self, replicas: u8) {
        let replicas = format!("--replicas={replicas}");
        let scaled = self.0.kubectl().run(&[
            "scale",
            "-n",
            SYSTEM,
            "deployment/paifang-controller",
            &replicas,
        ]);
        if let Err(error) = scaled {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Controllers<'_> {
    fn drop(&mut self) {
        self.scale(2);
    }
}

/// While it lives there is no API server.
struct ApiServer<'s>(&'s Scene);

impl<'s> ApiServer<'s> {
    fn none(scene: &'s Scene) -> Self {
        scene.node.plane().stop_apiserver().unwrap();
        Self(scene)
    }

    fn is_down(&self) -> bool {
        self.0
            .node
            .plane()
            .ask("GET", "/version", &Value::Null)
            .is_err()
    }
}

impl Drop for ApiServer<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.node.plane().start_apiserver() {
            eprintln!("the API server does not come back: {error:#}");
        }
    }
}
