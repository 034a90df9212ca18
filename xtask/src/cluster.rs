//! A Kubernetes node on the developer's machine, with Paifang installed as a user would: by its two charts.
//!
//! The node is that of the tests (crates/testkit); it stays until `cargo xtask cluster down`, or until the machine is started again.

use std::{
    fs,
    io::{Write as _, stdout},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use paifang_testkit::{Image, Node, program, repository};

/// The node's name: its folder is `.cache/cluster/dev`.
const NAME: &str = "dev";
const DEMO: &str = include_str!("cluster/demo.yaml");
const PATIENCE: Duration = Duration::from_secs(60);

/// What to install on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// Paifang, and something to try it on.
    Paifang,
    /// Nothing: an empty cluster.
    Nothing,
}

pub(crate) fn up(with: With) -> Result<()> {
    for name in [
        "paifang-cluster",
        "paifang-dns",
        "paifang-pod",
        "kubectl",
        "helm",
    ] {
        program(name)?;
    }
    let mut steps = Steps::new();
    let built = match with {
        With::Paifang => {
            steps.begin("paifang, compiled")?;
            let program = build()?;
            steps.begin("paifang, as an image")?;
            Some(Image::paifang(&program)?)
        }
        With::Nothing => None,
    };
    let mut unheard = Ok(());
    let node = Node::start_kept(NAME, &mut |step| {
        if let Err(error) = steps.begin(step) {
            unheard = Err(error);
        }
    });
    unheard?;
    // A node that did not become ready stays as well, so that it can be looked at.
    let node = node.with_context(|| {
        format!(
            "the logs are in {}; `cargo xtask cluster down` cleans up",
            logs().display()
        )
    })?;
    let run = write_run(&node)?;
    if let Some(image) = &built {
        install(&node, image, &mut steps)
            .with_context(|| format!("the node runs on: look at it with {} kubectl …; `cargo xtask cluster down` ends it", run.display()))?;
    }
    steps.end()?;
    tell(&run, with)?;
    node.keep();
    Ok(())
}

pub(crate) fn down() -> Result<()> {
    let said = if Node::remove(NAME)? {
        "The cluster is gone."
    } else {
        "There was no cluster."
    };
    writeln!(stdout(), "{said}")?;
    Ok(())
}

fn install(node: &Node, image: &Image, steps: &mut Steps) -> Result<()> {
    steps.begin("images, loaded into the node")?;
    node.load(image)?;
    node.load(&Image::echo()?)?;
    steps.begin("helm install paifang-crds, paifang")?;
    node.install_paifang(image, &[])?;
    steps.begin("a demo: two pods and an Api in front of them")?;
    node.plane().kubectl(&["create", "namespace", "demo"])?;
    node.plane().apply("demo", DEMO)?;
    node.admin()
        .wait("demo", "deployment/echo", "condition=Available", PATIENCE)?;
    node.admin()
        .wait("demo", "apis.paifang.dev/echo", "condition=Ready", PATIENCE)
}

/// Compiled like the tests are, so that it is there already as a rule.
fn build() -> Result<PathBuf> {
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--locked", "-p", "paifang"])
        .current_dir(repository())
        .status()?;
    ensure!(status.success(), "cargo build -p paifang failed");
    Ok(repository().join("target/debug/paifang"))
}

fn logs() -> PathBuf {
    repository().join(".cache/cluster").join(NAME).join("logs")
}

/// A script that runs a command in the cluster's network, as its administrator.
fn write_run(node: &Node) -> Result<PathBuf> {
    let path = node.folder().join("run");
    let text = format!(
        "#!/bin/sh\n# Runs a command in the cluster's network, as its administrator.\n\
         export KUBECONFIG={} KUBECACHEDIR={} PATH={}:$PATH\nexec nsenter --net=/run/netns/{} -- \"$@\"\n",
        node.plane().kubeconfig().display(),
        // Not the user's: every cluster of ours has the same address.
        node.folder().join("kubectl").display(),
        repository().join(".cache/bin").display(),
        node.netns()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn tell(run: &Path, with: With) -> Result<()> {
    let run = run
        .strip_prefix(std::env::current_dir()?)
        .unwrap_or(run)
        .display()
        .to_string();
    let mut text = format!(
        "\nThe cluster has a network of its own. This runs a command in it, as its administrator:\n\n  {run} kubectl get pods -A\n"
    );
    if with == With::Paifang {
        text += &format!(
            "\nPaifang is in namespace paifang-system, a demo in namespace demo. Try:\n\n\
             \x20 {run} sh -c 'curl -s -H \"Host: demo.localtest\" http://$(kubectl get service -n paifang-system paifang-default -o jsonpath={{.spec.clusterIP}})/echo?x=1'\n\
             \x20 {run} kubectl get paifang -A\n\
             \x20 {run} kubectl describe -n demo apis.paifang.dev/echo\n\
             \x20 {run} kubectl scale -n demo deployment/echo --replicas=3\n\
             \x20 {run} kubectl logs -n paifang-system -l app.kubernetes.io/component=controller --tail=20\n\
             \nAfter a change of the code, `cargo xtask cluster up` starts again with it.\n"
        );
    }
    text += "\nEnd it with: cargo xtask cluster down\n";
    stdout().write_all(text.as_bytes())?;
    Ok(())
}

// === Progress ===

/// One line a step, with its time once it is done.
struct Steps {
    began: Instant,
    step: Option<Instant>,
}

impl Steps {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            step: None,
        }
    }

    fn begin(&mut self, step: &str) -> Result<()> {
        self.finish()?;
        let mut out = stdout();
        write!(out, "  {step:<50}")?;
        out.flush()?;
        self.step = Some(Instant::now());
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(step) = self.step.take() {
            writeln!(stdout(), " {:5.1} s", step.elapsed().as_secs_f64())?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.finish()?;
        writeln!(
            stdout(),
            "  {:<50} {:5.1} s",
            "all",
            self.began.elapsed().as_secs_f64()
        )?;
        Ok(())
    }
}
