//! A whole node: real pods behind real Services, and nothing left of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

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
    let text = run(Command::new("curl").args(["-sS", &format!("http://{outside}/")])).unwrap();
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
    drop(node);
    assert_eq!(left_of(&folder, &netns), [""; 0]);
}

/// What [`a_killed_node_is_cleaned_up`] runs and kills.
#[test]
#[ignore = "waits to be killed"]
fn hold_a_node() {
    let node = Node::start().unwrap();
    node.load(&Image::echo().unwrap()).unwrap();
    node.plane().apply("default", ECHO).unwrap();
    node.admin()
        .wait("default", "deployment/echo", "condition=Available", MINUTE)
        .unwrap();
    println!("node={} {}", node.netns(), node.folder().display());
    std::thread::sleep(5 * MINUTE);
}

#[test]
fn a_killed_node_is_cleaned_up() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_a_node", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let said = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("node=")?.1.to_owned()))
        .unwrap();
    let (netns, folder) = said.split_once(' ').unwrap();
    assert!(
        left_of(Path::new(folder), netns).len() > 20,
        "the test would see it"
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("nothing is left", MINUTE, || {
        match left_of(Path::new(folder), netns) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:#?}")),
        }
    });
}

/// Processes, mounts, namespaces, control groups and folders of a node.
fn left_of(folder: &Path, netns: &str) -> Vec<String> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let run = Path::new("/run/paifang").join(name);
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(name))
            .map(str::to_owned),
    );
    let groups = fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .map(|entry| entry.unwrap().path().join(netns));
    let paths = groups.chain([folder.to_owned(), run, Path::new("/run/netns").join(netns)]);
    left.extend(
        paths
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    for entry in fs::read_dir("/proc").unwrap() {
        let line = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) {
            left.push(line);
        }
    }
    left
}
