//! How a snapshot travels: what is cut comes together again, a change writes little, and nothing but what was meant is accepted.

#![allow(clippy::unwrap_used, reason = "this is a test, its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use paifang_model::{ObjectName, Redacted, Stage};
use paifang_snapshot::{
    published::{
        AppsManifest, GroupManifest, Hash, InvalidPart, PART_BYTES, Part, PublishedGroup,
        assemble_apps, assemble_group, certificate, pack, publish_apps, publish_group, unpack,
    },
    wire::{self, App, Apps, Certificate, Credential, Grant, Group, Proof, Route},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn name(name: &str) -> ObjectName {
    ObjectName::new("demo", name)
}

fn api(name: &str, release: u64, more: &str) -> Value {
    json!({
        "name": format!("demo/{name}"), "displayName": "天气", "release": release, "hash": "9b1c", "kind": "Common",
        "protocols": ["HTTP", "HTTPS"], "method": "GET", "path": format!("/{name}/[city]"), "mode": "Mapping", "bodyFormat": "Form",
        "parameters": [
            {"name": "city", "location": "Path", "type": "String", "required": true,
             "rules": {"pattern": "^[a-z]+$", "maxLength": 40}, "backendName": "place", "backendLocation": "Path"},
            {"name": "days", "location": "Query", "type": "Double", "default": "3",
             "rules": {"minimum": 0.1, "maximum": 3}, "backendName": "X-Days", "backendLocation": "Header"},
        ],
        "auth": {"type": "app", "appCode": "Disabled", "allowSha1": false, "allowSha256": true, "requireNonce": true},
        "internalOnly": false,
        "dispatch": {
            "path": "/v1/[place]", "timeoutMs": 10000, "contentType": "Default",
            "constants": [{"name": "X-Env", "location": "Header", "value": format!("at-#Env#{more}")}],
            "system": [{"from": "CaClientIp", "name": "X-Client-Ip", "location": "Header"}],
        },
    })
}

/// The number of a backend for each stage.
type Stages = BTreeMap<&'static str, u8>;

/// A group as compile makes them: everything ordered, backends without doubles and each in use.
#[derive(Debug, Clone, Default)]
struct Plan {
    /// By name and release: something that its content depends on, and its stages.
    apis: BTreeMap<(String, u64), (String, Stages)>,
    grants: BTreeSet<(String, Option<String>)>,
}

impl Plan {
    fn group(&self) -> Group {
        let backend = |number: u8| -> wire::Backend {
            let target = match number % 3 {
                0 => {
                    json!({"type": "http", "address": format!("https://b{number}.example.com"), "tls": {"ca": format!("demo/ca{number}")}})
                }
                1 => {
                    json!({"type": "vpc", "scheme": "HTTP", "host": "v", "endpoints": {"service": {"name": format!("demo/s{number}"), "port": ""}}})
                }
                _ => {
                    json!({"type": "mock", "status": 200, "headers": [["X-A", "b"]], "body": format!("{number}")})
                }
            };
            serde_json::from_value(json!({"label": format!("b{number}"), "target": target}))
                .unwrap()
        };
        let used: BTreeSet<wire::Backend> = self
            .apis
            .values()
            .flat_map(|(_, stages)| stages.values().map(|number| backend(*number)))
            .collect();
        let backends: Vec<wire::Backend> = used.into_iter().collect();
        let mut routes: Vec<Route> = Vec::new();
        for (at, (_, stages)) in self.apis.values().enumerate() {
            for (stage, number) in stages {
                let backend = backends.binary_search(&backend(*number)).unwrap();
                routes.push(Route {
                    stage: stage.parse::<Stage>().unwrap(),
                    api: at as u32,
                    backend: backend as u32,
                    variables: [("Env".to_owned(), (*stage).to_owned())].into(),
                });
            }
        }
        routes.sort_by(|a, b| (&a.stage, a.api).cmp(&(&b.stage, b.api)));
        let grants = self.grants.iter().map(|(app, api)| Grant {
            app: name(app),
            stage: Stage::release(),
            api: api.as_deref().map(name),
            expires_at_ms: Some(1_000),
            authorization: name("z"),
        });
        let mut group: Group = serde_json::from_value(json!({
            "format": 1, "name": "demo/weather", "id": "w1", "instance": "default", "basePath": "/weather",
            "qpsLimit": 500, "httpsPolicy": "Http2Tls13", "filterAppCode": true,
            "subDomain": {"public": "w1.api.example.com", "internal": "w1.internal", "dailyQuota": 1000},
            "domains": [
                {"name": "demo/d1", "host": "forecast.example.com", "stage": "RELEASE", "intranet": false, "webSocket": true,
                 "tls": {"certificate": "demo/tls", "clientCa": "demo/ca", "passClientSubject": true, "redirectHttp": true}},
            ],
            "apis": [], "routes": [], "backends": [], "grants": [],
        }))
        .unwrap();
        group.apis = self
            .apis
            .iter()
            .map(|((name, release), (more, _))| {
                serde_json::from_value(api(name, *release, more)).unwrap()
            })
            .collect();
        group.routes = routes;
        group.backends = backends;
        group.grants = grants.map(Arc::new).collect();
        group.grants.sort();
        group
    }

    /// So many Apis, each in one stage with a backend of ten.
    fn of(apis: usize) -> Self {
        let entry = |at: usize| {
            let stages = [("RELEASE", (at % 10) as u8)].into();
            ((format!("a{at:05}"), 1), (String::new(), stages))
        };
        Self {
            apis: (0..apis).map(entry).collect(),
            grants: (0..apis).map(|at| (format!("p{at:05}"), None)).collect(),
        }
    }
}

fn publish(group: &Group) -> PublishedGroup {
    publish_group(group, |_| None)
}

/// As a gateway does it: from what is stored.
fn assemble(published: &PublishedGroup) -> Result<Group, InvalidPart> {
    let manifest = GroupManifest::read(&published.manifest.text())?;
    let stored: BTreeMap<Hash, Vec<u8>> = published
        .parts
        .iter()
        .map(|(hash, part)| (hash.clone(), unpack(hash, &pack(&part.raw)).unwrap()))
        .collect();
    assemble_group(&manifest, |hash| stored.get(hash).map(Vec::as_slice))
}

fn plans() -> impl Strategy<Value = Plan> {
    let stages = prop::collection::btree_map(
        prop::sample::select(vec!["BETA", "PRE", "RELEASE", "TEST"]),
        0_u8..8,
        0..4,
    );
    let apis = prop::collection::btree_map(
        ("[a-z][a-z0-9-]{0,5}", 1_u64..4),
        ("[ -~]{0,30}", stages),
        0..80,
    );
    let grants = prop::collection::btree_set(
        (
            "[a-z]{1,3}",
            prop::option::of("[a-z]{1,2}".prop_map(String::from)),
        ),
        0..80,
    );
    (apis, grants).prop_map(|(apis, grants)| Plan {
        apis: apis
            .into_iter()
            .map(|(key, (more, stages))| (key, (more.replace('#', ""), stages)))
            .collect(),
        grants,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_cut_comes_together_again(plan in plans()) {
        let group = plan.group();
        let published = publish(&group);
        prop_assert_eq!(assemble(&published).unwrap(), group);
        let read = GroupManifest::read(&published.manifest.text()).unwrap();
        prop_assert_eq!(read.hash(), Hash::of(published.manifest.text().as_bytes()));
        prop_assert_eq!(&read, &published.manifest);
        let named: BTreeSet<&Hash> = read.parts().collect();
        prop_assert_eq!(named, published.parts.keys().collect::<BTreeSet<_>>());
    }

    #[test]
    fn numbers_travel_to_the_last_bit(low in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, high in any::<i64>()) {
        let mut group = Plan::of(1).group();
        let rules = &mut Arc::make_mut(&mut group.apis[0]).parameters[1].rules;
        rules.minimum = Some(wire::Number::Real(low));
        rules.maximum = Some(wire::Number::Integer(high));
        let came = assemble(&publish(&group)).unwrap();
        let rules = &came.apis[0].parameters[1].rules;
        let Some(wire::Number::Real(came_low)) = rules.minimum else { panic!("{rules:?}") };
        prop_assert_eq!(came_low.to_bits(), low.to_bits());
        prop_assert_eq!(rules.maximum, Some(wire::Number::Integer(high)));
    }
}

fn pieces(published: &PublishedGroup) -> BTreeSet<Vec<Hash>> {
    let manifest = &published.manifest;
    let runs = manifest.apis.iter().chain(&manifest.grants);
    std::iter::once(&manifest.head)
        .chain(runs)
        .cloned()
        .collect()
}

/// How many pieces are new in `after`.
fn new(before: &PublishedGroup, after: &PublishedGroup) -> usize {
    pieces(after).difference(&pieces(before)).count()
}

#[test]
fn a_change_writes_its_own_piece_and_no_other() {
    let plan = Plan::of(1_000);
    let before = publish(&plan.group());
    let count = pieces(&before).len();
    assert!((30..150).contains(&count), "{count} pieces");
    let longest = before
        .parts
        .values()
        .map(|part| part.raw.len())
        .max()
        .unwrap();
    assert!(longest < 300 * 1024, "{longest} bytes");
    assert_eq!(publish(&plan.group()), before, "equal content, equal parts");

    for at in [0, 1, 17, 500, 998, 999] {
        let key = (format!("a{at:05}"), 1);
        let mut changed = plan.clone();
        changed.apis.get_mut(&key).unwrap().0 = "other".to_owned();
        assert_eq!(
            new(&before, &publish(&changed.group())),
            1,
            "Api {at} changed"
        );
        let mut rerouted = plan.clone();
        rerouted.apis.get_mut(&key).unwrap().1 = [("RELEASE", 77)].into();
        assert_eq!(
            new(&before, &publish(&rerouted.group())),
            1,
            "Api {at} has another backend, which is one more in the group"
        );
        let mut removed = plan.clone();
        removed.apis.remove(&key);
        assert!(
            new(&before, &publish(&removed.group())) <= 1,
            "Api {at} is gone"
        );
        let mut added = plan.clone();
        let entry = added.apis[&key].clone();
        added.apis.insert((format!("a{at:05}x"), 1), entry);
        assert!(
            new(&before, &publish(&added.group())) <= 2,
            "one more after Api {at}, which may end a run"
        );
        let mut granted = plan.clone();
        granted
            .grants
            .insert((format!("p{at:05}"), Some("a1".to_owned())));
        assert_eq!(new(&before, &publish(&granted.group())), 1, "a grant more");
    }
    let mut head = plan.group();
    head.qps_limit = 7;
    assert_eq!(new(&before, &publish(&head)), 1);
}

#[test]
fn nothing_is_too_large_to_be_published() {
    let mut plan = Plan::of(40);
    // Hardly to be compressed, and longer than two parts.
    let mut noise = String::new();
    let mut state = 1_u64;
    while noise.len() < 2 * PART_BYTES + 7 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise += &format!("{:016x}", state);
    }
    plan.apis.get_mut(&("a00020".to_owned(), 1)).unwrap().0 = noise;
    let group = plan.group();
    let published = publish(&group);
    assert_eq!(assemble(&published).unwrap(), group);
    let most = published.manifest.apis.iter().map(Vec::len).max().unwrap();
    assert!(most >= 3, "a piece of {most} parts");
    for part in published.parts.values() {
        assert!(part.raw.len() <= PART_BYTES);
        // In base64, with room for metadata, below what an object may have.
        assert!(pack(&part.raw).len() * 4 / 3 + 8_192 < 1 << 20);
    }
    // The others are where they were.
    let others = publish(&Plan::of(40).group());
    assert!(new(&published, &others) <= 2);
}

#[test]
fn what_is_missing_altered_or_foreign_is_refused() {
    let published = publish(&Plan::of(100).group());
    for hash in published.parts.keys() {
        let mut less = published.clone();
        less.parts.remove(hash);
        match assemble(&less) {
            Err(InvalidPart::Missing(missing)) => assert_eq!(missing, *hash),
            other => panic!("{other:?}"),
        }
        let altered = |change: fn(&mut Vec<u8>)| {
            let mut raw = published.parts[hash].raw.clone();
            change(&mut raw);
            let find = |wanted: &Hash| {
                let whole = published.parts.get(wanted).map(|part| part.raw.as_slice());
                if wanted == hash {
                    Some(raw.as_slice())
                } else {
                    whole
                }
            };
            assemble_group(&published.manifest, find)
        };
        for change in [
            (|raw| raw[0] ^= 1) as fn(&mut Vec<u8>),
            |raw| raw.truncate(raw.len() - 1),
            |raw| raw.push(b' '),
            Vec::clear,
        ] {
            assert!(matches!(altered(change), Err(InvalidPart::Altered(_))));
        }
    }
    // A head of another group under this manifest.
    let mut other = Plan::of(1).group();
    other.name = name("other");
    let other = publish(&other);
    let mut mixed = published.clone();
    mixed.manifest.head = other.manifest.head.clone();
    mixed.parts.extend(other.parts);
    assert!(matches!(
        assemble(&mixed),
        Err(InvalidPart::Inconsistent(_))
    ));
    // A piece of another kind.
    let mut swapped = published.clone();
    swapped.manifest.apis[0] = swapped.manifest.grants[0].clone();
    assert!(matches!(
        assemble(&swapped),
        Err(InvalidPart::Unreadable { .. })
    ));
    let mut empty = published;
    empty.manifest.head = Vec::new();
    assert!(matches!(
        assemble(&empty),
        Err(InvalidPart::Inconsistent(_))
    ));
}

#[test]
fn stored_bytes_are_checked_and_bounded() {
    let part = Part::new(b"some text, some text, some text".to_vec());
    let stored = pack(&part.raw);
    assert!(stored.len() < part.raw.len());
    assert_eq!(unpack(&part.hash, &stored).unwrap(), part.raw);
    for bad in [&stored[..stored.len() - 2], b"", b"nonsense"] {
        let error = unpack(&part.hash, bad).unwrap_err();
        assert!(
            matches!(error, InvalidPart::Compression(_) | InvalidPart::Altered(_)),
            "{error:?}"
        );
    }
    let other = pack(b"another text");
    assert!(matches!(
        unpack(&part.hash, &other),
        Err(InvalidPart::Altered(_))
    ));
    let bomb = vec![0; 64 << 20];
    let packed = pack(&bomb);
    assert!(packed.len() < 1 << 20, "it would fit an object");
    let error = unpack(&Hash::of(&bomb), &packed).unwrap_err();
    assert!(matches!(error, InvalidPart::Compression(_)), "{error:?}");
}

#[test]
fn manifests_of_this_format_and_the_one_before_are_read_and_no_others() {
    let published = publish(&Plan::of(3).group());
    let mut manifest: Value = serde_json::from_str(&published.manifest.text()).unwrap();
    for (format, read) in [(0, true), (1, true), (2, false), (99, false)] {
        manifest["format"] = json!(format);
        let got = GroupManifest::read(&manifest.to_string());
        match got {
            Ok(_) => assert!(read, "format {format}"),
            Err(InvalidPart::Format(named)) => assert!(!read && named == format),
            Err(other) => panic!("{other:?}"),
        }
    }
    // A newer form may look quite different: its format is told all the same.
    let newer = GroupManifest::read(r#"{"format": 2, "pieces": {}}"#);
    assert!(matches!(newer, Err(InvalidPart::Format(2))), "{newer:?}");
    for garbage in [
        "",
        "{}",
        "[]",
        "{\"format\":1}",
        "null",
        "{\"format\":\"1\"}",
    ] {
        let error = GroupManifest::read(garbage).unwrap_err();
        assert!(
            matches!(error, InvalidPart::Manifest(_)),
            "{garbage}: {error:?}"
        );
        assert!(AppsManifest::read(garbage).is_err(), "{garbage}");
    }
    // Something more that this version does not know is no reason to refuse the rest.
    manifest["format"] = json!(1);
    manifest["later"] = json!({"a": 1});
    assert!(GroupManifest::read(&manifest.to_string()).is_ok());
}

fn callers(count: usize) -> (Apps, Vec<Credential>) {
    let app = |at: usize| App {
        name: name(&format!("p{at:05}")),
        id: at as u64,
        disabled: at.is_multiple_of(7),
    };
    let credential = |at: usize, key: bool| Credential {
        app: name(&format!("p{at:05}")),
        name: if key { "k" } else { "c" }.to_owned(),
        not_before_ms: None,
        expires_at_ms: Some(9),
        proof: if key {
            Proof::KeyPair {
                app_key: format!("key{at}"),
                app_secret: Redacted::new(format!("the-secret-{at}")),
            }
        } else {
            Proof::AppCode {
                app_code: Redacted::new(format!("the-code-{at}")),
            }
        },
    };
    let apps = Apps {
        format: 1,
        apps: (0..count).map(app).collect(),
    };
    let mut credentials: Vec<Credential> = (0..count)
        .flat_map(|at| [credential(at, true), credential(at, false)])
        .collect();
    credentials.sort();
    (apps, credentials)
}

#[test]
fn callers_travel_whole_and_one_change_is_one_piece() {
    for count in [0, 1, 500] {
        let (apps, credentials) = callers(count);
        let published = publish_apps(&apps, &credentials, "salt");
        let manifest = AppsManifest::read(&published.manifest.text()).unwrap();
        assert_eq!(
            manifest.hash(),
            Hash::of(published.manifest.text().as_bytes())
        );
        let find = |hash: &Hash| published.parts.get(hash).map(|part| part.raw.as_slice());
        assert_eq!(
            assemble_apps(&manifest, find).unwrap(),
            (apps.clone(), credentials.clone())
        );
        if count == 0 {
            continue;
        }
        let mut revoked = credentials.clone();
        revoked.remove(count / 2);
        let after = publish_apps(&apps, &revoked, "salt");
        let before: BTreeSet<_> = published.manifest.apps.iter().collect();
        let new = after
            .manifest
            .apps
            .iter()
            .filter(|piece| !before.contains(piece));
        assert_eq!(new.count(), 1);
        let salted = publish_apps(&apps, &credentials, "other");
        assert!(
            salted
                .parts
                .keys()
                .all(|hash| !published.parts.contains_key(hash))
        );
        let shown = format!("{published:?} {:?}", published.parts);
        assert!(
            !shown.contains("the-secret") && !shown.contains("salt"),
            "{shown}"
        );
    }
}

#[test]
fn certificates_travel_by_their_own_hash_and_only_those_that_are_used() {
    let material = Certificate {
        chain: Some("chain".to_owned()),
        key: Some(Redacted::new("key".to_owned())),
        ..Certificate::default()
    };
    let mut plan = Plan::default();
    plan.apis.insert(
        ("a".to_owned(), 1),
        (String::new(), [("RELEASE", 0)].into()),
    );
    let group = plan.group();
    let has = |secret: &ObjectName| (&*secret.name != "ca").then_some(&material);
    let published = publish_group(&group, has);
    let named: Vec<String> = published
        .manifest
        .certificates
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(named, ["demo/ca0", "demo/tls"], "demo/ca has no material");
    assert_eq!(
        published.certificates.len(),
        1,
        "equal material is one part"
    );
    let (hash, part) = published.certificates.first_key_value().unwrap();
    assert_eq!(certificate(hash, &part.raw).unwrap(), material);
    assert!(matches!(
        certificate(hash, b"{}"),
        Err(InvalidPart::Altered(_))
    ));
    assert!(
        !published.parts.contains_key(hash),
        "routing holds no secret"
    );
}

// --- What was published by earlier versions ---

fn data(format: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/published-{format}"))
}

/// What the stored data was published from.
fn stored_plan() -> Plan {
    let mut plan = Plan::of(3);
    plan.apis.insert(
        ("old".to_owned(), 2),
        ("x".to_owned(), [("PRE", 2), ("RELEASE", 1)].into()),
    );
    plan
}

/// `UPDATE=1 cargo test -p paifang-snapshot --test published` writes the data of the present format where there is none yet. What is
/// there is never written again: it is what an earlier version published.
#[test]
fn what_the_first_version_published_is_read() {
    let dir = data(1);
    if std::env::var_os("UPDATE").is_some() && !dir.exists() {
        fs::create_dir_all(dir.join("parts")).unwrap();
        let material = Certificate {
            chain: Some("chain".to_owned()),
            key: None,
            ca: Some("roots".to_owned()),
            ..Certificate::default()
        };
        let published = publish_group(&stored_plan().group(), |_| Some(&material));
        let (apps, credentials) = callers(2);
        let callers = publish_apps(&apps, &credentials, "salt");
        let parts = published
            .parts
            .values()
            .chain(published.certificates.values());
        for part in parts.chain(callers.parts.values()) {
            fs::write(dir.join("parts").join(part.hash.as_str()), pack(&part.raw)).unwrap();
        }
        fs::write(dir.join("group.json"), published.manifest.text()).unwrap();
        fs::write(dir.join("apps.json"), callers.manifest.text()).unwrap();
    }

    let parts: BTreeMap<Hash, Vec<u8>> = fs::read_dir(dir.join("parts"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let hash: Hash = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let raw = unpack(&hash, &fs::read(path).unwrap()).unwrap();
            (hash, raw)
        })
        .collect();
    let find = |hash: &Hash| parts.get(hash).map(Vec::as_slice);
    let manifest =
        GroupManifest::read(&fs::read_to_string(dir.join("group.json")).unwrap()).unwrap();
    assert_eq!(
        assemble_group(&manifest, find).unwrap(),
        stored_plan().group()
    );
    let secrets: Vec<String> = manifest
        .certificates
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(secrets, ["demo/ca", "demo/ca0", "demo/tls"]);
    let hash = &manifest.certificates[&name("tls")];
    let material = certificate(hash, find(hash).unwrap()).unwrap();
    assert_eq!(material.ca.as_deref(), Some("roots"));
    let apps = AppsManifest::read(&fs::read_to_string(dir.join("apps.json")).unwrap()).unwrap();
    assert_eq!(assemble_apps(&apps, find).unwrap(), callers(2));
}
