//! The control plane itself: it is real, it can fail, and it leaves nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use paifang_testkit::{ControlPlane, eventually, repository, run};
use serde_json::{Value, json};

const SECONDS: Duration = Duration::from_secs(20);

#[test]
fn every_kind_can_be_applied() {
    let plane = ControlPlane::shared();
    let namespace = plane.namespace().unwrap();
    for folder in ["quickstart", "02-backend-services-per-stage"] {
        plane
            .admin()
            .apply_path(&namespace, &repository().join("config").join(folder))
            .unwrap();
    }
    for kind in [
        "apigroups",
        "apis",
        "backendservices",
        "apps",
        "authorizations",
        "domainbindings",
    ] {
        let list = plane
            .ask(
                "GET",
                &format!("/apis/paifang.dev/v1alpha1/namespaces/{namespace}/{kind}"),
                &Value::Null,
            )
            .unwrap();
        assert!(!list["items"].as_array().unwrap().is_empty(), "no {kind}");
    }
    let refused = plane.apply(
        &namespace,
        "apiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {name: a}\nspec: {groupRef: 5}\n",
    );
    assert!(format!("{:#}", refused.unwrap_err()).contains("groupRef"));
}

#[test]
fn controllers_look_after_namespaces_and_owned_objects() {
    let plane = ControlPlane::shared();
    let namespace = plane.namespace().unwrap();
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let owner = plane
        .ask("POST", &maps, &json!({"metadata": {"name": "owner"}}))
        .unwrap();
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]});
    plane
        .ask(
            "POST",
            &maps,
            &json!({"metadata": {"name": "owned", "ownerReferences": [reference]}}),
        )
        .unwrap();
    plane
        .ask("DELETE", &format!("{maps}/owner"), &Value::Null)
        .unwrap();
    let gone = |path: &str| match plane.ask("GET", path, &Value::Null) {
        Ok(_) => Err("it is still there"),
        Err(_) => Ok(()),
    };
    eventually("the owned object goes with its owner", SECONDS, || {
        gone(&format!("{maps}/owned"))
    });
    let path = format!("/api/v1/namespaces/{namespace}");
    plane.ask("DELETE", &path, &Value::Null).unwrap();
    eventually("the namespace is gone", SECONDS, || gone(&path));
}

#[test]
fn a_service_account_has_only_its_own_rights() {
    let plane = ControlPlane::shared();
    let namespace = plane.namespace().unwrap();
    let account = plane
        .admin()
        .with(&plane.kubeconfig_for(&namespace, "reader").unwrap());
    let refused = format!("{:#}", account.run(&["get", "secrets"]).unwrap_err());
    assert!(
        refused.contains(&format!("system:serviceaccount:{namespace}:reader")),
        "{refused}"
    );
    plane
        .kubectl(&[
            "create",
            "rolebinding",
            "reader",
            "-n",
            &namespace,
            "--clusterrole=view",
            &format!("--serviceaccount={namespace}:reader"),
        ])
        .unwrap();
    account.run(&["get", "configmaps"]).unwrap();
    account.run(&["get", "secrets"]).unwrap_err();
}

#[test]
fn an_api_server_that_was_away_knows_what_it_knew_and_old_revisions_are_gone() {
    let plane = ControlPlane::start().unwrap();
    let namespace = plane.namespace().unwrap();
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let first = plane
        .ask("POST", &maps, &json!({"metadata": {"name": "first"}}))
        .unwrap();
    let old = first["metadata"]["resourceVersion"].as_str().unwrap();
    plane
        .ask("POST", &maps, &json!({"metadata": {"name": "second"}}))
        .unwrap();

    plane.stop_apiserver().unwrap();
    plane.ask("GET", &maps, &Value::Null).unwrap_err();
    plane.compact_etcd().unwrap();
    plane.start_apiserver().unwrap();

    plane
        .ask("GET", &format!("{maps}/first"), &Value::Null)
        .unwrap();
    let watch = format!("{maps}?watch=1&timeoutSeconds=1&resourceVersion={old}");
    let answer = plane.client().request("GET", &watch, &[], &[]).unwrap();
    assert!(
        answer.text().contains("410") || answer.status == 410,
        "{}: {}",
        answer.status,
        answer.text()
    );
}

#[test]
fn a_dropped_control_plane_leaves_nothing() {
    let plane = ControlPlane::start().unwrap();
    let folder = plane.kubeconfig().parent().unwrap().to_owned();
    assert!(!users_of(&folder).is_empty());
    drop(plane);
    assert!(!folder.exists());
    assert_eq!(users_of(&folder), [""; 0]);
}

/// What [`killed_runs_are_cleaned_up`] runs and kills.
#[test]
#[ignore = "waits to be killed"]
fn hold_a_control_plane() {
    let plane = ControlPlane::start().unwrap();
    println!("folder={}", plane.kubeconfig().parent().unwrap().display());
    std::thread::sleep(Duration::from_secs(300));
}

/// Starts another process with a control plane and kills it, at first alone (its watcher sees that), then together with its watcher (the next start sees that).
#[test]
fn killed_runs_are_cleaned_up() {
    for watcher_too in [false, true] {
        let (mut holder, folder) = hold();
        assert!(users_of(&folder).len() > 2);
        if watcher_too {
            for pid in watchers_of(&folder) {
                run(Command::new("kill").args(["-KILL", &pid])).unwrap();
            }
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        if watcher_too {
            assert!(
                !users_of(&folder).is_empty(),
                "nobody can have ended them yet"
            );
            drop(ControlPlane::start().unwrap());
        }
        eventually("everything is gone", SECONDS, || match users_of(&folder) {
            users if users.is_empty() && !folder.exists() => Ok(()),
            users => Err(format!("{} and {users:#?}", folder.display())),
        });
    }
}

fn hold() -> (Child, PathBuf) {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "hold_a_control_plane",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(holder.stdout.take().unwrap());
    let folder = said.lines().map_while(Result::ok).find_map(|line| {
        let (_, folder) = line.split_once("folder=")?;
        Some(PathBuf::from(folder))
    });
    (holder, folder.unwrap())
}

fn watchers_of(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let watchers = processes.filter_map(|entry| {
        let path = entry.ok()?.path();
        let line =
            String::from_utf8_lossy(&std::fs::read(path.join("cmdline")).ok()?).replace('\0', " ");
        let is_one = line.starts_with("bash -c ")
            && line
                .trim_end()
                .ends_with(&format!("watch {}", folder.display()));
        is_one.then(|| path.file_name().unwrap().to_str().unwrap().to_owned())
    });
    let watchers: Vec<_> = watchers.collect();
    assert_eq!(watchers.len(), 1, "{watchers:?}");
    watchers
}

#[test]
fn many_objects_are_made_at_once() {
    let plane = ControlPlane::shared();
    let namespace = plane.namespace().unwrap();
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let objects: Vec<_> = (0..500)
        .map(|n| (maps.clone(), json!({"metadata": {"name": format!("m{n}")}})))
        .collect();
    plane.create_all(&objects).unwrap();
    let list = plane.ask("GET", &maps, &Value::Null).unwrap();
    assert!(list["items"].as_array().unwrap().len() >= 500);
    assert!(plane.create_all(&objects).is_err(), "they exist");
}

/// The command lines that name the folder.
fn users_of(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap();
    let lines =
        processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(name))
        .collect()
}
