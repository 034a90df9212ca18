//! Many objects at once, and how long a change takes among them.

use std::{
    thread,
    time::{Duration, Instant},
};

use paifang_testkit::eventually;
use serde_json::{Value, json};

use crate::site::Site;

const HOST: &str = "scale.example.com";

fn objects(namespace: &str, apis: usize, groups: usize) -> Vec<(String, Value)> {
    let path = |plural: &str| format!("/apis/paifang.dev/v1alpha1/namespaces/{namespace}/{plural}");
    let mut all = Vec::new();
    for group in 0..groups {
        all.push((path("apigroups"), json!({
            "apiVersion": "paifang.dev/v1alpha1", "kind": "ApiGroup", "metadata": {"name": format!("g{group}")}, "spec": {"basePath": format!("/g{group}")},
        })));
        all.push((path("domainbindings"), json!({
            "apiVersion": "paifang.dev/v1alpha1", "kind": "DomainBinding", "metadata": {"name": format!("g{group}")},
            "spec": {"groupRef": {"name": format!("g{group}")}, "domain": HOST},
        })));
    }
    for number in 0..apis {
        all.push((path("apis"), json!({
            "apiVersion": "paifang.dev/v1alpha1", "kind": "Api", "metadata": {"name": format!("a{number}")},
            "spec": {
                "groupRef": {"name": format!("g{}", number % groups)}, "auth": {"type": "Anonymous"},
                "request": {"protocols": ["HTTP"], "method": "GET", "path": format!("/r{number}/[id]"),
                            "parameters": [{"name": "id", "in": "Path", "type": "String", "required": true, "maxLength": 40}]},
                "backend": {"mock": {"body": "start"}}, "stages": {"RELEASE": {}},
            },
        })));
    }
    all
}

fn path(number: usize, groups: usize) -> String {
    format!("/g{}/r{number}/x", number % groups)
}

/// From sending an edit until every gateway serves it.
fn change(site: &Site, namespace: &str, number: usize, groups: usize, body: &str) -> Duration {
    let began = Instant::now();
    site.patch(
        namespace,
        "apis",
        &format!("a{number}"),
        json!({"spec": {"backend": {"mock": {"body": body}}}}),
    );
    for gateway in &site.gateways {
        loop {
            let answer = gateway.get(HOST, &path(number, groups), &[]).unwrap();
            if answer.text().contains(body) {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{} {}",
                answer.status,
                answer.text()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
    began.elapsed()
}

fn row(apis: usize, groups: usize, changes: usize) -> String {
    let site = Site::start(1, 2);
    let namespace = site.plane().namespace().unwrap();
    let began = Instant::now();
    site.plane()
        .create_all(&objects(&namespace, apis, groups))
        .unwrap();
    let created = began.elapsed();
    let served = Duration::from_secs(60 + apis as u64 / 10);
    for number in [0, apis / 2, apis - 1] {
        for gateway in &site.gateways {
            eventually("all are served", served, || {
                let answer = gateway.get(HOST, &path(number, groups), &[])?;
                anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
                Ok(())
            });
        }
    }
    let all_served = began.elapsed();
    eventually("all are Ready", served, || {
        let last = site.get(&namespace, "apis", &format!("a{}", apis - 1))?;
        anyhow::ensure!(
            crate::site::find(&last, "Ready")["status"] == "True",
            "{}",
            last["status"]
        );
        Ok(())
    });
    eventually("all statuses are written", served, || {
        let waiting = site.controller_metric("paifang_controller_statuses_waiting")?;
        anyhow::ensure!(waiting == 0.0, "{waiting} wait");
        Ok(())
    });
    let mut took: Vec<Duration> = (0..changes)
        .map(|round| {
            thread::sleep(Duration::from_millis(150));
            change(
                &site,
                &namespace,
                (round * 37) % apis,
                groups,
                &format!("change {round}"),
            )
        })
        .collect();
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let id = site.controllers.lock().unwrap()[0].id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let memory: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|it| it.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    format!(
        "| {apis} | {groups} | {:.1} s | {:.1} s | {:.0} ms | {:.0} ms | {:.0} ms | {} MiB |",
        created.as_secs_f64(),
        all_served.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        memory / 1024
    )
}

const HEADING: &str = "| Apis | groups | created | all served | p50 | p99 | worst | controller memory |\n| --- | --- | --- | --- | --- | --- | --- | --- |";

/// Two thousand Apis at once: all are served, all turn Ready, and then one change is a change of one.
#[test]
fn two_thousand_apis_in_fifty_groups_at_once() {
    println!("{HEADING}\n{}", row(2_000, 50, 30));
}

/// The table of docs/scale.md: `cargo test -p paifang --test cluster -- --ignored --nocapture table`. With `APIS` set, that row alone.
#[test]
#[ignore = "takes minutes; prints a table"]
fn table() {
    let only: Option<usize> = std::env::var("APIS").ok().and_then(|it| it.parse().ok());
    let rows = match only {
        Some(apis) => vec![(apis, (apis / 40).max(1))],
        None => vec![(100, 10), (2_000, 50), (20_000, 500)],
    };
    println!("{HEADING}");
    for (apis, groups) in rows {
        println!("{}", row(apis, groups, 100));
    }
}
