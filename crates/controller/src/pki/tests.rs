use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::ByteString;
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName},
    server::WebPkiClientVerifier,
};

use super::{authority::Step, *};
use crate::Webhook;

const DAY: u64 = 86_400;
const START: u64 = 1_800_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn webhook() -> Webhook {
    Webhook {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        service: "paifang-webhook".to_owned(),
        configuration: "paifang".to_owned(),
    }
}

fn leaves() -> Vec<Leaf> {
    vec![
        Leaf::gateway(),
        Leaf::controller(),
        Leaf::webhook(&webhook(), "paifang-system"),
    ]
}

/// Does what is due until nothing is; tells what was done.
fn settle(now: u64, secrets: &mut Seen) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(action) = decide::decide(at(now), &leaves(), secrets).first() {
        let secret = decide::carry_out(at(now), action, &leaves(), secrets).unwrap();
        secrets.insert(action.secret.to_owned(), secret);
        done.push(format!("{}: {}", action.secret, action.what.word()));
        assert!(done.len() < 20, "never settles: {done:?}");
    }
    done
}

fn made() -> Seen {
    let mut secrets = Seen::new();
    settle(START, &mut secrets);
    secrets
}

fn set(secrets: &mut Seen, name: &str, part: &str, text: &[u8]) {
    let data = secrets.get_mut(name).unwrap().data.as_mut().unwrap();
    data.insert(part.to_owned(), ByteString(text.to_vec()));
}

fn text(secrets: &Seen, name: &str, part: &str) -> Vec<u8> {
    bytes(&secrets[name], part).unwrap().to_vec()
}

fn roots(bundle: &[u8]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in pem::certificates("ca.crt", bundle).unwrap() {
        roots.add(root).unwrap();
    }
    Arc::new(roots)
}

fn first(text: &[u8]) -> CertificateDer<'static> {
    pem::certificates("tls.crt", text).unwrap().remove(0)
}

/// Whether one who trusts what `reader` holds takes the gateway's certificate of `server`.
fn trusts_server(reader: &Seen, server: &Seen, now: u64) -> Result<(), rustls::Error> {
    let roots = roots(&text(reader, "paifang-controller-tls", CA_CRT));
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .unwrap();
    let leaf = first(&text(server, "paifang-gateway-tls", TLS_CRT));
    let name = ServerName::try_from("gateway.paifang.internal").unwrap();
    verifier
        .verify_server_cert(&leaf, &[], &name, &[], at(now))
        .map(|_| ())
}

/// Whether a gateway that trusts what `server` holds takes the controller's certificate of `reader`.
fn trusts_client(server: &Seen, reader: &Seen, now: u64) -> Result<(), rustls::Error> {
    let roots = roots(&text(server, "paifang-gateway-tls", CA_CRT));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .unwrap();
    let leaf = first(&text(reader, "paifang-controller-tls", TLS_CRT));
    verifier.verify_client_cert(&leaf, &[], at(now)).map(|_| ())
}

#[test]
fn from_nothing_all_four_are_made_and_then_nothing_is_due() {
    let mut secrets = Seen::new();
    assert_eq!(
        settle(START, &mut secrets),
        [
            "paifang-ca: new authority",
            "paifang-gateway-tls: issued",
            "paifang-controller-tls: issued",
            "paifang-webhook-tls: issued"
        ]
    );
    // Whoever has a clock that is half an hour behind takes them as well.
    for now in [START, START - 1_800, START + 59 * DAY] {
        assert_eq!(decide::decide(at(now), &leaves(), &secrets), []);
        trusts_server(&secrets, &secrets, now).unwrap();
        trusts_client(&secrets, &secrets, now).unwrap();
    }
    let labels = secrets["paifang-gateway-tls"]
        .metadata
        .labels
        .as_ref()
        .unwrap();
    assert_eq!(labels["paifang.dev/instance"], "ALL");
    assert_eq!(labels["paifang.dev/part"], "report-tls");
    for name in [
        "paifang-ca",
        "paifang-controller-tls",
        "paifang-webhook-tls",
    ] {
        let labels = secrets[name].metadata.labels.as_ref().unwrap();
        assert!(!labels.contains_key("paifang.dev/instance"), "{name}");
        assert!(decide::SELECTOR.contains(&labels["paifang.dev/part"]));
    }
    let webhook = pem::facts(&first(&text(&secrets, "paifang-webhook-tls", TLS_CRT))).unwrap();
    assert_eq!(
        webhook.names,
        [
            "paifang-webhook.paifang-system.svc.cluster.local",
            "paifang-webhook.paifang-system.svc"
        ]
    );
}

#[test]
fn certificates_are_renewed_when_two_thirds_are_over_and_keys_with_them() {
    let mut secrets = made();
    let before = secrets.clone();
    let now = START + 60 * DAY;
    let done = settle(now, &mut secrets);
    assert_eq!(done.len(), 3, "{done:?}");
    assert!(
        done.iter().all(|done| done.ends_with(": issued")),
        "{done:?}"
    );
    assert_eq!(secrets["paifang-ca"], before["paifang-ca"]);
    for name in [
        "paifang-gateway-tls",
        "paifang-controller-tls",
        "paifang-webhook-tls",
    ] {
        assert_ne!(text(&secrets, name, TLS_KEY), text(&before, name, TLS_KEY));
    }
    trusts_server(&before, &secrets, now).unwrap();
    trusts_client(&secrets, &before, now).unwrap();
}

#[test]
fn damage_is_repaired_and_no_more_than_that() {
    type Damage = fn(&mut Seen);
    let cases: [(&str, Damage, &[&str]); 13] = [
        (
            "a certificate is missing",
            |secrets| drop(secrets.remove("paifang-webhook-tls")),
            &["paifang-webhook-tls: issued"],
        ),
        (
            "half-written: no key",
            |secrets| {
                let secret = secrets.get_mut("paifang-gateway-tls").unwrap();
                secret.data.as_mut().unwrap().remove(TLS_KEY);
            },
            &["paifang-gateway-tls: issued"],
        ),
        (
            "half-written: another's key",
            |secrets| {
                let key = text(secrets, "paifang-webhook-tls", TLS_KEY);
                set(secrets, "paifang-gateway-tls", TLS_KEY, &key);
            },
            &["paifang-gateway-tls: issued"],
        ),
        (
            "no data at all",
            |secrets| secrets.get_mut("paifang-controller-tls").unwrap().data = None,
            &["paifang-controller-tls: issued"],
        ),
        (
            "garbage",
            |secrets| set(secrets, "paifang-controller-tls", TLS_CRT, b"hello"),
            &["paifang-controller-tls: issued"],
        ),
        (
            "a certificate for other names",
            |secrets| {
                let other = secrets["paifang-webhook-tls"].data.clone();
                secrets.get_mut("paifang-gateway-tls").unwrap().data = other;
            },
            &["paifang-gateway-tls: issued"],
        ),
        (
            "a certificate of another authority",
            |secrets| {
                let other = made()["paifang-controller-tls"].data.clone();
                secrets.get_mut("paifang-controller-tls").unwrap().data = other;
            },
            &["paifang-controller-tls: issued"],
        ),
        (
            "another bundle",
            |secrets| {
                let other = text(&made(), "paifang-ca", CA_CRT);
                set(secrets, "paifang-gateway-tls", CA_CRT, &other);
            },
            &["paifang-gateway-tls: authorities told"],
        ),
        (
            "labels of a certificate",
            |secrets| {
                secrets
                    .get_mut("paifang-gateway-tls")
                    .unwrap()
                    .metadata
                    .labels = None
            },
            &["paifang-gateway-tls: labelled"],
        ),
        (
            "labels of the authority",
            |secrets| secrets.get_mut("paifang-ca").unwrap().metadata.labels = None,
            &["paifang-ca: labelled"],
        ),
        (
            "somebody trusts one more",
            |secrets| {
                let mut both = text(secrets, "paifang-ca", CA_CRT);
                both.extend(text(&made(), "paifang-ca", CA_CRT));
                set(secrets, "paifang-ca", CA_CRT, &both);
            },
            &["paifang-ca: authorities tidied"],
        ),
        (
            "an authority with another's key",
            |secrets| {
                let key = text(&made(), "paifang-ca", TLS_KEY);
                set(secrets, "paifang-ca", TLS_KEY, &key);
            },
            ALL_ANEW,
        ),
        (
            "an authority that may not sign",
            |secrets| {
                let leaf = secrets["paifang-gateway-tls"].data.clone();
                secrets.get_mut("paifang-ca").unwrap().data = leaf;
            },
            ALL_ANEW,
        ),
    ];
    for (name, damage, expected) in cases {
        let mut secrets = made();
        damage(&mut secrets);
        assert_eq!(settle(START + DAY, &mut secrets), expected, "{name}");
        trusts_server(&secrets, &secrets, START + DAY).unwrap();
        trusts_client(&secrets, &secrets, START + DAY).unwrap();
    }
}

const ALL_ANEW: &[&str] = &[
    "paifang-ca: new authority",
    "paifang-gateway-tls: issued",
    "paifang-controller-tls: issued",
    "paifang-webhook-tls: issued",
];

#[test]
fn an_authority_that_is_deleted_is_not_trusted_any_more() {
    let mut secrets = made();
    let before = secrets.clone();
    secrets.remove("paifang-ca");
    assert_eq!(settle(START + 1, &mut secrets), ALL_ANEW);
    trusts_server(&secrets, &before, START + 1).unwrap_err();
}

#[test]
fn everything_is_made_anew_after_a_long_sleep() {
    let mut secrets = made();
    let now = START + 11 * 365 * DAY;
    assert_eq!(settle(now, &mut secrets), ALL_ANEW);
    trusts_server(&secrets, &secrets, now).unwrap();
}

/// Twelve years in steps: nobody who has yesterday's Secrets is ever cut off from one who has today's.
#[test]
fn the_authority_moves_on_without_a_cut() {
    let mut secrets = made();
    let mut steps = Vec::new();
    let first_authority = text(&secrets, "paifang-ca", TLS_CRT);
    let due = 9 * 365;
    let days = (0..due - 5)
        .step_by(25)
        .chain(due - 5..due + 5)
        .chain((due + 5..12 * 365).step_by(25));
    for day in days {
        let now = START + day * DAY;
        let before = secrets.clone();
        for done in settle(now, &mut secrets) {
            if done.starts_with("paifang-ca") {
                steps.push((day, done));
            }
        }
        for (reader, server) in [
            (&before, &secrets),
            (&secrets, &before),
            (&secrets, &secrets),
        ] {
            trusts_server(reader, server, now).unwrap_or_else(|error| panic!("{day}: {error}"));
            trusts_client(server, reader, now).unwrap_or_else(|error| panic!("{day}: {error}"));
        }
    }
    let said: Vec<&str> = steps.iter().map(|(_, done)| done.as_str()).collect();
    assert_eq!(
        said,
        [
            "paifang-ca: next authority announced",
            "paifang-ca: next authority signs",
            "paifang-ca: authorities tidied"
        ],
        "{steps:?}"
    );
    assert!((due - 1..=due + 1).contains(&steps[0].0), "{steps:?}");
    assert_eq!(steps[1].0, steps[0].0 + 1, "{steps:?}");
    assert!((3_650..3_680).contains(&steps[2].0), "{steps:?}");
    let bundle = String::from_utf8(text(&secrets, "paifang-gateway-tls", CA_CRT)).unwrap();
    assert!(!bundle.contains(std::str::from_utf8(&first_authority).unwrap()));
    assert_eq!(
        bundle,
        String::from_utf8(text(&secrets, "paifang-ca", CA_CRT)).unwrap()
    );
}

#[test]
fn a_broken_next_authority_is_made_again() {
    let mut secrets = made();
    let now = START + 9 * 365 * DAY;
    settle(now, &mut secrets);
    set(&mut secrets, "paifang-ca", "next.key", b"x");
    let actions = decide::decide(at(now), &leaves(), &secrets);
    assert_eq!(actions[0].what, What::Step(Step::Prepare));
}

#[test]
fn what_cannot_be_used_leaves_the_last_that_could() {
    let settings = Arc::new(settings("paifang-system"));
    let (sender, receiver) = watch::channel(Arc::new(Material::default()));
    let registry = paifang_runtime::metrics::Metrics::new("paifang", "0.0.0");
    let mut keeper = Keeper::new(settings, Metrics::register(&registry));
    keeper.publish(&sender);
    assert!(receiver.borrow().webhook.is_none());
    let mut secrets = Seen::new();
    let now = UnixTime::now().as_secs();
    settle(now, &mut secrets);
    keeper.seen = Some(secrets.clone());
    keeper.publish(&sender);
    let ends = |secret: &str| {
        let shown = registry.text();
        let start = format!(
            "paifang_controller_internal_certificate_expiry_timestamp_seconds{{secret=\"{secret}\"}} "
        );
        let line = shown.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|end| end.parse::<u64>().ok())
            .unwrap_or_default()
    };
    for (secret, life) in [
        ("paifang-ca", authority::LIFE),
        ("paifang-gateway-tls", leaf::LIFE),
        ("paifang-controller-tls", leaf::LIFE),
        ("paifang-webhook-tls", leaf::LIFE),
    ] {
        let end = now + life.as_secs();
        assert!((end - 2 * 3_600..=end).contains(&ends(secret)), "{secret}");
    }
    let first = Arc::clone(&receiver.borrow());
    let (webhook, reports) = (
        first.webhook.clone().unwrap(),
        first.reports.clone().unwrap(),
    );
    assert_eq!(
        first.ca_bundle.as_deref().map(str::as_bytes),
        Some(text(&secrets, "paifang-ca", CA_CRT).as_slice())
    );
    set(&mut secrets, "paifang-webhook-tls", TLS_KEY, b"x");
    keeper.seen = Some(secrets.clone());
    keeper.publish(&sender);
    let second = Arc::clone(&receiver.borrow());
    let same = |config: &Arc<ServerConfig>| Arc::ptr_eq(config, &webhook);
    assert!(second.webhook.as_ref().is_some_and(same));
    settle(now, &mut secrets);
    keeper.seen = Some(secrets);
    keeper.publish(&sender);
    let third = Arc::clone(&receiver.borrow());
    assert!(!third.webhook.as_ref().is_some_and(same));
    assert!(Arc::ptr_eq(third.reports.as_ref().unwrap(), &reports));
}

pub(super) fn settings(namespace: &str) -> Settings {
    Settings {
        namespace: namespace.to_owned(),
        identity: "me".to_owned(),
        admin: None,
        webhook: Some(webhook()),
        gateway_port: 9902,
        lease: crate::Lease::default(),
        meaning: paifang_compiler::Settings::new(|_| {
            Ok(paifang_compiler::CertificateFacts::default())
        }),
    }
}
