//! A real API server asks, compile answers, and kubectl shows it.

use std::{net::Ipv4Addr, sync::RwLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use paifang_compiler::{CertificateFacts, Compiler, Memory, Objects, Settings, Touched};
use paifang_runtime::metrics::Metrics;
use paifang_testkit::{ControlPlane, eventually};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::*;
use crate::{brain::Shared, pki::testing};

const PATIENCE: Duration = Duration::from_secs(20);
const CONFIGURATIONS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

const API: &str = "
apiVersion: paifang.dev/v1alpha1
kind: Api
metadata: {name: a}
spec:
  groupRef: {name: g}
  request: {method: GET, path: /a, parameters: [{name: q, in: Query, type: String, pattern: PATTERN}]}
  backend: {mock: {}}
  stages: {TEST: {}}
";

const AUTHORIZATION: &str = "
apiVersion: paifang.dev/v1alpha1
kind: Authorization
metadata: {name: x}
spec: {apis: [{name: a}], apps: [{name: nobody}], stage: TEST}
";

/// A store whose keys are in a Secret.
fn store(secret: &str) -> String {
    format!(
        "
apiVersion: paifang.dev/v1alpha1
kind: BackendService
metadata: {{name: store}}
spec:
  type: OSS
  stages:
    TEST: {{oss: {{endpoint: 'https://oss.example.com', bucket: pictures, region: cn-hangzhou, credentialsRef: {{name: {secret}}}}}}}
"
    )
}

/// A webhook on loopback that the control plane was told of for one namespace.
struct Installed {
    plane: &'static ControlPlane,
    namespace: String,
    shared: Arc<RwLock<Shared>>,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Installed {
    fn new() -> Self {
        let plane = ControlPlane::shared();
        let namespace = plane.namespace().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let material = watch::channel(Arc::new(Material {
            webhook: Some(Arc::new(config)),
            ..Material::default()
        }));
        let shared = Arc::new(RwLock::new(Shared::default()));
        let (stop, stopped) = watch::channel(false);
        let metrics = AdmissionMetrics::register(&Metrics::new("paifang", "0.0.0"));
        let client = runtime.block_on(testing::client(plane));
        let judge = Arc::new(Known::new(Arc::clone(&shared), client));
        runtime.spawn(serve(listener, material.1, judge, metrics, stopped));
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": format!("admission-{namespace}")},
            "webhooks": [{
                "name": "validate.paifang.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "failurePolicy": "Fail", "timeoutSeconds": 5,
                "clientConfig": {
                    "url": format!("https://{address}/validate"),
                    "caBundle": STANDARD.encode(made.cert.pem()),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [{
                    "apiGroups": ["paifang.dev"], "apiVersions": ["v1alpha1"],
                    "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["*"],
                }],
            }],
        });
        plane.ask("POST", CONFIGURATIONS, &configuration).unwrap();
        Self {
            plane,
            namespace,
            shared,
            _stop: stop,
            _runtime: runtime,
        }
    }

    /// What a controller knows once it has read an empty cluster.
    fn know(&self) {
        let settings = Settings::new(|_| Ok(CertificateFacts::default()));
        let mut compiler = Compiler::new(Memory::default(), settings);
        compiler.update(&Objects::default(), &Touched::everything());
        self.shared.write().unwrap().compiler = Some(compiler);
    }

    /// Whether kubectl did it, and all that it shows.
    fn apply(&self, text: &str, more: &[&str]) -> (bool, String) {
        let name = format!("{}.yaml", self.namespace);
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        let mut command = self.plane.admin().command("kubectl");
        command
            .args(["apply", "-n", &self.namespace, "-f"])
            .arg(&file);
        let output = command.args(more).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // It is no namespace's, so it outlives the test.
        let path = format!("{CONFIGURATIONS}/admission-{}", self.namespace);
        drop(self.plane.ask("DELETE", &path, &Value::Null));
    }
}

/// Nothing has named the Secret before, so that the controller does not know it.
#[test]
fn a_secret_that_is_there_is_not_said_to_be_missing() {
    let installed = Installed::new();
    installed.know();
    let keys = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"accessKeyId": "id", "accessKeySecret": "secret"},
    });
    let path = format!("/api/v1/namespaces/{}/secrets", installed.namespace);
    installed.plane.ask("POST", &path, &keys).unwrap();
    eventually("the webhook is asked", PATIENCE, || {
        let (done, said) = installed.apply(&store("nobody"), &["--dry-run=server"]);
        assert!(done, "{said}");
        let missing = format!("there is no Secret {}/nobody", installed.namespace);
        if said.contains(&missing) {
            Ok(())
        } else {
            Err(said)
        }
    });
    let (done, said) = installed.apply(&store("keys"), &["--dry-run=server"]);
    assert!(done, "{said}");
    assert!(!said.contains("Warning"), "{said}");
    // One that is there and does not fit is told of as well.
    let path = format!("{path}/keys");
    installed.plane.ask("DELETE", &path, &Value::Null).unwrap();
    let other = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"password": "secret"},
    });
    let path = format!("/api/v1/namespaces/{}/secrets", installed.namespace);
    installed.plane.ask("POST", &path, &other).unwrap();
    let (done, said) = installed.apply(&store("keys"), &["--dry-run=server"]);
    assert!(done, "{said}");
    assert!(
        said.contains("Warning: ") && said.contains("accessKeyId"),
        "{said}"
    );
}

#[test]
fn kubectl_shows_what_compile_says() {
    let installed = Installed::new();
    let good = API.replace("PATTERN", "'^a$'");
    let bad = API.replace("PATTERN", "'('");
    // The API server may take a moment to know of the webhook.
    eventually("a warning", PATIENCE, || {
        let (done, said) = installed.apply(&good, &["--dry-run=server"]);
        assert!(done, "{said}");
        let warned = said.contains("Warning: paifang-controller is starting; not checked");
        if warned { Ok(()) } else { Err(said) }
    });
    installed.know();

    for more in [&["--dry-run=server"][..], &[], &["--server-side"]] {
        let (done, said) = installed.apply(&bad, more);
        assert!(!done, "{said}");
        assert!(
            said.contains("The Api \"a\" is invalid: spec.request.parameters[0].pattern: "),
            "{said}"
        );
    }
    let (done, said) = installed.apply(&good, &[]);
    assert!(done, "{said}");
    let (done, said) = installed.apply(AUTHORIZATION, &[]);
    assert!(done, "{said}");
    assert!(
        said.contains("Warning: ") && said.contains("nobody"),
        "{said}"
    );
    let path = format!(
        "/apis/paifang.dev/v1alpha1/namespaces/{}/apis/a",
        installed.namespace
    );
    installed.plane.ask("DELETE", &path, &Value::Null).unwrap();
    assert!(installed.plane.ask("GET", &path, &Value::Null).is_err());
}
