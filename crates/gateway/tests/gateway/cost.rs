//! What a change costs must not grow with what did not change.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use paifang_snapshot::wire::{Api, Backend, HttpTarget, Route, Snapshot, Target};

use crate::support::*;

/// A group with so many Apis, each in two stages and with a backend of its own.
fn large(number: usize, apis: usize, generation: usize) -> paifang_snapshot::wire::Group {
    let mut group = group(
        vec![domain(&format!("g{number}.example.com"))],
        "x",
        "127.0.0.1:1".parse().unwrap(),
    );
    group.name = name(&format!("g{number:04}"));
    group.id = format!("{number:032x}");
    group.sub_domain.public = None;
    group.sub_domain.internal = None;
    let like = group.apis[0].clone();
    group.apis.clear();
    group.routes.clear();
    group.backends.clear();
    for at in 0..apis {
        let mut api = Api::clone(&like);
        api.name = name(&format!("g{number:04}-a{at:04}"));
        api.release = generation as u64;
        api.path = format!("/a{at}/[id]").parse().unwrap();
        api.parameters.clear();
        group.apis.push(Arc::new(api));
        group.backends.push(Backend {
            label: format!("b{at}"),
            target: Target::Http(HttpTarget {
                address: format!("http://b{number}-{at}.example.com:80")
                    .parse()
                    .unwrap(),
                host: None,
                tls: None,
                http2: false,
            }),
        });
        for stage in ["PRE", "RELEASE"] {
            group.routes.push(Route {
                stage: stage.parse().unwrap(),
                api: at as u32,
                backend: at as u32,
                variables: BTreeMap::new(),
            });
        }
    }
    group
        .routes
        .sort_by(|a, b| (&a.stage, a.api).cmp(&(&b.stage, b.api)));
    group
}

#[test]
fn one_changed_group_among_many_is_loaded_in_milliseconds() {
    let gateway = paifang_gateway::Gateway::start(settings()).unwrap();
    let (groups, apis) = (500, 40);
    let mut snapshot = Snapshot::default();
    for number in 0..groups {
        let group = large(number, apis, 1);
        snapshot.groups.insert(group.name.clone(), Arc::new(group));
    }
    let started = Instant::now();
    assert_eq!(gateway.feed().apply_routing(&snapshot).problems, []);
    let whole = started.elapsed();
    let mut took = Vec::new();
    for generation in 2..12 {
        let group = large(7, apis, generation);
        snapshot.groups.insert(group.name.clone(), Arc::new(group));
        let started = Instant::now();
        assert_eq!(gateway.feed().apply_routing(&snapshot).problems, []);
        took.push(started.elapsed());
    }
    took.sort();
    eprintln!(
        "{} Apis at once: {whole:?}; one group of {apis} changed: {:?}, at most {:?}",
        groups * apis,
        took[5],
        took[9]
    );
    // Many times what it takes, as other tests run beside it.
    assert!(took[5] < whole / 2, "{took:?} {whole:?}");
}
