//! A real Kubernetes for tests, from the programs that `e2e/setup.sh` builds: nothing here imitates an API server or a pod.
//!
//! - [`ControlPlane`]: etcd and kube-apiserver on loopback ports of their own, ready in seconds. For nearly all tests of a controller.
//! - [`Node`]: the whole of it in a network namespace of its own, with kubelet, containerd, kube-proxy, real pods and Services.
//! - [`Image`]: container images, built from files of ours (no registry can be reached).
//! - [`ArgoCd`]: the real application-controller and repo-server beside either, on a [`GitRepository`].
//! - [`load`]: bounded HTTP load that reports every failure with its time.
//! - [`eventually`]: waiting for something to become true, with the last answer in the message when it does not.
//!
//! Everything blocks and reports through `anyhow`; tests of asynchronous code call it before they start, or from a thread.
//! What a cluster starts is taken away when its value is dropped, when its process ends in whatever way, or at the next start
//! (`state`). Logs of the last clusters stay in `.cache/cluster/logs`.
//!
//! Only ever a development dependency: the product does not know this crate.

mod argocd;
mod control_plane;
pub mod http;
mod image;
mod kubectl;
pub mod load;
mod net;
mod node;
mod pki;
mod process;
mod state;

use std::{
    fmt::{Debug, Display},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use argocd::{Application, ArgoCd, GitRepository};
pub use control_plane::ControlPlane;
pub use image::Image;
pub use kubectl::Kubectl;
pub use net::Net;
pub use node::{Node, kept};
pub use process::Program;
pub use rustix::process::Signal;

/// The root of this repository.
///
/// # Panics
/// When the repository was moved after this was compiled.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// A program that `e2e/setup.sh` puts into `.cache/bin`, such as `kubectl` or `helm`.
///
/// # Errors
/// It is not there; the message says how to get it.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = repository().join(".cache/bin").join(name);
    if !path.exists() {
        bail!("{} is missing; run e2e/setup.sh", path.display());
    }
    Ok(path)
}

/// Asks `attempt` again and again, at first every 5 ms and at last every 100 ms, until it answers `Ok`.
///
/// # Panics
/// When it does not within `patience`; the message holds the last error.
pub fn eventually<T, E: Display>(
    what: &str,
    patience: Duration,
    attempt: impl FnMut() -> Result<T, E>,
) -> T {
    match wait(what, patience, attempt) {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

/// As [`eventually`], for when there is something to do about it.
///
/// # Errors
/// It does not become true within `patience`; the message holds the last error.
pub fn wait<T, E: Display>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let until = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > until => {
                bail!("not within {patience:?}: {what}: {error:#}")
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

/// Runs a command to its end; what it printed.
///
/// # Errors
/// It cannot be started, or fails: with the command and all that it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    printed(command, output)
}

pub(crate) fn printed(command: &dyn Debug, output: Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}:\n{text}{errors}", output.status);
    }
    Ok(text)
}
