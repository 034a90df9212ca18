//! Changes one after the other, told one by one: a compiler that looks only at what was touched answers as one that looks at everything.

use std::collections::{BTreeMap, BTreeSet};

use paifang_compiler::{
    Admission, Compiler, ConditionKind, Kind, Memory, ObjectId, Objects, Problem, Reason, Request,
    Status, Touched, compile,
};
use paifang_model::{ObjectName, Stage};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::admission::any as any_object;
use crate::support::{documents, gather, id, settings, touched, update_as};

/// Few names, so that objects meet: two groups of two namespaces, routes, hosts, keys and Secrets that several ask for.
const WORLD: &str = r#"
kind: ApiGroup
metadata: {name: g0, namespace: demo}
spec: {stageVariables: {RELEASE: {v: "1"}, TEST: {v: "2"}}, allowedNamespaces: {from: Selector, selector: {matchLabels: {team: a}}}}
---
kind: ApiGroup
metadata: {name: g1, namespace: demo}
spec: {}
---
kind: ApiGroup
metadata: {name: g2, namespace: other}
spec: {allowedNamespaces: {from: All}}
---
{kind: Namespace, metadata: {name: other, labels: {team: a}}}
---
kind: BackendService
metadata: {name: b0, namespace: demo}
spec: {type: HTTP, deletionPolicy: Block, stages: {TEST: {http: {address: "http://10.0.0.1"}}, RELEASE: {http: {address: "https://10.0.0.2", tls: {caSecretRef: {name: ca}}}}}}
---
kind: BackendService
metadata: {name: b1, namespace: demo}
spec: {type: VPC, stages: {RELEASE: {vpc: {service: {name: s, port: 80}}}, TEST: {vpc: {service: {name: s, namespace: other, port: http}}}}}
---
kind: BackendService
metadata: {name: b0, namespace: other}
spec: {type: Mock, stages: {RELEASE: {mock: {}}, TEST: {mock: {body: hello}}}}
---
{kind: Service, metadata: {name: s, namespace: demo}, spec: {ports: [{port: 80, ready: ["10.0.0.1:80"]}]}}
---
{kind: Service, metadata: {name: s, namespace: other}, spec: {ports: [{name: http, port: 80, ready: ["10.0.0.3:80"]}]}}
---
kind: ReferenceGrant
metadata: {name: r, namespace: other}
spec: {from: [{group: paifang.dev, kind: BackendService, namespace: demo}], to: [{group: "", kind: Service}]}
---
kind: Api
metadata: {name: a0, namespace: demo, creationTimestamp: "2024-01-02T00:00:00Z"}
spec: {groupRef: {name: g0}, request: {method: GET, path: /a}, backend: {serviceRef: {name: b0}, path: "/#v#"}, stages: {RELEASE: {}, TEST: {}}, revisionHistoryLimit: 2}
---
kind: Api
metadata: {name: a1, namespace: demo}
spec: {groupRef: {name: g0}, request: {method: GET, path: /b}, backend: {serviceRef: {name: b1}}, stages: {RELEASE: {}}}
---
kind: Api
metadata: {name: a2, namespace: demo}
spec: {groupRef: {name: g1}, request: {method: GET, path: /a}, backend: {mock: {}}, stages: {RELEASE: {}, PRE: {}}}
---
kind: Api
metadata: {name: a0, namespace: other}
spec: {groupRef: {name: g0, namespace: demo}, request: {method: GET, path: /a}, backend: {serviceRef: {name: b0}}, stages: {TEST: {}}}
---
kind: Api
metadata: {name: a1, namespace: other}
spec: {groupRef: {name: g2}, request: {method: POST, path: /a}, backend: {http: {address: "https://10.0.0.9", tls: {clientCertificateRef: {name: pair}}}}, stages: {RELEASE: {release: 1}}}
---
kind: App
metadata: {name: p0, namespace: demo}
spec: {credentials: [{name: k, type: KeyPair, secretRef: {name: k0}}, {name: c, type: AppCode, secretRef: {name: c0}}]}
---
kind: App
metadata: {name: p1, namespace: demo, creationTimestamp: "2024-01-01T00:00:00Z"}
spec: {credentials: [{name: k, type: KeyPair, secretRef: {name: k1}}, {name: made, type: AppCode}]}
---
{kind: Secret, metadata: {name: k0, namespace: demo}, stringData: {appKey: one, appSecret: s}}
---
{kind: Secret, metadata: {name: k1, namespace: demo}, stringData: {appKey: two, appSecret: s}}
---
{kind: Secret, metadata: {name: c0, namespace: demo}, stringData: {appCode: code}}
---
{kind: Secret, metadata: {name: ca, namespace: demo}, stringData: {ca.crt: "CA 1"}}
---
{kind: Secret, metadata: {name: pair, namespace: other}, stringData: {tls.crt: "CERT 1 d.example.com", tls.key: "KEY 1"}}
---
{kind: Secret, metadata: {name: pair, namespace: demo}, stringData: {tls.crt: "CERT 1 d.example.com", tls.key: "KEY 1", ca.crt: "CA"}}
---
kind: Authorization
metadata: {name: z0, namespace: demo}
spec: {apis: [{name: a0}, {name: a1}], apps: [{name: p0}, {name: p1}], stage: RELEASE}
---
kind: Authorization
metadata: {name: z1, namespace: demo}
spec: {group: {name: g1}, apps: [{name: p0}], stage: RELEASE}
---
kind: Authorization
metadata: {name: z0, namespace: other}
spec: {group: {name: g0, namespace: demo}, apps: [{name: p1, namespace: demo}], stage: TEST}
---
kind: DomainBinding
metadata: {name: d0, namespace: demo}
spec: {groupRef: {name: g0}, domain: d.example.com, tls: {secretRef: {name: pair}}}
---
kind: DomainBinding
metadata: {name: d1, namespace: demo}
spec: {groupRef: {name: g1}, domain: e.example.com, tls: {secretRef: {name: pair}, clientCaSecretRef: {name: ca}}}
---
kind: DomainBinding
metadata: {name: d0, namespace: other}
spec: {groupRef: {name: g2}, domain: e.example.com}
"#;

/// A field that is changed, and what may be written there.
const EDITS: &[(&str, &str, &[&str])] = &[
    (
        "Api",
        "/spec/groupRef",
        &[
            r#"{"name":"g0"}"#,
            r#"{"name":"g1"}"#,
            r#"{"name":"g0","namespace":"demo"}"#,
            r#"{"name":"g2","namespace":"other"}"#,
            r#"{"name":"none"}"#,
        ],
    ),
    (
        "Api",
        "/spec/request/path",
        &[r#""/a""#, r#""/b""#, r#""/c""#, r#""wrong""#],
    ),
    (
        "Api",
        "/spec/backend",
        &[
            r#"{"serviceRef":{"name":"b0"}}"#,
            r#"{"serviceRef":{"name":"b1"}}"#,
            r##"{"serviceRef":{"name":"b0"},"path":"/#v#"}"##,
            r#"{"mock":{}}"#,
            r#"{"serviceRef":{"name":"none"}}"#,
        ],
    ),
    (
        "Api",
        "/spec/stages",
        &[
            "{}",
            r#"{"RELEASE":{}}"#,
            r#"{"TEST":{}}"#,
            r#"{"RELEASE":{"release":1},"TEST":{}}"#,
            r#"{"RELEASE":{"release":9}}"#,
            r#"{"RELEASE":{},"TEST":{},"PRE":{}}"#,
        ],
    ),
    ("Api", "/spec/description", &[r#""x""#, r#""y""#, r#""z""#]),
    ("Api", "/spec", &["3"]),
    ("Api", "/metadata/uid", &[r#""u1""#, r#""u2""#]),
    (
        "Api",
        "/metadata/creationTimestamp",
        &[
            "null",
            r#""2020-01-01T00:00:00Z""#,
            r#""2030-01-01T00:00:00Z""#,
        ],
    ),
    (
        "BackendService",
        "/spec/stages",
        &[
            "{}",
            r#"{"RELEASE":{"http":{"address":"http://10.0.0.7"}}}"#,
            r#"{"RELEASE":{"http":{"address":"http://10.0.0.8"}},"TEST":{"http":{"address":"http://10.0.0.8"}}}"#,
            r#"{"RELEASE":{"mock":{}}}"#,
            r#"{"TEST":{"vpc":{"service":{"name":"s","namespace":"other","port":"http"}}}}"#,
            r#"{"RELEASE":{"http":{"address":"https://10.0.0.2","tls":{"caSecretRef":{"name":"ca"},"clientCertificateRef":{"name":"pair"}}}}}"#,
        ],
    ),
    (
        "BackendService",
        "/spec/deletionPolicy",
        &[r#""Block""#, r#""TakeOffline""#],
    ),
    ("BackendService", "/spec/type", &[r#""HTTP""#, r#""Mock""#]),
    ("BackendService", "/metadata/uid", &[r#""u1""#, r#""u2""#]),
    (
        "ApiGroup",
        "/spec/stageVariables",
        &[
            "{}",
            r#"{"RELEASE":{"v":"3"}}"#,
            r#"{"RELEASE":{"v":"/"},"TEST":{"v":"2"}}"#,
        ],
    ),
    (
        "ApiGroup",
        "/spec/allowedNamespaces",
        &[
            r#"{"from":"Same"}"#,
            r#"{"from":"All"}"#,
            r#"{"from":"Selector","selector":{"matchLabels":{"team":"a"}}}"#,
            r#"{"from":"Selector"}"#,
        ],
    ),
    ("ApiGroup", "/spec/basePath", &[r#""/""#, r#""/v1""#]),
    ("ApiGroup", "/spec/qpsLimit", &["1", "0"]),
    ("ApiGroup", "/metadata/uid", &[r#""u1""#, r#""u2""#]),
    (
        "App",
        "/spec/credentials/0/secretRef/name",
        &[r#""k0""#, r#""k1""#],
    ),
    ("App", "/spec/disabled", &["true", "false"]),
    ("App", "/spec", &["{}", "3"]),
    (
        "Secret",
        "/stringData",
        &[
            "{}",
            r#"{"appKey":"one","appSecret":"t"}"#,
            r#"{"appKey":"two","appSecret":"t"}"#,
            r#"{"appCode":"code"}"#,
            r#"{"tls.crt":"CERT 2 e.example.com","tls.key":"KEY 2","ca.crt":"CA 2"}"#,
            r#"{"tls.crt":"CERT 2","tls.key":"KEY 3","ca.crt":"no"}"#,
        ],
    ),
    (
        "Service",
        "/spec/ports",
        &[
            "[]",
            r#"[{"port":80,"ready":["10.0.0.5:80"]}]"#,
            r#"[{"name":"http","port":80},{"name":"x","port":81,"ready":["10.0.0.6:80"]}]"#,
        ],
    ),
    ("Namespace", "/metadata/labels", &["{}", r#"{"team":"a"}"#]),
    (
        "ReferenceGrant",
        "/spec/to",
        &["[]", r#"[{"group":"","kind":"Service"}]"#],
    ),
    (
        "Authorization",
        "/spec/apps",
        &[
            r#"[{"name":"p0"}]"#,
            r#"[{"name":"p1","namespace":"demo"}]"#,
            "[]",
        ],
    ),
    (
        "Authorization",
        "/spec/stage",
        &[r#""RELEASE""#, r#""TEST""#],
    ),
    (
        "DomainBinding",
        "/spec/domain",
        &[
            r#""d.example.com""#,
            r#""e.example.com""#,
            r#""*.example.com""#,
            r#""-""#,
        ],
    ),
    (
        "DomainBinding",
        "/spec/groupRef/name",
        &[r#""g0""#, r#""g1""#, r#""g2""#],
    ),
    (
        "DomainBinding",
        "/metadata/creationTimestamp",
        &["null", r#""2020-01-01T00:00:00Z""#],
    ),
];

/// One step of a history: which edit, of which object, to what; or the object goes or comes back as it was.
#[derive(Debug, Clone)]
enum Step {
    Edit(
        prop::sample::Index,
        prop::sample::Index,
        prop::sample::Index,
    ),
    Turn(prop::sample::Index),
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        8 => (at(), at(), at()).prop_map(|(edit, object, to)| Step::Edit(edit, object, to)),
        3 => at().prop_map(Step::Turn),
        1 => Just(Step::Nothing),
    ]
}

fn edit(
    documents: &mut [Value],
    edit: &(&str, &str, &[&str]),
    object: prop::sample::Index,
    to: prop::sample::Index,
) {
    let (kind, pointer, values) = edit;
    let mut of_kind: Vec<&mut Value> = documents
        .iter_mut()
        .filter(|it| it["kind"] == *kind)
        .collect();
    if of_kind.is_empty() {
        return;
    }
    let at = object.index(of_kind.len());
    let document = &mut *of_kind[at];
    let value: Value = serde_json::from_str(values[to.index(values.len())]).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let Some(parent) = document.pointer_mut(parent) else {
        return;
    };
    match (parent, key.parse::<usize>()) {
        (Value::Object(map), _) => drop(map.insert(key.to_owned(), value)),
        (Value::Array(list), Ok(at)) if at < list.len() => list[at] = value,
        _ => {}
    }
}

/// What is there of the world goes, and what is gone comes back.
fn turn(documents: &mut Vec<Value>, world: &[Value], which: prop::sample::Index) {
    let chosen = &world[which.index(world.len())];
    match documents.iter().position(|it| id(it) == id(chosen)) {
        Some(at) => drop(documents.remove(at)),
        None => documents.push(chosen.clone()),
    }
}

fn small() -> paifang_compiler::Settings {
    let mut settings = settings();
    settings.limits.apis_per_group = 2;
    settings.limits.domains_per_group = 1;
    settings
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_update_answers_what_a_compile_answers(steps in prop::collection::vec((step(), 1_usize..4), 1..40)) {
        let world = documents(WORLD);
        let mut documents = world.clone();
        let mut compiled = Vec::new();
        let mut compiler = Compiler::new(Memory::default(), small());
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            let objects = gather(&documents);
            let expected = compile(&objects, compiler.memory(), &small());
            update_as(&mut compiler, &objects, &touched(&compiled, &documents), &expected);
            compiled.clone_from(&documents);
            let together = steps.peek().map_or(1, |(_, together)| *together);
            for (step, _) in steps.by_ref().take(together) {
                match step {
                    Step::Edit(at, object, to) => edit(&mut documents, &EDITS[at.index(EDITS.len())], object, to),
                    Step::Turn(which) => turn(&mut documents, &world, which),
                    Step::Nothing => {}
                }
            }
        }
    }
}

/// Until nothing is to be decided any more.
fn come_to_rest(compiler: &mut Compiler, objects: &Objects) {
    for _ in 0..10 {
        if !compiler.update(objects, &Touched::default()).unsettled {
            return;
        }
    }
    panic!("it never comes to rest");
}

/// Each stage in which an Api answers.
fn online(compiler: &Compiler) -> BTreeSet<(Stage, ObjectName)> {
    let mut online = BTreeSet::new();
    for (id, verdict) in compiler.verdicts() {
        if let Status::Api(status) = &verdict.status {
            let stages = status.stages.iter().filter(|(_, it)| it.is_published());
            online.extend(stages.map(|(stage, _)| (stage.clone(), id.name.clone())));
        }
    }
    online
}

/// What admission said, against what came of it.
fn check_foresight(
    admission: &Admission,
    before: &BTreeSet<(Stage, ObjectName)>,
    compiler: &Compiler,
    id: &ObjectId,
) {
    let verdict = compiler.verdict(id);
    let problems = verdict.iter().flat_map(|it| &it.problems);
    let refused: Vec<&Problem> = problems
        .filter(|it| it.reason.condition() == ConditionKind::Accepted)
        .filter(|it| it.reason != Reason::GroupFull)
        .filter(|it| id.kind != Kind::App || !it.field.ends_with(']'))
        .collect();
    assert_eq!(
        admission.refusals.iter().collect::<Vec<_>>(),
        refused,
        "{id}"
    );
    if !refused.is_empty() {
        return;
    }
    let now = online(compiler);
    let mut lost: BTreeMap<&Stage, Vec<String>> = BTreeMap::new();
    for (stage, api) in before.difference(&now) {
        lost.entry(stage).or_default().push(api.to_string());
    }
    let expected: Vec<String> = lost
        .iter()
        .map(|(stage, apis)| {
            let plural = if apis.len() == 1 { "" } else { "s" };
            let count = apis.len();
            format!(
                "this takes {count} Api{plural} offline in {stage}: {}",
                apis.join(", ")
            )
        })
        .collect();
    let said = admission.warnings.iter();
    let said: Vec<&String> = said
        .filter(|it| it.contains("Api") && it.contains(" offline in "))
        .collect();
    assert_eq!(said, expected.iter().collect::<Vec<_>>(), "{id}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_beforehand_comes_true(steps in prop::collection::vec(step(), 1..20)) {
        let world = documents(WORLD);
        let mut documents = world.clone();
        let mut objects = gather(&documents);
        let mut compiler = Compiler::new(Memory::default(), small());
        for step in steps {
            come_to_rest(&mut compiler, &objects);
            let before = documents.clone();
            match step {
                Step::Edit(at, object, to) => edit(&mut documents, &EDITS[at.index(EDITS.len())], object, to),
                Step::Turn(which) => turn(&mut documents, &world, which),
                Step::Nothing => {}
            }
            let touched = touched(&before, &documents);
            let asked = touched.objects.first().map(|id| {
                let name = id.to_string();
                let document = documents.iter().find(|it| crate::support::id(it) == name);
                let object = document.map(|it| any_object(it).1);
                let request = match &object {
                    Some(object) => Request::Write { name: &id.name, object },
                    None => Request::Delete { id },
                };
                (id.clone(), compiler.admit(&objects, &request), online(&compiler))
            });
            // An edit of what stands outside of the spec, or that spells the same otherwise, is let through.
            let spec = |documents: &[Value], name: &str| {
                let mut document = documents.iter().find(|it| id(it) == name)?.clone();
                let meta = document["metadata"].as_object_mut().unwrap();
                meta.retain(|key, _| key == "name" || key == "namespace");
                Some(format!("{:?}", any_object(&document)))
            };
            objects = gather(&documents);
            compiler.update(&objects, &touched);
            if let Some((id, admission, online)) = asked {
                let name = id.to_string();
                let now = spec(&documents, &name);
                if now.is_none() && !admission.refusals.is_empty() {
                    // `Block` is for who asks: what is gone is gone.
                    assert_eq!(id.kind, Kind::BackendService);
                } else if now != spec(&before, &name) {
                    check_foresight(&admission, &online, &compiler, &id);
                }
            }
        }
    }
}

#[test]
fn other_settings_are_taken_over_by_the_next_update() {
    let documents = documents(WORLD);
    let objects = gather(&documents);
    let mut compiler = Compiler::new(Memory::default(), small());
    compiler.update(&objects, &Touched::default());
    let mut wide = settings();
    wide.public_suffix = "gateway.example.com".to_owned();
    wide.addresses.loopback = false;
    compiler.set_settings(wide.clone());
    let expected = compile(&objects, compiler.memory(), &wide);
    update_as(&mut compiler, &objects, &Touched::default(), &expected);
}

#[test]
fn nothing_is_said_when_nothing_is_different() {
    let documents = documents(WORLD);
    let objects = gather(&documents);
    let mut compiler = Compiler::new(Memory::default(), settings());
    let first = compiler.update(&objects, &Touched::default());
    assert!(first.unsettled && first.groups.len() == 3);
    assert_eq!(first.secrets_to_make, compiler.secrets_to_make());
    assert_eq!(first.secrets_to_make.len(), 1);
    let again = compiler.update(&objects, &Touched::default());
    assert!(again.is_empty() && !again.unsettled, "{again:?}");
    // Everything is named, and nothing is different.
    let again = compiler.update(&objects, &touched(&[], &documents));
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn a_change_reaches_only_its_own_group() {
    let mut documents = documents(WORLD);
    let mut compiler = Compiler::new(Memory::default(), settings());
    compiler.update(&gather(&documents), &Touched::default());
    compiler.update(&gather(&documents), &Touched::default());
    let before = documents.clone();
    let api = documents
        .iter_mut()
        .find(|it| id(it) == "Api demo/a2")
        .unwrap();
    api["spec"]["description"] = json!("another");
    let update = compiler.update(&gather(&documents), &touched(&before, &documents));
    let names: Vec<String> = update.groups.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["demo/g1"]);
    let told: Vec<String> = update.verdicts.keys().map(ToString::to_string).collect();
    assert_eq!(told, ["Api demo/a2"]);
}
