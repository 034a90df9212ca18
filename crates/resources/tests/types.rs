//! The types against their own schema: nothing a user writes is lost, and both give the same defaults.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::{fs, path::Path};

use paifang_resources::{
    Api, ApiGroup, App, Authorization, BackendService, DomainBinding, Kind, definitions,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

#[test]
fn nothing_that_is_written_is_lost() {
    for (file, object) in objects() {
        let written = through_type(&object);
        assert_contains(&written, &object, &file);
        assert_eq!(
            through_type(&written),
            written,
            "{file}: a second pass changes nothing"
        );
    }
}

#[test]
fn types_and_schema_give_the_same_defaults() {
    for (file, object) in objects() {
        let mut defaulted = object.clone();
        apply_defaults(&mut defaulted, &schema(kind(&object)));
        // The default of a whole status is the API server's affair: a type says that there is none yet.
        if object.get("status").is_none() {
            defaulted.as_object_mut().unwrap().remove("status");
        }
        assert_eq!(through_type(&object), defaulted, "{file}");
    }
}

#[test]
fn unknown_fields_are_ignored_as_the_api_server_does() {
    for (file, object) in objects() {
        let mut extended = object.clone();
        extended["spec"]["zzz"] = true.into();
        assert_eq!(through_type(&extended), through_type(&object), "{file}");
    }
}

#[test]
fn every_kind_has_a_sample() {
    let mut kinds: Vec<Kind> = objects().iter().map(|(_, object)| kind(object)).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds, Kind::ALL.to_vec());
}

#[test]
fn status_begins_as_pending() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        let conditions = schema["properties"]["status"]["default"]["conditions"]
            .as_array()
            .unwrap()
            .clone();
        let types: Vec<&str> = conditions
            .iter()
            .filter_map(|condition| condition["type"].as_str())
            .collect();
        assert_eq!(
            types,
            ["Accepted", "ResolvedRefs", "Programmed", "Ready"],
            "{kind}"
        );
        for condition in &conditions {
            assert_eq!(condition["status"], "Unknown");
            assert_eq!(condition["reason"], "Pending");
        }
    }
}

#[test]
fn the_type_of_a_backend_service_cannot_change() {
    let schema = schema(Kind::BackendService);
    let rules = &schema["properties"]["spec"]["properties"]["type"]["x-kubernetes-validations"];
    assert_eq!(rules[0]["rule"], "self == oldSelf");
}

#[test]
fn no_field_has_a_name_that_yaml_reads_as_a_boolean() {
    fn visit(schema: &Value, path: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let trap = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
            assert!(
                !trap.contains(&name.to_lowercase().as_str()),
                "{path}.{name}"
            );
            visit(property, &format!("{path}.{name}"));
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                visit(&schema[inner], path);
            }
        }
    }
    for kind in Kind::ALL {
        visit(&schema(kind), kind.name());
    }
}

#[test]
fn every_text_list_and_map_is_bounded_and_described() {
    fn visit(schema: &Value, path: &str) {
        match schema["type"].as_str() {
            Some("string") => assert!(
                schema["maxLength"].is_u64()
                    || schema["enum"].is_array()
                    || schema["format"] == "date-time",
                "{path}: no maxLength"
            ),
            Some("array") => {
                assert!(schema["maxItems"].is_u64(), "{path}: no maxItems");
                visit(&schema["items"], &format!("{path}[]"));
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                assert!(schema["maxProperties"].is_u64(), "{path}: no maxProperties");
                visit(&schema["additionalProperties"], &format!("{path}{{}}"));
            }
            _ => {}
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            assert!(
                property["description"].is_string(),
                "{path}: no description"
            );
            visit(property, &path);
        }
    }
    for kind in Kind::ALL {
        let schema = schema(kind);
        for part in ["spec", "status"] {
            visit(&schema["properties"][part], &format!("{kind}.{part}"));
        }
    }
}

/// Reads an object as its type and writes it again.
fn through_type(object: &Value) -> Value {
    fn pass<K: DeserializeOwned + Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
    }
    match kind(object) {
        Kind::ApiGroup => pass::<ApiGroup>(object),
        Kind::BackendService => pass::<BackendService>(object),
        Kind::Api => pass::<Api>(object),
        Kind::App => pass::<App>(object),
        Kind::Authorization => pass::<Authorization>(object),
        Kind::DomainBinding => pass::<DomainBinding>(object),
    }
}

/// `whole` may have more fields than `part`, never fewer and never other values.
fn assert_contains(whole: &Value, part: &Value, path: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                let path = format!("{path} {name}");
                let found = whole.get(name).unwrap_or_else(|| panic!("{path} is lost"));
                assert_contains(found, value, &path);
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{path}");
            for (index, (whole, part)) in whole.iter().zip(part).enumerate() {
                assert_contains(whole, part, &format!("{path} {index}"));
            }
        }
        _ => assert_eq!(whole, part, "{path}"),
    }
}

/// What the API server does when it reads an object: absent fields get their default, then the fields inside.
fn apply_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = property.get("default").filter(|_| !map.contains_key(name)) {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(inner) = map.get_mut(name) {
                    apply_defaults(inner, property);
                }
            }
            if schema["additionalProperties"].is_object() {
                for inner in map.values_mut() {
                    apply_defaults(inner, &schema["additionalProperties"]);
                }
            }
        }
        Value::Array(list) => {
            for inner in list {
                apply_defaults(inner, &schema["items"]);
            }
        }
        _ => {}
    }
}

fn schema(kind: Kind) -> Value {
    let definition = definitions()
        .into_iter()
        .find(|definition| definition.spec.names.kind == kind.name());
    let definition = serde_json::to_value(definition.unwrap()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn kind(object: &Value) -> Kind {
    object["kind"].as_str().unwrap().parse().unwrap()
}

/// Every object of `tests/crds/valid` with its file's name.
fn objects() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds/valid");
    let mut objects = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let found: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        objects.extend(found.into_iter().map(|object| (name.clone(), object)));
    }
    objects
}
