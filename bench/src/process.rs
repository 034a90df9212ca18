//! Processes that end with us.

use std::{
    fs::File,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A child that is killed and waited for when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn output(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// Waits until `ready` finds what it looks for in the output.
    pub(crate) fn wait_for<T>(
        &mut self,
        limit: Duration,
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = ready(&self.output()) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status}:\n{}", self.output());
            }
            if began.elapsed() > limit {
                bail!("not ready after {limit:?}:\n{}", self.output());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Who has to be told to end: what it started (strace does not pass signals on), or itself.
    fn ending(&self) -> Vec<u32> {
        let id = self.id();
        let children =
            std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children: Vec<u32> = children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect();
        if children.is_empty() {
            vec![id]
        } else {
            children
        }
    }

    /// Asks it to end (SIGTERM) and waits; its output.
    pub(crate) fn end(mut self) -> Result<String> {
        for id in self.ending() {
            signal(id, "TERM")?;
        }
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > Duration::from_secs(120) {
                bail!("did not end:\n{}", self.output());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(self.output())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        for id in self.ending() {
            let _ = signal(id, "KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(id: u32, name: &str) -> Result<()> {
    Command::new("kill")
        .args([format!("-{name}"), id.to_string()])
        .status()?;
    Ok(())
}

/// Runs a command to its end; standard output and error together.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let done = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    if !done.status.success() {
        bail!("{command:?} failed: {text}");
    }
    Ok(text)
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
