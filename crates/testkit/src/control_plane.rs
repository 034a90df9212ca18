//! etcd and kube-apiserver, with the definitions of Paifang's kinds installed; controller-manager and scheduler where they are wanted.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    Kubectl, Net, http,
    pki::Pki,
    process::{Process, Program},
    program, repository,
    state::{State, random_name},
    wait,
};

/// How long a program may take to be ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The addresses of Services.
const SERVICES: &str = "10.96.0.0/16";
/// The name of the API server within the cluster.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The address of a node in its network namespace.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A control plane: an API server that behaves as any other, with nothing that runs pods.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped before the state, so that nobody is left as a zombie.
    processes: Mutex<BTreeMap<&'static str, Process>>,
    net: Net,
    address: IpAddr,
    ports: Ports,
    admin: Kubectl,
    files: Files,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peers: u16,
    api: u16,
    plain: u16,
}

/// Where the certificates are; see [`Pki`].
#[derive(Debug)]
struct Files {
    ca: PathBuf,
    ca_key: PathBuf,
    token_key: PathBuf,
    token_public_key: PathBuf,
    server: [PathBuf; 2],
    kubelet_client: [PathBuf; 2],
    controllers: PathBuf,
    scheduler: PathBuf,
}

// === impl Ports ===

impl Ports {
    /// In a namespace of its own everyone finds the usual ones.
    const USUAL: Self = Self {
        etcd: 2379,
        etcd_peers: 2380,
        api: 6443,
        plain: 8001,
    };

    fn free(net: &Net) -> Result<Self> {
        let [etcd, etcd_peers, api, plain] = net.free_ports()?;
        Ok(Self {
            etcd,
            etcd_peers,
            api,
            plain,
        })
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// The control plane that the tests of this process share, each in a [`ControlPlane::namespace`] of its own. Started by the first call; with
    /// controller-manager, so that namespaces, owned objects and service accounts are looked after. Do not stop its API server: start one of
    /// your own for that.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        SHARED.get_or_init(|| {
            let plane = Self::start().and_then(|plane| {
                plane.start_controllers()?;
                Ok(plane)
            });
            plane.unwrap_or_else(|error| panic!("no control plane: {error:#}"))
        })
    }

    /// A control plane of one's own on loopback ports: etcd and kube-apiserver, with `crds/` installed. Ready when this returns, and taken away when it is dropped.
    ///
    /// # Errors
    /// A program is missing or does not become ready; the message has its last lines.
    pub fn start() -> Result<Self> {
        let plane = Self::prepare(State::create("plane")?, Net::Host)?;
        plane.start_all()?;
        plane.install_definitions()?;
        Ok(plane)
    }

    /// Everything that is needed to start, in files.
    pub(crate) fn prepare(state: State, net: Net) -> Result<Self> {
        let (address, ports) = match net {
            Net::Host => (IpAddr::from(Ipv4Addr::LOCALHOST), Ports::free(&net)?),
            Net::Namespace(_) => (IpAddr::from(NODE_ADDRESS), Ports::USUAL),
        };
        let pki = Pki::create(&state)?;
        let server = format!("https://{}", SocketAddr::new(address, ports.api));
        let kubeconfig = |name: &str, user: &str, group: Option<&str>| {
            pki.kubeconfig(
                &state,
                name,
                &server,
                &pki.client(&state, user, group)?.user(),
            )
        };
        let admin = kubeconfig("admin", "admin", Some("system:masters"))?;
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let addresses = [
            Ipv4Addr::LOCALHOST,
            NODE_ADDRESS,
            Ipv4Addr::new(10, 96, 0, 1),
        ]
        .map(IpAddr::from);
        let serving = pki.server(&state, "kube-apiserver", &names, &addresses)?;
        let kubelet_client = pki.client(
            &state,
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
        )?;
        kubeconfig("kubelet", "system:node:node", Some("system:nodes"))?;
        kubeconfig("kube-proxy", "system:kube-proxy", None)?;
        let files = Files {
            server: [serving.certificate, serving.key],
            kubelet_client: [kubelet_client.certificate, kubelet_client.key],
            controllers: kubeconfig(
                "kube-controller-manager",
                "system:kube-controller-manager",
                None,
            )?,
            scheduler: kubeconfig("kube-scheduler", "system:kube-scheduler", None)?,
            ca: pki.ca,
            ca_key: pki.ca_key,
            token_key: pki.token_key,
            token_public_key: pki.token_public_key,
        };
        Ok(Self {
            processes: Mutex::default(),
            admin: Kubectl::new(&net, &admin, state.path("kubectl")),
            net,
            address,
            ports,
            files,
            state,
        })
    }

    pub(crate) fn start_all(&self) -> Result<()> {
        self.start_etcd()?;
        self.start_plain_port()?;
        self.start_apiserver()
    }

    /// The kubeconfig of an administrator. Its server can be reached within [`ControlPlane::net`].
    #[must_use]
    pub fn kubeconfig(&self) -> &std::path::Path {
        self.admin.kubeconfig()
    }

    /// An administrator's `kubectl`.
    #[must_use]
    pub fn admin(&self) -> &Kubectl {
        &self.admin
    }

    /// The folder in which everything about it is, but sockets. It goes with it.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.state.path("")
    }

    /// The network it is in.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Runs `kubectl` as an administrator; what it printed.
    ///
    /// # Errors
    /// It fails; the message holds all that it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.admin.run(args)
    }

    /// Applies documents as an administrator, in a namespace unless they name their own.
    ///
    /// # Errors
    /// One of them is refused.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Result<String> {
        self.admin.apply(namespace, yaml)
    }

    /// A new namespace with a random name.
    ///
    /// # Errors
    /// The API server does not make it.
    pub fn namespace(&self) -> Result<String> {
        let name = format!("t-{}", random_name()?);
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.ask("POST", "/api/v1/namespaces", &namespace)?;
        Ok(name)
    }

    /// The API server in plain HTTP with an administrator's rights (`kubectl proxy`): fast, without a client library. Each thread takes a client of its own.
    #[must_use]
    pub fn client(&self) -> http::Client {
        http::Client::new(&self.net, self.plain(), "localhost", PATIENCE)
    }

    /// Where [`ControlPlane::client`] sends to, within [`ControlPlane::net`].
    #[must_use]
    pub fn plain(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.plain).into()
    }

    /// Starts a program of the test's own, which ends with this control plane. Its output goes to `logs/NAME.log` beside the others'; `name` is unique.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, command: std::process::Command) -> Result<Program> {
        Program::start(&self.state, name, command)
    }

    /// One request to the API server as an administrator; the answer's object. `Value::Null` sends no body.
    ///
    /// # Errors
    /// There is no API server, or its answer is no success: the message is its own.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let answer = self
            .client()
            .request(method, path, &[("Content-Type", kind)], &body)?;
        ensure!(
            answer.status < 300,
            "{method} {path}: {}: {}",
            answer.status,
            answer.text()
        );
        Ok(answer.json()?)
    }

    /// Makes many objects at once (POST), given with the path of their collection, over eight connections: for tests of size, where `kubectl` limits itself to
    /// some fifty a second.
    ///
    /// # Errors
    /// One of them is refused; the others may have been made.
    pub fn create_all(&self, objects: &[(String, Value)]) -> Result<()> {
        let share = objects.len().div_ceil(8).max(1);
        let create = |objects: &[(String, Value)]| -> Result<()> {
            let mut client = self.client();
            for (path, object) in objects {
                let answer = client.request(
                    "POST",
                    path,
                    &[("Content-Type", "application/json")],
                    &serde_json::to_vec(object)?,
                )?;
                ensure!(
                    answer.status < 300,
                    "POST {path}: {}: {}",
                    answer.status,
                    answer.text()
                );
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = objects
                .chunks(share)
                .map(|objects| scope.spawn(move || create(objects)))
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
        })
    }

    /// A kubeconfig with the token of a service account, which is made if there is none.
    ///
    /// # Errors
    /// The API server refuses.
    pub fn kubeconfig_for(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        if self
            .ask("GET", &format!("{accounts}/{account}"), &Value::Null)
            .is_err()
        {
            self.ask("POST", &accounts, &json!({"metadata": {"name": account}}))?;
        }
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86_400}});
        let answer = self.ask("POST", &format!("{accounts}/{account}/token"), &request)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": self.server(), "certificate-authority": self.files.ca}}],
            "users": [{"name": account, "user": {"token": answer["status"]["token"]}}],
            "contexts": [{"name": account, "context": {"cluster": "tests", "user": account, "namespace": namespace}}],
            "current-context": account,
        });
        self.state.write(
            &format!("{namespace}-{account}.kubeconfig"),
            serde_json::to_vec_pretty(&config)?,
        )
    }

    /// The address of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}", SocketAddr::new(self.address, self.ports.api))
    }

    /// Ends the API server at once, as a crash would. Watches break, nothing answers, until [`ControlPlane::start_apiserver`].
    ///
    /// # Errors
    /// It is not running.
    pub fn stop_apiserver(&self) -> Result<()> {
        self.take("kube-apiserver")?.kill()
    }

    /// Starts the API server again, at the address it had; ready when this returns. A controller-manager that ran is ended before and started anew
    /// after, as one would that has lost its lease meanwhile: with what it remembers of node leases it would take a node for dead as soon as it is answered.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_apiserver(&self) -> Result<()> {
        let controllers = self.take("kube-controller-manager").ok();
        let had_controllers = controllers.is_some();
        if let Some(controllers) = controllers {
            controllers.kill()?;
        }
        let mut command = self.net.command(program("paifang-cluster")?);
        command.arg("kube-apiserver").args(self.apiserver_flags());
        self.launch("kube-apiserver", command)?;
        wait("the API server is ready", PATIENCE, || {
            self.must_run("kube-apiserver")?;
            self.must_run("etcd")?;
            self.plain_text("/readyz")
        })?;
        if had_controllers {
            self.start_controllers()?;
        }
        Ok(())
    }

    /// Stops the API server where it stands: connections stay open, and nothing is answered, until [`ControlPlane::resume_apiserver`].
    ///
    /// # Errors
    /// It is not running.
    pub fn pause_apiserver(&self) -> Result<()> {
        self.signal("kube-apiserver", Signal::STOP)
    }

    /// Lets a paused API server go on.
    ///
    /// # Errors
    /// It is not running.
    pub fn resume_apiserver(&self) -> Result<()> {
        self.signal("kube-apiserver", Signal::CONT)
    }

    /// Makes etcd forget all revisions but the present one. A client that starts a watch at an older one is told `410 Gone`, but only once the API server has
    /// lost its own memory of them as well: stop and start it too.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn compact_etcd(&self) -> Result<()> {
        let address = (Ipv4Addr::LOCALHOST, self.ports.etcd).into();
        let mut client = http::Client::new(&self.net, address, "localhost", PATIENCE);
        let mut ask = |path: &str, body: Value| -> Result<Value> {
            let answer = client.request("POST", path, &[], &serde_json::to_vec(&body)?)?;
            ensure!(
                answer.status == 200,
                "etcd: {path}: {}: {}",
                answer.status,
                answer.text()
            );
            Ok(answer.json()?)
        };
        // The key is one zero byte, in Base64: any key tells the present revision.
        let present = ask("/v3/kv/range", json!({"key": "AA=="}))?;
        let revision = present["header"]["revision"]
            .as_str()
            .context("etcd told no revision")?
            .to_owned();
        ask(
            "/v3/kv/compaction",
            json!({"revision": revision, "physical": true}),
        )?;
        Ok(())
    }

    /// Starts controller-manager, if it does not run: garbage collection, deletion of namespaces, service accounts, Deployments, EndpointSlices.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_controllers(&self) -> Result<()> {
        if self.processes().contains_key("kube-controller-manager") {
            return Ok(());
        }
        let mut command = self.net.command(program("paifang-cluster")?);
        let kubeconfig = self.files.controllers.display();
        command.arg("kube-controller-manager").args([
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!(
                "--service-account-private-key-file={}",
                self.files.token_key.display()
            ),
            format!("--root-ca-file={}", self.files.ca.display()),
            format!("--cluster-signing-cert-file={}", self.files.ca.display()),
            format!("--cluster-signing-key-file={}", self.files.ca_key.display()),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!(
                "--flex-volume-plugin-dir={}",
                self.state.path("volumeplugins").display()
            ),
        ]);
        command.args([
            "--leader-elect=false",
            "--use-service-account-credentials",
            "--allocate-node-cidrs",
            "--cluster-cidr=10.244.0.0/16",
            "--secure-port=0",
            "--node-monitor-period=1s",
            "--node-monitor-grace-period=10s",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            // So that a namespace's deletion, or an owner's, is done in a moment.
            "--concurrent-namespace-syncs=10",
        ]);
        self.launch("kube-controller-manager", command)?;
        wait(
            "controller-manager has made the default service account",
            PATIENCE,
            || {
                self.must_run("kube-controller-manager")?;
                self.ask(
                    "GET",
                    "/api/v1/namespaces/default/serviceaccounts/default",
                    &Value::Null,
                )
            },
        )?;
        Ok(())
    }

    /// Starts the scheduler.
    pub(crate) fn start_scheduler(&self) -> Result<()> {
        let mut command = self.net.command(program("paifang-cluster")?);
        let kubeconfig = self.files.scheduler.display();
        command.arg("kube-scheduler").args([
            format!("--kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        self.launch("kube-scheduler", command)
    }

    /// The end of a program's log: `etcd`, `kube-apiserver`, `kube-controller-manager`; on a node `kubelet`, `containerd` and others.
    #[must_use]
    pub fn log(&self, program: &str) -> String {
        let text = fs::read(self.state.path(format!("logs/{program}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The authority's certificate, which signs the API server's.
    #[must_use]
    pub fn ca(&self) -> &std::path::Path {
        &self.files.ca
    }

    fn start_etcd(&self) -> Result<()> {
        let clients = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peers = format!("http://127.0.0.1:{}", self.ports.etcd_peers);
        let mut command = self.net.command(program("paifang-cluster")?);
        command
            .args([
                "etcd",
                "--unsafe-no-fsync",
                "--log-level=warn",
                "--quota-backend-bytes=8589934592",
            ])
            .args([
                format!("--data-dir={}", self.state.path("etcd").display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
            ]);
        self.launch("etcd", command)
    }

    fn start_plain_port(&self) -> Result<()> {
        let mut command = self.admin.command("kubectl");
        command.args(["proxy", "--address=127.0.0.1", "--api-prefix=/"]);
        command.arg(format!("--port={}", self.ports.plain));
        self.launch("kubectl-proxy", command)
    }

    fn apiserver_flags(&self) -> Vec<String> {
        let file = |path: &PathBuf| path.display().to_string();
        let files = &self.files;
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--secure-port={}", self.ports.api),
            format!("--advertise-address={NODE_ADDRESS}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--client-ca-file={}", file(&files.ca)),
            format!("--tls-cert-file={}", file(&files.server[0])),
            format!("--tls-private-key-file={}", file(&files.server[1])),
            format!(
                "--kubelet-client-certificate={}",
                file(&files.kubelet_client[0])
            ),
            format!("--kubelet-client-key={}", file(&files.kubelet_client[1])),
            format!(
                "--service-account-key-file={}",
                file(&files.token_public_key)
            ),
            format!(
                "--service-account-signing-key-file={}",
                file(&files.token_key)
            ),
            format!("--service-account-issuer={ISSUER}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ];
        match self.net {
            // The `kubernetes` Service has no endpoints there: nobody is behind a Service.
            Net::Host => flags.extend([
                "--bind-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
            ]),
            Net::Namespace(_) => flags.push("--bind-address=0.0.0.0".to_owned()),
        }
        flags
    }

    /// Puts `crds/*.yaml` into the API server, and waits until their kinds are served. [`ControlPlane::start`] has done so; on a node the
    /// definitions usually come from their chart.
    ///
    /// # Errors
    /// The API server refuses one, as it does when they are there.
    pub fn install_definitions(&self) -> Result<()> {
        self.install_folder(&repository().join("crds"))
    }

    /// As [`ControlPlane::install_definitions`], for the files of another folder.
    ///
    /// # Errors
    /// The API server refuses one, as it does when they are there.
    pub fn install_folder(&self, folder: &std::path::Path) -> Result<()> {
        let mut client = self.client();
        let mut lists = Vec::new();
        for entry in
            fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            let answer = client.request(
                "POST",
                definitions,
                &[("Content-Type", "application/yaml")],
                &fs::read(&path)?,
            )?;
            ensure!(
                answer.status == 201,
                "{}: {}: {}",
                path.display(),
                answer.status,
                answer.text()
            );
            let made = answer.json()?;
            let text = |pointer: &str| {
                made.pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            lists.push(format!(
                "/apis/{}/{}/{}",
                text("/spec/group"),
                text("/spec/versions/0/name"),
                text("/spec/names/plural")
            ));
        }
        for list in lists {
            wait(&format!("{list} is served"), PATIENCE, || {
                self.plain_text(&list)
            })?;
        }
        Ok(())
    }

    fn plain_text(&self, path: &str) -> Result<String> {
        let answer = self.client().request("GET", path, &[], &[])?;
        ensure!(
            answer.status == 200,
            "{path}: {}: {}",
            answer.status,
            answer.text()
        );
        Ok(answer.text())
    }

    // === Processes ===

    pub(crate) fn launch(&self, name: &'static str, command: std::process::Command) -> Result<()> {
        ensure!(!self.processes().contains_key(name), "{name} runs already");
        let process = Process::start(&self.state, name, command)?;
        self.processes().insert(name, process);
        Ok(())
    }

    pub(crate) fn must_run(&self, name: &str) -> Result<()> {
        self.processes()
            .get_mut(name)
            .with_context(|| format!("{name} does not run"))?
            .must_run()
    }

    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.processes()
            .get(name)
            .with_context(|| format!("{name} does not run"))?
            .signal(signal)
    }

    pub(crate) fn take(&self, name: &str) -> Result<Process> {
        self.processes()
            .remove(name)
            .with_context(|| format!("{name} does not run"))
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<&'static str, Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the programs running when this process ends.
    pub(crate) fn keep(self) {
        self.processes().clear();
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for process in std::mem::take(&mut *self.processes()).into_values() {
            let _ = process.kill();
        }
    }
}
