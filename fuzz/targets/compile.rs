//! Objects as people write them: compile never panics, gives the same for the same, remembers what it accepted, and hands the
//! gateway nothing that the gateway cannot load.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use paifang_compiler::{CertificateFacts, Compiled, Memory, Object, Objects, Secret, Settings, compile};
use paifang_model::{ObjectName, Redacted};
use paifang_snapshot::table::Table;
use serde_json::Value;

// An array of objects, each `{kind, metadata: {name}, spec}`.
fuzz_target!(|bytes: &[u8]| {
    let Ok(Value::Array(written)) = serde_json::from_slice::<Value>(bytes) else { return };
    let mut objects = Objects::default();
    for object in &written {
        add(&mut objects, object);
    }
    let mut settings = Settings::new(|_| Ok(CertificateFacts::default()));
    settings.addresses.loopback = true;

    let first = compile(&objects, &Memory::default(), &settings);
    let again = compile(&objects, &Memory::default(), &settings);
    assert!(first.snapshot == again.snapshot && first.memory == again.memory, "the same objects, another answer");
    assert_eq!(first.verdicts.len(), again.verdicts.len());
    loads(&first);

    // Nothing changed: nothing changes, neither what is served nor what is remembered.
    let next = compile(&objects, &first.memory, &settings);
    assert!(next.snapshot == first.snapshot, "compiling again changed what is served");
    assert!(next.memory == first.memory, "compiling again changed what is remembered");

    // What is remembered survives being stored.
    let stored = serde_json::to_vec(&first.memory).expect("memory can be written");
    let read: Memory = serde_json::from_slice(&stored).expect("memory can be read");
    assert!(read == first.memory, "memory was changed by storing it");

    // Everything gone: nothing is served.
    let empty = compile(&Objects::default(), &first.memory, &settings);
    assert!(empty.snapshot.groups.is_empty() && empty.verdicts.is_empty());
});

fn loads(compiled: &Compiled) {
    let (_, problems) = Table::load(&compiled.snapshot, &Table::empty());
    assert!(problems.is_empty(), "compiled, but not loadable: {problems:?}");
}

fn add(objects: &mut Objects, object: &Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else { return };
    // Whoever gathers objects has checked their names.
    if name.is_empty() || !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')) {
        return;
    }
    let name = ObjectName::new("default", name);
    let spec = object.get("spec").cloned().unwrap_or_default();
    match kind {
        "ApiGroup" => put(&mut objects.groups, name, spec),
        "BackendService" => put(&mut objects.backend_services, name, spec),
        "Api" => put(&mut objects.apis, name, spec),
        "App" => put(&mut objects.apps, name, spec),
        "Authorization" => put(&mut objects.authorizations, name, spec),
        "DomainBinding" => put(&mut objects.domain_bindings, name, spec),
        "Secret" => {
            let data = object.get("stringData").and_then(Value::as_object).into_iter().flatten();
            let data = data.filter_map(|(k, v)| Some((k.clone(), Redacted::new(v.as_str()?.as_bytes().to_vec())))).collect();
            objects.secrets.insert(name, Secret { kind: text("/type").unwrap_or("Opaque").to_owned(), data });
        }
        _ => {}
    }
}

fn put<S: serde::de::DeserializeOwned>(into: &mut BTreeMap<ObjectName, Object<S>>, name: ObjectName, spec: Value) {
    if let Ok(spec) = serde_json::from_value(spec) {
        into.insert(name, Object::new(spec));
    }
}
