//! Objects of a file, and Secrets that were made, as JSON.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use paifang_compiler::{GrantFrom, GrantTo, ReferenceGrant, Secret};
use paifang_model::{ObjectName, Redacted};
use serde_json::{Map, Value, json};

use super::FORMAT;
use crate::{
    beside::Beside,
    manifest::{AnyKind, Key, Payload},
    specs::Spec,
};

/// What a file last said that could be used.
pub(super) fn of_file(path: &Path, objects: &BTreeMap<Key, Payload>) -> Value {
    let objects = objects.iter().filter_map(|(key, payload)| {
        let content = match payload {
            Payload::Ours(spec) => spec.write().ok()?,
            Payload::Beside(beside) => write(beside),
            Payload::Malformed(_) | Payload::Unusable => return None,
        };
        let (namespace, name) = (&*key.name.namespace, &*key.name.name);
        Some(json!({"kind": key.kind.name(), "namespace": namespace, "name": name, "content": content}))
    });
    json!({"format": FORMAT, "path": path.to_string_lossy(), "objects": objects.collect::<Vec<_>>()})
}

/// Back again. Errors never repeat a value.
pub(super) fn to_file(entry: &Value) -> Result<(PathBuf, BTreeMap<Key, Payload>), String> {
    check_format(entry)?;
    let path = entry["path"].as_str().ok_or("it names no file")?;
    let objects = entry["objects"].as_array().ok_or("it has no objects")?;
    let objects: Result<BTreeMap<_, _>, String> = objects.iter().map(to_object).collect();
    Ok((PathBuf::from(path), objects?))
}

fn to_object(entry: &Value) -> Result<(Key, Payload), String> {
    let text = |field: &str| {
        entry[field]
            .as_str()
            .ok_or(format!("an object has no {field}"))
    };
    let kind = text("kind")?;
    let kind = AnyKind::named(kind).ok_or("an object's kind is unknown")?;
    let key = Key {
        kind,
        name: ObjectName::new(text("namespace")?, text("name")?),
    };
    let content = &entry["content"];
    let payload = match kind {
        AnyKind::Ours(kind) => Spec::read(kind, content.clone()).ok().map(Payload::Ours),
        kind => read(kind, content).map(Payload::Beside),
    };
    let payload = payload.ok_or_else(|| format!("{key} is not of its kind"))?;
    Ok((key, payload))
}

fn write(beside: &Beside) -> Value {
    match beside {
        Beside::Secret(secret) => write_secret(secret),
        Beside::ConfigMap => json!({}),
        Beside::Service(service) => serde_json::to_value(service).unwrap_or_default(),
        Beside::EndpointSlice(slice) => serde_json::to_value(slice).unwrap_or_default(),
        Beside::Namespace(labels) => json!(labels),
        Beside::ReferenceGrant(grant) => {
            let from = grant
                .from
                .iter()
                .map(|from| json!([from.group, from.kind, from.namespace]));
            let to = grant
                .to
                .iter()
                .map(|to| json!([to.group, to.kind, to.name]));
            json!({"from": from.collect::<Vec<_>>(), "to": to.collect::<Vec<_>>()})
        }
    }
}

fn read(kind: AnyKind, content: &Value) -> Option<Beside> {
    let typed = content.clone();
    Some(match kind {
        AnyKind::Secret => Beside::Secret(read_secret(content)?),
        AnyKind::ConfigMap => Beside::ConfigMap,
        AnyKind::Service => Beside::Service(serde_json::from_value(typed).ok()?),
        AnyKind::EndpointSlice => Beside::EndpointSlice(serde_json::from_value(typed).ok()?),
        AnyKind::Namespace => Beside::Namespace(serde_json::from_value(typed).ok()?),
        AnyKind::ReferenceGrant => Beside::ReferenceGrant(read_grant(content)?),
        AnyKind::Ours(_) => return None,
    })
}

fn read_grant(content: &Value) -> Option<ReferenceGrant> {
    let from: Vec<(String, String, String)> =
        serde_json::from_value(content["from"].clone()).ok()?;
    let to: Vec<(String, String, Option<String>)> =
        serde_json::from_value(content["to"].clone()).ok()?;
    Some(ReferenceGrant {
        from: from
            .into_iter()
            .map(|(group, kind, namespace)| GrantFrom {
                group,
                kind,
                namespace,
            })
            .collect(),
        to: to
            .into_iter()
            .map(|(group, kind, name)| GrantTo { group, kind, name })
            .collect(),
    })
}

fn write_secret(secret: &Secret) -> Value {
    let data: Map<String, Value> = secret
        .data
        .iter()
        .map(|(key, value)| (key.clone(), STANDARD.encode(value.expose()).into()))
        .collect();
    json!({"type": secret.kind, "data": data})
}

fn read_secret(content: &Value) -> Option<Secret> {
    let entries = content["data"].as_object()?;
    let data = entries.iter().map(|(key, value)| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        Some((key.clone(), Redacted::new(bytes)))
    });
    Some(Secret {
        kind: content["type"].as_str()?.to_owned(),
        data: data.collect::<Option<_>>()?,
    })
}

/// A made Secret as a manifest, so that it can be copied to where it is wanted. Its values are text.
pub(super) fn of_secret(name: &ObjectName, secret: &Secret) -> Value {
    let data: Map<String, Value> = secret
        .data
        .iter()
        .map(|(key, value)| {
            (
                key.clone(),
                String::from_utf8_lossy(value.expose()).into_owned().into(),
            )
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": &*name.namespace, "name": &*name.name},
        "type": secret.kind,
        "stringData": data,
    })
}

/// Back again.
pub(super) fn to_secret(entry: &Value) -> Result<Secret, String> {
    let data = entry["stringData"]
        .as_object()
        .ok_or("it is not a Secret that was made here")?;
    let data = data.iter().map(|(key, value)| {
        let text = value.as_str().ok_or("a value is not text")?;
        Ok((key.clone(), Redacted::new(text.as_bytes().to_vec())))
    });
    Ok(Secret {
        kind: entry["type"].as_str().unwrap_or("Opaque").to_owned(),
        data: data.collect::<Result<_, String>>()?,
    })
}

fn check_format(entry: &Value) -> Result<(), String> {
    if entry["format"] == FORMAT {
        Ok(())
    } else {
        Err("its format is unknown".to_owned())
    }
}
