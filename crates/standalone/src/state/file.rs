//! Files that are there as a whole or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

/// Writes that wait for the disk at the same time.
const WRITERS: usize = 8;

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
        let mut touched = BTreeSet::new();
        for (path, _) in &self.writes {
            if let Some(parent) = path.parent()
                && touched.insert(parent.to_owned())
            {
                create_folder(parent)?;
            }
        }
        let staged = stage(&self.writes)?;
        for (_, temporary, path) in staged {
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
        for folder in touched {
            match File::open(folder) {
                Ok(folder) => folder.sync_all()?,
                Err(error) => gone(Err(error))?,
            }
        }
        Ok(())
    }
}

/// Writes and syncs every content under a temporary name beside its own.
fn stage(writes: &[(PathBuf, Vec<u8>)]) -> io::Result<Vec<(usize, PathBuf, &Path)>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, content)) = writes.get(index) else {
                return io::Result::Ok(done);
            };
            done.push((index, write_temporary(path, content)?, path.as_path()));
        }
    };
    if writes.len() < WRITERS {
        return work();
    }
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(work)).collect();
        let mut staged = Vec::new();
        for writer in writers {
            let done = writer
                .join()
                .map_err(|_| io::Error::other("a writer failed"))?;
            staged.extend(done?);
        }
        // Renamed in the order in which they were asked for: what names others comes after them.
        staged.sort_unstable();
        Ok(staged)
    })
}

fn write_temporary(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
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
    file.sync_all()?;
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
