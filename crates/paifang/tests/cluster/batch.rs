//! A BackendService with five hundred Apis on it: what a change of address, a stage that is taken away and a deletion do to them, what is
//! said beforehand, and what the status shows meanwhile.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use paifang_testkit::{
    Net, Program, eventually,
    load::{Load, Running},
};
use serde_json::{Value, json};

use crate::site::{PATIENCE, Site, find};

const HOST: &str = "batch.example.com";
const APIS: usize = 500;
const GROUPS: usize = 5;
/// How long many things may take on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// A namespace with a BackendService `shop` that all its Apis go through.
struct Batch {
    site: Site,
    namespace: String,
    /// Backends: each answers with the address it was called by.
    echoes: [Echo; 2],
}

struct Echo {
    address: String,
    _process: Program,
}

/// Everything that is said about an object, as `kubectl get --watch` sees it.
struct Watched(Child);

fn echo(site: &Site, name: &str) -> Echo {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paifang"));
    command.args(["echo", "--listen", "127.0.0.1:0"]);
    let process = site.plane().spawn(name, command).unwrap();
    let address = eventually("the backend listens", PATIENCE, || {
        let log = process.log();
        let address = log.lines().find_map(|it| it.strip_prefix("ready echo="));
        address.map(str::to_owned).ok_or(log)
    });
    Echo {
        address,
        _process: process,
    }
}

fn api(number: usize, path: &str, backend: &str) -> Value {
    json!({
        "apiVersion": "paifang.dev/v1alpha1", "kind": "Api", "metadata": {"name": format!("a{number}")},
        "spec": {
            "groupRef": {"name": format!("g{}", number % GROUPS)}, "auth": {"type": "Anonymous"},
            "request": {"protocols": ["HTTP"], "method": "GET", "path": path},
            "backend": {"serviceRef": {"name": "shop"}, "path": backend},
            "stages": {"RELEASE": {}, "TEST": {}},
        },
    })
}

impl Batch {
    fn new() -> Self {
        let site = Site::start_asking(2);
        let namespace = site.plane().namespace().unwrap();
        let echoes = ["first", "second"].map(|name| echo(&site, name));
        let batch = Self {
            site,
            namespace,
            echoes,
        };
        let of = |plural: &str| batch.path(plural, "");
        let stage = json!({"http": {"address": batch.url(0)}});
        let mut objects = vec![(
            of("backendservices"),
            json!({
                "apiVersion": "paifang.dev/v1alpha1", "kind": "BackendService", "metadata": {"name": "shop"},
                "spec": {"type": "HTTP", "stages": {"RELEASE": stage, "TEST": stage}},
            }),
        )];
        for group in 0..GROUPS {
            let name = json!({"name": format!("g{group}")});
            objects.push((
                of("apigroups"),
                json!({
                    "apiVersion": "paifang.dev/v1alpha1", "kind": "ApiGroup", "metadata": name,
                    "spec": {"basePath": format!("/g{group}"), "qpsLimit": 1_000_000},
                }),
            ));
            objects.push((
                of("domainbindings"),
                json!({
                    "apiVersion": "paifang.dev/v1alpha1", "kind": "DomainBinding", "metadata": name,
                    "spec": {"groupRef": name, "domain": HOST},
                }),
            ));
        }
        batch.site.plane().create_all(&objects).unwrap();
        let apis: Vec<(String, Value)> = (0..APIS)
            .map(|number| (of("apis"), api(number, &format!("/{number}"), "/x")))
            .collect();
        batch.site.plane().create_all(&apis).unwrap();
        batch
    }

    fn path(&self, plural: &str, name: &str) -> String {
        let Self { namespace, .. } = self;
        let path = format!("/apis/paifang.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}");
        path.trim_end_matches('/').to_owned()
    }

    fn url(&self, echo: usize) -> String {
        format!("http://{}", self.echoes[echo].address)
    }

    /// Whether kubectl did it, and all that it shows.
    fn kubectl(&self, args: &[&str]) -> (bool, String) {
        let mut command = self.site.plane().admin().command("kubectl");
        let output = command
            .args(["-n", &self.namespace])
            .args(args)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// Changes the BackendService.
    fn patch(&self, patch: &Value) -> (bool, String) {
        let patch = patch.to_string();
        self.kubectl(&[
            "patch",
            "backendservice",
            "shop",
            "--type=merge",
            "-p",
            &patch,
        ])
    }

    /// The update of a stage, once it is over.
    fn finished(&self, stage: &str, generation: u64) -> Value {
        eventually(&format!("the change of {stage} is over"), LONG, || {
            let service = self.site.get(&self.namespace, "backendservices", "shop")?;
            let update = service["status"]["stages"][stage]["update"].clone();
            anyhow::ensure!(
                update["generation"] == generation && !update["finishedAt"].is_null(),
                "{update}"
            );
            Ok(update)
        })
    }

    fn generation(&self) -> u64 {
        let service = self.site.get(&self.namespace, "backendservices", "shop");
        service.unwrap()["metadata"]["generation"].as_u64().unwrap()
    }

    /// Calls of one Api of each group in a stage, through both gateways, until it is stopped.
    fn load(&self, stage: &str) -> Vec<Running> {
        let call = |number: usize| {
            let gateway = &self.site.gateways[number % 2];
            let path = format!("/g{}/{number}", number % GROUPS);
            Load::new(&Net::Host, gateway.address(), HOST, &path)
                .header("X-Ca-Stage", stage)
                .connections(1)
                .duration(Duration::from_secs(300))
                .pause(Duration::from_millis(10))
                .start()
        };
        [0, 101, 202, 303, 499].map(call).into()
    }

    /// Where a call of an Api ends; or its status.
    fn reaches(&self, gateway: usize, number: usize, stage: &str) -> anyhow::Result<String> {
        let path = format!("/g{}/{number}", number % GROUPS);
        let headers = [("X-Ca-Stage", stage)];
        let answer = self.site.gateways[gateway].get(HOST, &path, &headers)?;
        if answer.status != 200 {
            return Ok(answer.status.to_string());
        }
        let host = answer.json()?["headers"]["host"][0].clone();
        Ok(host.as_str().unwrap_or_default().to_owned())
    }

    /// Every Api on every gateway ends there.
    fn all_reach(&self, stage: &str, wanted: &str) {
        for gateway in 0..self.site.gateways.len() {
            for number in 0..APIS {
                let reached = self.reaches(gateway, number, stage).unwrap();
                assert_eq!(
                    reached, wanted,
                    "Api a{number} in {stage} on gateway {gateway}"
                );
            }
        }
    }

    fn watch(&self) -> Watched {
        let file = std::fs::File::create(self.site.plane().folder().join("watched.json")).unwrap();
        let mut command = self.site.plane().admin().command("kubectl");
        command.args([
            "-n",
            &self.namespace,
            "get",
            "backendservice",
            "shop",
            "--watch",
            "-o",
            "json",
        ]);
        Watched(command.stdout(Stdio::from(file)).spawn().unwrap())
    }

    /// Every update of a stage that was seen, one after the other.
    fn seen(&self, mut watched: Watched, stage: &str) -> Vec<Value> {
        watched.0.kill().unwrap();
        watched.0.wait().unwrap();
        let text = std::fs::read(self.site.plane().folder().join("watched.json")).unwrap();
        let objects = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
        objects
            .filter_map(Result::ok)
            .map(|it| it["status"]["stages"][stage]["update"].clone())
            .filter(|update| !update.is_null())
            .collect()
    }
}

fn count(update: &Value, key: &str) -> u64 {
    update[key].as_u64().unwrap_or_default()
}

/// What is shown adds up, whenever somebody looks.
fn must_add_up(updates: &[Value]) {
    for update in updates {
        let parts = ["succeeded", "inProgress", "waiting", "failed"];
        let sum: u64 = parts.iter().map(|key| count(update, key)).sum();
        assert_eq!(count(update, "total"), sum, "{update}");
        let over = count(update, "inProgress") + count(update, "waiting") == 0;
        assert_eq!(over, !update["finishedAt"].is_null(), "{update}");
        assert!(!update["startedAt"].is_null(), "{update}");
    }
}

fn stop(loads: Vec<Running>) {
    for load in loads {
        load.stop().must_be_flawless(20);
    }
}

#[test]
fn a_change_of_a_backend_service_moves_five_hundred_apis_and_takes_exactly_one_stage_offline() {
    let batch = Batch::new();
    eventually("all go through it", LONG, || {
        let service = batch
            .site
            .get(&batch.namespace, "backendservices", "shop")?;
        let stages = &service["status"]["stages"];
        anyhow::ensure!(
            stages["RELEASE"]["apis"] == APIS && stages["TEST"]["apis"] == APIS,
            "{stages}"
        );
        Ok(())
    });
    for number in [0, 101, 202, 303, 499] {
        let api = format!("a{number}");
        batch
            .site
            .until(&batch.namespace, "apis", &api, "Ready", "True");
    }
    let (test, release) = (batch.load("TEST"), batch.load("RELEASE"));
    moves_all(&batch);
    lists_what_cannot_move(&batch);
    block_refuses(&batch);
    stop(test);
    takes_one_stage_offline(&batch);
    brings_it_back(&batch);
    stop(release);
}

/// The address of RELEASE changes: all are moved, none of TEST.
fn moves_all(batch: &Batch) {
    let watched = batch.watch();
    let to = batch.url(1);
    let (done, said) =
        batch.patch(&json!({"spec": {"stages": {"RELEASE": {"http": {"address": to}}}}}));
    assert!(done, "{said}");
    assert!(
        said.contains(&format!("Warning: this moves 500 Apis in RELEASE to {to}")),
        "{said}"
    );
    let update = batch.finished("RELEASE", 2);
    assert_eq!(count(&update, "total"), 500, "{update}");
    assert_eq!(count(&update, "succeeded"), 500, "{update}");
    batch.all_reach("RELEASE", &batch.echoes[1].address);
    batch.all_reach("TEST", &batch.echoes[0].address);
    let seen = batch.seen(watched, "RELEASE");
    must_add_up(&seen);
    let last = seen.last().expect("the watch saw the change");
    assert_eq!(count(last, "succeeded"), 500, "{last}");
    assert!(seen.iter().all(|it| count(it, "total") == 500), "{seen:?}");
}

/// Apis that cannot be published are named with the reason, and the others move.
fn lists_what_cannot_move(batch: &Batch) {
    let path = batch.path("apis", "");
    let mut objects: Vec<(String, Value)> = (600..603)
        .map(|number| {
            (
                path.clone(),
                api(number, &format!("/{number}"), "/#region#/x"),
            )
        })
        .collect();
    // a1 has that path.
    objects.push((path, api(606, "/1", "/x")));
    batch.site.plane().create_all(&objects).unwrap();
    for number in [600, 601, 602, 606] {
        let api = format!("a{number}");
        batch
            .site
            .until(&batch.namespace, "apis", &api, "Ready", "False");
    }
    let to = batch.url(0);
    let (done, said) =
        batch.patch(&json!({"spec": {"stages": {"RELEASE": {"http": {"address": to}}}}}));
    assert!(done, "{said}");
    let update = batch.finished("RELEASE", 3);
    assert_eq!(count(&update, "total"), 504, "{update}");
    assert_eq!(count(&update, "succeeded"), 500, "{update}");
    let failures: Vec<String> = update["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            assert_eq!(it["namespace"], batch.namespace.as_str());
            let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            let (group, api, reason) = (text("group"), text("api"), text("reason"));
            format!("{group} {api} {reason}: {}", text("message"))
        })
        .collect();
    let starts = [
        "g0 a600 StageVariableMissing: spec.backend: the stage variable #region# has no value in stage RELEASE; add it to spec.stageVariables.RELEASE of ApiGroup ",
        "g1 a601 StageVariableMissing: ",
        "g2 a602 StageVariableMissing: ",
        "g1 a606 Conflicted: spec.request.path: ",
    ];
    assert_eq!(failures.len(), starts.len(), "{failures:?}");
    for (failure, start) in failures.iter().zip(starts) {
        assert!(failure.starts_with(start), "{failure}");
    }
    batch.all_reach("RELEASE", &batch.echoes[0].address);
}

/// With `deletionPolicy: Block` nothing is taken away that is in use, and it is said what to do.
fn block_refuses(batch: &Batch) {
    let (done, said) = batch.patch(&json!({"spec": {"deletionPolicy": "Block"}}));
    assert!(done, "{said}");
    assert!(!said.contains("Warning"), "{said}");
    let lose = json!({"spec": {"stages": {"TEST": null}}});
    for (done, said) in [
        batch.patch(&lose),
        batch.kubectl(&["delete", "backendservice", "shop"]),
    ] {
        assert!(!done, "{said}");
        for part in [
            "spec.stages.TEST: cannot be removed: 500 published Apis go through it, and deletionPolicy is Block: ",
            "and 495 more",
            "take them offline in TEST first",
            "or write `deletionPolicy: TakeOffline`",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    batch.all_reach("TEST", &batch.echoes[0].address);
    let (done, said) = batch.patch(&json!({"spec": {"deletionPolicy": "TakeOffline"}}));
    assert!(done, "{said}");
}

/// A stage without configuration is offline for every Api, and no other stage is.
fn takes_one_stage_offline(batch: &Batch) {
    let (done, said) = batch.patch(&json!({"spec": {"stages": {"TEST": null}}}));
    assert!(done, "{said}");
    assert!(
        said.contains("Warning: this takes 500 Apis offline in TEST: ")
            && said.contains("and 495 more"),
        "{said}"
    );
    let generation = batch.generation();
    let update = batch.finished("TEST", generation);
    assert_eq!(count(&update, "failed"), 504, "{update}");
    assert_eq!(count(&update, "total"), 504, "{update}");
    let rows = update["failures"].as_array().unwrap();
    assert!(
        rows.iter().all(|it| it["reason"] == "BackendStageMissing"),
        "{rows:?}"
    );
    eventually("every Api says why", LONG, || {
        let list = batch
            .site
            .plane()
            .ask("GET", &batch.path("apis", ""), &Value::Null)?;
        let apis = list["items"].as_array().unwrap();
        for api in apis {
            let stage = &api["status"]["stages"]["TEST"];
            anyhow::ensure!(
                stage["reason"] == "BackendStageMissing" && stage["state"] == "Offline",
                "{}: {stage}",
                api["metadata"]["name"]
            );
        }
        let said = find(&apis[0], "PartiallyInvalid");
        let message = said["message"].as_str().unwrap_or_default();
        anyhow::ensure!(message.contains("add spec.stages.TEST there"), "{said}");
        Ok(())
    });
    batch.all_reach("TEST", "404");
    batch.all_reach("RELEASE", &batch.echoes[0].address);
}

/// The stage is configured again, and everything is as before.
fn brings_it_back(batch: &Batch) {
    let stage = json!({"http": {"address": batch.url(1)}});
    let (done, said) = batch.patch(&json!({"spec": {"stages": {"TEST": stage}}}));
    assert!(done, "{said}");
    let generation = batch.generation();
    let update = batch.finished("TEST", generation);
    assert_eq!(count(&update, "succeeded"), 500, "{update}");
    assert_eq!(count(&update, "failed"), 4, "{update}");
    batch.all_reach("TEST", &batch.echoes[1].address);
    let dry = ["delete", "backendservice", "shop", "--dry-run=server"];
    let (done, said) = batch.kubectl(&dry);
    assert!(done, "{said}");
    for stage in ["RELEASE", "TEST"] {
        let warning = format!("Warning: this takes 500 Apis offline in {stage}: ");
        assert!(said.contains(&warning), "{said}");
    }
}
