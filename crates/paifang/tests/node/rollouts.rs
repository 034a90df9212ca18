//! Gateways that are replaced, one by one or at a moment's notice, under constant load through the ClusterIP (kube-proxy, nftables).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use paifang_testkit::{Node, Signal, eventually};

use crate::{
    backends,
    cluster::{GATEWAYS, PATIENCE, SYSTEM, Scene},
};

const A_MOMENT: Duration = Duration::from_secs(2);
/// Until then kubelet and kube-proxy have noticed that a container has ended: they look every second, on a busy machine later.
const NOTICED: Duration = Duration::from_secs(5);

#[test]
fn a_rolling_update_of_the_gateways_fails_no_request() {
    let scene = Scene::alone();
    backends::echo(&scene);
    let before = scene.settled();
    // Kept connections and new ones: the first notice a careless close, the second a Service that still names a pod that is gone.
    let kept = scene.load("/echo?delay=20").start();
    let fresh = scene.fresh_load("/hello").start();
    thread::sleep(A_MOMENT);
    scene
        .kubectl()
        .run(&[
            "rollout",
            "restart",
            "-n",
            SYSTEM,
            "deployment/paifang-gateway-default",
        ])
        .unwrap();
    scene.rolled_out(SYSTEM, "paifang-gateway-default");
    let after = scene.settled();
    thread::sleep(A_MOMENT);
    for (name, running) in [("kept", kept), ("fresh", fresh)] {
        let outcome = running.stop();
        eprintln!("rolling update of the gateways, {name} connections: {outcome}");
        outcome.must_be_flawless(500);
    }
    assert!(
        before.iter().all(|pod| !after.contains(pod)),
        "{before:?} {after:?}"
    );
    scene.served_by("hello", "2/2");
}

#[test]
fn a_deleted_gateway_pod_fails_no_request() {
    let scene = Scene::alone();
    backends::echo(&scene);
    let kept = scene.load("/echo?delay=20").start();
    let fresh = scene.fresh_load("/hello").start();
    thread::sleep(A_MOMENT);
    let gone = scene.settled().remove(0);
    scene
        .kubectl()
        .run(&["delete", "pod", "-n", SYSTEM, &gone.name, "--wait"])
        .unwrap();
    scene.settled();
    thread::sleep(A_MOMENT);
    for (name, running) in [("kept", kept), ("fresh", fresh)] {
        let outcome = running.stop();
        eprintln!("a gateway pod deleted, {name} connections: {outcome}");
        outcome.must_be_flawless(300);
    }
}

/// SIGKILL gives a process no chance: what is in flight in it is cut, and until kubelet notices, the Service goes on naming a pod where nobody listens. That is
/// bounded here, and nothing else may fail: none later, and no answer but a refused or closed connection. A client that tries again, as those do that
/// a load balancer or a library offers, misses nothing.
#[test]
fn a_killed_gateway_costs_only_what_was_on_its_way_to_it() {
    let scene = Scene::alone();
    backends::echo(&scene);
    let victim = scene.settled().remove(0);
    let restarts = || {
        let pods = scene.node.pods(SYSTEM, GATEWAYS)?;
        let pod = pods
            .into_iter()
            .find(|pod| pod["metadata"]["name"] == victim.name.as_str());
        let status = &pod.unwrap_or_default()["status"]["containerStatuses"][0];
        anyhow::Ok((status["restartCount"].as_u64(), status["ready"] == true))
    };
    let kept = scene.load("/echo?delay=20").connections(8).start();
    let fresh = scene.fresh_load("/hello").start();
    let patient = Patient::start(&scene);
    thread::sleep(A_MOMENT);
    let (killed, began) = (SystemTime::now(), Instant::now());
    scene
        .node
        .signal(SYSTEM, &victim.name, Signal::KILL)
        .unwrap();
    eventually(
        "the container is started again",
        PATIENCE,
        || match restarts() {
            Ok((Some(1..), true)) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    eprintln!(
        "the killed gateway is ready again after {:?}",
        began.elapsed()
    );
    thread::sleep(2 * A_MOMENT);
    for (name, connections, running) in [("kept", 8, kept), ("fresh", 4, fresh)] {
        let outcome = running.stop();
        eprintln!("a gateway killed, {name} connections: {outcome}");
        let refused = outcome
            .failures
            .iter()
            .filter(|it| it.what.contains("refused"));
        let cut = outcome.failed - refused.count() as u64;
        assert!(
            cut <= connections,
            "{cut} requests were cut, with {connections} connections: {outcome}"
        );
        for failure in &outcome.failures {
            let after = failure.sent.duration_since(killed).unwrap_or_default();
            assert!(
                after < NOTICED,
                "failed {after:?} after the kill: {}\n{outcome}",
                failure.what
            );
            assert!(
                !failure.what.starts_with(|c: char| c.is_ascii_digit()),
                "an answer that is no success: {}",
                failure.what
            );
        }
    }
    let (requests, again) = patient.stop();
    eprintln!("a client that tries again: {requests} requests, {again} of them more than once");
    assert!(requests > 200, "{requests}");
    scene.served_by("hello", "2/2");
}

/// A client that sends a request again, on another connection, until it is answered: twenty times within a second.
struct Patient {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, u32)>,
}

// === impl Patient ===

impl Patient {
    fn start(scene: &Scene) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, address, host) = (scene.node, scene.gateway(), scene.host());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut requests, mut again) = (0, 0);
            while !stopped.load(Relaxed) {
                again += u32::from(Self::ask(node, address, &host) > 1);
                requests += 1;
                thread::sleep(Duration::from_millis(3));
            }
            (requests, again)
        });
        Self { stop, thread }
    }

    /// How often it had to be sent.
    fn ask(node: &Node, address: SocketAddr, host: &str) -> u32 {
        let mut said = String::new();
        for attempt in 1..=20 {
            match node
                .client(address, host)
                .request("GET", "/hello", &[], &[])
            {
                Ok(answer) if answer.status == 200 => return attempt,
                Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
                Err(failure) => said = failure.to_string(),
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("not answered in twenty tries: {said}")
    }

    fn stop(self) -> (u32, u32) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}
