//! Edits one after the other, with what compile remembers in between: stored and read again each time, as after a restart.

use paifang_compiler::{Compiled, Compiler, Memory, Reason, Status, compile};
use paifang_model::ObjectName;
use serde_json::{Value, json};

use crate::support::{
    documents, gather, id, render_snapshot, settings, touched, update_as, verdict,
};

/// A folder that is edited and compiled.
struct Folder {
    documents: Vec<Value>,
    memory: Memory,
    /// Knows nothing but what it was told has changed since.
    compiler: Compiler,
    compiled: Vec<Value>,
}

// === impl Folder ===

impl Folder {
    fn new(yaml: &str) -> Self {
        Self {
            documents: documents(yaml),
            memory: Memory::default(),
            compiler: Compiler::new(Memory::default(), settings()),
            compiled: Vec::new(),
        }
    }

    /// Compiles; what is remembered goes through JSON, entry by entry, and a compiler that is told what changed answers the same.
    fn compile(&mut self) -> Compiled {
        let objects = gather(&self.documents);
        let compiled = compile(&objects, &self.memory, &settings());
        let touched = touched(&self.compiled, &self.documents);
        update_as(&mut self.compiler, &objects, &touched, &compiled);
        self.compiled.clone_from(&self.documents);
        let mut stored = self.memory.clone();
        for key in compiled.memory.changes(&self.memory) {
            match compiled.memory.entry(&key) {
                Some(entry) => {
                    let text = entry.to_string();
                    stored
                        .restore(key, serde_json::from_str(&text).unwrap())
                        .unwrap();
                }
                None => forget(&mut stored, &key),
            }
        }
        assert_eq!(stored, compiled.memory);
        self.memory = stored;
        let again = compile(&objects, &self.memory, &settings());
        assert_eq!(
            again.snapshot, compiled.snapshot,
            "compiling again changes nothing"
        );
        assert!(again.memory.changes(&self.memory).is_empty());
        compiled
    }

    /// Sets one field of one object.
    fn set(&mut self, object: &str, pointer: &str, value: Value) -> &mut Self {
        let document = self.document(object);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = document.pointer_mut(parent).expect("the parent is there");
        parent[key] = value;
        self
    }

    fn remove(&mut self, object: &str) -> Value {
        let at = self
            .documents
            .iter()
            .position(|it| id(it) == object)
            .unwrap();
        self.documents.remove(at)
    }

    fn document(&mut self, object: &str) -> &mut Value {
        let found = self.documents.iter_mut().find(|it| id(it) == object);
        found.unwrap_or_else(|| panic!("no {object}"))
    }
}

fn forget(memory: &mut Memory, key: &paifang_compiler::MemoryKey) {
    use paifang_compiler::{Kind, MemoryKey, ObjectId};
    match key {
        MemoryKey::Certificate(name) => drop(memory.certificates.remove(name)),
        MemoryKey::Object(ObjectId { kind, name }) => match kind {
            Kind::ApiGroup => drop(memory.groups.remove(name)),
            Kind::BackendService => drop(memory.backend_services.remove(name)),
            Kind::Api => drop(memory.apis.remove(name)),
            Kind::App => drop(memory.apps.remove(name)),
            Kind::Authorization => drop(memory.authorizations.remove(name)),
            Kind::DomainBinding => drop(memory.domain_bindings.remove(name)),
        },
    }
}

/// `STAGE=release` of every stage of an Api, `-` for offline, with the reason.
fn stages(compiled: &Compiled, api: &str) -> String {
    let Status::Api(status) = &verdict(compiled, api).status else {
        panic!("not an Api");
    };
    let shown: Vec<String> = status
        .stages
        .iter()
        .map(|(stage, it)| {
            let release = it.release.map_or("-".to_owned(), |it| it.to_string());
            let reason = it.problem.as_ref().map(|it| format!("({})", it.reason));
            format!("{stage}={release}{}", reason.unwrap_or_default())
        })
        .collect();
    shown.join(" ")
}

fn accepted(compiled: &Compiled, object: &str) -> String {
    let condition = &verdict(compiled, object).conditions[0];
    format!("{} {}", condition.status.as_str(), condition.reason)
}

/// All that callers notice: an edit that is good in itself gets a number, though nothing of it may be served.
fn traffic(compiled: &Compiled) -> Value {
    let mut snapshot = render_snapshot(&compiled.snapshot);
    for group in snapshot["groups"].as_object_mut().unwrap().values_mut() {
        for api in group["apis"].as_array_mut().unwrap() {
            api["release"] = Value::Null;
        }
    }
    snapshot
}

const BASE: &str = r#"
kind: ApiGroup
metadata: {name: g, namespace: demo}
spec: {}
---
kind: BackendService
metadata: {name: b, namespace: demo}
spec: {type: HTTP, stages: {TEST: {http: {address: "http://10.0.0.1"}}, RELEASE: {http: {address: "http://10.0.0.2"}}}}
---
kind: Api
metadata: {name: a, namespace: demo}
spec:
  groupRef: {name: g}
  auth: {type: Anonymous}
  request: {method: GET, path: /a}
  backend: {serviceRef: {name: b}}
  stages: {TEST: {}, RELEASE: {}}
---
kind: DomainBinding
metadata: {name: d, namespace: demo}
spec: {groupRef: {name: g}, domain: a.example.com}
"#;

const A: &str = "Api demo/a";
const PATH: &str = "/spec/request/path";

#[test]
fn valid_edits_become_releases_and_stages_follow_or_stay() {
    let mut folder = Folder::new(BASE);
    assert_eq!(stages(&folder.compile(), A), "RELEASE=1 TEST=1");
    folder.set(
        A,
        "/spec/stages",
        json!({"TEST": {}, "RELEASE": {"release": 1}}),
    );
    assert_eq!(stages(&folder.compile(), A), "RELEASE=1 TEST=1");
    folder.set(A, PATH, json!("/a2"));
    assert_eq!(stages(&folder.compile(), A), "RELEASE=1 TEST=2");
    folder
        .set(A, PATH, json!("/a3"))
        .set(A, "/spec/stages", json!({}));
    assert_eq!(stages(&folder.compile(), A), "");
    folder.set(
        A,
        "/spec/stages",
        json!({"RELEASE": {"release": 3}, "PRE": {"release": 2}}),
    );
    assert_eq!(
        stages(&folder.compile(), A),
        "PRE=-(BackendStageMissing) RELEASE=3"
    );
    // Back to the content of release 1: a release of its own, with the same hash.
    folder.set(A, PATH, json!("/a"));
    folder.compile();
    let memory = &folder.memory.apis[&ObjectName::new("demo", "a")];
    assert_eq!(memory.releases.len(), 4);
    assert_eq!(memory.releases[0].hash, memory.releases[3].hash);
    assert_ne!(memory.releases[0].hash, memory.releases[1].hash);
}

#[test]
fn a_bad_edit_changes_nothing_in_traffic() {
    let mut folder = Folder::new(BASE);
    let before = traffic(&folder.compile());
    let edits = [
        (A, PATH, json!("no slash"), "False InvalidPath"),
        (
            A,
            "/spec/request",
            json!("not an object"),
            "False Malformed",
        ),
        (A, "/spec/groupRef/name", json!("gone"), "True Accepted"),
        (
            A,
            "/spec/backend",
            json!({"serviceRef": {"name": "gone"}}),
            "True Accepted",
        ),
        (
            A,
            "/spec/stages",
            json!({"TEST": {}, "RELEASE": {}, "nope": {}}),
            "False InvalidStage",
        ),
        (
            "ApiGroup demo/g",
            "/spec/basePath",
            json!("x"),
            "False InvalidPath",
        ),
        (
            "ApiGroup demo/g",
            "/spec/qpsLimit",
            json!("many"),
            "False Malformed",
        ),
        (
            "BackendService demo/b",
            "/spec/stages/TEST",
            json!({"http": {"address": "x"}}),
            "False InvalidAddress",
        ),
        (
            "BackendService demo/b",
            "/spec/type",
            json!("Mock"),
            "False Immutable",
        ),
        (
            "DomainBinding demo/d",
            "/spec/domain",
            json!("*"),
            "False Wildcard",
        ),
        (
            "DomainBinding demo/d",
            "/spec/groupRef/name",
            json!("gone"),
            "True Accepted",
        ),
        (
            "DomainBinding demo/d",
            "/spec/tls",
            json!({"secretRef": {"name": "gone"}}),
            "True Accepted",
        ),
    ];
    for (object, pointer, value, expected) in edits {
        let good = folder.document(object).clone();
        folder.set(object, pointer, value.clone());
        for _ in 0..2 {
            let compiled = folder.compile();
            assert_eq!(traffic(&compiled), before, "{object} {pointer} {value}");
            let expected = expected.replace("Wildcard", "InvalidHost");
            assert_eq!(
                accepted(&compiled, object),
                expected,
                "{object} {pointer} {value}"
            );
            assert!(!verdict(&compiled, object).is_clean());
        }
        *folder.document(object) = good;
        let compiled = folder.compile();
        assert!(
            verdict(&compiled, object).is_clean(),
            "{object} is good again"
        );
    }
}

#[test]
fn what_cannot_be_served_gives_way_to_what_could() {
    let mut folder = Folder::new(BASE);
    folder.compile();
    // A new draft goes through a backend service that lacks TEST: TEST keeps release 1.
    folder.documents.extend(documents(
        r#"
kind: BackendService
metadata: {name: other, namespace: demo}
spec: {type: HTTP, stages: {RELEASE: {http: {address: "http://10.0.0.3"}}}}
"#,
    ));
    folder.set(A, "/spec/backend/serviceRef/name", json!("other"));
    assert_eq!(
        stages(&folder.compile(), A),
        "RELEASE=2 TEST=1(BackendStageMissing)"
    );
    folder.set(A, "/spec/stages/RELEASE", json!({"release": 9}));
    assert_eq!(
        stages(&folder.compile(), A),
        "RELEASE=2(ReleaseNotFound) TEST=1(BackendStageMissing)"
    );
    // Without the group nothing is served; when it is back, everything is as it was.
    let group = folder.remove("ApiGroup demo/g");
    assert_eq!(
        stages(&folder.compile(), A),
        "RELEASE=-(ReleaseNotFound) TEST=-(GroupNotFound)"
    );
    folder.documents.push(group);
    assert_eq!(
        stages(&folder.compile(), A),
        "RELEASE=2(ReleaseNotFound) TEST=1(BackendStageMissing)"
    );
}

#[test]
fn an_address_moves_published_apis_without_a_release() {
    let mut folder = Folder::new(BASE);
    folder.compile();
    folder.set(
        "BackendService demo/b",
        "/spec/stages/RELEASE/http/address",
        json!("http://10.9.9.9"),
    );
    let compiled = folder.compile();
    assert_eq!(stages(&compiled, A), "RELEASE=1 TEST=1");
    assert!(traffic(&compiled).to_string().contains("10.9.9.9"));
    folder.set(
        "BackendService demo/b",
        "/spec/stages",
        json!({"TEST": {"http": {"address": "http://10.0.0.1"}}}),
    );
    assert_eq!(
        stages(&folder.compile(), A),
        "RELEASE=-(BackendStageMissing) TEST=1"
    );
}

#[test]
fn block_refuses_to_lose_a_stage_in_use() {
    let mut folder = Folder::new(BASE);
    let before = traffic(&folder.compile());
    folder.set(
        "BackendService demo/b",
        "/spec/deletionPolicy",
        json!("Block"),
    );
    folder.set(
        "BackendService demo/b",
        "/spec/stages",
        json!({"TEST": {"http": {"address": "http://10.0.0.1"}}}),
    );
    let compiled = folder.compile();
    assert_eq!(traffic(&compiled), before);
    assert_eq!(
        accepted(&compiled, "BackendService demo/b"),
        "False StageInUse"
    );
    folder.set(A, "/spec/stages", json!({"TEST": {}}));
    let compiled = folder.compile();
    assert_eq!(
        accepted(&compiled, "BackendService demo/b"),
        "True Accepted"
    );
}

#[test]
fn who_serves_a_route_or_a_host_keeps_it() {
    let mut folder = Folder::new(BASE);
    let before = folder.compile();
    // Both would win by name.
    folder.documents.extend(documents(
        r#"
kind: Api
metadata: {name: A0, namespace: aaa}
spec: {groupRef: {name: g, namespace: demo}, request: {method: GET, path: /a}, backend: {mock: {}}, stages: {RELEASE: {}}}
---
kind: Api
metadata: {name: a, namespace: aaa}
spec: {groupRef: {name: g}, request: {method: GET, path: /a}, backend: {mock: {}}, stages: {RELEASE: {}}}
---
kind: ApiGroup
metadata: {name: g, namespace: aaa}
spec: {}
---
kind: DomainBinding
metadata: {name: d, namespace: aaa}
spec: {groupRef: {name: g}, domain: a.example.com}
"#,
    ));
    folder.set(
        "ApiGroup demo/g",
        "/spec/allowedNamespaces",
        json!({"from": "All"}),
    );
    let compiled = folder.compile();
    let name = ObjectName::new("demo", "g");
    assert_eq!(
        compiled.snapshot.groups[&name].routes,
        before.snapshot.groups[&name].routes
    );
    assert_eq!(
        compiled.snapshot.groups[&name].domains,
        before.snapshot.groups[&name].domains
    );
    assert_eq!(stages(&compiled, "Api aaa/A0"), "RELEASE=-(Conflicted)");
    assert_eq!(
        accepted(&compiled, "DomainBinding aaa/d"),
        "False Conflicted"
    );
    // When the holder leaves, the other has it at once.
    folder.remove(A);
    folder.remove("DomainBinding demo/d");
    let compiled = folder.compile();
    assert_eq!(stages(&compiled, "Api aaa/A0"), "RELEASE=1");
    assert_eq!(accepted(&compiled, "DomainBinding aaa/d"), "True Accepted");
}

#[test]
fn history_is_limited_but_what_is_served_stays() {
    let mut folder = Folder::new(BASE);
    folder.set(A, "/spec/revisionHistoryLimit", json!(2));
    folder.set(
        A,
        "/spec/stages",
        json!({"RELEASE": {"release": 1}, "TEST": {}}),
    );
    for at in 0..5 {
        folder.set(A, PATH, json!(format!("/a{at}")));
        folder.compile();
    }
    let numbers = |folder: &Folder| -> Vec<u64> {
        let memory = &folder.memory.apis[&ObjectName::new("demo", "a")];
        memory.releases.iter().map(|it| it.number).collect()
    };
    assert_eq!(numbers(&folder), [1, 4, 5]);
    folder.set(A, "/spec/stages", json!({"TEST": {}}));
    folder.compile();
    assert_eq!(numbers(&folder), [4, 5]);
}

#[test]
fn the_last_good_certificate_goes_on() {
    let mut folder = Folder::new(BASE);
    folder.documents.extend(documents(
        "{kind: Secret, metadata: {name: t, namespace: demo}, stringData: {tls.crt: CERT 1, tls.key: KEY 1}}",
    ));
    folder.set(
        "DomainBinding demo/d",
        "/spec/tls",
        json!({"secretRef": {"name": "t"}}),
    );
    let good = folder.compile().snapshot;
    assert_eq!(good.certificates.len(), 1);
    folder.set("Secret demo/t", "/stringData/tls.crt", json!("CERT 2"));
    let compiled = folder.compile();
    assert_eq!(compiled.snapshot, good);
    assert_eq!(
        verdict(&compiled, "DomainBinding demo/d").problems[0].reason,
        Reason::SecretInvalid
    );
    folder.set("Secret demo/t", "/stringData/tls.key", json!("KEY 2"));
    let compiled = folder.compile();
    assert_ne!(compiled.snapshot.certificates, good.certificates);
    assert!(verdict(&compiled, "DomainBinding demo/d").is_clean());
    let renewed = compiled.snapshot;
    folder.remove("Secret demo/t");
    assert_eq!(folder.compile().snapshot, renewed);
}

#[test]
fn a_secret_that_is_gone_revokes_its_credential() {
    let mut folder = Folder::new(
        r#"
kind: App
metadata: {name: p, namespace: demo}
spec: {credentials: [{name: k, type: KeyPair, secretRef: {name: k}}]}
---
kind: Secret
metadata: {name: k, namespace: demo}
stringData: {appKey: "1", appSecret: x}
"#,
    );
    assert_eq!(folder.compile().snapshot.credentials.len(), 1);
    // An older App that takes the public AppKey does not get it.
    folder.documents.extend(documents(
        r#"
kind: App
metadata: {name: a-thief, namespace: demo, creationTimestamp: "2020-01-01T00:00:00Z"}
spec: {credentials: [{name: k, type: KeyPair, secretRef: {name: stolen}}]}
---
kind: Secret
metadata: {name: stolen, namespace: demo}
stringData: {appKey: "1", appSecret: thief}
"#,
    ));
    let compiled = folder.compile();
    assert_eq!(compiled.snapshot.credentials.len(), 1);
    assert_eq!(*compiled.snapshot.credentials[0].app.name, *"p");
    assert_eq!(accepted(&compiled, "App demo/a-thief"), "False Conflicted");
    folder.remove("App demo/a-thief");
    folder.remove("Secret demo/k");
    assert!(folder.compile().snapshot.credentials.is_empty());
}

#[test]
fn another_uid_is_another_object() {
    let mut folder = Folder::new(BASE);
    folder.set(A, "/metadata/uid", json!("one"));
    folder.compile();
    folder.set(A, PATH, json!("/b"));
    assert_eq!(stages(&folder.compile(), A), "RELEASE=2 TEST=2");
    folder
        .set(A, "/metadata/uid", json!("two"))
        .set(A, PATH, json!("broken"));
    assert_eq!(
        stages(&folder.compile(), A),
        "RELEASE=-(NoRelease) TEST=-(NoRelease)"
    );
    folder.set(A, PATH, json!("/c"));
    assert_eq!(stages(&folder.compile(), A), "RELEASE=1 TEST=1");
    let removed = folder.remove(A);
    folder.compile();
    assert!(folder.memory.apis.is_empty(), "what is gone is forgotten");
    folder.documents.push(removed);
    assert_eq!(stages(&folder.compile(), A), "RELEASE=1 TEST=1");
}

#[test]
fn two_apis_can_exchange_their_paths() {
    let mut folder = Folder::new(BASE);
    folder.documents.extend(documents(
        "{kind: Api, metadata: {name: z, namespace: demo}, spec: {groupRef: {name: g}, request: {method: GET, path: /z}, backend: {mock: {}}, stages: {RELEASE: {}}}}",
    ));
    folder.compile();
    folder
        .set(A, PATH, json!("/z"))
        .set("Api demo/z", PATH, json!("/a"));
    let compiled = folder.compile();
    assert_eq!(stages(&compiled, A), "RELEASE=2 TEST=2");
    assert_eq!(stages(&compiled, "Api demo/z"), "RELEASE=2");
}

#[test]
fn a_lowered_limit_takes_nothing_offline() {
    let documents = documents(BASE);
    let objects = gather(&documents);
    let first = compile(&objects, &Memory::default(), &settings());
    let mut strict = settings();
    strict.limits.backend_timeout_ms = 1;
    let second = compile(&objects, &first.memory, &strict);
    assert_eq!(second.snapshot, first.snapshot);
}
