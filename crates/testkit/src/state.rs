//! The state folder of one cluster: what it started, and how all of it is taken away again.
//!
//! A cluster lives in `.cache/cluster/NAME`. Its owner holds a lock there; the kernel lets go of the lock when the owner ends, however
//! that happens. Three things clean up: [`State`]'s drop, a watcher that sees the owner end (tests share clusters through
//! statics, which are never dropped), and [`sweep`] at the next start, for when the watcher was ended as well. All three run `reap.sh`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::repository;

const REAP: &str = include_str!("reap.sh");

/// The state folder of one cluster.
#[derive(Debug)]
pub(crate) struct State {
    name: String,
    folder: PathBuf,
    owner: Option<Owner>,
}

/// What ends with the process that owns the cluster.
#[derive(Debug)]
struct Owner {
    watcher: Child,
    _lock: File,
}

/// Where all state folders are.
fn home() -> PathBuf {
    repository().join(".cache/cluster")
}

// === impl State ===

impl State {
    /// A new folder whose name begins with `kind`, after whatever earlier runs left is gone. It ends with this process.
    pub(crate) fn create(kind: &str) -> Result<Self> {
        sweep()?;
        let name = format!("{kind}-{}", random_name()?);
        let folder = home().join(&name);
        make(&folder)?;
        // Locked before it has the name that another start looks for.
        let lock = File::create(folder.join("alive.new"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(folder.join("alive.new"), folder.join("alive"))?;
        let watcher = reap("watch", &folder)?
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start bash")?;
        Ok(Self {
            name,
            folder,
            owner: Some(Owner {
                watcher,
                _lock: lock,
            }),
        })
    }

    /// The folder of a cluster that stays when this process ends, until [`State::remove`] or the next call with that name.
    pub(crate) fn create_kept(name: &str) -> Result<Self> {
        sweep()?;
        Self::remove(name)?;
        let folder = home().join(name);
        make(&folder)?;
        fs::write(folder.join("kept"), "")?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            owner: None,
        })
    }

    /// Takes away a kept cluster, or what is left of it; whether there was one.
    pub(crate) fn remove(name: &str) -> Result<bool> {
        let folder = home().join(name);
        let existed = folder.exists();
        if existed {
            reap_now(&folder)?;
        }
        Ok(existed)
    }

    /// The folder of a kept cluster, where there is one.
    pub(crate) fn kept(name: &str) -> Option<PathBuf> {
        let folder = home().join(name);
        folder.join("kept").exists().then_some(folder)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.join(relative)
    }

    /// A path in the cluster's second folder, which is short enough for Unix sockets (their paths end at 107 bytes).
    pub(crate) fn run(&self, relative: impl AsRef<Path>) -> PathBuf {
        Path::new("/run/paifang").join(&self.name).join(relative)
    }

    /// The name of the cluster's network namespace, and of its control groups.
    pub(crate) fn netns(&self) -> String {
        format!("paifang-{}", self.name)
    }

    /// Writes a file in the folder; its path.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(mut owner) = self.owner.take() {
            if let Err(error) = reap_now(&self.folder) {
                tell(&format!("{error:#}"));
            }
            drop(owner.watcher.stdin.take());
            let _ = owner.watcher.wait();
        }
    }
}

/// Takes away what clusters left whose owner is gone.
pub(crate) fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(home()) else {
        return Ok(());
    };
    for entry in entries {
        let folder = entry?.path();
        let Ok(lock) = File::open(folder.join("alive")) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && folder.exists() {
            reap_now(&folder)?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    for part in ["pids", "logs"] {
        fs::create_dir_all(folder.join(part))
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(())
}

fn reap_now(folder: &Path) -> Result<()> {
    let output = reap("now", folder)?
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("cannot run bash")?;
    if !output.status.success() {
        bail!(
            "{} could not be cleaned up; look at what uses it, then delete it:\n{}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// A process group of its own: what ends the tests from a terminal must not end the cleaning.
fn reap(mode: &str, folder: &Path) -> Result<Command> {
    use std::os::unix::process::CommandExt as _;
    ensure!(folder.is_absolute(), "{} is not absolute", folder.display());
    let mut command = Command::new("bash");
    command
        .args(["-c", REAP, "reap.sh", mode])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0);
    Ok(command)
}

/// Eight hexadecimal digits of the kernel's randomness.
pub(crate) fn random_name() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(text.chars().take(8).collect())
}

/// A word to whoever runs the tests.
#[expect(clippy::print_stderr, reason = "tests have no other place for it")]
pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}
