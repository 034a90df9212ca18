//! A whole node in a network namespace of its own: the control plane, scheduler, containerd, kubelet, kube-proxy; real pods and Services.
//!
//! The namespace has one address, 192.0.2.1, and no way out. Pods are on 10.244.0.0/24, Services on 10.96.0.0/16. Services have names as in any
//! cluster (CoreDNS, `e2e/dns`); no other name resolves.

mod files;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

use crate::{
    ControlPlane, Image, Kubectl, Net, Signal, http, program, repository, run, state::State, wait,
};

/// The node's name in the cluster.
const NAME: &str = "node";
/// The namespace of controller and gateways.
const PAIFANG: &str = "paifang-system";
/// Its zone, as a label of the node.
const ZONE: &str = "zone-a";
/// How long anything may take to be ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster of one node.
#[derive(Debug)]
pub struct Node {
    plane: ControlPlane,
}

// === impl Node ===

impl Node {
    /// Starts all of it, without Paifang and its definitions; ready to run pods when this returns, and taken away when it is dropped or this process ends. About ten seconds and 1 GB of memory: share one
    /// between tests.
    ///
    /// # Errors
    /// Not root, a program is missing (`e2e/setup.sh`), or one does not become ready: the message has its last lines.
    pub fn start() -> Result<Self> {
        Self::start_in(State::create("node")?, &mut |_| {})
    }

    /// As [`Node::start`], but it stays when this process ends, until [`Node::remove`]. `progress` is told each step.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_kept(name: &str, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::start_in(State::create_kept(name)?, progress)
    }

    /// Takes away a kept node, or what is left of one; whether there was one.
    ///
    /// # Errors
    /// Something of it cannot be taken away.
    pub fn remove(name: &str) -> Result<bool> {
        State::remove(name)
    }

    fn start_in(state: State, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a node needs root: for its network namespace, mounts and control groups"
        );
        progress("network namespace");
        let net = Net::create(&state.netns())?;
        files::remember_sysctls(&state)?;
        let node = Self {
            plane: ControlPlane::prepare(state, net)?,
        };
        progress("containerd");
        node.start_containerd()?;
        progress("etcd and kube-apiserver");
        node.plane.start_all()?;
        progress("kube-controller-manager and kube-scheduler");
        node.plane.start_controllers()?;
        node.plane.start_scheduler()?;
        progress("the image that holds a pod's namespaces");
        node.wait_for_containerd()?;
        node.load(&Image::pause()?)?;
        progress("cluster DNS, kubelet and kube-proxy");
        node.start_dns()?;
        node.start_kubelet()?;
        node.start_proxy()?;
        progress("node Ready");
        node.wait_until_ready()?;
        Ok(node)
    }

    /// Lets all of it run on when this process ends; for a node of [`Node::start_kept`].
    pub fn keep(self) {
        self.plane.keep();
    }

    /// Its control plane.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// An administrator's `kubectl`; [`Kubectl::command`] runs other clients in the node's network.
    #[must_use]
    pub fn admin(&self) -> &Kubectl {
        self.plane.admin()
    }

    /// Its network. [`Net::inside`] calls code of a test there, [`Net::forward`] lets clients in that cannot enter.
    #[must_use]
    pub fn net(&self) -> &Net {
        self.plane.net()
    }

    /// The name of its network namespace.
    #[must_use]
    pub fn netns(&self) -> String {
        self.plane.state.netns()
    }

    /// The folder in which everything about it is, but sockets.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.plane.folder()
    }

    /// A command in the node's network, with KUBECONFIG set: `curl`, `helm`, a program of ours.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        self.admin().command(name)
    }

    /// Makes an image known to the node.
    ///
    /// # Errors
    /// containerd refuses it.
    pub fn load(&self, image: &Image) -> Result<()> {
        run(self.ctr().args(["images", "import"]).arg(&image.archive))
            .with_context(|| format!("cannot load {}", image.name))?;
        Ok(())
    }

    /// Installs both charts with Helm in the namespace `paifang-system`, with an image that was loaded and more arguments for the second chart
    /// (as in `["--set", "controller.replicas=1"]`), and waits until all pods are ready.
    ///
    /// # Errors
    /// Helm fails, or the pods are not ready within two minutes; the message holds what Helm and the pods say.
    pub fn install_paifang(&self, image: &Image, more: &[&str]) -> Result<()> {
        let charts = repository().join("charts");
        let helm = |chart: &str, args: &[&str]| {
            let mut command = self.command("helm");
            command
                .args(["upgrade", "--install", chart])
                .arg(charts.join(chart))
                .args(args);
            run(command.args([
                "--namespace",
                PAIFANG,
                "--create-namespace",
                "--wait",
                "--timeout=2m",
            ]))
        };
        helm("paifang-crds", &[])?;
        let (repository, tag) = image
            .name
            .rsplit_once(':')
            .context("an image's name has a tag")?;
        let (repository, tag) = (
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
        );
        // There is no load balancer whose address Helm could wait for.
        let service = "instanceDefaults.service.public.type=ClusterIP";
        let args = [
            &["--set", &repository, "--set-string", &tag, "--set", service],
            more,
        ]
        .concat();
        helm("paifang", &args).map_err(|error| error.context(self.state_of(PAIFANG)))?;
        Ok(())
    }

    /// What there is to know about a namespace whose pods are not as they should be: for messages of tests.
    #[must_use]
    pub fn state_of(&self, namespace: &str) -> String {
        let say = |args: &[&str]| {
            self.admin()
                .run(args)
                .unwrap_or_else(|error| format!("{error:#}"))
        };
        let mut text = say(&["get", "pods", "-n", namespace, "-o", "wide"]);
        text += &say(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
        for pod in self.pods(namespace, "").unwrap_or_default() {
            let name = self::text(&pod["metadata"]["name"]).to_owned();
            text += &format!(
                "--- {name}\n{}",
                say(&[
                    "logs",
                    "-n",
                    namespace,
                    &name,
                    "--tail=20",
                    "--all-containers"
                ])
            );
        }
        text
    }

    /// The address of a Service within the node's network, from its ClusterIP and the port's name or number.
    ///
    /// # Errors
    /// There is no such Service or port.
    pub fn service(&self, namespace: &str, name: &str, port: &str) -> Result<SocketAddr> {
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let service = self.plane.ask("GET", &path, &Value::Null)?;
        let address: IpAddr = text(&service["spec"]["clusterIP"])
            .parse()
            .context("it has no ClusterIP")?;
        let ports = service["spec"]["ports"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let number = port.parse::<u16>().unwrap_or_default();
        let wanted = ports
            .iter()
            .find(|entry| text(&entry["name"]) == port || entry["port"] == number);
        let number = wanted
            .and_then(|entry| entry["port"].as_u64())
            .with_context(|| format!("Service {name} has no port {port}"))?;
        Ok(SocketAddr::new(address, u16::try_from(number)?))
    }

    /// As [`Node::service`], once something answers there: an endpoint is known to Kubernetes some time before kube-proxy sends to it.
    ///
    /// # Errors
    /// Nothing answers within `patience`.
    pub fn reach(
        &self,
        namespace: &str,
        name: &str,
        port: &str,
        patience: Duration,
    ) -> Result<SocketAddr> {
        wait(
            &format!("Service {namespace}/{name} takes connections"),
            patience,
            || {
                let address = self.service(namespace, name, port)?;
                self.net().connect(address, Duration::from_secs(1))?;
                anyhow::Ok(address)
            },
        )
    }

    /// The pods of a namespace that a label selector chooses (all for `""`).
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let selector = selector.replace('=', "%3D").replace(',', "%2C");
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}");
        let list = self.plane.ask("GET", &path, &Value::Null)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// A plain HTTP client of an address in the node's network.
    #[must_use]
    pub fn client(&self, address: SocketAddr, host: &str) -> http::Client {
        http::Client::new(self.net(), address, host, Duration::from_secs(10))
    }

    /// What a pod printed.
    ///
    /// # Errors
    /// There is no such pod, or it has not started.
    pub fn logs(&self, namespace: &str, pod: &str) -> Result<String> {
        self.admin().run(&["logs", "-n", namespace, pod])
    }

    /// Runs a command in a pod; what it printed.
    ///
    /// # Errors
    /// The pod does not run, or the command fails.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        self.admin()
            .run(&[&["exec", "-n", namespace, pod, "--"], command].concat())
    }

    /// The processes of a pod's containers, without the one that holds its namespaces.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn pids(&self, namespace: &str, pod: &str) -> Result<Vec<u32>> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let pod = self.plane.ask("GET", &path, &Value::Null)?;
        let statuses = pod["status"]["containerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ids = statuses
            .iter()
            .filter_map(|status| text(&status["containerID"]).strip_prefix("containerd://"));
        let tasks = run(self.ctr().args(["tasks", "list"]))?;
        let mut pids = Vec::new();
        for id in ids {
            let line = tasks.lines().find(|line| line.starts_with(id));
            pids.extend(line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok()));
        }
        Ok(pids)
    }

    /// Sends a signal to a pod's containers without asking Kubernetes: KILL is a crash, STOP a hang.
    ///
    /// # Errors
    /// None of them runs.
    pub fn signal(&self, namespace: &str, pod: &str, signal: Signal) -> Result<()> {
        let pids = self.pids(namespace, pod)?;
        ensure!(!pids.is_empty(), "no container of {pod} runs");
        for pid in pids {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .context("no process id")?;
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Ends kubelet at once. Pods run on; the node is NotReady after ten seconds.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop_kubelet(&self) -> Result<()> {
        self.plane.take("kubelet")?.kill()
    }

    /// Starts kubelet, again if need be.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_kubelet(&self) -> Result<()> {
        let state = &self.plane.state;
        files::make_cgroups(&state.netns())?;
        let config = state.write("kubelet.json", files::kubelet(state, self.plane.ca())?)?;
        let mut command = self.net().command(program("paifang-cluster")?);
        command.arg("kubelet").args([
            format!("--config={}", config.display()),
            format!(
                "--kubeconfig={}",
                state.path("kubelet.kubeconfig").display()
            ),
            format!("--root-dir={}", state.run("kubelet").display()),
            format!("--cert-dir={}", state.path("kubelet-pki").display()),
            format!("--hostname-override={NAME}"),
            format!("--node-ip={}", crate::control_plane::NODE_ADDRESS),
            format!("--node-labels=topology.kubernetes.io/zone={ZONE}"),
        ]);
        self.plane.launch("kubelet", command)
    }

    /// CoreDNS on the node's own address: it answers for Services, and for nothing else.
    fn start_dns(&self) -> Result<()> {
        let state = &self.plane.state;
        let config = state.write("Corefile", files::dns(self.admin().kubeconfig()))?;
        let mut command = self.net().command(program("paifang-dns")?);
        command.arg("-conf").arg(config);
        self.plane.launch("coredns", command)
    }

    fn start_proxy(&self) -> Result<()> {
        let state = &self.plane.state;
        let config = state.write("kube-proxy.json", files::proxy(state)?)?;
        let mut command = self.net().command(program("paifang-cluster")?);
        command.args(["kube-proxy", "--config"]).arg(config);
        self.plane.launch("kube-proxy", command)
    }

    fn start_containerd(&self) -> Result<()> {
        let state = &self.plane.state;
        let folders = [
            state.run("containerd"),
            state.run("kubelet"),
            state.path("pods"),
            state.path("cni"),
        ];
        for folder in folders {
            fs::create_dir_all(folder)?;
        }
        state.write(
            "resolv.conf",
            "# nothing: there is no DNS in this network but that of the cluster\n",
        )?;
        state.write("cni/10-pods.conflist", files::cni(state)?)?;
        let config = state.write("containerd.toml", files::containerd(state))?;
        let mut command = self.net().command("containerd");
        command.arg("--config").arg(config);
        self.plane.launch("containerd", command)
    }

    fn wait_for_containerd(&self) -> Result<()> {
        wait("containerd answers", PATIENCE, || {
            self.plane.must_run("containerd")?;
            run(self.ctr().arg("version"))
        })?;
        Ok(())
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.plane.state.run("containerd.sock"))
            .args(["--namespace", "k8s.io"]);
        command
    }

    fn wait_until_ready(&self) -> Result<()> {
        wait("the node is Ready", PATIENCE, || {
            self.plane.must_run("kubelet")?;
            self.plane.must_run("kube-proxy")?;
            self.plane.must_run("coredns")?;
            self.plane.must_run("containerd")?;
            let node = self
                .plane
                .ask("GET", &format!("/api/v1/nodes/{NAME}"), &Value::Null)?;
            let conditions = node["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ready = conditions
                .iter()
                .find(|condition| condition["type"] == "Ready")
                .cloned()
                .unwrap_or_default();
            ensure!(ready["status"] == "True", "{ready}");
            ensure!(
                node["spec"]["taints"] == json!(null),
                "it is tainted: {}",
                node["spec"]["taints"]
            );
            Ok(())
        })?;
        wait(
            "the API server is reached through its Service",
            PATIENCE,
            || {
                self.net().connect(
                    (Ipv4Addr::new(10, 96, 0, 1), 443).into(),
                    Duration::from_secs(1),
                )
            },
        )?;
        Ok(())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a kept node of that name is there; its folder.
#[must_use]
pub fn kept(name: &str) -> Option<PathBuf> {
    State::kept(name)
}
