//! The table as the proxy uses it: what is found, what survives a load, and what a broken publication does.

#![allow(clippy::unwrap_used, reason = "this is a test, its helpers too")]

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use paifang_model::{Method, ObjectName};
use paifang_snapshot::{
    table::{
        AppId, Captures, Network, PathPiece, Permission, Problem, Route, Table, Via, Violation,
    },
    wire,
};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

const WEATHER: &str = "demo/weather";

/// A group with a little of everything.
fn weather() -> Value {
    json!({
        "format": 1, "name": WEATHER, "id": "w1", "instance": "default", "basePath": "/weather",
        "qpsLimit": 500, "httpsPolicy": "Http2Tls13", "filterAppCode": true,
        "subDomain": {"public": "w1.api.example.com", "internal": "w1.internal", "dailyQuota": 1000},
        "domains": [
            {"name": "demo/d1", "host": "forecast.example.com", "stage": "RELEASE", "intranet": false, "webSocket": true,
             "tls": {"certificate": "demo/tls", "clientCa": "demo/ca", "passClientSubject": true, "redirectHttp": true}},
            {"name": "demo/d2", "host": "*.example.com", "stage": null, "intranet": false, "webSocket": false, "tls": null},
            {"name": "demo/d3", "host": "own.example.com", "stage": "BETA", "intranet": true, "webSocket": false, "tls": null},
        ],
        "apis": [
            api("get", "GET", "/forecast/[city]", "^[a-z]+$", "/v1/[place]/*"),
            api("put", "PUT", "/forecast/[city]", "^[A-Z]+$", "/v2"),
        ],
        "routes": [
            {"stage": "RELEASE", "api": 0, "backend": 0, "variables": {"Env": "live"}},
            {"stage": "RELEASE", "api": 1, "backend": 1},
            {"stage": "TEST", "api": 0, "backend": 2},
        ],
        "backends": [
            {"label": "a", "target": {"type": "http", "address": "http://a.example.com"}},
            {"label": "m", "target": {"type": "mock", "status": 200, "headers": [["X-A", "b"]], "body": "{}"}},
            {"label": "v", "target": {"type": "vpc", "scheme": "HTTP", "endpoints": {"fixed": ["http://10.0.0.1:80"]}, "host": "v"}},
        ],
        "grants": [
            {"app": "demo/one", "stage": "RELEASE", "api": "demo/get", "expiresAtMs": 1000, "authorization": "demo/z"},
            {"app": "demo/all", "stage": "RELEASE", "authorization": "demo/z"},
        ],
    })
}

fn api(name: &str, method: &str, path: &str, pattern: &str, backend_path: &str) -> Value {
    json!({
        "name": format!("demo/{name}"), "displayName": "天气", "release": 3, "hash": "9b1c", "kind": "Common",
        "protocols": ["HTTP", "HTTPS"], "method": method, "path": path, "mode": "Mapping", "bodyFormat": "Form",
        "parameters": [
            {"name": "city", "location": "Path", "type": "String", "required": true,
             "rules": {"pattern": pattern, "maxLength": 40}, "backendName": "place", "backendLocation": "Path"},
            {"name": "days", "location": "Query", "type": "Int", "default": "3",
             "rules": {"minimum": 1, "maximum": 14}, "backendName": "X-Days", "backendLocation": "Header"},
            {"name": "filter", "location": "Form", "type": "String", "rules": {"jsonSchema": "{\"type\":\"object\"}"},
             "backendName": "filter", "backendLocation": "Form"},
        ],
        "auth": {"type": "app", "appCode": "Disabled", "allowSha1": false, "allowSha256": true, "requireNonce": true},
        "internalOnly": false,
        "dispatch": {
            "path": backend_path, "timeoutMs": 10000, "contentType": "Default",
            "constants": [{"name": "X-Env", "location": "Header", "value": "at-#Env#"}],
            "system": [{"from": "CaClientIp", "name": "X-Client-Ip", "location": "Header"}],
        },
    })
}

fn group(content: &Value) -> Arc<wire::Group> {
    Arc::new(serde_json::from_value(content.clone()).unwrap())
}

fn snapshot(groups: &[Arc<wire::Group>]) -> wire::Snapshot {
    wire::Snapshot {
        groups: groups
            .iter()
            .map(|group| (group.name.clone(), Arc::clone(group)))
            .collect(),
        ..wire::Snapshot::default()
    }
}

fn load(content: &Value, previous: &Table) -> (Table, Vec<Problem>) {
    Table::load(&snapshot(&[group(content)]), previous)
}

/// Loads without a problem.
fn loaded(content: &Value) -> Table {
    let (table, problems) = load(content, &Table::empty());
    assert_eq!(problems, []);
    table
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn route(table: &Table, stage: &str, method: Method, path: &str) -> Option<Arc<Route>> {
    let group = table.group(&name(WEATHER))?;
    let found = group.find(group.stage(stage)?, method, path, &mut Captures::new());
    found.cloned()
}

fn is_closed(route: &Route) -> bool {
    matches!(*route.backend.target, wire::Target::Unavailable { .. })
}

#[test]
fn hosts_lead_to_groups() {
    let mut other = weather();
    other["name"] = json!("demo/deeper");
    other["basePath"] = json!("/weather/deeper");
    other["subDomain"] = json!({"public": null, "internal": null, "dailyQuota": 0});
    let (table, problems) = Table::load(
        &snapshot(&[group(&weather()), group(&other)]),
        &Table::empty(),
    );
    assert_eq!(problems, []);
    let found = |host: &str, network| -> Vec<(String, String)> {
        let via = |via: &Via| match via {
            Via::Domain(domain) => domain.name.to_string(),
            Via::PublicSubDomain => "public".into(),
            Via::InternalSubDomain => "internal".into(),
        };
        let bindings = table.bindings(host, network).iter();
        bindings
            .map(|it| (it.group.name.to_string(), via(&it.via)))
            .collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    };
    let both = |domain| pairs(&[("demo/deeper", domain), (WEATHER, domain)]);
    use Network::{Internal, Public};
    assert_eq!(found("forecast.example.com", Public), both("demo/d1"));
    assert_eq!(found("forecast.example.com", Internal), []);
    assert_eq!(found("x.example.com", Public), both("demo/d2"));
    assert_eq!(found("own.example.com", Internal), both("demo/d3"));
    // The exact name is on the internal listener only: the wildcard does not open it to the public.
    assert_eq!(found("own.example.com", Public), []);
    assert_eq!(
        found("w1.api.example.com", Public),
        pairs(&[(WEATHER, "public")])
    );
    assert_eq!(
        found("w1.internal", Internal),
        pairs(&[(WEATHER, "internal")])
    );
    assert_eq!(found("w1.internal", Public), []);
    for (host, known) in [
        ("own.example.com", true),
        ("w1.internal", true),
        ("a.example.com", true),
        ("a.b.example.com", false),
        ("example.com", false),
        (".example.com", false),
        ("", false),
    ] {
        assert_eq!(table.host_is_known(host), known, "{host}");
    }
}

#[test]
fn a_domain_says_what_it_pins_and_asks_for() {
    let table = loaded(&weather());
    let domain = |host, network| match &table.bindings(host, network)[0].via {
        Via::Domain(domain) => Arc::clone(domain),
        _ => panic!("{host} is a domain"),
    };
    let group = table.group(&name(WEATHER)).unwrap();
    let pinned = domain("forecast.example.com", Network::Public);
    let (index, stage) = pinned.stage.clone().unwrap();
    assert_eq!(
        (Some(index), stage.as_str()),
        (group.stage("RELEASE"), "RELEASE")
    );
    assert!(pinned.has_tls && pinned.redirect_http && pinned.client_ca_required);
    assert!(pinned.pass_client_subject && pinned.web_socket);
    let free = domain("x.example.com", Network::Public);
    assert!(free.stage.is_none() && !free.has_tls && !free.redirect_http && !free.web_socket);
}

#[test]
fn a_request_finds_its_route() {
    let table = loaded(&weather());
    let group = table.group(&name(WEATHER)).unwrap();
    for (stage, known) in [
        ("TEST", true),
        ("PRE", true),
        ("RELEASE", true),
        ("BETA", true),
        ("NONE", false),
        ("", false),
    ] {
        assert_eq!(group.stage(stage).is_some(), known, "{stage}");
    }
    let release = group.stage("RELEASE").unwrap();
    let path = group.base_path.strip("/weather/forecast/hangzhou").unwrap();
    let mut captures = Captures::new();
    let route = group
        .find(release, Method::Get, path, &mut captures)
        .unwrap();
    assert_eq!(route.api.name, name("demo/get"));
    assert_eq!(route.stage.as_str(), "RELEASE");
    let city = &route.api.parameters[0];
    assert_eq!(captures.get(city.capture.unwrap().into()), Some("hangzhou"));
    assert!(
        group
            .find(release, Method::Delete, path, &mut captures)
            .is_none()
    );
    assert!(group.path_exists(release, path));
    assert!(!group.path_exists(release, "/other"));
    assert!(!group.path_exists(group.stage("PRE").unwrap(), path));
}

#[test]
fn a_route_is_ready_to_use() {
    let table = loaded(&weather());
    let release = route(&table, "RELEASE", Method::Get, "/forecast/x").unwrap();
    let test = route(&table, "TEST", Method::Get, "/forecast/x").unwrap();
    let constant = |route: &Route| {
        let it = &route.constants[0];
        (it.name.to_string(), it.value.to_string())
    };
    assert_eq!(constant(&release), ("x-env".into(), "at-live".into()));
    assert_eq!(constant(&test), ("x-env".into(), "at-#Env#".into()));
    assert!(Arc::ptr_eq(&release.api, &test.api));
    let path = release.backend_path.as_ref().unwrap();
    let expected = [
        PathPiece::Text("/v1/".into()),
        PathPiece::Parameter(0),
        PathPiece::Text("/".into()),
    ];
    assert_eq!((&*path.pieces, path.tail), (&expected[..], true));
    let [city, days, filter] = &*release.api.parameters else {
        panic!("three parameters")
    };
    assert_eq!((&*days.name, &*days.backend_name), ("days", "x-days"));
    assert_eq!(&*release.api.system[0].name, "x-client-ip");
    assert_eq!(city.check("abc"), Ok(()));
    assert_eq!(city.check("ABC"), Err(Violation::Pattern));
    assert_eq!(city.check(&"a".repeat(41)), Err(Violation::MaxLength(40)));
    assert_eq!(days.check("15"), Err(Violation::MaximumInteger(14)));
    assert_eq!(days.check("x"), Err(Violation::Int));
    assert_eq!(filter.check("{}"), Ok(()));
    assert!(filter.check("[]").is_err());
}

#[test]
fn grants_are_for_an_app_an_api_and_a_stage() {
    let table = loaded(&weather());
    let group = table.group(&name(WEATHER)).unwrap();
    let rows = [
        ("demo/one", "RELEASE", Method::Get, 999, Permission::Granted),
        (
            "demo/one",
            "RELEASE",
            Method::Get,
            1000,
            Permission::Expired,
        ),
        ("demo/one", "RELEASE", Method::Put, 0, Permission::None),
        ("demo/one", "TEST", Method::Get, 0, Permission::None),
        (
            "demo/all",
            "RELEASE",
            Method::Put,
            i64::MAX,
            Permission::Granted,
        ),
        ("demo/all", "TEST", Method::Get, 0, Permission::None),
        ("demo/two", "RELEASE", Method::Get, 0, Permission::None),
    ];
    for (app, stage, method, now, expected) in rows {
        let route = route(&table, stage, method, "/forecast/x").unwrap();
        let permission = group.grant(AppId::of(&name(app)), &route, now);
        assert_eq!(permission, expected, "{app} {stage} {method} {now}");
    }
}

/// Two releases of one Api in two stages: a grant is for the Api.
#[test]
fn grants_do_not_ask_for_the_release() {
    let mut content = weather();
    let mut newer = content["apis"][0].clone();
    newer["release"] = json!(4);
    content["apis"].as_array_mut().unwrap().push(newer);
    content["routes"][0]["api"] = json!(2);
    content["grants"][0]["stage"] = json!("RELEASE");
    let table = loaded(&content);
    let group = table.group(&name(WEATHER)).unwrap();
    let route = route(&table, "RELEASE", Method::Get, "/forecast/x").unwrap();
    assert_eq!(route.api.release, 4);
    assert_eq!(
        group.grant(AppId::of(&name("demo/one")), &route, 0),
        Permission::Granted
    );
}

#[test]
fn unchanged_groups_are_reused() {
    let (content, mut other) = (group(&weather()), weather());
    other["name"] = json!("demo/other");
    let first = Table::load(
        &snapshot(&[content.clone(), group(&other)]),
        &Table::empty(),
    )
    .0;
    other["qpsLimit"] = json!(7);
    let second = Table::load(&snapshot(&[content.clone(), group(&other)]), &first).0;
    // The same content in another place, after what it was loaded from is gone.
    drop(content);
    let third = Table::load(&snapshot(&[group(&weather()), group(&other)]), &second).0;
    let get = |table: &Table, text| Arc::clone(table.group(&name(text)).unwrap());
    assert!(Arc::ptr_eq(&get(&first, WEATHER), &get(&second, WEATHER)));
    assert!(Arc::ptr_eq(&get(&first, WEATHER), &get(&third, WEATHER)));
    assert!(!Arc::ptr_eq(
        &get(&first, "demo/other"),
        &get(&second, "demo/other")
    ));
    assert_eq!(get(&second, "demo/other").qps_limit, 7);
    assert!(Arc::ptr_eq(
        &get(&second, "demo/other"),
        &get(&third, "demo/other")
    ));
    let gone = Table::load(&snapshot(&[group(&other)]), &third).0;
    assert!(gone.group(&name(WEATHER)).is_none());
    assert_eq!(gone.groups().count(), 1);
}

#[test]
fn counters_and_backends_survive_a_change() {
    let mut content = weather();
    let first = loaded(&content);
    let before = Arc::clone(first.group(&name(WEATHER)).unwrap());
    before.counters.day.store(42, Ordering::Relaxed);
    content["qpsLimit"] = json!(7);
    content["backends"][0]["label"] = json!("renamed");
    content["backends"][1]["target"]["body"] = json!("changed");
    let (second, _) = load(&content, &first);
    let after = second.group(&name(WEATHER)).unwrap();
    assert_ne!(before.digest, after.digest);
    assert_eq!(after.counters.day.load(Ordering::Relaxed), 42);
    let backend = |table: &Table, method| {
        let route = route(table, "RELEASE", method, "/forecast/x").unwrap();
        (route.backend.id, route.backend.label.to_string())
    };
    let (get, put) = (backend(&first, Method::Get), backend(&first, Method::Put));
    assert_eq!(backend(&second, Method::Get), (get.0, "renamed".into()));
    assert_ne!(backend(&second, Method::Put).0, put.0);
    // Another group, another table of the same line: the same id for the same target.
    content["name"] = json!("demo/other");
    let (third, _) = load(&content, &second);
    let other = third.group(&name("demo/other")).unwrap();
    assert!(other.routes().any(|route| route.backend.id == get.0));
}

#[test]
fn a_broken_group_keeps_its_previous_version() {
    let good = loaded(&weather());
    let kept = Arc::clone(good.group(&name(WEATHER)).unwrap());
    let breaks: [fn(&mut Value); 5] = [
        |content| content["format"] = json!(99),
        |content| content["format"] = json!(u32::MAX),
        |content| content["format"] = json!(0),
        |content| content["routes"][1]["api"] = json!(2),
        |content| content["routes"][0]["api"] = json!(u32::MAX),
    ];
    for change in breaks {
        let mut content = weather();
        change(&mut content);
        let broken = snapshot(&[group(&content)]);
        let (table, problems) = Table::load(&broken, &good);
        assert!(Arc::ptr_eq(&kept, table.group(&name(WEATHER)).unwrap()));
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].api.is_none() && problems[0].message.contains("previous version keeps")
        );
        assert_eq!(table.bindings("w1.internal", Network::Internal).len(), 1);
        // Said again at every load, and mended by the next good version.
        let (table, again) = Table::load(&broken, &table);
        assert_eq!(again, problems);
        let (table, problems) = load(&weather(), &table);
        assert_eq!(problems, []);
        assert!(Arc::ptr_eq(&kept, table.group(&name(WEATHER)).unwrap()));
        // Nothing to keep: nothing serves.
        let (table, problems) = Table::load(&broken, &Table::empty());
        assert!(table.group(&name(WEATHER)).is_none() && !table.host_is_known("w1.internal"));
        assert!(problems[0].message.contains("no previous version"));
    }
}

#[test]
fn a_group_under_another_name_is_broken() {
    let content = group(&weather());
    let snapshot = wire::Snapshot {
        groups: BTreeMap::from([(name("demo/x"), content)]),
        ..wire::Snapshot::default()
    };
    let (table, problems) = Table::load(&snapshot, &Table::empty());
    assert_eq!((table.groups().count(), problems.len()), (0, 1));
}

/// A change that breaks something, and what is said about it.
type Break = (&'static str, fn(&mut Value));

#[test]
fn an_api_that_cannot_be_loaded_answers_closed() {
    let breaks: [Break; 16] = [
        ("not a regular expression", |api| {
            api["parameters"][0]["rules"]["pattern"] = json!("(")
        }),
        ("bytes when compiled", |api| {
            api["parameters"][0]["rules"]["pattern"] = json!("((\\w{99}){99}){99}")
        }),
        ("JSON Schema", |api| {
            api["parameters"][2]["rules"]["jsonSchema"] = json!("{\"type\": 1}")
        }),
        ("recursive", |api| {
            api["parameters"][2]["rules"]["jsonSchema"] = json!("{\"allOf\": [{\"$ref\": \"#\"}]}")
        }),
        ("need a number type", |api| {
            api["parameters"][0]["rules"]["minimum"] = json!(1)
        }),
        ("must be an integer", |api| {
            api["parameters"][1]["rules"]["minimum"] = json!(0.5)
        }),
        ("has no `[town]`", |api| {
            api["parameters"][0]["name"] = json!("town")
        }),
        ("`[place]` in the backend path", |api| {
            api["parameters"][0]["backendName"] = json!("spot")
        }),
        ("`[place]` in the backend path", |api| {
            api["parameters"][0]["backendLocation"] = json!("Query")
        }),
        ("is not a header name", |api| {
            api["parameters"][1]["backendName"] = json!("X Days")
        }),
        ("a name is empty", |api| {
            api["parameters"][1]["name"] = json!("")
        }),
        ("is not a header value", |api| {
            api["dispatch"]["constants"][0]["value"] = json!("a\r\nX-Evil: b")
        }),
        ("cannot be added to the path", |api| {
            api["dispatch"]["constants"][0]["location"] = json!("Path")
        }),
        ("is not a header name", |api| {
            api["dispatch"]["system"][0]["name"] = json!("a\nb")
        }),
        ("cannot be added to the path", |api| {
            api["dispatch"]["system"][0]["location"] = json!("Path")
        }),
        ("content type is not a header value", |api| {
            api["dispatch"]["contentType"] = json!({"Custom": "a\nb"})
        }),
    ];
    for (message, change) in breaks {
        let mut content = weather();
        change(&mut content["apis"][0]);
        let (table, problems) = load(&content, &Table::empty());
        let [problem] = &problems[..] else {
            panic!("{message}: {problems:?}")
        };
        assert_eq!(
            (&problem.group, &problem.api),
            (&name(WEATHER), &Some(name("demo/get")))
        );
        assert!(
            problem.message.contains(message),
            "{message}: {}",
            problem.message
        );
        for stage in ["RELEASE", "TEST"] {
            let closed = route(&table, stage, Method::Get, "/forecast/x").unwrap();
            assert!(is_closed(&closed), "{message}");
            assert_eq!(closed.api.name, name("demo/get"));
            assert_ne!(closed.api.auth, wire::Auth::Anonymous);
        }
        let neighbour = route(&table, "RELEASE", Method::Put, "/forecast/x").unwrap();
        assert!(!is_closed(&neighbour), "{message}");
        // Unchanged, and still said.
        assert_eq!(load(&content, &table).1, problems);
    }
}

#[test]
fn a_route_that_cannot_be_loaded_answers_closed_in_its_stage() {
    let breaks: [Break; 6] = [
        ("backend number 77 is missing", |content| {
            content["routes"][0]["backend"] = json!(77)
        }),
        ("not a header value", |content| {
            content["routes"][0]["variables"]["Env"] = json!("a\nb")
        }),
        ("too long", |content| {
            content["routes"][0]["variables"]["Env"] = json!("x".repeat(70_000))
        }),
        ("mock status", |content| {
            content["backends"][0] = mock(99, "a")
        }),
        ("mock header", |content| {
            content["backends"][0] = mock(200, "a b")
        }),
        ("host is not a header value", |content| {
            content["backends"][0]["target"]["host"] = json!("a\nb")
        }),
    ];
    for (message, change) in breaks {
        let mut content = weather();
        change(&mut content);
        let (table, problems) = load(&content, &Table::empty());
        let [problem] = &problems[..] else {
            panic!("{message}: {problems:?}")
        };
        assert!(
            problem.message.contains(message),
            "{message}: {}",
            problem.message
        );
        assert!(is_closed(
            &route(&table, "RELEASE", Method::Get, "/forecast/x").unwrap()
        ));
        assert!(!is_closed(
            &route(&table, "TEST", Method::Get, "/forecast/x").unwrap()
        ));
    }
}

fn mock(status: u16, header: &str) -> Value {
    json!({"label": "m", "target": {"type": "mock", "status": status, "headers": [[header, "b"]], "body": ""}})
}

#[test]
fn the_first_of_two_equal_routes_serves() {
    let mut content = weather();
    content["apis"][1]["method"] = json!("GET");
    let (table, problems) = load(&content, &Table::empty());
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].api, Some(name("demo/put")));
    let route = route(&table, "RELEASE", Method::Get, "/forecast/x").unwrap();
    assert_eq!(route.api.name, name("demo/get"));
}

/// A change somewhere in the published JSON that mostly leaves it readable.
#[derive(Debug, Clone)]
struct Mutation {
    place: Index,
    with: With,
}

#[derive(Debug, Clone)]
enum With {
    /// Something of the same type that is awkward.
    Awkward(Index),
    /// Any text or number, where there was one.
    Random(String, i64),
    /// What stands in another place where the type is the same.
    Copy(Index),
    /// Anything at all.
    Other(Index),
}

fn awkward() -> Vec<Value> {
    vec![
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(2),
        json!(77),
        json!(65536),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.5),
        json!(""),
        json!("#"),
        json!("*"),
        json!("/"),
        json!("/*"),
        json!("/[a]/*"),
        json!("/[city]/[place]"),
        json!("Path"),
        json!("Header"),
        json!("Int"),
        json!("Double"),
        json!("ANY"),
        json!("TEST"),
        json!("demo/get"),
        json!("*.example.com"),
        json!("x.example.com"),
        json!("(((("),
        json!("[\\w]{1000}"),
        json!("{\"$ref\":\"#\"}"),
        json!("a\r\nb"),
        json!([]),
        json!({}),
    ]
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let with = prop_oneof![
        8 => any::<Index>().prop_map(With::Awkward),
        4 => ("\\PC{0,8}", any::<i64>()).prop_map(|(text, number)| With::Random(text, number)),
        8 => any::<Index>().prop_map(With::Copy),
        1 => any::<Index>().prop_map(With::Other),
    ];
    (any::<Index>(), with).prop_map(|(place, with)| Mutation { place, with })
}

/// Every place in a JSON value.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{number}"), out);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{at}/{name}"), out);
            }
        }
        _ => {}
    }
}

fn mutate(content: &mut Value, mutation: &Mutation) {
    let mut all = Vec::new();
    places(content, "", &mut all);
    let place = &all[mutation.place.index(all.len())];
    let current = content.pointer(place).unwrap();
    let alike = |other: &Value| std::mem::discriminant(current) == std::mem::discriminant(other);
    let of = |values: Vec<Value>, index: &Index| {
        (!values.is_empty()).then(|| values[index.index(values.len())].clone())
    };
    let replacement = match &mutation.with {
        With::Other(index) => of(awkward(), index),
        With::Awkward(index) => of(awkward().into_iter().filter(alike).collect(), index),
        With::Random(text, number) => match current {
            Value::String(_) => Some(json!(text)),
            Value::Number(_) => Some(json!(number)),
            _ => None,
        },
        With::Copy(index) => {
            let values = all.iter().map(|at| content.pointer(at).unwrap().clone());
            of(values.filter(alike).collect(), index)
        }
    };
    if let Some(replacement) = replacement {
        *content.pointer_mut(place).unwrap() = replacement;
    }
}

/// What can be seen of a table.
fn seen(table: &Table) -> Vec<String> {
    let mut out = Vec::new();
    for group in table.groups() {
        for stage in group.stages() {
            let index = group.stage(stage.as_str()).unwrap();
            for path in ["/", "/forecast/x", "/forecast/%zz", "/a//b/", "x", ""] {
                for method in [Method::Get, Method::Put, Method::Any] {
                    let mut captures = Captures::new();
                    let found = group.find(index, method, path, &mut captures);
                    assert!(found.is_none() || group.path_exists(index, path));
                    let Some(route) = found else { continue };
                    let (api, label) = (&route.api.name, &route.backend.label);
                    let grant = group.grant(AppId::of(&name("demo/one")), route, 1);
                    let captures: Vec<&str> = captures.iter().collect();
                    let checks: Vec<bool> = route
                        .api
                        .parameters
                        .iter()
                        .map(|it| it.check("7").is_ok())
                        .collect();
                    out.push(format!(
                        "{stage} {method} {path}: {api} {label} {captures:?} {grant:?} {checks:?}"
                    ));
                }
            }
        }
    }
    for host in ["w1.internal", "x.example.com", "own.example.com"] {
        for network in [Network::Public, Network::Internal] {
            out.push(format!("{host} {}", table.bindings(host, network).len()));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever is published, a load ends, the same way each time, and everything in the table can be used.
    #[test]
    fn nothing_published_can_stop_a_load(
        mutations in prop::collection::vec(any_mutation(), 1..5),
    ) {
        let mut content = weather();
        for mutation in &mutations {
            mutate(&mut content, mutation);
        }
        let Ok(group) = serde_json::from_value::<wire::Group>(content) else { return Ok(()) };
        let snapshot = wire::Snapshot {
            groups: BTreeMap::from([(name(WEATHER), Arc::new(group))]),
            ..wire::Snapshot::default()
        };
        let (first, problems) = Table::load(&snapshot, &Table::empty());
        let (second, again) = Table::load(&snapshot, &Table::empty());
        prop_assert_eq!(&problems, &again);
        prop_assert_eq!(seen(&first), seen(&second));
        // Over a good version: either this one serves, or that one still does.
        let good = loaded(&weather());
        let (over, problems_over) = Table::load(&snapshot, &good);
        prop_assert!(over.group(&name(WEATHER)).is_some());
        if problems.iter().all(|problem| problem.api.is_some()) {
            prop_assert_eq!(problems, problems_over);
            prop_assert_eq!(seen(&over), seen(&first));
        } else {
            prop_assert_eq!(seen(&over), seen(&good));
        }
    }
}
