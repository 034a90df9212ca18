//! The published form: any bytes, and any group that they are, load without a panic, twice the same, and answer look-ups.

#![no_main]

use std::{str::FromStr, sync::Arc};

use libfuzzer_sys::fuzz_target;
use paifang_model::{Method, ObjectName};
use paifang_snapshot::{
    table::{Captures, Network, Table},
    wire,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(group) = serde_json::from_slice::<wire::Group>(bytes) else { return };
    // Written and read again it is the same group.
    let written = serde_json::to_vec(&group).expect("a group can be written");
    assert_eq!(serde_json::from_slice::<wire::Group>(&written).expect("what we write we read"), group);

    let name = ObjectName::from_str("demo/fuzz").expect("a name");
    let mut snapshot = wire::Snapshot::default();
    snapshot.groups.insert(name.clone(), Arc::new(group));
    let (table, problems) = Table::load(&snapshot, &Table::empty());
    let (again, same) = Table::load(&snapshot, &table);
    assert_eq!(problems, same, "problems are reported at every load");
    assert_eq!(table.group(&name).is_some(), again.group(&name).is_some());
    if let Some(group) = table.group(&name) {
        for stage in group.stages() {
            let index = group.stage(stage.as_str()).expect("a stage of the group");
            for path in ["/", "/a", "/a/b/c", "/%2F/", "//"] {
                let mut captures = Captures::new();
                let found = group.find(index, Method::Get, path, &mut captures).is_some();
                assert!(!found || group.path_exists(index, path));
            }
        }
    }
    for host in ["a.example.com", "", "*.example.com", "demo.localtest"] {
        for network in [Network::Public, Network::Internal] {
            assert_eq!(table.bindings(host, network).len(), again.bindings(host, network).len());
        }
    }
});
