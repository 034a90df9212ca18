//! A control plane with Paifang on it: the chart's own permissions, controllers and gateways as processes.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use paifang_testkit::{
    ControlPlane, Program, Signal, eventually, http::Response, program, repository, run,
};
use serde_json::{Value, json};

/// Where Paifang is installed.
pub(crate) const NAMESPACE: &str = "paifang-system";
/// How long something may take on a busy machine before a test says that it does not happen. Never a measure of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane with Paifang on it.
pub(crate) struct Site {
    plane: Plane,
    /// Where its controller answers the API server's questions, if they are asked.
    webhook: Option<SocketAddr>,
    pub(crate) controllers: Mutex<Vec<Program>>,
    pub(crate) gateways: Vec<Gateway>,
}

enum Plane {
    Shared(&'static ControlPlane),
    Own(Box<ControlPlane>),
}

/// A gateway: a process, and the pod that stands for it in the cluster.
pub(crate) struct Gateway {
    /// Name of its pod.
    pub(crate) pod: String,
    ip: Ipv4Addr,
    cache: std::path::PathBuf,
    kubeconfig: std::path::PathBuf,
    http: u16,
    admin: u16,
    process: Mutex<Option<Program>>,
    started: AtomicUsize,
}

/// Report ports are one number; each gateway has a loopback address of its own.
static NEXT_IP: AtomicU8 = AtomicU8::new(10);

impl Site {
    /// The site that tests share: one controller, two gateways.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Site> = OnceLock::new();
        SHARED.get_or_init(|| Self::on(Plane::Shared(ControlPlane::shared()), None, 1, 2))
    }

    /// One of the test's own, for what disturbs others.
    pub(crate) fn start(controllers: usize, gateways: usize) -> Self {
        let plane = ControlPlane::start().unwrap();
        plane.start_controllers().unwrap();
        Self::on(Plane::Own(Box::new(plane)), None, controllers, gateways)
    }

    /// One of the test's own, whose API server asks the one controller before it takes an object.
    pub(crate) fn start_asking(gateways: usize) -> Self {
        let plane = ControlPlane::start().unwrap();
        plane.start_controllers().unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let webhook = free.local_addr().unwrap();
        drop(free);
        Self::on(Plane::Own(Box::new(plane)), Some(webhook), 1, gateways)
    }

    fn on(plane: Plane, webhook: Option<SocketAddr>, controllers: usize, gateways: usize) -> Self {
        let mut site = Self {
            plane,
            webhook,
            controllers: Mutex::default(),
            gateways: Vec::new(),
        };
        site.install();
        for _ in 0..controllers {
            site.start_controller();
        }
        eventually(
            "the certificates of the report port are made",
            PATIENCE,
            || {
                site.plane().ask(
                    "GET",
                    &format!("/api/v1/namespaces/{NAMESPACE}/secrets/paifang-gateway-tls"),
                    &Value::Null,
                )
            },
        );
        for number in 0..gateways {
            let gateway = site.gateway(number);
            site.gateways.push(gateway);
        }
        for gateway in &site.gateways {
            gateway.start(site.plane());
            gateway.await_ready();
            site.set_ready(gateway, true);
        }
        site
    }

    /// A metric without labels, of the first controller.
    pub(crate) fn controller_metric(&self, name: &str) -> anyhow::Result<f64> {
        let log = self.controllers.lock().unwrap()[0].log();
        let address: SocketAddr = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["admin"].as_str()?.parse().ok())
            .context("it says no admin address")?;
        let answer = request(address, "localhost", "/metrics", &[])?;
        let text = answer.text();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.find_map(|rest| rest.strip_prefix(' '));
        Ok(value.context("there is no such metric")?.parse()?)
    }

    pub(crate) fn plane(&self) -> &ControlPlane {
        match &self.plane {
            Plane::Shared(plane) => plane,
            Plane::Own(plane) => plane,
        }
    }

    /// The chart's service accounts and permissions, without pods.
    fn install(&self) {
        let plane = self.plane();
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        plane.ask("POST", "/api/v1/namespaces", &namespace).unwrap();
        let mut helm = Command::new(program("helm").unwrap());
        helm.args([
            "template",
            "paifang",
            "charts/paifang",
            "--namespace",
            NAMESPACE,
        ])
        .current_dir(repository());
        let rendered = run(&mut helm).unwrap();
        let mut wanted = vec![
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
        ];
        if self.webhook.is_some() {
            wanted.push("ValidatingWebhookConfiguration");
        }
        let documents: Vec<&str> = rendered
            .split("\n---\n")
            .filter(|document| {
                let kind = document
                    .lines()
                    .find_map(|line| line.strip_prefix("kind: "));
                kind.is_some_and(|kind| wanted.contains(&kind.trim()))
            })
            .collect();
        assert!(
            documents.len() >= 6,
            "the chart renders {} of {wanted:?}",
            documents.len()
        );
        plane.apply(NAMESPACE, &documents.join("\n---\n")).unwrap();
        if let Some(webhook) = self.webhook {
            self.lead_to(webhook);
        }
    }

    /// The chart's webhook, but by a Service that stands for a name: of this machine, where no kube-proxy runs.
    fn lead_to(&self, webhook: SocketAddr) {
        let plane = self.plane();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "paifang-webhook"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
        plane.ask("POST", &services, &service).unwrap();
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/paifang";
        let mut configuration = plane.ask("GET", path, &Value::Null).unwrap();
        for hook in configuration["webhooks"].as_array_mut().unwrap() {
            hook["clientConfig"]["service"]["port"] = webhook.port().into();
        }
        plane.ask("PUT", path, &configuration).unwrap();
    }

    /// One more controller, with the permissions of the chart.
    pub(crate) fn start_controller(&self) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let plane = self.plane();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let kubeconfig = plane
            .kubeconfig_for(NAMESPACE, "paifang-controller")
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_paifang"));
        command
            .args([
                "controller",
                "--namespace",
                NAMESPACE,
                "--webhook",
                &self.webhook.map_or("off".to_owned(), |it| it.to_string()),
                "--allow-loopback-backends",
            ])
            .args([
                "--identity",
                &format!("controller-{number}"),
                "--admin",
                "127.0.0.1:0",
            ])
            .args([
                "--lease-duration",
                "4s",
                "--renew-deadline",
                "3s",
                "--retry-period",
                "500ms",
            ])
            .env("KUBECONFIG", kubeconfig);
        let process = plane
            .spawn(&format!("controller-{number}"), command)
            .unwrap();
        self.controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(process);
    }

    /// Ends every controller at once, as a crash would.
    pub(crate) fn kill_controllers(&self) {
        let mut controllers = self
            .controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for controller in controllers.drain(..) {
            controller.kill().unwrap();
        }
    }

    fn gateway(&self, number: usize) -> Gateway {
        let ip = Ipv4Addr::new(127, 0, 1, NEXT_IP.fetch_add(1, Ordering::Relaxed));
        let free = || {
            TcpListener::bind((ip, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        };
        let plane = self.plane();
        let pod = format!("paifang-gateway-default-{number}");
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "labels": {
                "app.kubernetes.io/name": "paifang", "app.kubernetes.io/component": "gateway", "paifang.dev/instance": "default",
            }},
            // Nothing schedules it: the process of the test is what it stands for.
            "spec": {"schedulerName": "none", "containers": [{"name": "gateway", "image": "none"}]},
        });
        plane
            .ask(
                "POST",
                &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
                &object,
            )
            .unwrap();
        let cache = plane.kubeconfig().with_file_name(format!("cache-{number}"));
        Gateway {
            pod,
            ip,
            cache,
            kubeconfig: plane.kubeconfig_for(NAMESPACE, "paifang-gateway").unwrap(),
            http: free(),
            admin: free(),
            process: Mutex::default(),
            started: AtomicUsize::new(0),
        }
    }

    /// What kubelet would say about the pod.
    pub(crate) fn set_ready(&self, gateway: &Gateway, ready: bool) {
        let status = json!({"status": {
            "phase": "Running", "podIP": gateway.ip.to_string(), "podIPs": [{"ip": gateway.ip.to_string()}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        }});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}/status", gateway.pod);
        self.plane().ask("PATCH", &path, &status).unwrap();
    }

    /// One object of the six kinds.
    pub(crate) fn get(&self, namespace: &str, plural: &str, name: &str) -> anyhow::Result<Value> {
        let path = format!("/apis/paifang.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}");
        self.plane().ask("GET", &path, &Value::Null)
    }

    /// Changes part of an object (JSON merge patch).
    pub(crate) fn patch(&self, namespace: &str, plural: &str, name: &str, patch: Value) {
        let path = format!("/apis/paifang.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}");
        self.plane().ask("PATCH", &path, &patch).unwrap();
    }

    pub(crate) fn delete(&self, namespace: &str, plural: &str, name: &str) {
        let path = format!("/apis/paifang.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}");
        self.plane().ask("DELETE", &path, &Value::Null).unwrap();
    }

    /// Waits until an object's condition is as asked, for its present generation, and answers the object.
    pub(crate) fn until(
        &self,
        namespace: &str,
        plural: &str,
        name: &str,
        condition: &str,
        status: &str,
    ) -> Value {
        eventually(
            &format!("{plural}/{name} is {condition}={status}"),
            PATIENCE,
            || {
                let object = self.get(namespace, plural, name)?;
                let it = find(&object, condition);
                anyhow::ensure!(
                    it["status"] == status
                        && it["observedGeneration"] == object["metadata"]["generation"],
                    "{it}; status {}",
                    object["status"]
                );
                Ok(object)
            },
        )
    }

    /// Every gateway answers `path` at `host` in this way.
    pub(crate) fn all_answer(&self, host: &str, path: &str, status: u16, body: &str) {
        for gateway in &self.gateways {
            gateway.answers(host, path, status, body);
        }
    }

    /// Resource versions of everything that the controller writes, but for its Lease.
    pub(crate) fn versions(&self) -> Vec<String> {
        let mut all = Vec::new();
        for path in [
            "/api/v1/namespaces/paifang-system/configmaps".to_owned(),
            "/api/v1/namespaces/paifang-system/secrets".to_owned(),
            "/apis/apps/v1/controllerrevisions".to_owned(),
            "/apis/events.k8s.io/v1/events".to_owned(),
        ]
        .into_iter()
        .chain(
            [
                "apigroups",
                "backendservices",
                "apis",
                "apps",
                "authorizations",
                "domainbindings",
            ]
            .map(|plural| format!("/apis/paifang.dev/v1alpha1/{plural}")),
        ) {
            let list = self.plane().ask("GET", &path, &Value::Null).unwrap();
            for item in list["items"].as_array().unwrap() {
                let metadata = &item["metadata"];
                all.push(format!(
                    "{path} {} {} {}",
                    metadata["namespace"], metadata["name"], metadata["resourceVersion"]
                ));
            }
        }
        all.sort();
        all
    }

    /// The same, when nothing is on its way any more: what an object's status says may follow a moment after it is Ready.
    pub(crate) fn settled(&self) -> Vec<String> {
        eventually("nothing is written any more", PATIENCE, || {
            let before = self.versions();
            std::thread::sleep(Duration::from_secs(3));
            anyhow::ensure!(before == self.versions(), "something was written");
            Ok(before)
        })
    }
}

impl Gateway {
    /// Starts its process.
    pub(crate) fn start(&self, plane: &ControlPlane) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(env!("CARGO_BIN_EXE_paifang"));
        let ip = self.ip;
        command
            .args([
                "gateway",
                "--namespace",
                NAMESPACE,
                "--pod",
                &self.pod,
                "--pod-ip",
                &ip.to_string(),
            ])
            .args([
                "--instance",
                "default",
                "--allow-loopback-backends",
                "--https",
                "off",
                "--internal",
                "off",
            ])
            .args([
                "--http",
                &format!("{ip}:{}", self.http),
                "--admin",
                &format!("{ip}:{}", self.admin),
            ])
            .args(["--report", &format!("{ip}:9902"), "--lame-duck", "0s"])
            .arg("--cache")
            .arg(&self.cache)
            .env("KUBECONFIG", &self.kubeconfig);
        let process = plane
            .spawn(&format!("{}-{number}", self.pod), command)
            .unwrap();
        *self.process.lock().unwrap() = Some(process);
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.kill().unwrap();
        }
    }

    /// Sends its process a signal, as in `Signal::STOP`.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap();
        process
            .as_ref()
            .expect("it was started")
            .signal(signal)
            .unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (self.ip, self.http).into()
    }

    /// Waits until it says that it wants traffic.
    pub(crate) fn await_ready(&self) {
        eventually(&format!("{} is ready", self.pod), PATIENCE, || {
            let answer = request((self.ip, self.admin).into(), "localhost", "/readyz", &[])?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        });
    }

    pub(crate) fn get(
        &self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response> {
        request(self.address(), host, path, headers)
    }

    /// Waits until it answers in this way.
    pub(crate) fn answers(&self, host: &str, path: &str, status: u16, body: &str) {
        eventually(
            &format!("{} answers {host}{path} with {status}", self.pod),
            PATIENCE,
            || {
                let answer = self.get(host, path, &[])?;
                anyhow::ensure!(
                    answer.status == status && answer.text().contains(body),
                    "{} {}",
                    answer.status,
                    answer.text()
                );
                Ok(())
            },
        );
    }

    pub(crate) fn log(&self) -> String {
        self.process
            .lock()
            .unwrap()
            .as_ref()
            .map(Program::log)
            .unwrap_or_default()
    }
}

fn request(
    address: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Response> {
    let net = paifang_testkit::Net::Host;
    let mut client =
        paifang_testkit::http::Client::new(&net, address, host, Duration::from_secs(5));
    Ok(client.request("GET", path, headers, b"")?)
}

/// A condition of an object's status; null when it has none of the type.
pub(crate) fn find(object: &Value, condition: &str) -> Value {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|it| it["type"] == condition)
        .unwrap_or_default()
}

/// A group bound to `host`, as YAML; its limit is out of the way of load.
pub(crate) fn group(name: &str, host: &str) -> String {
    format!(
        "apiVersion: paifang.dev/v1alpha1\nkind: ApiGroup\nmetadata: {{name: {name}}}\nspec: {{qpsLimit: 1000000}}\n---\n\
         apiVersion: paifang.dev/v1alpha1\nkind: DomainBinding\nmetadata: {{name: {name}}}\nspec: {{groupRef: {{name: {name}}}, domain: {host}}}\n"
    )
}

/// An Api of a Mock backend that answers `body`, open to everybody, in RELEASE.
pub(crate) fn mock(name: &str, group: &str, path: &str, body: &str) -> String {
    format!(
        "apiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {{name: {name}}}\nspec:\n  groupRef: {{name: {group}}}\n  auth: {{type: Anonymous}}\n  \
         request: {{protocols: [HTTP], method: GET, path: {path}}}\n  backend: {{mock: {{body: '{body}'}}}}\n  stages: {{RELEASE: {{}}}}\n"
    )
}

/// Documents of one YAML text.
pub(crate) fn all(documents: &[String]) -> String {
    documents.join("\n---\n")
}
