//! Objects to measure with: many Apis in groups of 40, as somebody with many would write them.

use super::{Object, Objects, Secret};
use paifang_model::{ObjectName, Redacted};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Apis in one group, and behind one BackendService.
const IN_GROUP: usize = 40;

/// Apis behind the BackendService that many share.
const SHARING: usize = 500;

pub(crate) fn name(name: &str) -> ObjectName {
    ObjectName::new("demo", name)
}

pub(crate) fn object<S: DeserializeOwned>(spec: Value) -> Object<S> {
    Object::new(serde_json::from_value(spec).expect("a spec"))
}

pub(crate) fn secret(group: usize, app_secret: &str) -> Secret {
    let mut secret = Secret::default();
    for (key, value) in [
        ("appKey", format!("key{group}")),
        ("appSecret", app_secret.to_owned()),
    ] {
        secret
            .data
            .insert(key.to_owned(), Redacted::new(value.into_bytes()));
    }
    secret
}

pub(crate) fn backend(address: &str) -> Value {
    let stage = json!({"http": {"address": address}});
    json!({"type": "HTTP", "stages": {"TEST": stage, "RELEASE": stage}})
}

pub(crate) fn authorization(group: usize) -> Value {
    let opened: Vec<Value> = (0..IN_GROUP)
        .map(|at| json!({"name": format!("a{}", group * IN_GROUP + at)}))
        .collect();
    json!({"apis": opened, "apps": [{"name": format!("p{group}")}], "stage": "RELEASE"})
}

pub(crate) fn api(at: usize) -> Value {
    let service = match at {
        0 => "alone".to_owned(),
        at if at <= SHARING => "shared".to_owned(),
        at => format!("b{}", at / IN_GROUP),
    };
    json!({
        "groupRef": {"name": format!("g{}", at / IN_GROUP)},
        "request": {"method": "GET", "path": format!("/a{at}/[x]"), "parameters": [
            {"name": "x", "in": "Path", "minLength": 1}, {"name": "y", "in": "Query", "type": "Int", "default": "1"},
        ]},
        "backend": {
            "serviceRef": {"name": service}, "path": "/x/[x]",
            "constants": [{"name": "v", "in": "Query", "value": if at < IN_GROUP { "#v#" } else { "1" }}],
        },
        "stages": if at < IN_GROUP { json!({"RELEASE": {}}) } else { json!({"RELEASE": {}, "TEST": {}}) },
    })
}

/// Groups of 40 Apis, each with an App that may call them; 500 Apis share a BackendService.
pub(crate) fn world(apis: usize) -> Objects {
    let mut objects = Objects::default();
    let variables = json!({"stageVariables": {"RELEASE": {"v": "none"}}});
    for service in ["alone", "shared"] {
        let spec = backend("http://10.0.0.1");
        objects.backend_services.insert(name(service), object(spec));
    }
    for group in 0..apis.div_ceil(IN_GROUP) {
        let spec = object(variables.clone());
        objects.groups.insert(name(&format!("g{group}")), spec);
        let spec = object(backend("http://10.0.0.2"));
        let service = name(&format!("b{group}"));
        objects.backend_services.insert(service, spec);
        let secret_ref = json!({"name": format!("k{group}")});
        let credential = json!({"name": "k", "type": "KeyPair", "secretRef": secret_ref});
        objects.apps.insert(
            name(&format!("p{group}")),
            object(json!({"credentials": [credential]})),
        );
        objects
            .secrets
            .insert(name(&format!("k{group}")), secret(group, "secret"));
        let spec = object(authorization(group));
        objects
            .authorizations
            .insert(name(&format!("z{group}")), spec);
    }
    for at in 0..apis {
        objects
            .apis
            .insert(name(&format!("a{at}")), object(api(at)));
    }
    objects
}
