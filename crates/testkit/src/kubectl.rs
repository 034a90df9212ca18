//! `kubectl` with one cluster's credentials, in that cluster's network.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Net, printed, program, run, wait};

/// Runs `kubectl` and other clients with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    net: Net,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

// === impl Kubectl ===

impl Kubectl {
    pub(crate) fn new(net: &Net, kubeconfig: &Path, cache: PathBuf) -> Self {
        Self {
            net: net.clone(),
            kubeconfig: kubeconfig.to_owned(),
            cache,
        }
    }

    /// The kubeconfig. Its server can be reached within [`Kubectl::net`] only.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The network in which it runs.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The same client with other credentials.
    #[must_use]
    pub fn with(&self, kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            ..self.clone()
        }
    }

    /// A command in the cluster's network whose KUBECONFIG and PATH are set: `kubectl`, `helm`, `curl`, a program of ours.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = match program(name) {
            Ok(path) => self.net.command(path),
            Err(_) => self.net.command(name),
        };
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", &self.cache)
            .env("HELM_CACHE_HOME", self.cache.join("helm"))
            .env("HELM_CONFIG_HOME", self.cache.join("helm"))
            .env("HELM_DATA_HOME", self.cache.join("helm"));
        command
    }

    /// Runs `kubectl` with these arguments; what it printed.
    ///
    /// # Errors
    /// It fails; the message holds all that it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(self.command("kubectl").args(args))
    }

    /// As [`Kubectl::run`], with something on standard input.
    ///
    /// # Errors
    /// It fails; the message holds all that it printed.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command("kubectl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that fails early closes it; its own message is the better one.
            let _ = stdin.write_all(input.as_bytes());
        }
        printed(
            &format!("kubectl {}", args.join(" ")),
            child.wait_with_output()?,
        )
    }

    /// `kubectl apply --server-side` of documents, in a namespace unless they name their own.
    ///
    /// # Errors
    /// One of them is refused.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Result<String> {
        self.run_with_input(
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "-n",
                namespace,
                "-f",
                "-",
            ],
            yaml,
        )
    }

    /// `kubectl apply --server-side` of a file or a folder.
    ///
    /// # Errors
    /// One of the objects is refused.
    pub fn apply_path(&self, namespace: &str, path: &Path) -> Result<String> {
        let path = path.to_string_lossy();
        self.run(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-n",
            namespace,
            "-f",
            &path,
        ])
    }

    /// `kubectl get -o json`.
    ///
    /// # Errors
    /// There is no such object, or no API server.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// `kubectl wait --for=FOR`, also for objects that do not exist yet.
    ///
    /// # Errors
    /// It does not come true within `patience`.
    pub fn wait(
        &self,
        namespace: &str,
        object: &str,
        what: &str,
        patience: Duration,
    ) -> Result<()> {
        let (condition, limit) = (
            format!("--for={what}"),
            format!("--timeout={}s", patience.as_secs().max(1)),
        );
        wait(&format!("{object} {what}"), patience, || {
            self.run(&["wait", "-n", namespace, object, &condition, &limit])
        })?;
        Ok(())
    }
}
