//! The state folder: releases, the last good state of everything, Secrets that were made. It survives restarts.
//!
//! One small file each, written to a temporary name, synced and renamed, so that a crash leaves the old one or the new one. A file that cannot
//! be read is set aside and reported, never the end of the process. Private keys are in here: the folder is 0700, its files 0600, and it keeps
//! itself out of Git.
//!
//! ```text
//! format                                  the version of this layout
//! lock                                    held by the process that uses the folder
//! apis/NAMESPACE/NAME/api.json            what stages were told and served
//! apis/NAMESPACE/NAME/releases/N.json     a release; never rewritten
//! objects/KIND/NAMESPACE/NAME.json        the last good state of another object
//! certificates/NAMESPACE/NAME.json        the last good certificate of a Secret
//! files/HASH.json                         what a file of the folder last said that could be used
//! secrets/NAMESPACE/NAME.json             a Secret that was made for an App
//! damaged/                                what could not be read
//! ```

mod entry;
mod file;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use paifang_compiler::{Kind, Memory, MemoryKey, ObjectId, Secret};
use paifang_model::ObjectName;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Diagnostic, gather::Good};
use file::Batch;

/// Version of the layout.
const FORMAT: u64 = 1;

const FORMAT_FILE: &str = "format";
const MARK: &str = "paifang state ";

/// A state folder.
#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
    /// Held until the process ends; absent when only read.
    lock: Option<File>,
    /// What is stored for each file of the watched folder.
    files: Good,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidState {
    /// Inside the watched folder, its files would be read as objects.
    #[error(
        "the state folder {state} is inside {dir}, which is watched: choose another with --state"
    )]
    Inside {
        /// The state folder.
        state: PathBuf,
        /// The watched folder.
        dir: PathBuf,
    },
    /// Another process has it.
    #[error(
        "the state folder {0} is in use by another paifang: stop it, or choose another folder with --state"
    )]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is not empty and no state folder: choose another with --state")]
    Foreign(PathBuf),
    /// Written by a version that this one does not know.
    #[error(
        "the state folder {root} has format {format}, this Paifang knows {FORMAT}: use the newer paifang, or another folder with --state"
    )]
    Format {
        /// The folder.
        root: PathBuf,
        /// What it says.
        format: String,
    },
    /// The system refuses.
    #[error("the state folder {root} cannot be used: {error}")]
    Io {
        /// The folder.
        root: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What was remembered.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) memory: Memory,
    pub(crate) good: Good,
    pub(crate) made: BTreeMap<ObjectName, Secret>,
    /// Files that could not be read.
    pub(crate) damaged: Vec<Diagnostic>,
}

// === impl State ===

impl State {
    /// Opens a folder for reading and writing, and makes it if need be.
    pub(crate) fn open(root: &Path, dir: &Path) -> Result<Self, InvalidState> {
        let io = |error| InvalidState::Io {
            root: root.to_owned(),
            error,
        };
        refuse_inside(root, dir)?;
        let fresh = match fs::read_dir(root) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(io(error)),
        };
        if fresh {
            file::create_folder(root).map_err(io)?;
        } else {
            check_format(root)?;
        }
        let lock = lock(root)?;
        if fresh {
            let mut batch = Batch::default();
            batch.write(
                root.join(FORMAT_FILE),
                format!("{MARK}{FORMAT}\n").into_bytes(),
            );
            batch.write(root.join(".gitignore"), b"*\n".to_vec());
            batch.commit().map_err(io)?;
        }
        Ok(Self {
            root: root.to_owned(),
            lock: Some(lock),
            files: Good::new(),
        })
    }

    /// Opens a folder for reading, beside a process that may be using it; none when there is none.
    pub(crate) fn peek(root: &Path) -> Result<Option<Self>, InvalidState> {
        if !root.join(FORMAT_FILE).exists() {
            return Ok(None);
        }
        check_format(root)?;
        Ok(Some(Self {
            root: root.to_owned(),
            lock: None,
            files: Good::new(),
        }))
    }

    /// Everything that is remembered.
    pub(crate) fn load(&mut self) -> Remembered {
        let mut remembered = Remembered::default();
        let mut reader = Reader {
            root: &self.root,
            set_aside: self.lock.is_some(),
            damaged: Vec::new(),
        };
        reader.apis(&mut remembered.memory);
        reader.objects(&mut remembered.memory);
        reader.certificates(&mut remembered.memory);
        remembered.good = reader.files();
        remembered.made = reader.made();
        remembered.damaged = reader.damaged;
        self.files.clone_from(&remembered.good);
        remembered
    }

    /// Stores what is different: entries of the memory, and what files last said.
    pub(crate) fn store(
        &mut self,
        before: &Memory,
        memory: &Memory,
        good: &Good,
    ) -> io::Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for key in memory.changes(before) {
            self.put(&key, before, memory, &mut batch);
        }
        self.put_files(good, &mut batch);
        batch.commit()?;
        self.files.clone_from(good);
        Ok(())
    }

    fn put_files(&self, good: &Good, batch: &mut Batch) {
        for (path, objects) in good {
            if self.files.get(path) != Some(objects) {
                batch.write(self.file_of(path), text(&entry::of_file(path, objects)));
            }
        }
        for path in self.files.keys().filter(|path| !good.contains_key(*path)) {
            batch.remove(self.file_of(path));
        }
    }

    fn put(&self, key: &MemoryKey, before: &Memory, memory: &Memory, batch: &mut Batch) {
        match key {
            MemoryKey::Object(ObjectId {
                kind: Kind::Api,
                name,
            }) => self.put_api(name, before, memory, batch),
            _ => {
                let path = self.path_of(key);
                match memory.entry(key) {
                    Some(entry) => batch.write(path, text(&envelope(entry))),
                    None => batch.remove(path),
                }
            }
        }
    }

    /// Releases first, then what names them, then those that nobody names any more.
    fn put_api(&self, name: &ObjectName, before: &Memory, memory: &Memory, batch: &mut Batch) {
        let folder = self.folder_of_api(name);
        let numbers = |memory: &Memory| -> BTreeMap<u64, Arc<str>> {
            let releases = memory.apis.get(name).map(|api| api.releases.as_slice());
            let releases = releases.unwrap_or_default().iter();
            releases
                .map(|release| (release.number, Arc::clone(&release.hash)))
                .collect()
        };
        let Some(api) = memory.apis.get(name) else {
            batch.remove_folder(folder);
            return;
        };
        let (old, new) = (numbers(before), numbers(memory));
        for release in &api.releases {
            if old.get(&release.number) != Some(&release.hash) {
                let entry = serde_json::to_value(&**release).unwrap_or_default();
                batch.write(
                    release_path(&folder, release.number),
                    text(&envelope(entry)),
                );
            }
        }
        let mut entry = serde_json::to_value(&**api).unwrap_or_default();
        entry["releases"] = new.keys().copied().collect();
        batch.write(folder.join("api.json"), text(&envelope(entry)));
        for number in old.keys().filter(|number| !new.contains_key(number)) {
            batch.remove(release_path(&folder, *number));
        }
    }

    /// Stores a Secret that was made; the path.
    pub(crate) fn store_secret(&self, name: &ObjectName, secret: &Secret) -> io::Result<PathBuf> {
        let path = self.secret_path(name);
        if self.lock.is_some() {
            let mut batch = Batch::default();
            batch.write(path.clone(), text(&entry::of_secret(name, secret)));
            batch.commit()?;
        }
        Ok(path)
    }

    /// Where a Secret that was made is.
    pub(crate) fn secret_path(&self, name: &ObjectName) -> PathBuf {
        self.named("secrets", name)
    }

    fn named(&self, folder: &str, name: &ObjectName) -> PathBuf {
        let file = format!("{}.json", name.name);
        self.root.join(folder).join(&*name.namespace).join(file)
    }

    fn folder_of_api(&self, name: &ObjectName) -> PathBuf {
        self.root
            .join("apis")
            .join(&*name.namespace)
            .join(&*name.name)
    }

    fn path_of(&self, key: &MemoryKey) -> PathBuf {
        match key {
            MemoryKey::Object(ObjectId { kind, name }) => {
                self.named(&format!("objects/{}", kind.name()), name)
            }
            MemoryKey::Certificate(name) => self.named("certificates", name),
        }
    }

    fn file_of(&self, path: &Path) -> PathBuf {
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let hex: String = digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.root.join("files").join(hex + ".json")
    }
}

fn release_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("releases").join(format!("{number}.json"))
}

fn envelope(entry: Value) -> Value {
    json!({"format": FORMAT, "entry": entry})
}

fn text(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn refuse_inside(root: &Path, dir: &Path) -> Result<(), InvalidState> {
    // What is not there yet is judged by the nearest folder above it that is.
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let real = absolute
        .ancestors()
        .find_map(|above| {
            let rest = absolute.strip_prefix(above).ok()?;
            Some(above.canonicalize().ok()?.join(rest))
        })
        .unwrap_or_else(|| absolute.clone());
    let watched = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    if real.starts_with(&watched) {
        return Err(InvalidState::Inside {
            state: root.to_owned(),
            dir: dir.to_owned(),
        });
    }
    Ok(())
}

fn check_format(root: &Path) -> Result<(), InvalidState> {
    let said = match fs::read_to_string(root.join(FORMAT_FILE)) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(InvalidState::Foreign(root.to_owned()));
        }
        Err(error) => {
            return Err(InvalidState::Io {
                root: root.to_owned(),
                error,
            });
        }
    };
    match said.trim().strip_prefix(MARK.trim()).map(str::trim) {
        Some(format) if format.parse() == Ok(FORMAT) => Ok(()),
        Some(format) => Err(InvalidState::Format {
            root: root.to_owned(),
            format: crate::text::shortened(format),
        }),
        None => Err(InvalidState::Foreign(root.to_owned())),
    }
}

fn lock(root: &Path) -> Result<File, InvalidState> {
    let io = |error| InvalidState::Io {
        root: root.to_owned(),
        error,
    };
    let mut lock = file::open_private(&root.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {
            // For people who wonder who holds it.
            let _ = lock.set_len(0);
            let _ = writeln!(lock, "{}", std::process::id());
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => Err(InvalidState::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Reads a state folder, and sets aside what it cannot read.
struct Reader<'s> {
    root: &'s Path,
    set_aside: bool,
    damaged: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn apis(&mut self, memory: &mut Memory) {
        for (name, folder) in self.named_below("apis", None) {
            let releases = self.releases(&folder);
            let path = folder.join("api.json");
            let entry = self.entry(&path).filter(|entry| entry.is_object());
            let mut entry = match entry {
                Some(entry) => entry,
                None if releases.is_empty() => continue,
                // Its releases are still worth something.
                None => json!({}),
            };
            let listed: BTreeSet<u64> = entry["releases"]
                .as_array()
                .map(|numbers| numbers.iter().filter_map(Value::as_u64).collect())
                .unwrap_or_else(|| releases.keys().copied().collect());
            let kept = releases
                .into_iter()
                .filter(|(number, _)| listed.contains(number));
            entry["releases"] = kept.map(|(_, release)| release).collect();
            self.restore(
                memory,
                MemoryKey::Object(ObjectId::new(Kind::Api, &name)),
                entry,
                &path,
            );
        }
    }

    fn releases(&mut self, folder: &Path) -> BTreeMap<u64, Value> {
        let mut releases = BTreeMap::new();
        for path in self.below(&folder.join("releases")) {
            let Some(entry) = self.entry(&path) else {
                continue;
            };
            let number = entry["number"].as_u64();
            let readable = serde_json::from_value::<paifang_compiler::Release>(entry.clone());
            match (number, readable) {
                (Some(number), Ok(_)) => {
                    releases.insert(number, entry);
                }
                (_, Err(error)) => self.damage(&path, &error.to_string()),
                (None, Ok(_)) => self.damage(&path, "it has no number"),
            }
        }
        releases
    }

    fn objects(&mut self, memory: &mut Memory) {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Api) {
            let folder = format!("objects/{}", kind.name());
            for (name, path) in self.named_below(&folder, Some("json")) {
                if let Some(entry) = self.entry(&path) {
                    let key = MemoryKey::Object(ObjectId::new(kind, &name));
                    self.restore(memory, key, entry, &path);
                }
            }
        }
    }

    fn certificates(&mut self, memory: &mut Memory) {
        for (name, path) in self.named_below("certificates", Some("json")) {
            if let Some(entry) = self.entry(&path) {
                self.restore(memory, MemoryKey::Certificate(name), entry, &path);
            }
        }
    }

    fn files(&mut self) -> Good {
        let mut good = Good::new();
        for path in self.below(&self.root.join("files")) {
            let Some(entry) = self.json(&path) else {
                continue;
            };
            match entry::to_file(&entry) {
                Ok((file, objects)) => {
                    good.insert(file, objects);
                }
                Err(error) => self.damage(&path, &error),
            }
        }
        good
    }

    fn made(&mut self) -> BTreeMap<ObjectName, Secret> {
        let mut made = BTreeMap::new();
        for (name, path) in self.named_below("secrets", Some("json")) {
            let Some(entry) = self.json(&path) else {
                continue;
            };
            match entry::to_secret(&entry) {
                Ok(secret) => {
                    made.insert(name, secret);
                }
                Err(error) => self.damage(&path, &error),
            }
        }
        made
    }

    fn restore(&mut self, memory: &mut Memory, key: MemoryKey, entry: Value, path: &Path) {
        // The message of the error could repeat a value, and a certificate's entry holds a key.
        let secret = matches!(key, MemoryKey::Certificate(_));
        if let Err(error) = memory.restore(key, entry) {
            let why = if secret {
                "it is not a certificate".to_owned()
            } else {
                error.to_string()
            };
            self.damage(path, &why);
        }
    }

    fn entry(&mut self, path: &Path) -> Option<Value> {
        let mut json = self.json(path)?;
        if json["format"] != FORMAT {
            self.damage(path, "its format is unknown");
            return None;
        }
        Some(json["entry"].take())
    }

    fn json(&mut self, path: &Path) -> Option<Value> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.damage(path, &error.to_string());
                return None;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(json) => Some(json),
            Err(error) => {
                // Line and column only: the rest of the message could repeat a secret.
                self.damage(
                    path,
                    &format!(
                        "it is not JSON, line {} column {}",
                        error.line(),
                        error.column()
                    ),
                );
                None
            }
        }
    }

    /// Entries of `folder/NAMESPACE/`, as names of objects: files with this extension, or folders.
    fn named_below(&self, folder: &str, extension: Option<&str>) -> Vec<(ObjectName, PathBuf)> {
        let mut named = Vec::new();
        for namespace in self.below(&self.root.join(folder)) {
            let Some(space) = namespace.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            for path in self.below(&namespace) {
                let name = path.file_name().and_then(|name| name.to_str());
                let name = name.and_then(|name| match extension {
                    Some(_) => name.strip_suffix(".json"),
                    None => Some(name),
                });
                if let Some(name) = name {
                    named.push((ObjectName::new(space, name), path.clone()));
                }
            }
        }
        named
    }

    /// What is in a folder, in order, without temporary files.
    fn below(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let hidden = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b".")
        };
        let (hidden, mut paths): (Vec<_>, Vec<_>) =
            entries.map(|entry| entry.path()).partition(hidden);
        if self.set_aside {
            // Left by a process that was killed while it wrote.
            for path in hidden
                .iter()
                .filter(|path| path.extension().is_some_and(|end| end == "tmp"))
            {
                let _ = fs::remove_file(path);
            }
        }
        paths.sort();
        paths
    }

    fn damage(&mut self, path: &Path, why: &str) {
        let mut message = format!("cannot be read, as if it had never been stored: {why}");
        if self.set_aside && fs::symlink_metadata(path).is_ok() {
            let aside = self.aside(path);
            let moved = file::create_folder(&self.root.join("damaged"))
                .and_then(|()| fs::rename(path, &aside));
            message += &match moved {
                Ok(()) => format!("; it is now {}", aside.display()),
                Err(error) => format!("; it cannot be moved away: {error}"),
            };
        }
        let diagnostic = Diagnostic::of_file(path, "StateDamaged", message, "");
        self.damaged.push(diagnostic);
    }

    fn aside(&self, path: &Path) -> PathBuf {
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let flat = relative.to_string_lossy().replace('/', "_");
        let folder = self.root.join("damaged");
        let free = (0u32..).map(|count| match count {
            0 => folder.join(&flat),
            _ => folder.join(format!("{flat}.{count}")),
        });
        free.into_iter()
            .find(|path| !path.exists())
            .unwrap_or_else(|| folder.join(&flat))
    }
}
