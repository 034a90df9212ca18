//! The files of a folder: which there are, what stands in them, and which of them changed.
//!
//! A file is read again only when it was touched. A file that cannot be read or is not YAML has no objects here; what it had before is
//! remembered elsewhere. Names that begin with a dot (editors' temporary files, `..data` of mounted volumes) and the state folder do not
//! count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    Diagnostic, Position,
    manifest::{self, Complaint, Manifest, Place},
    yaml::{self, Data, Node},
};

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// Folders inside each other.
const MAX_DEPTH: usize = 32;

/// How long an emptied or vanished file may be on its way back: editors write in two steps.
const GRACE: Duration = Duration::from_millis(40);

/// The files below a folder.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// By path relative to the root.
    files: BTreeMap<PathBuf, File>,
    /// Folders that could not be read.
    unreadable: Vec<Diagnostic>,
}

/// A file.
#[derive(Debug, Default)]
pub(crate) struct File {
    stamp: Option<Stamp>,
    text: Box<str>,
    /// Its objects, in order.
    pub(crate) manifests: Vec<Manifest>,
    /// What is wrong inside of it.
    pub(crate) complaints: Vec<Complaint>,
    /// Why nothing of it can be read.
    pub(crate) broken: Option<Diagnostic>,
}

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// These files, and nothing else.
    Files(BTreeSet<PathBuf>),
    /// Anything.
    Anything,
}

// === impl Folder ===

impl Folder {
    /// A folder that was not read yet.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            unreadable: Vec::new(),
        }
    }

    /// Reads what was touched; whether anything is different now.
    pub(crate) fn refresh(&mut self, touched: &Touched) -> bool {
        let paths = match touched {
            Touched::Files(paths) => paths.clone(),
            Touched::Anything => self.list(),
        };
        let always = matches!(touched, Touched::Files(_));
        let mut different = false;
        let mut leaving = Vec::new();
        for path in paths {
            match self.reread(&path, always) {
                Reading::Same => {}
                Reading::Different => different = true,
                Reading::Leaving => leaving.push(path),
            }
        }
        if !leaving.is_empty() {
            std::thread::sleep(GRACE);
            for path in leaving {
                different |= self.settle(&path);
            }
        }
        different
    }

    /// Every file that is there, and every one that was.
    fn list(&mut self) -> BTreeSet<PathBuf> {
        let mut listing = Listing::default();
        listing.folder(&self.root, Path::new(""), 0);
        // What cannot be listed now is not gone.
        let lost = |file: &&PathBuf| !listing.lost.iter().any(|folder| file.starts_with(folder));
        let known: Vec<_> = self.files.keys().filter(lost).cloned().collect();
        listing.files.extend(known);
        self.unreadable = listing.complaints;
        listing.files
    }

    fn reread(&mut self, path: &Path, always: bool) -> Reading {
        let read = read(
            &self.root.join(path),
            self.files.get(path).filter(|_| !always),
        );
        let known = self.files.get(path);
        let had = known.is_some_and(|file| !file.manifests.is_empty());
        match read {
            Read::Unchanged => Reading::Same,
            Read::Gone if known.is_none() => Reading::Same,
            Read::Gone => Reading::Leaving,
            Read::Text(text, _) if had && text.trim().is_empty() => Reading::Leaving,
            Read::Text(text, stamp) => self.put(path, File::parse(path, text, stamp)),
            Read::Broken(broken, stamp) => {
                let mut file = File {
                    stamp,
                    ..File::default()
                };
                file.broken = Some(Diagnostic {
                    file: path.to_owned(),
                    ..broken
                });
                self.put(path, file)
            }
        }
    }

    /// What was gone or empty a moment ago is believed now.
    fn settle(&mut self, path: &Path) -> bool {
        match read(&self.root.join(path), None) {
            Read::Gone => self.files.remove(path).is_some(),
            Read::Text(text, stamp) => {
                self.put(path, File::parse(path, text, stamp)) == Reading::Different
            }
            Read::Unchanged | Read::Broken(..) => self.reread(path, true) == Reading::Different,
        }
    }

    fn put(&mut self, path: &Path, file: File) -> Reading {
        let same = self
            .files
            .get(path)
            .is_some_and(|known| known.text == file.text && known.broken == file.broken);
        self.files.insert(path.to_owned(), file);
        if same {
            Reading::Same
        } else {
            Reading::Different
        }
    }

    /// The files, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&PathBuf, &File)> {
        self.files.iter()
    }

    /// What could not be listed.
    pub(crate) fn unreadable(&self) -> &[Diagnostic] {
        &self.unreadable
    }

    /// Finds places in a file; nothing when it is not there or broken.
    pub(crate) fn map(&self, path: &Path) -> Option<Map> {
        let file = self.files.get(path)?;
        yaml::parse(&file.text).ok().map(Map)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Same,
    Different,
    Leaving,
}

/// The documents of a file, to find places in.
pub(crate) struct Map(Vec<Node>);

impl Map {
    /// Where a field of an object stands.
    pub(crate) fn locate(&self, place: Place, field: &str) -> Option<Position> {
        let document = self.0.get(place.document)?;
        let root = match place.item {
            None => document,
            Some(index) => match &document.get("items")?.data {
                Data::List(items) => items.get(index)?,
                _ => return None,
            },
        };
        Some(root.locate(field))
    }
}

// === impl File ===

impl File {
    fn parse(path: &Path, text: String, stamp: Option<Stamp>) -> Self {
        let mut file = Self {
            stamp,
            text: text.into(),
            ..Self::default()
        };
        match yaml::parse(&file.text) {
            Ok(documents) => {
                for (index, document) in documents.iter().enumerate() {
                    manifest::read(document, index, &mut file.manifests, &mut file.complaints);
                }
            }
            Err(error) => {
                let message = format!("is not YAML: {}", error.message);
                file.broken =
                    Some(Diagnostic::of_file(path, "InvalidYaml", message, "").at(error.at));
            }
        }
        file
    }
}

enum Read {
    Unchanged,
    Gone,
    Text(String, Option<Stamp>),
    Broken(Diagnostic, Option<Stamp>),
}

fn read(path: &Path, known: Option<&File>) -> Read {
    let broken = |reason, message: String, fix: &str, stamp| {
        Read::Broken(Diagnostic::of_file("", reason, message, fix), stamp)
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Read::Gone,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Read::Gone,
        Err(error) => return broken("Unreadable", format!("cannot be read: {error}"), "", None),
    };
    let stamp = Some(Stamp::of(&metadata));
    if known.is_some_and(|file| file.stamp == stamp) {
        return Read::Unchanged;
    }
    if metadata.len() > MAX_FILE_BYTES {
        let message = format!("has {} bytes, more than {MAX_FILE_BYTES}", metadata.len());
        return broken("TooLong", message, "split it into several files", stamp);
    }
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Read::Text(text, stamp),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..valid]
                    .split(|byte| *byte == b'\n')
                    .count();
                broken(
                    "InvalidYaml",
                    format!("line {line} is not UTF-8"),
                    "save it as UTF-8",
                    stamp,
                )
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Read::Gone,
        Err(error) => broken("Unreadable", format!("cannot be read: {error}"), "", stamp),
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            inode: metadata.ino(),
        }
    }
}

/// Walks the folders.
#[derive(Default)]
struct Listing {
    files: BTreeSet<PathBuf>,
    /// Folders that are there and cannot be listed.
    lost: Vec<PathBuf>,
    complaints: Vec<Diagnostic>,
    /// Where the walk is, without symbolic links: one that leads back up is not followed.
    trail: Vec<PathBuf>,
}

impl Listing {
    fn folder(&mut self, absolute: &Path, relative: &Path, depth: usize) {
        let real = absolute
            .canonicalize()
            .unwrap_or_else(|_| absolute.to_owned());
        if depth > MAX_DEPTH || self.trail.contains(&real) {
            return;
        }
        let entries = match fs::read_dir(absolute) {
            Ok(entries) => entries,
            Err(error) => {
                self.lost.push(relative.to_owned());
                let shown = if relative.as_os_str().is_empty() {
                    absolute
                } else {
                    relative
                };
                let message =
                    format!("the folder cannot be read: {error}; what was read before stays");
                self.complaints
                    .push(Diagnostic::of_file(shown, "Unreadable", message, ""));
                return;
            }
        };
        self.trail.push(real);
        for entry in entries.flatten() {
            let path = relative.join(entry.file_name());
            if !counts(&path) {
                continue;
            }
            // Follows symbolic links.
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => self.folder(&entry.path(), &path, depth + 1),
                _ if is_yaml(&path) => {
                    self.files.insert(path);
                }
                _ => {}
            }
        }
        self.trail.pop();
    }
}

/// Whether a path below the folder is read at all.
pub(crate) fn counts(relative: &Path) -> bool {
    relative
        .components()
        .all(|part| !part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// Whether a file is one by its name.
pub(crate) fn is_yaml(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
}
