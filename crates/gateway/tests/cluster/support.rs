//! Publishing as the controller does it, gateways that may only read, backends and clients.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    num::NonZeroUsize,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use paifang_gateway::{
    AccessLog, Drain, Gateway, Settings,
    cluster::{self, Subscription},
};
use paifang_model::ObjectName;
use paifang_proxy::network::BackendPolicy;
use paifang_snapshot::{
    published::{Hash, Part, PublishedApps, PublishedGroup, pack, publish_group},
    wire::{Certificate, Group},
};
use paifang_testkit::ControlPlane;
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace to publish in, and an account that may read it as a gateway may.
pub(crate) struct Site<'p> {
    pub(crate) plane: &'p ControlPlane,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
}

/// A gateway with what feeds it.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) subscription: Subscription,
}

impl<'p> Site<'p> {
    pub(crate) fn new(plane: &'p ControlPlane) -> Self {
        let namespace = plane.namespace().unwrap();
        let kubeconfig = plane.kubeconfig_for(&namespace, "gateway").unwrap();
        let subject =
            json!([{"kind": "ServiceAccount", "name": "gateway", "namespace": namespace}]);
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let read = json!(["get", "list", "watch"]);
        plane
            .ask("POST", &format!("{rbac}/namespaces/{namespace}/roles"), &json!({
                "metadata": {"name": "gateway"},
                "rules": [{"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": read}],
            }))
            .unwrap();
        plane
            .ask("POST", &format!("{rbac}/namespaces/{namespace}/rolebindings"), &json!({
                "metadata": {"name": "gateway"}, "subjects": subject,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gateway"},
            }))
            .unwrap();
        plane
            .ask("POST", &format!("{rbac}/clusterroles"), &json!({
                "metadata": {"name": namespace},
                "rules": [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read}],
            }))
            .unwrap();
        plane
            .ask("POST", &format!("{rbac}/clusterrolebindings"), &json!({
                "metadata": {"name": namespace}, "subjects": subject,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
            }))
            .unwrap();
        Self {
            plane,
            namespace,
            kubeconfig,
        }
    }

    pub(crate) fn settings(&self) -> cluster::Settings {
        cluster::Settings {
            kubeconfig: Some(self.kubeconfig.clone()),
            namespace: self.namespace.clone(),
            instance: "default".to_owned(),
            pod: "gateway-0".to_owned(),
            pod_ip: None,
            zone: None,
            cache: None,
            report: None,
        }
    }

    /// A gateway that is ready.
    pub(crate) fn gateway(&self) -> Running {
        let running = Running::start(self.settings());
        running.await_ready();
        running
    }

    fn collection(&self, kind: &str) -> String {
        let group = match kind {
            "endpointslices" => "/apis/discovery.k8s.io/v1",
            _ => "/api/v1",
        };
        format!("{group}/namespaces/{}/{kind}", self.namespace)
    }

    /// Makes or changes an object.
    pub(crate) fn put(&self, kind: &str, object: &Value) {
        let collection = self.collection(kind);
        let name = object["metadata"]["name"].as_str().unwrap();
        if let Err(error) = self.plane.ask("POST", &collection, object) {
            assert!(error.to_string().contains("AlreadyExists"), "{error:#}");
            self.plane
                .ask("PATCH", &format!("{collection}/{name}"), object)
                .unwrap();
        }
    }

    pub(crate) fn delete(&self, kind: &str, name: &str) {
        let path = format!("{}/{name}", self.collection(kind));
        self.plane.ask("DELETE", &path, &Value::Null).unwrap();
    }

    pub(crate) fn put_part(&self, part: &Part) {
        let name = format!("paifang-part-{}", part.hash);
        let exists = format!("{}/{name}", self.collection("configmaps"));
        if self.plane.ask("GET", &exists, &Value::Null).is_err() {
            self.put("configmaps", &json!({
                "metadata": {"name": name, "labels": {"paifang.dev/instance": "default", "paifang.dev/part": "routing"}},
                "immutable": true, "binaryData": {"part": STANDARD.encode(pack(&part.raw))},
            }));
        }
    }

    fn put_secret_part(&self, part: &Part, kind: &str, instance: &str) {
        let name = format!("paifang-{}-{}", &kind[..4], part.hash);
        let exists = format!("{}/{name}", self.collection("secrets"));
        if self.plane.ask("GET", &exists, &Value::Null).is_err() {
            self.put("secrets", &json!({
                "metadata": {"name": name, "labels": {"paifang.dev/instance": instance, "paifang.dev/part": kind}},
                "immutable": true, "data": {"part": STANDARD.encode(pack(&part.raw))},
            }));
        }
    }

    pub(crate) fn put_manifest(&self, id: &str, text: &str) {
        self.put(
            "configmaps",
            &json!({
                "metadata": {"name": format!("paifang-group-{id}"),
                    "labels": {"paifang.dev/instance": "default", "paifang.dev/manifest": "group"},
                    "annotations": {"paifang.dev/group": format!("ns/{id}")}},
                "data": {"manifest": text},
            }),
        );
    }

    /// Everything of a group, parts first; the manifest's name.
    pub(crate) fn publish(
        &self,
        group: &Group,
        certificates: &BTreeMap<ObjectName, Certificate>,
    ) -> Hash {
        let published = publish_group(group, |name| certificates.get(name));
        self.put_parts(&published);
        self.put_manifest(&group.id, &published.manifest.text());
        published.manifest.hash()
    }

    pub(crate) fn put_parts(&self, published: &PublishedGroup) {
        published
            .parts
            .values()
            .for_each(|part| self.put_part(part));
        for part in published.certificates.values() {
            self.put_secret_part(part, "certificate", "default");
        }
    }

    pub(crate) fn publish_apps(&self, published: &PublishedApps) {
        for part in published.parts.values() {
            self.put_secret_part(part, "credential", "ALL");
        }
        self.put("secrets", &json!({
            "metadata": {"name": "paifang-apps", "labels": {"paifang.dev/instance": "ALL", "paifang.dev/manifest": "apps"}},
            "data": {"manifest": STANDARD.encode(published.manifest.text())},
        }));
    }

    /// The endpoints of a Service: address and port, and whether ready, serving, terminating.
    pub(crate) fn put_slice(
        &self,
        service: &str,
        port: u16,
        endpoints: &[(IpAddr, [bool; 3], Option<&str>)],
    ) {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(address, [ready, serving, terminating], zone)| {
                json!({"addresses": [address], "zone": zone,
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
            })
            .collect();
        self.put("endpointslices", &json!({
            "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "web", "port": port, "protocol": "TCP"}],
        }));
    }
}

impl Running {
    pub(crate) fn start(settings: cluster::Settings) -> Self {
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let gateway = Gateway::start(Settings {
            http: any,
            https: any,
            internal: None,
            admin: any,
            workers: NonZeroUsize::new(2).unwrap(),
            proxy: paifang_proxy::Settings {
                backends: BackendPolicy::with_loopback(),
                ..paifang_proxy::Settings::default()
            },
            access_log: AccessLog::Off,
            drain: Drain {
                lame_duck: Duration::from_millis(500),
                idle: Duration::from_millis(100),
                deadline: Duration::from_secs(5),
            },
            ..Settings::default()
        })
        .unwrap();
        let subscription = Subscription::start(settings, gateway.feed()).unwrap();
        Self {
            gateway,
            subscription,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        ask(self.gateway.admin(), "x", "/readyz").0 == 200
    }

    pub(crate) fn await_ready(&self) {
        eventually("ready", || self.is_ready());
    }

    /// Status and body of an answer.
    pub(crate) fn get(&self, host: &str, path: &str) -> (u16, String) {
        ask(self.gateway.addresses().http, host, path)
    }

    /// Waits for this answer; how long that took.
    pub(crate) fn await_answer(&self, host: &str, path: &str, status: u16, body: &str) -> Duration {
        let started = Instant::now();
        let mut last = (0, String::new());
        while started.elapsed() < PATIENCE {
            last = self.get(host, path);
            if last.0 == status && last.1.contains(body) {
                return started.elapsed();
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!(
            "{host}{path} does not answer {status} {body:?} but {last:?}\n{}",
            self.page("/config")
        );
    }

    pub(crate) fn page(&self, path: &str) -> String {
        ask(self.gateway.admin(), "x", path).1
    }

    pub(crate) fn metric(&self, name: &str) -> i64 {
        let text = self.page("/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }
}

/// A group at `NAME.example.com` that answers `/mock` with `body`, and asks a Service for everything else where one is named.
pub(crate) fn group(name: &str, body: &str, service: Option<(&str, &str)>) -> Group {
    let api = |name: &str, path: &str| {
        json!({"name": format!("ns/{name}"), "release": 1, "hash": "0", "kind": "Common", "protocols": ["HTTP", "HTTPS"], "method": "ANY",
            "path": path, "mode": "Passthrough", "bodyFormat": "Stream", "auth": {"type": "anonymous"}, "internalOnly": false,
            "dispatch": {"timeoutMs": 5000, "contentType": "Client"}})
    };
    let mock = json!({"label": "mock", "target": {"type": "mock", "status": 200, "headers": [], "body": body}});
    let mut apis = vec![api("a-mock", "/mock")];
    let mut routes = vec![json!({"stage": "RELEASE", "api": 0, "backend": 0})];
    let mut backends = vec![mock];
    if let Some((namespace, service)) = service {
        apis.push(api("b-service", "/*"));
        backends.push(
            json!({"label": "service", "target": {"type": "vpc", "scheme": "HTTP", "host": "svc",
            "endpoints": {"service": {"name": format!("{namespace}/{service}"), "port": "web"}}}}),
        );
        routes.push(json!({"stage": "RELEASE", "api": 1, "backend": 1}));
    }
    serde_json::from_value(json!({
        "format": 1, "name": format!("ns/{name}"), "id": name, "instance": "default", "basePath": "/",
        "qpsLimit": 100_000, "httpsPolicy": "Http2Tls13", "filterAppCode": false,
        "subDomain": {"public": null, "internal": null, "dailyQuota": 1},
        "domains": [{"name": format!("ns/{name}"), "host": format!("{name}.example.com"), "stage": null, "intranet": false,
            "webSocket": false, "tls": null}],
        "apis": apis, "routes": routes, "backends": backends, "grants": [],
    }))
    .unwrap()
}

pub(crate) fn ask(address: Option<SocketAddr>, host: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An address of this machine that is not loopback, as EndpointSlices ask for.
pub(crate) fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Sends nothing: it only asks which address would be used.
    socket
        .connect("203.0.113.1:9")
        .expect("this machine needs a route to somewhere");
    socket.local_addr().unwrap().ip()
}

/// A backend that answers every request with its name. Its connections are kept alive.
pub(crate) fn backend(address: IpAddr, port: u16, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((address, port)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line.trim().is_empty() {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                            name.len()
                        );
                        if (&stream).write_all(head.as_bytes()).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    at
}
