//! One process of a cluster: recorded while it runs, its output in a file, ended by its own id.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::state::State;

/// A program of a test's own that belongs to a cluster: it ends when the cluster does, however that ends. See
/// [`ControlPlane::spawn`](crate::ControlPlane::spawn).
#[derive(Debug)]
pub struct Program(Process);

/// A process that a cluster consists of.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    record: PathBuf,
    log: PathBuf,
}

// === impl Program ===

impl Program {
    pub(crate) fn start(state: &State, name: &str, command: Command) -> Result<Self> {
        Process::start(state, name, command).map(Self)
    }

    /// Sends a signal, as in `Signal::STOP`.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.0.signal(signal)
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// The system does not let it be ended.
    pub fn kill(self) -> Result<()> {
        self.0.kill()
    }

    /// Waits until it has ended by itself, after a signal; whether it said that all was well.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn wait(mut self) -> Result<bool> {
        let status = self.0.child.wait()?;
        let _ = fs::remove_file(&self.0.record);
        Ok(status.success())
    }

    /// Everything it has written.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0.log).unwrap_or_default()).into_owned()
    }

    /// Says why it ended, with its last lines, if it has.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<()> {
        self.0.must_run()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.child.id()
    }
}

// === impl Process ===

impl Process {
    /// Starts `command`; its output is added to `logs/NAME.log`.
    pub(crate) fn start(state: &State, name: &str, mut command: Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let log = state.path(format!("logs/{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let record = state.path(format!("pids/{name}"));
        let began = began(child.id()).unwrap_or_default();
        fs::write(&record, format!("{} {began}\n", child.id()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            record,
            log,
        })
    }

    /// Says why it ended, with its last lines, if it has.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("{} ended with {status}:\n{}", self.name, self.last_lines());
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends a signal, as in `Signal::STOP`.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot send a signal to {}", self.name))
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        let _ = fs::remove_file(&self.record);
        Ok(())
    }
}

/// When a process began, in clock ticks since the machine's start: tells it from a later one with the same id.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(19)?.parse().ok()
}
