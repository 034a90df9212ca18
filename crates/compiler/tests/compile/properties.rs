//! What must hold for any input.

use std::{collections::BTreeMap, time::Instant};

use paifang_compiler::{Compiled, Compiler, Memory, Touched, compile};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{compile_documents, documents, gather, id, render, render_snapshot, settings};

/// Eight groups that share nothing, each with an Api, a backend service, a domain, an App and an Authorization.
fn world() -> Vec<Value> {
    (0..8).flat_map(|at| documents(&island(at))).collect()
}

fn island(at: usize) -> String {
    format!(
        r#"
kind: ApiGroup
metadata: {{name: g{at}, namespace: demo}}
spec: {{stageVariables: {{RELEASE: {{v: "{at}"}}}}}}
---
kind: BackendService
metadata: {{name: b{at}, namespace: demo}}
spec: {{type: VPC, stages: {{RELEASE: {{vpc: {{service: {{name: s{at}, port: 80}}}}}}}}}}
---
kind: Service
metadata: {{name: s{at}, namespace: demo}}
spec: {{ports: [{{port: 80, ready: ["10.0.0.1:80", "10.0.0.2:80"]}}]}}
---
kind: Api
metadata: {{name: a{at}, namespace: demo}}
spec:
  groupRef: {{name: g{at}}}
  request: {{method: GET, path: "/a/[x]", parameters: [{{name: x, in: Path}}, {{name: q, in: Query, pattern: "^a$"}}]}}
  backend: {{serviceRef: {{name: b{at}}}, path: "/#v#/[x]"}}
  stages: {{RELEASE: {{}}}}
---
kind: App
metadata: {{name: p{at}, namespace: demo}}
spec: {{credentials: [{{name: k, type: KeyPair, secretRef: {{name: k{at}}}}}]}}
---
kind: Secret
metadata: {{name: k{at}, namespace: demo}}
stringData: {{appKey: key{at}, appSecret: s{at}}}
---
kind: Authorization
metadata: {{name: z{at}, namespace: demo}}
spec: {{apis: [{{name: a{at}}}], apps: [{{name: p{at}}}], stage: RELEASE}}
---
kind: DomainBinding
metadata: {{name: d{at}, namespace: demo}}
spec: {{groupRef: {{name: g{at}}}, domain: d{at}.example.com}}
"#
    )
}

/// What each object and group came out as; positions aside.
fn entries(compiled: &Compiled) -> BTreeMap<String, Value> {
    let answer = render(compiled);
    let mut entries = BTreeMap::new();
    for part in ["groups", "verdicts", "endpoints", "certificates"] {
        for (name, value) in answer[part].as_object().into_iter().flatten() {
            entries.insert(format!("{part} {name}"), value.clone());
        }
    }
    for line in answer["credentials"].as_array().into_iter().flatten() {
        let text = line.as_str().unwrap_or_default();
        entries.insert(format!("credential {text}"), line.clone());
    }
    entries
}

/// Something to put somewhere: right, wrong, or of another shape.
fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!("/")),
        Just(json!("demo")),
        Just(json!("a0")),
        Just(json!("g1")),
        Just(json!("/#x#/[x]/*")),
        Just(json!("d1.example.com")),
        Just(json!("10.0.0.1:1")),
        Just(json!({})),
        Just(json!([])),
        Just(json!({"release": 3})),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(4_000_000_000_u64)),
        Just(json!(true)),
        "[ -~]{0,12}".prop_map(Value::from),
    ]
}

/// Every place below `value`, as JSON pointers.
fn places(value: &Value, prefix: &str, found: &mut Vec<String>) {
    found.push(prefix.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, &format!("{prefix}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                places(value, &format!("{prefix}/{at}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_the_input_gives_the_same(seed in any::<u64>()) {
        let mut documents = world();
        let expected = compile_documents(&documents);
        let mut state = seed | 1;
        for at in (1..documents.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            documents.swap(at, usize::try_from(state % 1000).unwrap() % (at + 1));
        }
        for document in &mut documents {
            if let Some(ready) = document.pointer_mut("/spec/ports/0/ready") {
                ready.as_array_mut().unwrap().reverse();
            }
        }
        let compiled = compile_documents(&documents);
        prop_assert_eq!(&compiled.snapshot, &expected.snapshot);
        prop_assert_eq!(&compiled.verdicts, &expected.verdicts);
        let bytes = |it: &Compiled| serde_json::to_string(&it.memory).unwrap();
        prop_assert_eq!(bytes(&compiled), bytes(&expected));
        prop_assert_eq!(
            render_snapshot(&compiled.snapshot).to_string(),
            render_snapshot(&expected.snapshot).to_string()
        );
    }

    /// Whatever happens to one object of one island, with or without what is remembered, the other islands do not change.
    #[test]
    fn any_change_of_one_object_leaves_the_others_as_they_are(
        object in 0_usize..8, place in any::<prop::sample::Index>(), value in anything(), remembered in any::<bool>(),
    ) {
        let mut documents = world();
        let memory = if remembered {
            compile_documents(&documents).memory
        } else {
            Memory::default()
        };
        let expected = entries(&compile(&gather(&documents), &memory, &settings()));
        // The objects of the island in the middle, so that names sort on both sides of it.
        let document = &mut documents[3 * 8 + object];
        let touched = id(document);
        let part = if touched.starts_with("Secret") { "stringData" } else { "spec" };
        let mut found = Vec::new();
        places(&document[part], &format!("/{part}"), &mut found);
        *document.pointer_mut(place.get(found.as_slice()).as_str()).unwrap() = value.clone();
        let compiled = entries(&compile(&gather(&documents), &memory, &settings()));
        for at in (0..8).filter(|at| *at != 3) {
            for kind in ["g", "a", "b", "p", "z", "d", "s"] {
                let name = format!("demo/{kind}{at}");
                for (key, value) in expected.iter().filter(|(key, _)| key.contains(&name)) {
                    // An edit may aim at another island: what it asks for there is its own affair, what is there stays.
                    let now = compiled.get(key).unwrap_or(&Value::Null);
                    prop_assert!(contains(now, value), "{key} after {touched} {value}:\n{now}\n{value}");
                }
            }
        }
    }
}

/// Whether everything of `before` is in `now`; a group may have got an Api or a domain more.
fn contains(now: &Value, before: &Value) -> bool {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => before.iter().all(|(key, value)| {
            matches!(
                key.as_str(),
                "api"
                    | "backend"
                    | "drafts"
                    | "apis"
                    | "domains"
                    | "failures"
                    | "conditions"
                    | "problems"
            ) && now.get(key).is_some()
                || now.get(key).is_some_and(|now| contains(now, value))
        }),
        (Value::Array(now), Value::Array(before)) => before
            .iter()
            .all(|value| now.iter().any(|now| contains(now, value))),
        (now, before) => now == before,
    }
}

#[test]
fn two_thousand_apis_compile_quickly() {
    let mut documents = documents(
        "{kind: ApiGroup, metadata: {name: g0}, spec: {}}\n---\n{kind: ApiGroup, metadata: {name: g1}, spec: {}}",
    );
    for at in 0..2000 {
        documents.push(json!({
            "kind": "Api", "metadata": {"name": format!("a{at}")},
            "spec": {
                "groupRef": {"name": format!("g{}", at % 2)},
                "request": {"method": "GET", "path": format!("/a{at}/[x]"), "parameters": [
                    {"name": "x", "in": "Path", "minLength": 1}, {"name": "y", "in": "Query", "type": "Int", "default": "1"},
                ]},
                "backend": {"mock": {}}, "stages": {"RELEASE": {}, "TEST": {}},
            },
        }));
    }
    let objects = gather(&documents);
    let started = Instant::now();
    let first = compile(&objects, &Memory::default(), &settings());
    let from_nothing = started.elapsed();
    let mut compiler = Compiler::new(first.memory.clone(), settings());
    compiler.update(&objects, &Touched::default());
    let started = Instant::now();
    let update = compiler.update(&objects, &Touched::everything());
    let unchanged = started.elapsed();
    println!("2,000 Apis: {from_nothing:?} from nothing, {unchanged:?} again");
    assert!(update.is_empty(), "{update:?}");
    assert_eq!(*compiler.snapshot(), first.snapshot);
    assert_eq!(
        first
            .snapshot
            .groups
            .values()
            .map(|it| it.routes.len())
            .sum::<usize>(),
        4000
    );
    // Two orders of magnitude above what it takes.
    assert!(from_nothing.as_secs() < 20 && unchanged.as_secs() < 20);
}
