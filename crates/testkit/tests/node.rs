//! A whole node: real pods behind real Services, and nothing left of them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use paifang_testkit::{Image, Node, Signal, eventually, load::Load, run};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

const ECHO: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: echo
        image: paifang.test/echo:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: http}]
";

// One test, since a node is dear: each part stands on the one before.
#[test]
fn pods_answer_through_a_service_and_everything_goes_with_the_node() {
    let node = Node::start().unwrap();
    node.load(&Image::echo().unwrap()).unwrap();
    let namespace = node.plane().namespace().unwrap();
    node.plane().apply(&namespace, ECHO).unwrap();
    node.admin()
        .wait(&namespace, "deployment/echo", "condition=Available", MINUTE)
        .unwrap();
    let pods = node.pods(&namespace, "app=echo").unwrap();
    assert_eq!(pods.len(), 2);
    let name = pods[0]["metadata"]["name"].as_str().unwrap();

    both_pods_answer_through_the_service(&node, &namespace);
    a_pod_reaches_the_service_and_the_api_server(&node, &namespace, name);
    a_rolling_update_drops_no_request(&node, &namespace);
    a_crash_is_seen_by_the_load(&node, &namespace);
    everything_goes(node);
}

fn both_pods_answer_through_the_service(node: &Node, namespace: &str) {
    let service = node.reach(namespace, "echo", "http", MINUTE).unwrap();
    let answering: BTreeSet<String> = (0..40)
        .map(|_| {
            let answer = node
                .client(service, "echo.test")
                .request("GET", "/a%20b?x=1", &[], &[])
                .unwrap();
            assert_eq!(answer.status, 200);
            let said: Value = answer.json().unwrap();
            assert_eq!(
                (&said["path"], &said["host"], &said["query"]["x"][0]),
                (&"/a%20b".into(), &"echo.test".into(), &"1".into())
            );
            said["pod"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(answering.len(), 2, "{answering:?}");
    // Clients that can only use the machine's network.
    let outside = node.net().forward(service).unwrap();
    let text = run(std::process::Command::new("curl").args(["-sS", &format!("http://{outside}/")]))
        .unwrap();
    assert!(text.contains(r#""pod":"echo-"#), "{text}");
}

fn a_pod_reaches_the_service_and_the_api_server(node: &Node, namespace: &str, pod: &str) {
    let service = node.service(namespace, "echo", "80").unwrap();
    for _ in 0..8 {
        let text = node
            .exec(
                namespace,
                pod,
                &["/paifang-pod", "get", &format!("http://{service}/")],
            )
            .unwrap();
        assert!(text.starts_with("200\n"), "{text}");
    }
    assert!(node.logs(namespace, pod).unwrap().contains("listening on"));
    let refused = node
        .exec(
            namespace,
            pod,
            &["/paifang-pod", "get", "http://10.96.0.1:443/"],
        )
        .unwrap();
    assert!(
        refused.starts_with("400\n"),
        "plain HTTP to the API server: {refused}"
    );
}

fn a_rolling_update_drops_no_request(node: &Node, namespace: &str) {
    let service = node.service(namespace, "echo", "http").unwrap();
    let load = Load::new(node.net(), service, "echo.test", "/?delay=5")
        .connections(4)
        .duration(MINUTE)
        .without_keep_alive();
    let running = load.start();
    node.plane()
        .kubectl(&["rollout", "restart", "-n", namespace, "deployment/echo"])
        .unwrap();
    node.plane()
        .kubectl(&[
            "rollout",
            "status",
            "-n",
            namespace,
            "deployment/echo",
            "--timeout=60s",
        ])
        .unwrap();
    // The last new pod is ready, but may not have been sent anything yet.
    std::thread::sleep(Duration::from_secs(2));
    let outcome = running.stop();
    outcome.must_be_flawless(100);
    assert!(outcome.pods.len() >= 4, "{outcome}");
}

/// The load must be able to fail.
fn a_crash_is_seen_by_the_load(node: &Node, namespace: &str) {
    let service = node.service(namespace, "echo", "http").unwrap();
    let running = Load::new(node.net(), service, "echo.test", "/?delay=100")
        .connections(8)
        .duration(MINUTE)
        .start();
    eventually("the load has begun", MINUTE, || {
        if running.sent() > 50 {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    let pods = node.pods(namespace, "app=echo").unwrap();
    for pod in pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
    {
        node.signal(
            namespace,
            pod["metadata"]["name"].as_str().unwrap(),
            Signal::KILL,
        )
        .unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let outcome = running.stop();
    assert!(outcome.failed > 0, "{outcome}");
}

fn everything_goes(node: Node) {
    let (folder, netns) = (node.folder(), node.netns());
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    drop(node);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name), "{mounts}");
    assert!(!Path::new("/run/netns").join(&netns).exists());
    assert!(!Path::new("/run/paifang").join(&name).exists());
    assert!(!folder.exists());
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!entry.unwrap().path().join(&netns).exists());
    }
    for entry in fs::read_dir("/proc").unwrap() {
        let line = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&line).contains(&name),
            "{}",
            String::from_utf8_lossy(&line)
        );
    }
}
