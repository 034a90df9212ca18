//! Files that are there as a whole or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// From so many files on they reach the disk together, as the first start on a large folder writes thousands; fewer do so one by one, and
/// leave alone what other programs have to write.
const MANY: usize = 64;

/// Changes to make: all writes in their order, then all removals, each reaching the disk.
#[derive(Debug, Default)]
pub(super) struct Batch {
    writes: Vec<(PathBuf, Vec<u8>)>,
    removals: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Batch {
    /// Replaces a file.
    pub(super) fn write(&mut self, path: PathBuf, content: Vec<u8>) {
        self.writes.push((path, content));
    }

    /// Removes a file; one that is not there is no error.
    pub(super) fn remove(&mut self, path: PathBuf) {
        self.removals.push(path);
    }

    /// Removes a folder and all of it.
    pub(super) fn remove_folder(&mut self, path: PathBuf) {
        self.folders.push(path);
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// The first that could not be made; files of this batch may then be of either state, each of them whole.
    pub(super) fn commit(self) -> io::Result<()> {
        let together = self.writes.len() + self.removals.len() > MANY;
        let mut touched = BTreeSet::new();
        for (path, _) in &self.writes {
            if let Some(parent) = path.parent() {
                create_and_note(parent, &mut touched)?;
            }
        }
        let mut staged = Vec::new();
        for (path, content) in &self.writes {
            staged.push((write_temporary(path, content, !together)?, path));
        }
        let root = touched.first().cloned();
        if let (true, Some(root)) = (together, &root) {
            sync_all(root)?;
        }
        for (temporary, path) in staged {
            fs::rename(temporary, path)?;
        }
        for path in &self.removals {
            gone(fs::remove_file(path))?;
            touched.extend(path.parent().map(Path::to_owned));
        }
        for path in &self.folders {
            gone(fs::remove_dir_all(path))?;
            touched.extend(path.parent().map(Path::to_owned));
        }
        if let (true, Some(root)) = (together, &root) {
            return sync_all(root);
        }
        for folder in touched {
            match File::open(folder) {
                Ok(folder) => folder.sync_all()?,
                Err(error) => gone(Err(error))?,
            }
        }
        Ok(())
    }
}

/// Makes a folder; notes it, and those above it that got a new entry.
fn create_and_note(folder: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if !touched.insert(folder.to_owned()) || folder.exists() {
        return Ok(());
    }
    for above in folder.ancestors().skip(1) {
        touched.insert(above.to_owned());
        if above.exists() {
            break;
        }
    }
    create_folder(folder)
}

/// Everything on the file system that holds `folder` reaches the disk.
#[cfg(target_os = "linux")]
fn sync_all(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes, and unless that is done for all together syncs, a content under a temporary name beside its own.
fn write_temporary(path: &Path, content: &[u8], sync: bool) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{}-{count}.tmp", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    if sync || cfg!(not(target_os = "linux")) {
        file.sync_all()?;
    }
    Ok(temporary)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes a folder, and those above it, for its owner only.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for its owner only, and makes it if need be.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}
