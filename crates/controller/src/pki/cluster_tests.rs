//! The loop against a real API server: races, damage by hand, two who think that they lead, and rest.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use paifang_testkit::{ControlPlane, eventually};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::watch};

use super::{Material, decide, leaf::Leaf, run, testing, tests::settings};
use crate::Settings;

const PATIENCE: Duration = Duration::from_secs(20);
const NAMES: [&str; 4] = [
    "paifang-ca",
    "paifang-controller-tls",
    "paifang-gateway-tls",
    "paifang-webhook-tls",
];

/// Replicas of the controller's part that keeps certificates, in a namespace of their own.
struct Installation {
    plane: &'static ControlPlane,
    runtime: Runtime,
    settings: Arc<Settings>,
    replicas: Vec<Replica>,
}

struct Replica {
    leads: watch::Sender<bool>,
    material: watch::Receiver<Arc<Material>>,
}

impl Installation {
    fn new() -> Self {
        let plane = ControlPlane::shared();
        let namespace = plane.namespace().unwrap();
        let mut settings = settings(&namespace);
        let webhook = settings.webhook.as_mut().unwrap();
        webhook.configuration = format!("paifang-{namespace}");
        Self {
            plane,
            runtime: Runtime::new().unwrap(),
            settings: Arc::new(settings),
            replicas: Vec::new(),
        }
    }

    fn add(&mut self, leads: bool) {
        let client = self.runtime.block_on(testing::client(self.plane));
        let (leads, leading) = watch::channel(leads);
        let (sender, material) = watch::channel(Arc::default());
        let settings = Arc::clone(&self.settings);
        self.runtime
            .spawn(run(client, settings, leading, sender, testing::metrics()));
        self.replicas.push(Replica { leads, material });
    }

    fn path(&self, name: &str) -> String {
        format!(
            "/api/v1/namespaces/{}/secrets/{name}",
            self.settings.namespace
        )
    }

    fn configuration_path(&self, name: &str) -> String {
        format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}")
    }

    fn configuration(&self) -> &str {
        &self.settings.webhook.as_ref().unwrap().configuration
    }

    /// Two webhooks that nothing outside the namespace is asked of.
    fn install_configuration(&self) {
        let webhook = |name: &str| {
            json!({
                "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
                "clientConfig": {"service": {"name": "paifang-webhook", "namespace": self.settings.namespace}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.settings.namespace}},
                "rules": [{"apiGroups": ["paifang.dev"], "apiVersions": ["v1alpha1"], "operations": ["CREATE"], "resources": ["apis"]}],
            })
        };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self.configuration()},
            "webhooks": [webhook("one.paifang.dev"), webhook("two.paifang.dev")],
        });
        self.plane
            .ask("POST", &self.configuration_path(""), &configuration)
            .unwrap();
    }

    /// The Secrets as they are.
    fn secrets(&self) -> decide::Seen {
        let list = self.plane.ask("GET", &self.path(""), &Value::Null).unwrap();
        let items = list["items"].as_array().unwrap().iter().cloned();
        items
            .map(|item| {
                (
                    item["metadata"]["name"].as_str().unwrap().to_owned(),
                    serde_json::from_value(item).unwrap(),
                )
            })
            .collect()
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let version = |(name, secret): (String, k8s_openapi::api::core::v1::Secret)| {
            (name, secret.metadata.resource_version.unwrap())
        };
        self.secrets().into_iter().map(version).collect()
    }

    /// Waits until nothing is due, and all replicas have the certificates that are there.
    fn settle(&self) -> decide::Seen {
        let leaves = [
            Leaf::gateway(),
            Leaf::controller(),
            Leaf::webhook(
                self.settings.webhook.as_ref().unwrap(),
                &self.settings.namespace,
            ),
        ];
        eventually("certificates", PATIENCE, || {
            let secrets = self.secrets();
            let due = decide::decide(super::UnixTime::now(), &leaves, &secrets);
            if !due.is_empty() {
                return Err(format!("{due:?}"));
            }
            let bundle = super::bytes(&secrets["paifang-ca"], super::CA_CRT).unwrap();
            for replica in &self.replicas {
                let material = replica.material.borrow();
                let complete = material.webhook.is_some() && material.reports.is_some();
                if !complete || material.ca_bundle.as_deref().map(str::as_bytes) != Some(bundle) {
                    return Err("a replica has not read them".to_owned());
                }
            }
            Ok(secrets)
        })
    }

    /// Waits until the API server trusts the bundle.
    fn trusted(&self, secrets: &decide::Seen) {
        let bundle = &secrets["paifang-ca"].data.as_ref().unwrap()[super::CA_CRT];
        let bundle = serde_json::to_value(bundle).unwrap();
        let path = self.configuration_path(self.configuration());
        eventually("trust", PATIENCE, || {
            let found = self.plane.ask("GET", &path, &Value::Null).unwrap();
            let webhooks = found["webhooks"].as_array().unwrap();
            let same = webhooks
                .iter()
                .all(|it| it["clientConfig"]["caBundle"] == bundle);
            if same && webhooks.len() == 2 {
                Ok(())
            } else {
                Err(found.to_string())
            }
        });
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // It is no namespace's, so it outlives the test.
        let path = self.configuration_path(self.configuration());
        drop(self.plane.ask("DELETE", &path, &Value::Null));
    }
}

#[test]
fn the_leader_makes_and_repairs_what_every_replica_reads() {
    let mut installation = Installation::new();
    installation.add(true);
    installation.add(false);
    let secrets = installation.settle();
    assert_eq!(secrets.keys().collect::<Vec<_>>(), NAMES);
    // Helm may bring the configuration later.
    installation.install_configuration();
    installation.trusted(&secrets);

    let plane = installation.plane;
    let path = |name: &str| installation.path(name);
    let patch = |name: &str, patch: Value| plane.ask("PATCH", &path(name), &patch).unwrap();
    let foreign = |name: &str, kind: &str| {
        plane.ask("DELETE", &path(name), &Value::Null).unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind,
            "data": {"tls.crt": "eA==", "tls.key": "eA=="}, "immutable": true,
        });
        // The leader may be faster; then that is what stands there.
        drop(plane.ask("POST", &path(""), &secret));
    };
    type Damage<'d> = (&'d str, &'d dyn Fn());
    let damages: [Damage<'_>; 7] = [
        ("deleted", &|| {
            drop(
                plane
                    .ask("DELETE", &path("paifang-webhook-tls"), &Value::Null)
                    .unwrap(),
            )
        }),
        ("garbage", &|| {
            drop(patch(
                "paifang-gateway-tls",
                json!({"data": {"tls.crt": "eA=="}}),
            ))
        }),
        ("no labels", &|| {
            drop(patch("paifang-ca", json!({"metadata": {"labels": null}})))
        }),
        ("immutable garbage", &|| {
            drop(patch(
                "paifang-controller-tls",
                json!({"data": {"ca.crt": "eA=="}, "immutable": true}),
            ));
        }),
        ("of another type", &|| {
            foreign("paifang-gateway-tls", "Opaque")
        }),
        ("foreign", &|| {
            foreign("paifang-controller-tls", "kubernetes.io/tls")
        }),
        ("the authority is deleted", &|| {
            drop(
                plane
                    .ask("DELETE", &path("paifang-ca"), &Value::Null)
                    .unwrap(),
            )
        }),
    ];
    for (name, damage) in damages {
        eprintln!("{name}");
        damage();
        let secrets = installation.settle();
        installation.trusted(&secrets);
    }
    let configuration = installation.configuration_path(installation.configuration());
    let all = plane.ask("GET", &configuration, &Value::Null).unwrap();
    let mut webhooks = all["webhooks"].clone();
    webhooks[1]["clientConfig"]["caBundle"] = Value::Null;
    plane
        .ask("PATCH", &configuration, &json!({"webhooks": webhooks}))
        .unwrap();
    installation.trusted(&installation.settle());
}

#[test]
fn two_who_think_that_they_lead_agree_and_then_rest() {
    let mut installation = Installation::new();
    installation.install_configuration();
    for _ in 0..3 {
        installation.add(true);
    }
    let secrets = installation.settle();
    installation.trusted(&secrets);
    let path = installation.path("paifang-ca");
    for _ in 0..3 {
        installation
            .plane
            .ask("DELETE", &path, &Value::Null)
            .unwrap();
        let secrets = installation.settle();
        installation.trusted(&secrets);
    }
    let before = installation.versions();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(installation.versions(), before, "written without need");
}

#[test]
fn who_does_not_lead_writes_nothing_until_it_does() {
    let mut installation = Installation::new();
    installation.install_configuration();
    installation.add(false);
    thread::sleep(Duration::from_secs(1));
    assert!(installation.secrets().is_empty());
    let start = Instant::now();
    installation.replicas[0].leads.send_replace(true);
    let secrets = installation.settle();
    installation.trusted(&secrets);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    installation.replicas[0].leads.send_replace(false);
    thread::sleep(Duration::from_millis(200));
    let gone = installation.path("paifang-gateway-tls");
    installation
        .plane
        .ask("DELETE", &gone, &Value::Null)
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(installation.secrets().len(), 3);
}
