//! What the pods are to the kernel, and what their service accounts may do, asked of the API server as these accounts.

use std::fs;

use serde_json::{Value, json};

use crate::cluster::{GATEWAYS, SYSTEM, Scene};

/// What a team has in a namespace of its own.
const THEIRS: &str = "
{apiVersion: v1, kind: Secret, metadata: {name: theirs}, stringData: {a: b}}
---
{apiVersion: paifang.dev/v1alpha1, kind: ApiGroup, metadata: {name: demo}, spec: {}}
";

#[test]
fn pods_are_restricted_and_cannot_write_to_their_root() {
    let scene = Scene::beside_others();
    let namespace = scene.kubectl().get(&["namespace", SYSTEM]).unwrap();
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let pods = scene.pods("app.kubernetes.io/name=paifang").unwrap();
    assert_eq!(pods.len(), 4);
    for pod in pods {
        for pid in scene.node.pids(SYSTEM, &pod.name).unwrap() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let field = |name: &str| {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{name}:")));
                line.unwrap()
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(field("Uid"), ["65532"; 4], "{}", pod.name);
            assert_eq!(field("Gid"), ["65532"; 4], "{}", pod.name);
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(
                    u64::from_str_radix(&field(set)[0], 16).unwrap(),
                    0,
                    "{set} of {}",
                    pod.name
                );
            }
            assert_eq!(field("NoNewPrivs"), ["1"], "{}", pod.name);
            assert_eq!(field("Seccomp"), ["2"], "a filter, {}", pod.name);
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
            let root = mounts
                .lines()
                .find(|line| line.split(' ').nth(4) == Some("/"))
                .unwrap();
            assert!(
                root.split(' ')
                    .nth(5)
                    .unwrap()
                    .split(',')
                    .any(|it| it == "ro"),
                "{}: {root}",
                pod.name
            );
        }
    }
}

#[test]
fn a_pod_that_is_not_restricted_is_refused_where_paifang_runs() {
    let scene = Scene::beside_others();
    let refused = scene
        .kubectl()
        .run(&[
            "run",
            "free",
            "-n",
            SYSTEM,
            "--image=paifang.test/echo:1",
            "--dry-run=server",
        ])
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("violates PodSecurity \"restricted"),
        "{refused}"
    );
}

#[test]
fn a_gateway_can_write_nothing_and_read_no_secret_elsewhere() {
    let scene = Scene::beside_others();
    scene.apply(THEIRS);
    let gateway = Account(&scene, "paifang-gateway");
    let core = format!("/api/v1/namespaces/{SYSTEM}");
    let theirs = format!("/api/v1/namespaces/{}", scene.namespace);
    let pod = scene.pods(GATEWAYS).unwrap().remove(0).name;
    for path in [
        format!("{core}/configmaps"),
        format!("{core}/secrets"),
        "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
    ] {
        gateway.may("GET", &path, &Value::Null);
    }
    for path in [
        format!("{theirs}/secrets/theirs"),
        format!("{theirs}/secrets"),
        "/api/v1/secrets".to_owned(),
        format!("{theirs}/configmaps"),
        format!("{core}/pods"),
        "/apis/paifang.dev/v1alpha1/apis".to_owned(),
    ] {
        gateway.may_not("GET", &path, &Value::Null);
    }
    let mine = json!({"metadata": {"name": "mine"}});
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    for (method, path, body) in [
        ("POST", format!("{core}/configmaps"), &mine),
        ("POST", format!("{core}/secrets"), &mine),
        ("POST", format!("{theirs}/secrets"), &mine),
        ("PATCH", format!("{core}/pods/{pod}"), &label),
        (
            "PATCH",
            format!("{core}/configmaps/kube-root-ca.crt"),
            &label,
        ),
        (
            "DELETE",
            format!("{core}/configmaps/kube-root-ca.crt"),
            &Value::Null,
        ),
        ("DELETE", format!("{core}/pods/{pod}"), &Value::Null),
        (
            "POST",
            format!("{core}/serviceaccounts/paifang-controller/token"),
            &json!({}),
        ),
        (
            "PATCH",
            format!(
                "/apis/paifang.dev/v1alpha1/namespaces/{}/apigroups/demo/status",
                scene.namespace
            ),
            &json!({"status": {}}),
        ),
    ] {
        gateway.may_not(method, &path, body);
    }
    gateway.only_reads(SYSTEM);
    gateway.only_reads(&scene.namespace);
}

#[test]
fn a_controller_writes_no_spec_and_no_secret_that_is_not_its_own() {
    let scene = Scene::beside_others();
    scene.apply(THEIRS);
    let controller = Account(&scene, "paifang-controller");
    let theirs = format!("/api/v1/namespaces/{}", scene.namespace);
    let group = format!(
        "/apis/paifang.dev/v1alpha1/namespaces/{}/apigroups/demo",
        scene.namespace
    );
    controller.may("GET", &format!("{theirs}/secrets/theirs"), &Value::Null);
    controller.may("PATCH", &format!("{group}/status"), &json!({"status": {}}));
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    for (method, path, body) in [
        ("PATCH", group.clone(), json!({"spec": {"qpsLimit": 1}})),
        ("PATCH", group.clone(), label.clone()),
        ("DELETE", group, Value::Null),
        (
            "PATCH",
            format!("{theirs}/secrets/theirs"),
            json!({"stringData": {"a": "c"}}),
        ),
        ("DELETE", format!("{theirs}/secrets/theirs"), Value::Null),
        (
            "POST",
            format!("{theirs}/configmaps"),
            json!({"metadata": {"name": "mine"}}),
        ),
        ("GET", format!("{theirs}/pods"), Value::Null),
        (
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/paifang"
                .to_owned(),
            Value::Null,
        ),
        (
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(),
            json!({"metadata": {"name": "mine"}}),
        ),
    ] {
        controller.may_not(method, &path, &body);
    }
    // A status is the only thing of it that the controller could have changed.
    assert_eq!(
        scene.get("apigroup/demo").unwrap()["metadata"]["generation"],
        1
    );
}

/// A service account of the chart; every request is made as it, so that what is found is what the API server does.
struct Account<'s>(&'s Scene, &'s str);

// === impl Account ===

impl Account<'_> {
    fn may(&self, method: &str, path: &str, body: &Value) {
        let (status, text) = self.ask(method, path, body);
        assert!(
            status < 300,
            "{} may {method} {path}: {status} {text}",
            self.1
        );
    }

    fn may_not(&self, method: &str, path: &str, body: &Value) {
        let (status, text) = self.ask(method, path, body);
        assert!(
            status == 403 && text.contains("is forbidden: User"),
            "{} may not {method} {path}: {status} {text}",
            self.1
        );
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let user = format!("system:serviceaccount:{SYSTEM}:{}", self.1);
        let of_all = format!("system:serviceaccounts:{SYSTEM}");
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let headers = [
            ("Impersonate-User", user.as_str()),
            ("Impersonate-Group", "system:serviceaccounts"),
            ("Impersonate-Group", &of_all),
            ("Impersonate-Group", "system:authenticated"),
            ("Content-Type", kind),
        ];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut client = self.0.node.plane().client();
        let answer = client
            .request(method, path, &headers, body.as_bytes())
            .unwrap();
        (answer.status, answer.text())
    }

    /// Nothing among all that the API server lets it do in a namespace changes anything. (Reviews only answer a question about the asker.)
    fn only_reads(&self, namespace: &str) {
        let user = format!("--as=system:serviceaccount:{SYSTEM}:{}", self.1);
        let text = self
            .0
            .kubectl()
            .run(&[
                "auth",
                "can-i",
                "--list",
                "-n",
                namespace,
                "--no-headers",
                &user,
            ])
            .unwrap();
        let mut reads = 0;
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            let resource = line.split_whitespace().next().unwrap();
            let (_, verbs) = line.rsplit_once('[').unwrap();
            let verbs: Vec<_> = verbs.trim_end_matches([']', ' ']).split(' ').collect();
            if resource.contains("reviews.auth") {
                continue;
            }
            assert!(
                verbs
                    .iter()
                    .all(|verb| matches!(*verb, "get" | "list" | "watch")),
                "{resource}: {verbs:?}"
            );
            reads += 1;
        }
        assert!(reads > 0, "{text}");
    }
}
