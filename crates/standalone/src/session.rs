//! A folder, its state and the compiler together: from what was touched to what is served, and what is said about it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use paifang_compiler::{
    Compiled, Kind, Memory, ObjectId, Objects, Problem, Reason, Secret, SecretToMake, Settings,
    Verdict, compile,
};
use paifang_model::ObjectName;
use paifang_snapshot::wire;

use crate::{
    Change, Diagnostic, InvalidState, Severity, Touched,
    changes::{self, Seen},
    folder::{Folder, Map},
    gather::{Gathered, Good, gather},
    made,
    manifest::{AnyKind, Key},
    state::State,
};

/// What is done with a state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateUse {
    /// Read, locked and written: a gateway runs on it.
    Keep(PathBuf),
    /// Read when it is there: a tool looks beside a running gateway.
    Look(PathBuf),
    /// None.
    Without,
}

/// Why a folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum CannotOpen {
    /// The folder.
    #[error("{dir} is not a folder that can be read: {error}")]
    Dir {
        /// As it was given.
        dir: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] InvalidState),
}

/// A folder, its state and the compiler.
#[derive(Debug)]
pub struct Session {
    folder: Folder,
    state: Option<State>,
    settings: Settings,
    /// What the compiler decided last.
    memory: Memory,
    /// What of it is on disk.
    stored: Memory,
    good: Good,
    made: BTreeMap<ObjectName, Secret>,
    objects: Objects,
    seen: Option<Seen>,
    damaged: Vec<Diagnostic>,
}

/// What follows from the folder as it is now.
#[derive(Debug)]
pub struct Outcome {
    /// To serve.
    pub snapshot: wire::Snapshot,
    /// On each object of the six kinds.
    pub verdicts: BTreeMap<ObjectId, Arc<Verdict>>,
    /// Everything that is wrong, by file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// What is different from before; everything the first time.
    pub changes: Vec<Change>,
    /// Secrets that were made for Apps in this step.
    pub made: Vec<MadeSecret>,
    /// How long it took.
    pub took: Took,
}

/// A Secret that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeSecret {
    /// The App it is for.
    pub app: ObjectName,
    /// The Secret.
    pub secret: ObjectName,
    /// Where to see it; none without a state folder.
    pub path: Option<PathBuf>,
}

/// How long each part took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// Reading files.
    pub read: Duration,
    /// Compiling.
    pub compile: Duration,
    /// Storing what must survive a restart.
    pub store: Duration,
}

// === impl Session ===

impl Session {
    /// The state folder for `dir` when nobody names one: `.paifang` beside it.
    pub fn default_state(dir: &Path) -> PathBuf {
        let absolute = dir
            .canonicalize()
            .or_else(|_| std::path::absolute(dir))
            .unwrap_or_else(|_| dir.to_owned());
        absolute.parent().unwrap_or(&absolute).join(".paifang")
    }

    /// Opens a folder and what is remembered of it. Reads no object yet.
    ///
    /// # Errors
    /// When there is no such folder, or its state cannot be used.
    pub fn open(dir: &Path, state: &StateUse, settings: Settings) -> Result<Self, CannotOpen> {
        std::fs::read_dir(dir).map_err(|error| CannotOpen::Dir {
            dir: dir.to_owned(),
            error,
        })?;
        let mut state = match state {
            StateUse::Keep(path) => Some(State::open(path, dir)?),
            StateUse::Look(path) => State::peek(path)?,
            StateUse::Without => None,
        };
        let remembered = state.as_mut().map(State::load).unwrap_or_default();
        Ok(Self {
            folder: Folder::new(dir),
            state,
            settings,
            stored: remembered.memory.clone(),
            memory: remembered.memory,
            good: remembered.good,
            made: remembered.made,
            objects: Objects::default(),
            seen: None,
            damaged: remembered.damaged,
        })
    }

    /// Reads everything and compiles it.
    pub fn load(&mut self) -> Outcome {
        let began = Instant::now();
        self.folder.refresh(&Touched::Anything);
        self.step(began)
    }

    /// Reads what was touched; compiles when something is different.
    pub fn refresh(&mut self, touched: &Touched) -> Option<Outcome> {
        let began = Instant::now();
        self.folder.refresh(touched).then(|| self.step(began))
    }

    /// The objects of the last step.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Where the Secret of an App that was made is.
    pub fn made_path(&self, secret: &ObjectName) -> Option<PathBuf> {
        let state = self.state.as_ref()?;
        self.made
            .contains_key(secret)
            .then(|| state.secret_path(secret))
    }

    fn step(&mut self, began: Instant) -> Outcome {
        let mut gathered = gather(&self.folder, &self.good, &self.made);
        let mut took = Took {
            read: began.elapsed(),
            ..Took::default()
        };
        let mut diagnostics = std::mem::take(&mut gathered.diagnostics);
        diagnostics.append(&mut self.damaged);

        let began = Instant::now();
        let mut compiled = compile(&gathered.objects, &self.memory, &self.settings);
        let made = self.make(&compiled.secrets_to_make, &mut gathered, &mut diagnostics);
        if !made.is_empty() {
            compiled = compile(&gathered.objects, &compiled.memory, &self.settings);
        }
        took.compile = began.elapsed();

        let began = Instant::now();
        self.remember(&compiled, &gathered, &mut diagnostics);
        took.store = began.elapsed();

        let said = Locator::new(&self.folder, &gathered, self.state.is_some());
        diagnostics.extend(said.all(&compiled.verdicts));
        diagnostics.sort();
        diagnostics.dedup();
        let (seen, changes) =
            changes::between(self.seen.take(), gathered.payloads, &compiled.verdicts);
        self.seen = Some(seen);
        self.objects = gathered.objects;
        Outcome {
            snapshot: compiled.snapshot,
            verdicts: compiled.verdicts,
            diagnostics,
            changes,
            made,
            took,
        }
    }

    /// Makes the Secrets that credentials ask for. Without a state folder they are gone with the process.
    fn make(
        &mut self,
        asked: &[SecretToMake],
        gathered: &mut Gathered,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<MadeSecret> {
        let mut done = Vec::new();
        for wanted in asked {
            let stored = made::random(wanted.kind).and_then(|secret| {
                let path = self
                    .state
                    .as_ref()
                    .map(|state| state.store_secret(&wanted.secret, &secret));
                Ok((secret, path.transpose()?))
            });
            match stored {
                Ok((secret, path)) => {
                    gathered
                        .objects
                        .secrets
                        .insert(wanted.secret.clone(), secret.clone());
                    self.made.insert(wanted.secret.clone(), secret);
                    done.push(MadeSecret {
                        app: wanted.app.clone(),
                        secret: wanted.secret.clone(),
                        path,
                    });
                }
                Err(error) => {
                    let message = format!("its Secret {} cannot be made: {error}", wanted.secret);
                    let about = Diagnostic::of_file("", "SecretNotMade", message, "");
                    diagnostics.push(about.about(format_args!("App {}", wanted.app)));
                }
            }
        }
        done
    }

    /// Stores before anything is served. What cannot be stored is served all the same, said aloud, and tried again next time.
    fn remember(
        &mut self,
        compiled: &Compiled,
        gathered: &Gathered,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        self.memory = compiled.memory.clone();
        self.good.clone_from(&gathered.good);
        let Some(state) = &mut self.state else {
            return;
        };
        match state.store(&self.stored, &self.memory, &self.good) {
            Ok(()) => self.stored = self.memory.clone(),
            Err(error) => {
                let message = format!("what must survive a restart cannot be stored: {error}");
                let fix = "make room or give access; until then a restart goes back to what was stored last";
                diagnostics.push(Diagnostic::of_file("", "StateNotStored", message, fix));
            }
        }
    }
}

/// Finds the lines that verdicts speak about.
struct Locator<'s> {
    folder: &'s Folder,
    gathered: &'s Gathered,
    has_state: bool,
}

impl<'s> Locator<'s> {
    fn new(folder: &'s Folder, gathered: &'s Gathered, has_state: bool) -> Self {
        Self {
            folder,
            gathered,
            has_state,
        }
    }

    fn all(&self, verdicts: &BTreeMap<ObjectId, Arc<Verdict>>) -> Vec<Diagnostic> {
        let mut maps: BTreeMap<&Path, Option<Map>> = BTreeMap::new();
        let mut diagnostics = Vec::new();
        for (id, verdict) in verdicts {
            for problem in &verdict.problems {
                diagnostics.push(self.one(id, problem, &mut maps));
            }
        }
        diagnostics
    }

    fn one(
        &self,
        id: &ObjectId,
        problem: &Problem,
        maps: &mut BTreeMap<&'s Path, Option<Map>>,
    ) -> Diagnostic {
        let key = Key {
            kind: AnyKind::Ours(id.kind),
            name: id.name.clone(),
        };
        let mut diagnostic = Diagnostic::of_file(
            "",
            problem.reason.as_str(),
            problem.message.clone(),
            problem.fix.clone(),
        )
        .about(id)
        .in_field(&problem.field);
        diagnostic.severity = self.severity(problem.reason);
        if let Some(origin) = self.gathered.origins.get(&key) {
            let map = maps
                .entry(&origin.file)
                .or_insert_with(|| self.folder.map(&origin.file));
            diagnostic.file.clone_from(&origin.file);
            diagnostic.at = map
                .as_ref()
                .and_then(|map| map.locate(origin.place?, &problem.field));
        }
        diagnostic
    }

    /// A stage that its backend service does not have is offline on purpose as often as not; releases are known only where a gateway ran.
    fn severity(&self, reason: Reason) -> Severity {
        match reason {
            // It is accepted and answers that it is not served.
            Reason::BackendStageMissing => Severity::Warning,
            Reason::ReleaseNotFound if !self.has_state => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Errors and warnings.
    pub fn counts(&self) -> (usize, usize) {
        let warnings = self
            .diagnostics
            .iter()
            .filter(|said| said.severity == Severity::Warning)
            .count();
        (self.diagnostics.len() - warnings, warnings)
    }

    /// Objects of each of the six kinds.
    pub fn objects(&self, kind: Kind) -> usize {
        self.verdicts.keys().filter(|id| id.kind == kind).count()
    }
}
