//! Objects from YAML, and what compile answers as text without secrets.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use paifang_compiler::{
    CertificateFacts, Compiled, Compiler, Condition, GrantFrom, GrantTo, Kind, Memory, Object,
    ObjectId, Objects, Problem, Reason, ReferenceGrant, Secret, Service, ServicePort, Settings,
    Status, Touched, Update, Verdict, Written, compile,
};
use paifang_model::{ObjectName, Redacted};
use paifang_snapshot::wire::{Certificate, Proof, Snapshot};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Settings for tests: loopback backends, and a check that reads `CERT <id> <names>`, `KEY <id>` and `CA` instead of PEM.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::new(check_certificate);
    settings.addresses.loopback = true;
    settings
}

fn check_certificate(material: &Certificate) -> Result<CertificateFacts, String> {
    if material.ca.as_ref().is_some_and(|ca| !ca.starts_with("CA")) {
        return Err("no CA can be read".to_owned());
    }
    let (Some(chain), Some(key)) = (&material.chain, &material.key) else {
        return Ok(CertificateFacts::default());
    };
    let mut words = chain.split_whitespace();
    if words.next() != Some("CERT") {
        return Err("no certificate can be read".to_owned());
    }
    if words.next() != key.expose().strip_prefix("KEY ") {
        return Err("the key does not belong to the certificate".to_owned());
    }
    Ok(CertificateFacts {
        names: words.map(str::to_owned).collect(),
        not_after_ms: None,
    })
}

/// The documents of a YAML text.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("test YAML is well-formed")
}

/// `kind namespace/name` of a document.
pub(crate) fn id(document: &Value) -> String {
    let meta = &document["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or("default");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {namespace}/{}",
        text(&document["kind"]),
        text(&meta["name"])
    )
}

/// Gathers documents.
pub(crate) fn gather(documents: &[Value]) -> Objects {
    let mut objects = Objects::default();
    for document in documents {
        add(&mut objects, document);
    }
    objects
}

fn add(objects: &mut Objects, document: &Value) {
    let meta = &document["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or("default");
    let name = ObjectName::new(
        namespace,
        meta["name"].as_str().expect("every document has a name"),
    );
    match document["kind"].as_str().unwrap_or_default() {
        "ApiGroup" => put(&mut objects.groups, name, document),
        "BackendService" => put(&mut objects.backend_services, name, document),
        "Api" => put(&mut objects.apis, name, document),
        "App" => put(&mut objects.apps, name, document),
        "Authorization" => put(&mut objects.authorizations, name, document),
        "DomainBinding" => put(&mut objects.domain_bindings, name, document),
        "Secret" => {
            objects.secrets.insert(name, secret(document));
        }
        "Service" => {
            objects.services.insert(name, service(document));
        }
        "ReferenceGrant" => {
            objects.reference_grants.insert(name, grant(document));
        }
        "Namespace" => {
            let labels = strings(&meta["labels"]);
            objects.namespaces.insert(name.name.to_string(), labels);
        }
        other => panic!("unknown kind {other}"),
    }
}

fn put<S: DeserializeOwned>(
    map: &mut BTreeMap<ObjectName, Object<S>>,
    name: ObjectName,
    document: &Value,
) {
    let meta = &document["metadata"];
    let written = match serde_json::from_value(document["spec"].clone()) {
        Ok(spec) => Written::Spec(Arc::new(spec)),
        Err(error) => Written::Malformed(vec![Problem::new("spec", Reason::Malformed, error, "")]),
    };
    let object = Object {
        uid: meta["uid"].as_str().map(Into::into),
        created: serde_json::from_value(meta["creationTimestamp"].clone()).ok(),
        written,
    };
    assert!(map.insert(name, object).is_none(), "the same object twice");
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

fn secret(document: &Value) -> Secret {
    Secret {
        kind: document["type"].as_str().unwrap_or("Opaque").to_owned(),
        data: strings(&document["stringData"])
            .into_iter()
            .map(|(key, value)| (key, Redacted::new(value.into_bytes())))
            .collect(),
    }
}

fn service(document: &Value) -> Service {
    let spec = &document["spec"];
    let ports = spec["ports"].as_array().cloned().unwrap_or_default();
    Service {
        external_name: spec["externalName"].as_str().map(str::to_owned),
        ports: ports
            .iter()
            .filter_map(|port| {
                Some(ServicePort {
                    name: port["name"].as_str().map(str::to_owned),
                    number: port["port"].as_u64()?.try_into().ok()?,
                    app_protocol: port["appProtocol"].as_str().map(str::to_owned),
                    ready: ready(&port["ready"]),
                })
            })
            .collect(),
    }
}

fn ready(value: &Value) -> Vec<SocketAddr> {
    let list = value.as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|it| it.as_str()?.parse().ok())
        .collect()
}

fn grant(document: &Value) -> ReferenceGrant {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let spec = &document["spec"];
    ReferenceGrant {
        from: list(&spec["from"])
            .iter()
            .map(|it| GrantFrom {
                group: text(&it["group"]),
                kind: text(&it["kind"]),
                namespace: text(&it["namespace"]),
            })
            .collect(),
        to: list(&spec["to"])
            .iter()
            .map(|it| GrantTo {
                group: text(&it["group"]),
                kind: text(&it["kind"]),
                name: it["name"].as_str().map(str::to_owned),
            })
            .collect(),
    }
}

/// What is different between two folders.
pub(crate) fn touched(before: &[Value], now: &[Value]) -> Touched {
    let by_id = |documents: &[Value]| -> BTreeMap<String, Value> {
        documents.iter().map(|it| (id(it), it.clone())).collect()
    };
    let (before, now) = (by_id(before), by_id(now));
    let mut touched = Touched::default();
    for key in before.keys().chain(now.keys()) {
        if before.get(key) != now.get(key) {
            touch(&mut touched, key);
        }
    }
    touched
}

fn touch(touched: &mut Touched, id: &str) {
    let (kind, name) = id.split_once(' ').expect("kind and name");
    let name: ObjectName = name.parse().expect("a name");
    match kind {
        "Secret" => touched.secrets.insert(name),
        "Service" => touched.services.insert(name),
        "ReferenceGrant" => touched.reference_grants.insert(name),
        "Namespace" => touched.namespaces.insert(name.name.to_string()),
        _ => {
            let kinds = Kind::ALL.iter();
            let kind = kinds.copied().find(|it| it.name() == kind);
            let kind = kind.expect("one of the six");
            touched.objects.insert(ObjectId { kind, name })
        }
    };
}

/// Updates, and compares all that is known then, and all that the update says, with a compile from nothing but the memory.
pub(crate) fn update_as(
    compiler: &mut Compiler,
    objects: &Objects,
    touched: &Touched,
    expected: &Compiled,
) -> Update {
    let memory = compiler.memory().clone();
    let snapshot = compiler.snapshot().clone();
    let verdicts = compiler.verdicts().clone();
    let update = compiler.update(objects, touched);
    let now = compiler.snapshot();
    // Compared part by part first: a whole snapshot is too long to read.
    assert_eq!(
        differing(&now.groups, &expected.snapshot.groups),
        BTreeMap::new(),
        "{touched:?}"
    );
    let verdicts_now = compiler.verdicts();
    assert_eq!(
        differing(verdicts_now, &expected.verdicts),
        BTreeMap::new(),
        "{touched:?} not {:?}",
        differing(&expected.verdicts, verdicts_now)
    );
    assert!(*now == expected.snapshot, "{touched:?}");
    let memory_now = compiler.memory();
    let keys = memory_now.changes(&expected.memory);
    let shown = keys
        .iter()
        .map(|key| (memory_now.entry(key), expected.memory.entry(key)));
    assert!(
        keys.is_empty(),
        "{touched:?}: {keys:?} {:?}",
        shown.collect::<Vec<_>>()
    );
    assert_eq!(compiler.secrets_to_make(), expected.secrets_to_make);
    // What was different, and only that, was said; the rest is the very same.
    assert_eq!(update.groups, differing(&snapshot.groups, &now.groups));
    assert_eq!(update.verdicts, differing(&verdicts, compiler.verdicts()));
    for (id, verdict) in compiler.verdicts() {
        let before = verdicts.get(id);
        assert!(
            update.verdicts.contains_key(id) || before.is_some_and(|it| Arc::ptr_eq(it, verdict))
        );
    }
    let keys = compiler.memory().changes(&memory);
    assert_eq!(update.memory, keys.into_iter().collect());
    assert_eq!(update.unsettled, !update.memory.is_empty());
    assert_eq!(update.apps, snapshot.apps != now.apps);
    assert_eq!(update.credentials, snapshot.credentials != now.credentials);
    let certificates = differing(&snapshot.certificates, &now.certificates);
    assert_eq!(update.certificates, certificates.into_keys().collect());
    let endpoints = differing(&snapshot.endpoints, &now.endpoints);
    assert_eq!(update.endpoints, endpoints.into_keys().collect());
    update
}

fn differing<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    now: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let keys = before.keys().chain(now.keys());
    keys.filter(|key| before.get(*key) != now.get(*key))
        .map(|key| (key.clone(), now.get(key).cloned()))
        .collect()
}

/// Compiles documents from nothing.
pub(crate) fn compile_documents(documents: &[Value]) -> Compiled {
    compile(&gather(documents), &Memory::default(), &settings())
}

/// The verdict on `kind namespace/name`.
pub(crate) fn verdict<'c>(compiled: &'c Compiled, id: &str) -> &'c Verdict {
    let found = compiled
        .verdicts
        .iter()
        .find(|(known, _)| known.to_string() == id);
    found.unwrap_or_else(|| panic!("no verdict on {id}")).1
}

/// Everything that compile answers but secrets, and `memory` by its release numbers.
pub(crate) fn render(compiled: &Compiled) -> Value {
    let verdicts = compiled
        .verdicts
        .iter()
        .map(|(id, verdict)| (ObjectId::to_string(id), render_verdict(verdict)))
        .collect();
    let mut answer = render_snapshot(&compiled.snapshot);
    answer["secretsToMake"] = compiled
        .secrets_to_make
        .iter()
        .map(|it| json!(format!("{} for {} ({:?})", it.secret, it.app, it.kind)))
        .collect();
    answer["verdicts"] = Value::Object(verdicts);
    answer
}

pub(crate) fn render_snapshot(snapshot: &Snapshot) -> Value {
    let groups: BTreeMap<String, _> = snapshot
        .groups
        .iter()
        .map(|(name, group)| (name.to_string(), &**group))
        .collect();
    let credentials: Vec<String> = snapshot
        .credentials
        .iter()
        .map(|it| {
            let shown = match &it.proof {
                Proof::KeyPair { app_key, .. } => format!("AppKey {app_key}"),
                Proof::AppCode { .. } => "AppCode".to_owned(),
            };
            let times = (it.not_before_ms, it.expires_at_ms);
            format!("{} {}: {shown} {times:?}", it.app, it.name)
        })
        .collect();
    let certificates: BTreeMap<String, Vec<&str>> = snapshot
        .certificates
        .iter()
        .map(|(name, it)| {
            let parts = [
                ("chain", it.chain.is_some()),
                ("key", it.key.is_some()),
                ("ca", it.ca.is_some()),
            ];
            let there = parts
                .iter()
                .filter(|(_, there)| *there)
                .map(|(name, _)| *name);
            (name.to_string(), there.collect())
        })
        .collect();
    let endpoints: BTreeMap<String, &Vec<SocketAddr>> = snapshot
        .endpoints
        .iter()
        .map(|((name, port), ready)| (format!("{name} {port}"), ready))
        .collect();
    json!({
        "groups": groups,
        "apps": &*snapshot.apps,
        "credentials": credentials,
        "certificates": certificates,
        "endpoints": endpoints,
    })
}

fn render_verdict(verdict: &Verdict) -> Value {
    let condition = |it: &Condition| {
        let line = format!(
            "{}={} {} {}",
            it.kind.as_str(),
            it.status.as_str(),
            it.reason,
            it.message
        );
        json!(line.trim_end())
    };
    let problem = |it: &Problem| json!(format!("{} at {it}", it.reason));
    json!({
        "conditions": verdict.conditions.iter().map(condition).collect::<Value>(),
        "problems": verdict.problems.iter().map(problem).collect::<Value>(),
        "status": render_status(&verdict.status),
    })
}

fn render_status(status: &Status) -> Value {
    match status {
        Status::Authorization => Value::Null,
        Status::ApiGroup(it) => json!({
            "groupId": it.group_id, "public": it.public, "internal": it.internal, "apis": it.apis, "domains": it.domains,
        }),
        Status::Api(it) => {
            let stages: BTreeMap<String, Value> = it
                .stages
                .iter()
                .map(|(stage, it)| {
                    let told = json!({
                        "release": it.release, "hash": it.hash.as_ref().map(|hash| &hash[..8]), "address": it.address,
                        "service": it.service.as_ref().map(ToString::to_string),
                        "reason": it.problem.as_ref().map(|it| it.reason.as_str()),
                    });
                    (stage.to_string(), told)
                })
                .collect();
            json!({"latestRelease": it.latest_release, "stages": stages})
        }
        Status::BackendService(it) => {
            let stages: BTreeMap<String, Value> = it
                .stages
                .iter()
                .map(|(stage, it)| {
                    let failures: Vec<String> = it
                        .failures
                        .iter()
                        .map(|it| format!("{} of {}: {}", it.api, it.group, it.problem.reason))
                        .collect();
                    (
                        stage.to_string(),
                        json!({"apis": it.apis, "failures": failures}),
                    )
                })
                .collect();
            json!({"drafts": it.drafts, "stages": stages})
        }
        Status::App(it) => {
            let credentials: Vec<String> = it
                .credentials
                .iter()
                .map(|it| {
                    let state = it.problem.as_ref().map_or("good", |it| it.reason.as_str());
                    format!(
                        "{} {} {state}",
                        it.name,
                        it.app_key.as_deref().unwrap_or("-")
                    )
                })
                .collect();
            json!({"appId": it.app_id, "credentials": credentials})
        }
        Status::DomainBinding(it) => json!({
            "published": it.published,
            "certificate": it.certificate.as_ref().map(|it| &it.names),
        }),
    }
}

/// A value as YAML, enough for people to review.
pub(crate) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    write_yaml(value, 0, &mut out);
    out
}

fn write_yaml(value: &Value, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                out.push_str(&format!("{pad}{}:", scalar(&json!(key))));
                write_nested(value, depth + 1, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                out.push_str(&format!("{pad}-"));
                write_nested(value, depth + 1, out);
            }
        }
        leaf => out.push_str(&format!("{pad}{}\n", scalar(leaf))),
    }
}

fn write_nested(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        write_yaml(value, depth, out);
    } else {
        out.push_str(&format!(" {}\n", scalar(value)));
    }
}

/// Plain words stay plain; everything else is quoted as JSON, which YAML reads too.
fn scalar(value: &Value) -> String {
    let plain = |text: &str| {
        text.chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '/')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-./ ".contains(c))
            && !text.ends_with(' ')
            && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text)
    };
    match value {
        Value::String(text) if plain(text) => text.clone(),
        other => other.to_string(),
    }
}
