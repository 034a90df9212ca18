//! Notices that files of a folder changed, and waits until whoever writes them is done.
//!
//! The system tells (inotify); where it cannot, the folder is looked at every two seconds. What changed is decided by whoever reads.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind, RemoveKind, RenameMode},
};

use crate::folder::{Touched, counts, is_yaml};

/// Nothing happens for so long before files are read.
const QUIET: Duration = Duration::from_millis(10);

/// A file that somebody keeps open is read after so long all the same.
const LONGEST: Duration = Duration::from_millis(60);

/// Between two looks when the system does not tell.
const POLL: Duration = Duration::from_secs(2);

/// Watches a folder.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    signals: Receiver<Signal>,
    sender: Sender<Signal>,
    watcher: Option<RecommendedWatcher>,
    why_polling: Option<String>,
    noticed: Instant,
}

/// Ends a [`Watch`] from elsewhere.
#[derive(Debug, Clone)]
pub struct Stop(Sender<Signal>);

#[derive(Debug)]
enum Signal {
    Told(notify::Result<Event>),
    Stop,
}

// === impl Watch ===

impl Watch {
    /// Begins to watch `root`. Changes from now on are told, so read the folder after this.
    pub fn start(root: &Path) -> Self {
        let (sender, signals) = channel();
        let mut watch = Self {
            root: root.canonicalize().unwrap_or_else(|_| root.to_owned()),
            signals,
            sender,
            watcher: None,
            why_polling: None,
            noticed: Instant::now(),
        };
        watch.arm();
        watch
    }

    fn arm(&mut self) {
        let told = self.sender.clone();
        let watcher = notify::recommended_watcher(move |event| {
            let _ = told.send(Signal::Told(event));
        });
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(&self.root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watching {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.why_polling = None;
            }
            Err(error) => {
                self.watcher = None;
                self.why_polling = Some(error.to_string());
            }
        }
    }

    /// Why the folder is looked at every two seconds instead; none when the system tells.
    pub fn why_polling(&self) -> Option<&str> {
        self.why_polling.as_deref()
    }

    /// When the first of the changes that [`Watch::wait`] told last was noticed.
    pub fn noticed(&self) -> Instant {
        self.noticed
    }

    /// Something that ends [`Watch::wait`].
    pub fn stop(&self) -> Stop {
        Stop(self.sender.clone())
    }

    /// Waits for changes, and for those who write to be done; none when it was stopped.
    pub fn wait(&mut self) -> Option<Touched> {
        loop {
            let patience = self.watcher.is_none().then_some(POLL);
            let first = match patience {
                None => self.signals.recv().ok()?,
                Some(patience) => match self.signals.recv_timeout(patience) {
                    Ok(signal) => signal,
                    Err(RecvTimeoutError::Timeout) => {
                        self.arm();
                        self.noticed = Instant::now();
                        return Some(Touched::Anything);
                    }
                    Err(RecvTimeoutError::Disconnected) => return None,
                },
            };
            let noticed = Instant::now();
            let mut burst = Burst::default();
            burst.take(&self.root, first);
            if burst.is_nothing() {
                continue;
            }
            self.noticed = noticed;
            burst.settle(&self.root, &self.signals);
            if burst.stopped {
                return None;
            }
            if burst.root_is_gone {
                // The watch went with it. From now on somebody looks until there is a folder again.
                self.watcher = None;
                self.why_polling = Some("the folder was moved or removed".to_owned());
            }
            return Some(if burst.anything {
                Touched::Anything
            } else {
                Touched::Files(burst.files)
            });
        }
    }
}

// === impl Stop ===

impl Stop {
    /// Ends the watch; whoever waits gets no more changes.
    pub fn stop(&self) {
        let _ = self.0.send(Signal::Stop);
    }
}

/// Changes that belong together.
#[derive(Debug, Default)]
struct Burst {
    files: BTreeSet<PathBuf>,
    /// Written to, and not closed yet.
    open: BTreeSet<PathBuf>,
    anything: bool,
    root_is_gone: bool,
    stopped: bool,
}

impl Burst {
    fn is_nothing(&self) -> bool {
        !self.anything && !self.stopped && self.files.is_empty()
    }

    fn settle(&mut self, root: &Path, signals: &Receiver<Signal>) {
        let began = Instant::now();
        while !self.stopped && began.elapsed() < LONGEST {
            match signals.recv_timeout(QUIET) {
                Ok(signal) => self.take(root, signal),
                Err(RecvTimeoutError::Timeout) if self.open.is_empty() => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopped = true,
            }
        }
    }

    fn take(&mut self, root: &Path, signal: Signal) {
        let event = match signal {
            Signal::Stop => {
                self.stopped = true;
                return;
            }
            Signal::Told(Ok(event)) => event,
            Signal::Told(Err(_)) => {
                self.anything = true;
                return;
            }
        };
        self.anything |= event.need_rescan();
        for path in &event.paths {
            self.take_path(root, path, event.kind);
        }
    }

    fn take_path(&mut self, root: &Path, path: &Path, kind: EventKind) {
        let Ok(relative) = path.strip_prefix(root) else {
            return;
        };
        let written = match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.open.remove(relative);
                false
            }
            // Our own reading.
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => true,
            _ => false,
        };
        let name = relative.file_name().unwrap_or_default();
        if relative.as_os_str().is_empty() {
            let gone = matches!(
                kind,
                EventKind::Remove(RemoveKind::Folder | RemoveKind::Any | RemoveKind::Other)
                    | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Any))
            );
            self.root_is_gone |= gone;
            self.anything |= gone;
        } else if name.as_encoded_bytes().starts_with(b"..") {
            // A mounted volume swaps `..data`, and every file changes with it.
            self.anything = true;
        } else if !counts(relative) {
        } else if is_yaml(relative) {
            if written {
                self.open.insert(relative.to_owned());
            }
            self.files.insert(relative.to_owned());
        } else if path.is_dir() || !path.exists() {
            // A folder that came, or something that went and may have been one.
            self.anything = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange};

    fn touched(events: &[(EventKind, &str)]) -> Burst {
        let root = Path::new("/nowhere/at/all");
        let mut burst = Burst::default();
        for (kind, path) in events {
            let event = Event::new(*kind).add_path(root.join(path));
            burst.take(root, Signal::Told(Ok(event)));
        }
        burst
    }

    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const READ: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Read));
    const CREATE: EventKind = EventKind::Create(CreateKind::File);

    #[test]
    fn a_file_is_open_until_it_is_closed() {
        let burst = touched(&[(CREATE, "a.yaml"), (WRITE, "a.yaml")]);
        assert_eq!(burst.open.len(), 1);
        let burst = touched(&[(CREATE, "a.yaml"), (WRITE, "a.yaml"), (CLOSE, "a.yaml")]);
        assert_eq!(
            (burst.open.len(), burst.files.len(), burst.anything),
            (0, 1, false)
        );
    }

    #[test]
    fn reading_and_temporary_files_are_nothing() {
        let burst = touched(&[
            (READ, "a.yaml"),
            (WRITE, ".a.yaml.swp"),
            (CREATE, ".git/x.yaml"),
        ]);
        assert!(burst.is_nothing(), "{burst:?}");
    }

    #[test]
    fn folders_and_swapped_volumes_may_change_anything() {
        for path in ["b", "..data"] {
            assert!(touched(&[(CREATE, path)]).anything, "{path}");
        }
        let burst = touched(&[(EventKind::Remove(RemoveKind::Folder), "")]);
        assert!(burst.root_is_gone && burst.anything);
    }
}
