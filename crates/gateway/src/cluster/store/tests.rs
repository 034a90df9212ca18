//! Events in, what is in force out.

use paifang_snapshot::{
    published::{Part as Published, PublishedGroup, pack, publish_apps, publish_group},
    wire::{App, Apps as WireApps, Credential, Proof},
};
use serde_json::json;

use super::*;

/// A group with one Api that answers `body`, at a Service where one is named, and one certificate.
fn group(name: &str, body: &str, service: Option<&str>) -> wire::Group {
    let target = match service {
        Some(service) => {
            json!({"type": "vpc", "scheme": "HTTP", "host": body, "endpoints": {"service": {"name": format!("ns/{service}"), "port": "web"}}})
        }
        None => json!({"type": "mock", "status": 200, "headers": [], "body": body}),
    };
    serde_json::from_value(json!({
        "format": 1, "name": format!("ns/{name}"), "id": name, "instance": "default", "basePath": "/",
        "qpsLimit": 500, "httpsPolicy": "Http2Tls13", "filterAppCode": false,
        "subDomain": {"public": null, "internal": null, "dailyQuota": 1},
        "domains": [{"name": format!("ns/{name}"), "host": format!("{name}.example.com"), "stage": null, "intranet": false, "webSocket": false,
            "tls": {"certificate": "ns/tls", "clientCa": null, "passClientSubject": false, "redirectHttp": false}}],
        "apis": [{"name": "ns/a", "release": 1, "hash": "0", "kind": "Common", "protocols": ["HTTP"], "method": "GET", "path": "/a",
            "mode": "Passthrough", "bodyFormat": "Stream", "auth": {"type": "anonymous"}, "internalOnly": false,
            "dispatch": {"timeoutMs": 1000, "contentType": "Client"}}],
        "routes": [{"stage": "RELEASE", "api": 0, "backend": 0}],
        "backends": [{"label": "b", "target": target}],
        "grants": [],
    }))
    .unwrap()
}

fn material(chain: &str) -> Certificate {
    Certificate {
        chain: Some(chain.to_owned()),
        ..Certificate::default()
    }
}

fn published(name: &str, body: &str, service: Option<&str>, chain: &str) -> PublishedGroup {
    let material = material(chain);
    publish_group(&group(name, body, service), |_| Some(&material))
}

fn part(part: &Published) -> Object {
    Object {
        name: format!("paifang-part-{}", part.hash).into(),
        version: 1,
        content: Content::Part(part.hash.clone(), Ok(pack(&part.raw).into())),
    }
}

fn manifest(published: &PublishedGroup, version: u64) -> Object {
    written(
        &published.manifest.group.name,
        &published.manifest.text(),
        version,
    )
}

fn written(id: &str, text: &str, version: u64) -> Object {
    Object {
        name: format!("paifang-group-{id}").into(),
        version,
        content: Content::Group {
            text: text.into(),
            about: Some(ObjectName::new("ns", id)),
        },
    }
}

/// A store with a clock.
struct World {
    store: Store,
    now: Instant,
    known: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            store: Store::new("default"),
            now: Instant::now(),
            known: BTreeSet::new(),
        }
    }

    fn put(&mut self, source: Source, object: Object) {
        self.store.put(source, object, self.now);
    }

    fn parts(&mut self, published: &PublishedGroup) {
        for it in published.parts.values() {
            self.put(Source::Routing, part(it));
        }
        for it in published.certificates.values() {
            self.put(Source::Secrets, part(it));
        }
    }

    fn publish(&mut self, published: &PublishedGroup, version: u64) {
        self.parts(published);
        self.put(Source::Routing, manifest(published, version));
    }

    /// Whether something changed.
    fn step(&mut self) -> bool {
        self.store.assemble();
        let known = &self.known;
        self.store
            .promote(|(service, _)| known.contains(&*service.name), self.now)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// What each group in force answers.
    fn served(&self) -> Vec<String> {
        let groups = self.store.snapshot().groups.iter();
        groups
            .map(|(name, group)| {
                let body = match &group.backends[0].target {
                    Target::Mock(mock) => &mock.body,
                    Target::Vpc(vpc) => &vpc.host,
                    _ => unreachable!(),
                };
                format!("{}={body}", name.name)
            })
            .collect()
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.store.problems(self.now).into_iter();
        problems.map(|it| it.message).collect()
    }

    fn chain(&self) -> Option<String> {
        let tls = self
            .store
            .snapshot()
            .certificates
            .get(&ObjectName::new("ns", "tls"))?;
        tls.chain.clone()
    }
}

#[test]
fn a_group_is_in_force_once_its_manifest_and_every_part_are_there_in_whatever_order() {
    let new = published("g", "new", None, "c1");
    let mut objects: Vec<(Source, Object)> = vec![(Source::Routing, manifest(&new, 5))];
    objects.extend(new.parts.values().map(|it| (Source::Routing, part(it))));
    objects.extend(
        new.certificates
            .values()
            .map(|it| (Source::Secrets, part(it))),
    );
    assert!(objects.len() >= 4, "a manifest, two parts, a certificate");
    for first in 0..objects.len() {
        let mut world = World::new();
        for (at, (source, object)) in objects
            .iter()
            .cycle()
            .skip(first)
            .take(objects.len())
            .enumerate()
        {
            assert!(!world.step(), "{at} of {first}");
            assert_eq!(world.served(), Vec::<String>::new());
            world.put(*source, object.clone());
        }
        assert!(world.step());
        assert_eq!(world.served(), ["g=new"]);
        assert_eq!(world.chain().as_deref(), Some("c1"));
        assert_eq!(
            world.store.groups()[&ObjectName::new("ns", "g")],
            new.manifest.hash()
        );
        assert!(!world.step(), "and then rests");
        world.wait(GRACE);
        assert_eq!(world.problems(), Vec::<String>::new());
    }
}

#[test]
fn a_missing_or_altered_part_leaves_the_last_good_state_and_is_told_when_it_lasts() {
    let (old, new) = (
        published("g", "old", None, "c"),
        published("g", "new", None, "c"),
    );
    let mut world = World::new();
    world.publish(&old, 1);
    world.step();
    world.put(Source::Routing, manifest(&new, 2));
    assert!(!world.step());
    assert_eq!(
        (world.served(), world.problems()),
        (vec!["g=old".to_owned()], Vec::new())
    );
    assert_eq!(world.store.stale(), (1, 1));
    assert!(world.store.deadline(world.now).is_some());
    world.wait(GRACE);
    let problems = world.problems();
    assert!(
        problems[0].contains("it is not there; the last good version stays in force"),
        "{problems:?}"
    );

    let changed: Vec<&Published> = new
        .parts
        .values()
        .filter(|it| !old.parts.contains_key(&it.hash))
        .collect();
    let [changed] = changed[..] else {
        panic!("{changed:?}")
    };
    let mut altered = part(changed);
    altered.content = Content::Part(changed.hash.clone(), Ok(pack(b"other").into()));
    world.put(Source::Routing, altered);
    assert!(!world.step());
    let problems = world.problems();
    assert!(problems[0].contains("was altered"), "{problems:?}");
    assert_eq!(world.served(), ["g=old"]);
    world.put(Source::Routing, part(changed));
    assert!(world.step());
    assert_eq!(
        (world.served(), world.problems()),
        (vec!["g=new".to_owned()], Vec::new())
    );
    assert_eq!(world.store.stale(), (0, 0));
}

#[test]
fn a_part_that_is_known_outlives_its_object() {
    let mut world = World::new();
    let old = published("g", "old", None, "c");
    world.publish(&old, 1);
    world.step();
    for it in old.parts.values() {
        world.store.gone(Source::Routing, "x", Some(&it.hash));
        let mut altered = part(it);
        altered.content = Content::Part(it.hash.clone(), Err("no data".to_owned()));
        world.put(Source::Routing, altered);
        world.store.gone(Source::Routing, "x", Some(&it.hash));
    }
    assert!(!world.step());
    // Only the head is another; the rest is not sent again.
    let mut edited = group("g", "old", None);
    edited.qps_limit = 7;
    let material = material("c");
    let new = publish_group(&edited, |_| Some(&material));
    for it in new
        .parts
        .values()
        .filter(|it| !old.parts.contains_key(&it.hash))
    {
        world.put(Source::Routing, part(it));
    }
    world.put(Source::Routing, manifest(&new, 2));
    assert!(world.step());
    assert_eq!(
        world.store.snapshot().groups[&ObjectName::new("ns", "g")].qps_limit,
        7
    );
    assert_eq!(world.store.saved().parts.len(), new.parts.len() + 1);
    // What no manifest names any more and no object holds is forgotten.
    let kept = world.store.parts.len();
    assert!(kept <= new.parts.len() + 1, "{kept}");
}

#[test]
fn garbage_and_newer_formats_change_nothing_but_are_told_at_once() {
    let good = published("g", "good", None, "c");
    let text = good.manifest.text();
    for (bad, reason) in [
        (String::new(), "cannot be read"),
        ("{".to_owned(), "cannot be read"),
        (text.replace("\"format\":1", "\"format\":2"), "format 2"),
        (text.replace("\"default\"", "\"other\""), "instance `other`"),
        (text.replace("[\"", "[\"0"), "cannot be read"),
    ] {
        let mut world = World::new();
        world.publish(&good, 1);
        world.step();
        world.put(Source::Routing, written("g", &bad, 2));
        assert!(!world.step(), "{bad}");
        assert_eq!(world.served(), ["g=good"], "{bad}");
        let problems = world.store.problems(world.now);
        assert!(problems[0].message.contains(reason), "{problems:?}");
        assert_eq!(problems[0].group, Some(ObjectName::new("ns", "g")));
        world.put(Source::Routing, manifest(&good, 3));
        world.step();
        assert_eq!(world.problems(), Vec::<String>::new());

        let mut fresh = World::new();
        fresh.put(Source::Routing, written("g", &bad, 2));
        fresh.step();
        assert!(fresh.problems()[0].ends_with("so that the group is not served"));
        assert!(
            fresh.store.is_whole_when(|_| true),
            "it must not hold up the others"
        );
    }
}

#[test]
fn a_group_goes_when_its_manifest_is_deleted_or_a_whole_list_has_it_not() {
    let (g, h) = (
        published("g", "1", None, "c"),
        published("h", "1", None, "c"),
    );
    let mut world = World::new();
    world.publish(&g, 1);
    world.publish(&h, 1);
    world.step();
    world.store.gone(Source::Routing, "paifang-group-g", None);
    assert!(world.step());
    assert_eq!(world.served(), ["h=1"]);
    // Parts alone are no manifest.
    let parts: Vec<Object> = h.parts.values().map(part).collect();
    world
        .store
        .listed(Source::Routing, parts.clone(), world.now);
    assert!(world.step());
    assert_eq!(world.served(), Vec::<String>::new());
    assert_eq!(world.chain(), None);
    let mut all = vec![manifest(&h, 2)];
    all.extend(parts);
    world.store.listed(Source::Routing, all, world.now);
    assert!(world.step(), "its certificate was there all the time");
    // Secrets that are listed without it leave the group alone.
    world.store.listed(Source::Secrets, Vec::new(), world.now);
    assert!(!world.step());
    assert_eq!(world.served(), ["h=1"]);
}

#[test]
fn a_group_waits_for_the_endpoints_of_a_service_that_is_new_but_not_for_long() {
    let mut world = World::new();
    let (plain, with) = (
        published("g", "old", None, "c"),
        published("g", "svc", Some("s"), "c"),
    );
    world.publish(&plain, 1);
    world.step();
    assert_eq!(world.store.changed_services(), None);
    world.publish(&with, 2);
    assert!(!world.step());
    let wanted = world.store.changed_services().unwrap();
    assert_eq!(
        wanted,
        [(ObjectName::new("ns", "s"), "web".to_owned())].into()
    );
    assert!(!world.store.is_whole_when(|_| false) && world.store.is_whole_when(|_| true));
    world.known.insert("s".to_owned());
    assert!(world.step());
    assert_eq!(world.served(), ["g=svc"]);
    let other = published("g", "other", Some("t"), "c");
    world.publish(&other, 3);
    assert!(!world.step());
    assert_eq!(
        world.store.changed_services().unwrap().len(),
        2,
        "both until it is in force"
    );
    world.wait(ENDPOINTS);
    assert!(world.step());
    assert_eq!(world.served(), ["g=other"]);
    assert_eq!(world.store.changed_services().unwrap().len(), 1);
    // One that is replaced while it waits leaves nothing behind.
    world.publish(&published("g", "third", Some("u"), "c"), 4);
    world.step();
    world.publish(&plain, 5);
    assert!(world.step());
    assert_eq!(world.store.changed_services(), Some(BTreeSet::new()));
}

#[test]
fn of_two_groups_that_know_a_secret_differently_the_later_one_counts() {
    let mut world = World::new();
    world.publish(&published("g", "1", None, "new"), 9);
    world.publish(&published("h", "1", None, "old"), 8);
    world.step();
    assert_eq!(world.chain().as_deref(), Some("new"));
    world.publish(&published("h", "1", None, "newest"), 10);
    world.step();
    assert_eq!(world.chain().as_deref(), Some("newest"));
}

fn apps(secret: &str) -> (Object, Vec<Object>) {
    let app = ObjectName::new("ns", "app");
    let apps = WireApps {
        format: 1,
        apps: vec![App {
            name: app.clone(),
            id: 1,
            disabled: false,
        }],
    };
    let credentials = [Credential {
        app,
        name: "k".to_owned(),
        not_before_ms: None,
        expires_at_ms: None,
        proof: Proof::KeyPair {
            app_key: "key".to_owned(),
            app_secret: secret.to_owned().into(),
        },
    }];
    let published = publish_apps(&apps, &credentials, "salt");
    let manifest = Object {
        name: crate::cluster::APPS.into(),
        version: 1,
        content: Content::Apps(published.manifest.text().into()),
    };
    (manifest, published.parts.values().map(part).collect())
}

#[test]
fn callers_change_when_all_their_parts_are_there_and_do_not_vanish_with_their_manifest() {
    let secret = |world: &World| match world
        .store
        .snapshot()
        .credentials
        .first()
        .map(|it| &it.proof)
    {
        Some(Proof::KeyPair { app_secret, .. }) => app_secret.expose().clone(),
        _ => "none".to_owned(),
    };
    let mut world = World::new();
    let (manifest, parts) = apps("one");
    world.put(Source::Secrets, manifest);
    assert!(!world.step() && world.store.apps().is_none());
    world.wait(GRACE);
    assert!(
        world.problems()[0].contains("no App may call"),
        "{:?}",
        world.problems()
    );
    parts
        .into_iter()
        .for_each(|part| world.put(Source::Secrets, part));
    assert!(world.step());
    assert_eq!(
        (secret(&world).as_str(), world.problems()),
        ("one", Vec::new())
    );
    let (manifest, parts) = apps("two");
    world.put(Source::Secrets, manifest);
    world.step();
    assert_eq!(secret(&world), "one");
    parts
        .into_iter()
        .for_each(|part| world.put(Source::Secrets, part));
    world.step();
    assert_eq!(secret(&world), "two");
    world
        .store
        .gone(Source::Secrets, crate::cluster::APPS, None);
    assert!(!world.step());
    assert_eq!(secret(&world), "two");
    assert!(world.problems()[0].contains("there no more"));
    let garbage = Object {
        name: crate::cluster::APPS.into(),
        version: 3,
        content: Content::Apps("{}".into()),
    };
    world.put(Source::Secrets, garbage);
    world.step();
    assert_eq!(secret(&world), "two");
    assert!(
        world.problems()[0].contains("cannot be read"),
        "{:?}",
        world.problems()
    );
    world.put(Source::Secrets, apps("two").0);
    world.step();
    assert_eq!(world.problems(), Vec::<String>::new());
}

#[test]
fn what_was_saved_is_in_force_again_and_stays_where_the_cluster_says_nothing_better() {
    let mut world = World::new();
    world.publish(&published("g", "1", None, "c"), 1);
    world.publish(&published("h", "1", None, "c"), 1);
    let (manifest_of_apps, parts) = apps("one");
    world.put(Source::Secrets, manifest_of_apps);
    parts
        .into_iter()
        .for_each(|part| world.put(Source::Secrets, part));
    world.step();
    let saved = world.store.saved();

    let mut next = World::new();
    for (hash, packed) in &saved.parts {
        next.store
            .restore(hash.clone(), Arc::clone(packed))
            .unwrap();
    }
    assert!(
        next.store
            .restore(Hash::of(b"x"), b"torn".as_slice().into())
            .is_err()
    );
    for (name, manifest) in &saved.groups {
        let content = Content::Group {
            text: Arc::clone(&manifest.text),
            about: None,
        };
        let object = Object {
            name: name.clone(),
            version: manifest.version,
            content,
        };
        next.put(Source::Routing, object);
    }
    let apps = Object {
        name: crate::cluster::APPS.into(),
        version: 1,
        content: Content::Apps(saved.apps.unwrap().text),
    };
    next.put(Source::Secrets, apps);
    assert!(next.step());
    assert_eq!(next.served(), ["g=1", "h=1"]);
    assert_eq!(next.store.snapshot().credentials.len(), 1);
    // The cluster has garbage for one, the same for the other.
    let h = published("h", "1", None, "c");
    let mut all = vec![written("g", "garbage", 2), manifest(&h, 2)];
    all.extend(h.parts.values().map(part));
    next.store.listed(Source::Routing, all, next.now);
    assert!(!next.step());
    assert_eq!(next.served(), ["g=1", "h=1"]);
    assert_eq!(next.problems().len(), 1);
    // A part that was lost on disk comes with the list.
    let mut torn = World::new();
    for (hash, packed) in saved
        .parts
        .iter()
        .filter(|(hash, _)| !h.parts.contains_key(*hash))
    {
        torn.store
            .restore(hash.clone(), Arc::clone(packed))
            .unwrap();
    }
    torn.put(Source::Routing, manifest(&h, 1));
    assert!(!torn.step());
    assert_eq!(torn.store.not_in_force().collect::<Vec<_>>(), ["ns/h"]);
    torn.parts(&h);
    assert!(torn.step());
    assert_eq!(torn.served(), ["h=1"]);
}

#[test]
fn what_a_change_costs_does_not_grow_with_what_did_not_change() {
    let (groups, apis) = (500, 40);
    let large = |number: usize, body: &str| {
        let mut group = group(&format!("g{number:04}"), body, None);
        let like = group.apis[0].clone();
        group.apis.clear();
        group.routes.clear();
        for at in 0..apis {
            let mut api = wire::Api::clone(&like);
            api.name = ObjectName::new("ns", format!("a{number:04}-{at:04}"));
            api.path = format!("/a{at}/[id]").parse().unwrap();
            group.apis.push(Arc::new(api));
            group.routes.push(wire::Route {
                stage: "RELEASE".parse().unwrap(),
                api: at,
                backend: 0,
                variables: BTreeMap::new(),
            });
        }
        let material = material("c");
        publish_group(&group, |_| Some(&material))
    };
    let mut world = World::new();
    for number in 0..groups {
        world.publish(&large(number, "x"), 1);
    }
    let started = Instant::now();
    assert!(world.step());
    let whole = started.elapsed();
    let mut took = Vec::new();
    for change in 0..10 {
        let changed = large(7, &format!("change {change}"));
        let started = Instant::now();
        world.publish(&changed, 2 + change);
        assert!(world.step());
        let _ = (world.store.groups(), world.store.stale(), world.problems());
        took.push(started.elapsed());
    }
    took.sort();
    eprintln!(
        "{} Apis put together: {whole:?}; one group of {apis} changed: {:?}",
        500 * apis,
        took[5]
    );
    assert!(took[5] < whole / 10, "{took:?} {whole:?}");
}
