//! The node with Paifang on it that all tests share, and what each test has of its own: a namespace, a host name, its turn, and an account of everything when it fails.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    process::Command,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use paifang_testkit::{
    Image, Kubectl, Node, eventually, http::Response, load::Load, program, repository, run,
};
use serde_json::Value;

/// Where Paifang is installed.
pub(crate) const SYSTEM: &str = "paifang-system";
/// How long anything may take on a busy machine before a test gives up on it. What must be fast is measured by the test itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The pods of the only instance.
pub(crate) const GATEWAYS: &str =
    "app.kubernetes.io/component=gateway,paifang.dev/instance=default";
pub(crate) const CONTROLLERS: &str = "app.kubernetes.io/component=controller";
/// The ports of a gateway pod.
pub(crate) const HTTP: u16 = 8080;
pub(crate) const ADMIN: u16 = 9901;

static CLUSTER: OnceLock<Result<Node, String>> = OnceLock::new();
static TURN: RwLock<()> = RwLock::new(());
static PORTS: Mutex<()> = Mutex::new(());

/// What one test works with. Its namespace goes when it ends.
pub(crate) struct Scene {
    pub(crate) node: &'static Node,
    pub(crate) namespace: String,
    gateway: OnceLock<SocketAddr>,
    _turn: Turn,
}

#[expect(dead_code, reason = "held, not read")]
enum Turn {
    Beside(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

// === impl Scene ===

impl Scene {
    /// For tests that disturb nobody.
    pub(crate) fn beside_others() -> Self {
        Self::new(Turn::Beside(
            TURN.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// For tests that roll, kill or upgrade what all share. They begin and end with everything in its place.
    pub(crate) fn alone() -> Self {
        let scene = Self::new(Turn::Alone(
            TURN.write().unwrap_or_else(PoisonError::into_inner),
        ));
        scene.settled();
        scene
    }

    fn new(turn: Turn) -> Self {
        let node = CLUSTER.get_or_init(|| installed().map_err(|error| format!("{error:#}")));
        let node = node.as_ref().unwrap_or_else(|error| panic!("{error}"));
        Self {
            namespace: node.plane().namespace().unwrap(),
            node,
            gateway: OnceLock::new(),
            _turn: turn,
        }
    }

    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.node.admin()
    }

    /// A host name that no other test binds.
    pub(crate) fn host(&self) -> String {
        format!("{}.test", self.namespace)
    }

    pub(crate) fn apply(&self, yaml: &str) {
        let text = yaml
            .replace("NAMESPACE", &self.namespace)
            .replace("HOST", &self.host());
        self.kubectl().apply(&self.namespace, &text).unwrap();
    }

    /// Waits as a user does: `kubectl wait --for=condition=Ready`.
    pub(crate) fn ready(&self, objects: &[&str]) {
        for object in objects {
            self.kubectl()
                .wait(&self.namespace, object, "condition=Ready", PATIENCE)
                .unwrap();
        }
    }

    pub(crate) fn available(&self, deployment: &str) {
        self.rolled_out(&self.namespace, deployment);
    }

    /// Runs `kubectl rollout status` to its end.
    pub(crate) fn rolled_out(&self, namespace: &str, deployment: &str) {
        let (name, limit) = (
            format!("deployment/{deployment}"),
            format!("--timeout={}s", 2 * PATIENCE.as_secs()),
        );
        self.kubectl()
            .run(&["rollout", "status", "-n", namespace, &name, &limit])
            .unwrap();
    }

    pub(crate) fn get(&self, object: &str) -> Result<Value> {
        self.kubectl().get(&[object, "-n", &self.namespace])
    }

    pub(crate) fn patch(&self, object: &str, patch: &str) {
        self.kubectl()
            .run(&[
                "patch",
                object,
                "-n",
                &self.namespace,
                "--type=merge",
                "-p",
                patch,
            ])
            .unwrap();
    }

    /// The public Service of the gateways, as everything in the cluster reaches it: through kube-proxy.
    pub(crate) fn gateway(&self) -> SocketAddr {
        // Remembered: it is called without an API server, too.
        *self.gateway.get_or_init(|| {
            self.node
                .reach(SYSTEM, "paifang-default", "http", PATIENCE)
                .unwrap()
        })
    }

    /// One GET of this test's host on a connection of its own, through the Service.
    pub(crate) fn call(&self, path: &str) -> Result<Response> {
        self.call_at(self.gateway(), path)
    }

    pub(crate) fn call_at(&self, address: SocketAddr, path: &str) -> Result<Response> {
        let mut client = self.node.client(address, &self.host());
        Ok(client.request("GET", path, &[], &[])?)
    }

    /// Waits until a call is answered with 200 and that body.
    pub(crate) fn answers(&self, path: &str, body: &str) {
        eventually(&format!("{path} is answered"), PATIENCE, || {
            let answer = self.call(path)?;
            ensure!(
                answer.status == 200 && answer.text() == body,
                "{}: {}",
                answer.status,
                answer.text()
            );
            Ok(())
        });
    }

    /// Steady load on this test's host through the Service: four kept connections, each with a request every few milliseconds.
    ///
    /// HTTP lets a server close a kept connection while a request is on its way to it; clients that send GETs know, and send again. So does this
    /// load, once and on a new connection; anything else is a failure.
    pub(crate) fn load(&self, path: &str) -> Load {
        Load::new(self.node.net(), self.gateway(), &self.host(), path)
            .connections(4)
            .pause(Duration::from_millis(3))
            .duration(Duration::from_secs(300))
            .tolerate_stale()
    }

    /// As [`Scene::load`], with a new connection for each request: some 300 a second, far fewer than there are ports to call from.
    pub(crate) fn fresh_load(&self, path: &str) -> Load {
        self.load(path)
            .without_keep_alive()
            .pause(Duration::from_millis(12))
    }

    /// The pods that a selector chooses and that are not about to end, ready or not.
    pub(crate) fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        let pods = self.node.pods(SYSTEM, selector)?;
        let living = pods
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        living.map(Pod::read).collect()
    }

    /// Waits until all pods of Paifang are there and ready, and none is ending; the gateways.
    pub(crate) fn settled(&self) -> Vec<Pod> {
        eventually(
            "controllers and gateways are in place",
            2 * PATIENCE,
            || {
                for name in ["paifang-controller", "paifang-gateway-default"] {
                    let path = format!("/apis/apps/v1/namespaces/{SYSTEM}/deployments/{name}");
                    let it = self.node.plane().ask("GET", &path, &Value::Null)?;
                    let status = &it["status"];
                    ensure!(
                        status["observedGeneration"] == it["metadata"]["generation"]
                            && status["replicas"] == 2
                            && status["updatedReplicas"] == 2
                            && status["readyReplicas"] == 2,
                        "{name}: {status}"
                    );
                }
                let all = self.node.pods(SYSTEM, "app.kubernetes.io/name=paifang")?;
                ensure!(all.len() == 4, "{} pods instead of 4", all.len());
                self.pods(GATEWAYS)
            },
        )
    }

    /// What `kubectl get api` would show of a stage, once it does not change any more: which gateways serve it.
    pub(crate) fn served_by(&self, api: &str, gateways: &str) {
        eventually(&format!("{api} is served by {gateways}"), PATIENCE, || {
            let status = self.get(&format!("api/{api}"))?["status"].take();
            ensure!(
                status["stages"]["RELEASE"]["gateways"] == gateways
                    && status["stages"]["RELEASE"]["state"] == "Serving",
                "{status}"
            );
            Ok(())
        });
    }

    /// Runs a shell script where the repository is, as someone who follows the documentation does.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        shell(self.node, script)
    }

    fn account(&self) -> String {
        let mut text = self.node.state_of(SYSTEM);
        let say = |args: &[&str]| {
            self.kubectl()
                .run(args)
                .unwrap_or_else(|error| format!("{error:#}\n"))
        };
        let _ = writeln!(text, "--- {}", self.namespace);
        text += &say(&[
            "get",
            "paifang,pods,endpointslices",
            "-n",
            &self.namespace,
            "-o",
            "wide",
        ]);
        text += &say(&[
            "get",
            "paifang",
            "-n",
            &self.namespace,
            "-o",
            "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.status}{\"\\n\"}{end}",
        ]);
        text
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.account());
        }
        let _ = self
            .kubectl()
            .run(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// A pod of Paifang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) ip: std::net::IpAddr,
}

// === impl Pod ===

impl Pod {
    fn read(pod: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            name: text(&pod["metadata"]["name"]),
            ip: text(&pod["status"]["podIP"])
                .parse()
                .context("a pod has no address yet")?,
        })
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }
}

/// A node on which the documentation was followed: the two lines of README.md, in a namespace that enforces restricted pods.
fn installed() -> Result<Node> {
    // Before the node: most of what can be missing is needed here.
    let images = [
        Image::echo()?,
        Image::paifang_tagged(env!("CARGO_BIN_EXE_paifang").as_ref(), "0.0.0")?,
    ];
    let node = Node::start()?;
    for image in &images {
        node.load(image)?;
    }
    for line in install_lines()? {
        shell(
            &node,
            &line.replace("registry.example.com/paifang", "paifang.test/paifang"),
        )?;
        shell(
            &node,
            &format!(
                "kubectl label namespace {SYSTEM} --overwrite pod-security.kubernetes.io/enforce=restricted"
            ),
        )?;
    }
    let rolled = shell(
        &node,
        &format!(
            "kubectl -n {SYSTEM} rollout status deployment -l app.kubernetes.io/name=paifang --timeout=120s"
        ),
    );
    rolled.map_err(|error| error.context(node.state_of(SYSTEM)))?;
    Ok(node)
}

/// The two lines of README.md that install Paifang; docs/install.md has the same.
pub(crate) fn install_lines() -> Result<Vec<String>> {
    let lines = |page: &str, heading: &str| {
        let page = fs::read_to_string(repository().join(page))?;
        let block = fenced(&page, heading, "sh")?;
        anyhow::Ok(block.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let readme = lines("README.md", "## In a cluster\n")?;
    ensure!(
        readme.len() == 2 && readme.iter().all(|line| line.starts_with("helm install ")),
        "README.md should begin with two lines of helm: {readme:?}"
    );
    let install = lines("docs/install.md", "## Install\n")?;
    ensure!(
        install == readme,
        "docs/install.md differs from README.md: {install:?}"
    );
    Ok(readme)
}

/// The first block of that language after a heading of a page.
pub(crate) fn fenced(page: &str, after: &str, language: &str) -> Result<String> {
    let (_, rest) = page
        .split_once(after)
        .with_context(|| format!("no {after:?} in the page"))?;
    let (_, rest) = rest
        .split_once(&format!("```{language}\n"))
        .with_context(|| format!("no block of {language} after {after:?}"))?;
    let (block, _) = rest.split_once("```").context("the block has no end")?;
    Ok(block.to_owned())
}

/// Its holder alone may forward ports to the loopback of the node's network: the documentation always names the same.
pub(crate) fn forwarding() -> MutexGuard<'static, ()> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shell(node: &Node, script: &str) -> Result<String> {
    run(&mut shell_command(node, script)?)
}

pub(crate) fn shell_command(node: &Node, script: &str) -> Result<Command> {
    let folder = program("kubectl")?
        .parent()
        .context("kubectl is in a folder")?
        .to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = node.command("sh");
    command
        .args(["-euc", script])
        .current_dir(repository())
        .env("PATH", format!("{}:{path}", folder.display()));
    Ok(command)
}
