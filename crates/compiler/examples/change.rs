//! What one change costs, by the number of Apis: `cargo run --release -p paifang-compiler --example change`.

use std::{sync::Arc, time::Instant};

use paifang_compiler::{
    CertificateFacts, Compiler, Memory, Object, Objects, Secret, Settings, Written,
};
use paifang_model::{ObjectName, Redacted};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn main() {
    for apis in [2_000, 20_000] {
        let mut objects = world(apis);
        let settings = Settings::new(|_| Ok(CertificateFacts::default()));
        let mut compiler = Compiler::default();
        let began = Instant::now();
        let first = compiler.compile(&objects, &Memory::default(), &settings);
        println!("{apis} from nothing {:?}", began.elapsed());
        let memory = first.memory;
        for turn in 0..3 {
            let api = objects.apis.get_mut(&name("a7")).expect("there");
            if let Written::Spec(spec) = &mut api.written {
                Arc::make_mut(spec).description = Some(format!("turn {turn}"));
            }
            let began = Instant::now();
            compiler.compile(&objects, &memory, &settings);
            println!("{apis} one Api {:?}", began.elapsed());
        }
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("demo", name)
}

fn object<S: DeserializeOwned>(spec: Value) -> Object<S> {
    Object::new(serde_json::from_value(spec).expect("a spec"))
}

fn world(apis: usize) -> Objects {
    let mut objects = Objects::default();
    for group in 0..apis / 40 {
        objects.groups.insert(
            name(&format!("g{group}")),
            object(json!({"stageVariables": {"RELEASE": {"v": "1"}}})),
        );
        objects.backend_services.insert(
            name(&format!("b{group}")),
            object(json!({"type": "HTTP", "stages": {"TEST": {"http": {"address": "http://10.0.0.1"}}, "RELEASE": {"http": {"address": "http://10.0.0.2"}}}})),
        );
        objects.apps.insert(
            name(&format!("p{group}")),
            object(json!({"credentials": [{"name": "k", "type": "KeyPair", "secretRef": {"name": format!("k{group}")}}]})),
        );
        let mut secret = Secret::default();
        for key in ["appKey", "appSecret"] {
            let value = format!("{key}{group}").into_bytes();
            secret.data.insert(key.to_owned(), Redacted::new(value));
        }
        objects.secrets.insert(name(&format!("k{group}")), secret);
        let opened: Vec<Value> = (0..40)
            .map(|at| json!({"name": format!("a{}", group * 40 + at)}))
            .collect();
        objects.authorizations.insert(
            name(&format!("z{group}")),
            object(json!({"apis": opened, "apps": [{"name": format!("p{group}")}], "stage": "RELEASE"})),
        );
    }
    for api in 0..apis {
        objects.apis.insert(
            name(&format!("a{api}")),
            object(json!({
                "groupRef": {"name": format!("g{}", api / 40)},
                "request": {"method": "GET", "path": format!("/a{api}/[x]"), "parameters": [
                    {"name": "x", "in": "Path", "minLength": 1}, {"name": "y", "in": "Query", "type": "Int", "default": "1"},
                ]},
                "backend": {"serviceRef": {"name": format!("b{}", api / 40)}, "path": "/x/[x]"},
                "stages": {"RELEASE": {}, "TEST": {}},
            })),
        );
    }
    objects
}
