//! From nothing to an answered call, as README.md and the notes that Helm prints tell it, and what `kubectl` then shows.

use std::fs;

use paifang_testkit::{repository, run};

use crate::cluster::{SYSTEM, Scene, fenced, forwarding};

#[test]
fn readme_and_notes_lead_to_an_answered_call_and_kubectl_shows_what_is_true() {
    let scene = Scene::beside_others();
    let _ports = forwarding();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let example = fenced(&readme, "from nothing to an answered call:\n", "sh").unwrap();
    follow(&scene, &example, "hello");
    delete(&scene);

    let notes = scene
        .shell(&format!("helm get notes paifang -n {SYSTEM}"))
        .unwrap();
    let (_, example) = notes
        .split_once("From nothing to an answered call:\n")
        .unwrap();
    let (example, _) = example.split_once("Look around:").unwrap();
    follow(&scene, example, "hello\n");
    call_through_the_service(&scene);
    look_around(&scene);
    delete(&scene);
}

fn delete(scene: &Scene) {
    scene
        .shell("kubectl delete api/hello apigroup/demo -n default")
        .unwrap();
}

/// The commands as they are, but for the second or two that a port-forward takes to listen, and a person to go on.
fn follow(scene: &Scene, commands: &str, answer: &str) {
    assert!(
        commands.contains("kubectl wait --for=condition=Ready"),
        "{commands}"
    );
    let script = commands.replace(
        "8080:80 &\n",
        "8080:80 >/dev/null & sleep 2\ntrap 'kill $!' EXIT\n",
    );
    assert_ne!(script, commands, "a port-forward is among {commands}");
    let said = scene.shell(&script).unwrap();
    assert!(said.ends_with(answer), "{said}");
}

fn call_through_the_service(scene: &Scene) {
    let group = scene
        .kubectl()
        .get(&["apigroup/demo", "-n", "default"])
        .unwrap();
    let host = group["status"]["subDomains"]["public"].as_str().unwrap();
    assert_eq!(
        host,
        format!(
            "{}.api.localtest",
            group["status"]["groupId"].as_str().unwrap()
        )
    );
    let text = run(scene.node.command("curl").args([
        "-sS",
        "--fail",
        "--max-time",
        "10",
        "-H",
        &format!("Host: {host}"),
        &format!("http://{}/hello", scene.gateway().ip()),
    ]))
    .unwrap();
    assert_eq!(text, "hello\n");
}

fn look_around(scene: &Scene) {
    let both = ["hello", "demo", "GET", "/hello", "True", "1", "1"];
    let table = scene.shell("kubectl get paifang -n default").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        rows.iter()
            .any(|row| row.first() == Some(&"api.paifang.dev/hello") && row[1..7] == both[1..7]),
        "{table}"
    );
    assert!(
        rows.iter()
            .any(|row| row[..3] == ["apigroup.paifang.dev/demo", "True", "/"]),
        "{table}"
    );
    let wide = scene.shell("kubectl get apis -n default -o wide").unwrap();
    let row = wide.lines().nth(1).unwrap();
    assert!(row.contains("Serving") && row.contains("2/2"), "{wide}");

    let api = scene
        .kubectl()
        .get(&["api/hello", "-n", "default"])
        .unwrap();
    let stage = &api["status"]["stages"]["RELEASE"];
    assert_eq!(
        (&stage["gateways"], &stage["release"]),
        (&"2/2".into(), &1.into())
    );
    for condition in ["Accepted", "ResolvedRefs", "Programmed", "Ready"] {
        let it = api["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["type"] == condition)
            .unwrap();
        assert_eq!(it["status"], "True", "{it}");
        assert_eq!(
            it["observedGeneration"], api["metadata"]["generation"],
            "{it}"
        );
    }
    let described = scene
        .shell("kubectl describe api/hello -n default")
        .unwrap();
    assert!(
        described.contains("Events:") && described.contains("RELEASE"),
        "{described}"
    );
}
