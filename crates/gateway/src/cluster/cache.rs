//! The last good copy on disk: what a gateway starts from when the API server cannot be reached.
//!
//! A file is written under another name and then renamed, and says what its content hashes to: one that was cut short is not taken for
//! a whole one. Each group is found good or not by itself. The folder holds secrets; only its owner may read it.
//!
//! `groups/NAME` and `apps` hold manifests, `parts/HASH` parts as they are stored in the cluster, `endpoints` the last endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use paifang_model::ObjectName;
use paifang_proxy::{Endpoints, Ready};
use paifang_snapshot::published::Hash;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use super::store::{Manifest, Saved};

/// How long the writer rests after it wrote, so that a storm of changes is written a few times and not each.
const REST: Duration = Duration::from_millis(200);
/// Version of the files' form.
const FORMAT: u32 = 1;

const GROUPS: &str = "groups";
const PARTS: &str = "parts";
const APPS: &str = "apps";
const ENDPOINTS: &str = "endpoints";

/// A folder with the last good copy.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
    instance: String,
}

/// What was found there.
#[derive(Default)]
pub(super) struct Found {
    pub(super) saved: Saved,
    pub(super) endpoints: Endpoints,
    /// Since it was written last; `None` when there is nothing.
    pub(super) age: Option<Duration>,
    /// Files that cannot be used, for people.
    pub(super) unusable: Vec<String>,
}

/// Writes on a thread of its own. Dropping it ends it once everything is written.
pub(super) struct Writer {
    sender: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What a writer did: files written or removed, and times that failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) written: Counter,
    pub(super) failed: Counter,
}

enum Job {
    Saved(Box<Saved>),
    Endpoints(Arc<Endpoints>),
}

/// What is on disk, so that only what is different is written.
#[derive(Default)]
struct Written {
    groups: BTreeMap<Box<str>, Manifest>,
    apps: Option<Manifest>,
    parts: BTreeSet<Hash>,
}

/// The first line of a file; the rest is what it is about.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    instance: String,
    version: u64,
    hash: Hash,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    service: ObjectName,
    port: String,
    near: Vec<std::net::SocketAddr>,
    far: Vec<std::net::SocketAddr>,
}

// === impl Cache ===

impl Cache {
    /// A folder, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or others may read it and that cannot be changed.
    pub(super) fn open(dir: &Path, instance: &str) -> anyhow::Result<Self> {
        for dir in [dir.to_owned(), dir.join(GROUPS), dir.join(PARTS)] {
            private(&dir)
                .with_context(|| format!("the folder {} cannot be used", dir.display()))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            instance: instance.to_owned(),
        })
    }

    /// Reads what is there. Parts are not checked: who uses them does.
    pub(super) fn load(&self) -> Found {
        let mut found = Found::default();
        for path in files(&self.dir.join(GROUPS), &mut found.unusable) {
            let name = path.file_name().and_then(|name| name.to_str());
            match (name, self.read(&path)) {
                (Some(name), Ok(manifest)) => {
                    found.saved.groups.insert(name.into(), manifest);
                }
                (_, Err(error)) => found.unusable.push(said(&path, &error)),
                (None, _) => {}
            }
        }
        let apps = self.dir.join(APPS);
        match self.read(&apps) {
            Ok(manifest) => found.saved.apps = Some(manifest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unusable.push(said(&apps, &error)),
        }
        for path in files(&self.dir.join(PARTS), &mut found.unusable) {
            let hash = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            match (hash, fs::read(&path)) {
                (Some(hash), Ok(packed)) => {
                    found.saved.parts.insert(hash, packed.into());
                }
                (_, Err(error)) => found.unusable.push(said(&path, &error)),
                (None, _) => {}
            }
        }
        let endpoints = self.dir.join(ENDPOINTS);
        match self.read_endpoints(&endpoints) {
            Ok(read) => found.endpoints = read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unusable.push(said(&endpoints, &error)),
        }
        if !found.saved.groups.is_empty() || found.saved.apps.is_some() {
            found.age = self.age();
        }
        found
    }

    /// Since a manifest was written last.
    fn age(&self) -> Option<Duration> {
        let groups = fs::metadata(self.dir.join(GROUPS)).and_then(|dir| dir.modified());
        let apps = fs::metadata(self.dir.join(APPS)).and_then(|file| file.modified());
        let written = [groups, apps].into_iter().flatten().max()?;
        Some(
            SystemTime::now()
                .duration_since(written)
                .unwrap_or_default(),
        )
    }

    fn read(&self, path: &Path) -> io::Result<Manifest> {
        let text = fs::read_to_string(path)?;
        let (header, text) = text.split_once('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
        let header: Header = serde_json::from_str(header)?;
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if header.format != FORMAT {
            return Err(wrong(format!(
                "it has format {}, not {FORMAT}",
                header.format
            )));
        }
        if header.instance != self.instance {
            return Err(wrong(format!("it is of instance `{}`", header.instance)));
        }
        if header.hash != Hash::of(text.as_bytes()) {
            return Err(wrong("it was cut short or altered".to_owned()));
        }
        Ok(Manifest {
            text: text.into(),
            version: header.version,
        })
    }

    fn read_endpoints(&self, path: &Path) -> io::Result<Endpoints> {
        let entries: Vec<Entry> = serde_json::from_str(&self.read(path)?.text)?;
        Ok(entries
            .into_iter()
            .map(
                |Entry {
                     service,
                     port,
                     near,
                     far,
                 }| (service, port, Ready { near, far }),
            )
            .collect())
    }

    /// Starts to write what it is handed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(self, counts: Counts) -> anyhow::Result<Writer> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("cache".to_owned())
            .spawn(move || self.run(&receiver, &counts))
            .context("no thread to write the cache")?;
        Ok(Writer {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    fn run(&self, jobs: &mpsc::Receiver<Job>, counts: &Counts) {
        let mut written = self.written();
        while let Ok(first) = jobs.recv() {
            let (mut saved, mut endpoints) = (None, None);
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Saved(newer) => saved = Some(newer),
                    Job::Endpoints(newer) => endpoints = Some(newer),
                }
            }
            let done = saved
                .map_or(Ok(0), |saved| self.write(&saved, &mut written))
                .and_then(|count| {
                    let more =
                        endpoints.map_or(Ok(0), |endpoints| self.write_endpoints(&endpoints));
                    Ok(count + more?)
                });
            match done {
                Ok(count) => drop(counts.written.inc_by(count)),
                Err(error) => {
                    counts.failed.inc();
                    tracing::warn!(dir = %self.dir.display(), %error, "the last good copy cannot be written; a restart without the API server would begin with an older one");
                }
            }
            thread::sleep(REST);
        }
    }

    /// What is there already.
    fn written(&self) -> Written {
        let mut ignored = Vec::new();
        let named = |path: PathBuf| path.file_name()?.to_str().map(str::to_owned);
        let groups = files(&self.dir.join(GROUPS), &mut ignored);
        let parts = files(&self.dir.join(PARTS), &mut ignored);
        // A part that was cut short would be taken for written: its length is not known. So all that are unsound are written again.
        let sound = |hash: &Hash| {
            let packed = fs::read(self.dir.join(PARTS).join(hash.as_str()));
            packed.is_ok_and(|packed| paifang_snapshot::published::unpack(hash, &packed).is_ok())
        };
        Written {
            groups: groups
                .into_iter()
                .filter_map(|path| {
                    let manifest = self.read(&path).unwrap_or(Manifest {
                        text: "".into(),
                        version: 0,
                    });
                    Some((named(path)?.into(), manifest))
                })
                .collect(),
            apps: self.read(&self.dir.join(APPS)).ok(),
            parts: parts
                .into_iter()
                .filter_map(|path| named(path)?.parse().ok())
                .filter(sound)
                .collect(),
        }
    }

    /// Parts first, then manifests, then away with what no manifest names: at each moment every manifest has its parts.
    fn write(&self, saved: &Saved, written: &mut Written) -> io::Result<u64> {
        let mut count = 0;
        for (hash, packed) in &saved.parts {
            if !written.parts.contains(hash) {
                self.put(&self.dir.join(PARTS), hash.as_str(), &[packed])?;
                written.parts.insert(hash.clone());
                count += 1;
            }
        }
        for (name, manifest) in &saved.groups {
            if written.groups.get(name) != Some(manifest) && is_plain(name) {
                self.put_manifest(&self.dir.join(GROUPS), name, manifest)?;
                written.groups.insert(name.clone(), manifest.clone());
                count += 1;
            }
        }
        if let Some(apps) = &saved.apps
            && written.apps.as_ref() != Some(apps)
        {
            self.put_manifest(&self.dir, APPS, apps)?;
            written.apps = Some(apps.clone());
            count += 1;
        }
        let gone: Vec<Box<str>> = written
            .groups
            .keys()
            .filter(|name| !saved.groups.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            remove(&self.dir.join(GROUPS).join(&*name))?;
            written.groups.remove(&name);
            count += 1;
        }
        let unneeded = |hash: &&Hash| !saved.parts.contains_key(*hash);
        for hash in written
            .parts
            .iter()
            .filter(unneeded)
            .cloned()
            .collect::<Vec<_>>()
        {
            remove(&self.dir.join(PARTS).join(hash.as_str()))?;
            written.parts.remove(&hash);
            count += 1;
        }
        Ok(count)
    }

    fn write_endpoints(&self, endpoints: &Endpoints) -> io::Result<u64> {
        let mut entries: Vec<Entry> = endpoints
            .iter()
            .map(|(service, port, ready)| Entry {
                service: service.clone(),
                port: port.to_owned(),
                near: ready.near.clone(),
                far: ready.far.clone(),
            })
            .collect();
        entries.sort_by(|a, b| (&a.service, &a.port).cmp(&(&b.service, &b.port)));
        let manifest = Manifest {
            text: serde_json::to_string(&entries)?.into(),
            version: 0,
        };
        self.put_manifest(&self.dir, ENDPOINTS, &manifest)?;
        Ok(1)
    }

    fn put_manifest(&self, dir: &Path, name: &str, manifest: &Manifest) -> io::Result<()> {
        let header = serde_json::to_string(&Header {
            format: FORMAT,
            instance: self.instance.clone(),
            version: manifest.version,
            hash: Hash::of(manifest.text.as_bytes()),
        })?;
        self.put(
            dir,
            name,
            &[header.as_bytes(), b"\n", manifest.text.as_bytes()],
        )
    }

    fn put(&self, dir: &Path, name: &str, content: &[&[u8]]) -> io::Result<()> {
        // Names in the folder never begin with a dot, so that what a crash left is recognised.
        let unfinished = dir.join(format!(".{name}"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        for bytes in content {
            file.write_all(bytes)?;
        }
        drop(file);
        fs::rename(unfinished, dir.join(name))
    }
}

// === impl Writer ===

impl Writer {
    /// Keeps what is in force now.
    pub(super) fn keep(&self, saved: Saved) {
        self.send(Job::Saved(Box::new(saved)));
    }

    /// Keeps these endpoints.
    pub(super) fn keep_endpoints(&self, endpoints: Arc<Endpoints>) {
        self.send(Job::Endpoints(endpoints));
    }

    fn send(&self, job: Job) {
        if let Some(sender) = &self.sender {
            // Only fails when the thread has panicked, which was logged.
            let _ = sender.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The files of a folder but unfinished ones, which are removed.
fn files(dir: &Path, unusable: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            unusable.push(said(dir, &error));
            return Vec::new();
        }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let (unfinished, files): (Vec<_>, Vec<_>) = paths.partition(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_none_or(|name| name.starts_with('.'))
    });
    for path in unfinished {
        let _ = fs::remove_file(path);
    }
    files
}

fn private(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        // A volume's own folder may belong to root and be open to our group only; what is in it is private all the same.
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a name is that of a file in a folder, and of no other place.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str, version: u64) -> Manifest {
        Manifest {
            text: text.into(),
            version,
        }
    }

    fn saved(groups: &[(&str, &str)], parts: &[&str]) -> Saved {
        Saved {
            groups: groups
                .iter()
                .map(|(name, text)| ((*name).into(), manifest(text, 7)))
                .collect(),
            apps: Some(manifest("apps", 8)),
            parts: parts
                .iter()
                .map(|raw| {
                    let packed = paifang_snapshot::published::pack(raw.as_bytes());
                    (Hash::of(raw.as_bytes()), packed.into())
                })
                .collect(),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = files(dir, &mut Vec::new())
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_kept_is_found_again_and_what_is_not_goes() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("cache");
        let cache = Cache::open(&dir, "default").unwrap();
        assert!(cache.load().age.is_none());
        let writer = cache.clone().start(Counts::default()).unwrap();
        writer.keep(saved(&[("a", "one"), ("b", "two")], &["p", "q"]));
        let endpoints: Endpoints = [(
            ObjectName::new("ns", "svc"),
            "web",
            Ready::alike(["10.0.0.1:80".parse().unwrap()]),
        )]
        .into_iter()
        .collect();
        writer.keep_endpoints(Arc::new(endpoints.clone()));
        drop(writer);
        let found = cache.load();
        assert_eq!(found.unusable, Vec::<String>::new());
        assert_eq!(found.endpoints, endpoints);
        assert!(found.age.unwrap() < Duration::from_secs(60));
        assert!(found.saved.groups["a"] == manifest("one", 7));
        assert!(found.saved.apps == Some(manifest("apps", 8)));
        assert_eq!(found.saved.parts.len(), 2);

        let writer = cache.clone().start(Counts::default()).unwrap();
        writer.keep(saved(&[("a", "three")], &["q"]));
        drop(writer);
        let found = cache.load();
        assert!(found.saved.groups["a"] == manifest("three", 7));
        assert_eq!(names(&dir.join(GROUPS)), ["a"]);
        assert_eq!(names(&dir.join(PARTS)), [Hash::of(b"q").as_str()]);
    }

    #[test]
    fn only_the_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("cache");
        let cache = Cache::open(&dir, "default").unwrap();
        let writer = cache.start(Counts::default()).unwrap();
        writer.keep(saved(&[("a", "one")], &["p"]));
        drop(writer);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join(PARTS)), 0o700);
        assert_eq!(mode(&dir.join(APPS)), 0o600);
        assert_eq!(mode(&dir.join(GROUPS).join("a")), 0o600);
        assert_eq!(mode(&dir.join(PARTS).join(Hash::of(b"p").as_str())), 0o600);
    }

    #[test]
    fn torn_foreign_and_unfinished_files_are_not_used_and_are_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "default").unwrap();
        let writer = cache.clone().start(Counts::default()).unwrap();
        let all = || saved(&[("a", "one"), ("b", "two")], &["p"]);
        writer.keep(all());
        drop(writer);
        let path = |name: &str| dir.path().join(GROUPS).join(name);
        let text = fs::read_to_string(path("a")).unwrap();
        fs::write(path("a"), &text[..text.len() - 1]).unwrap();
        fs::write(path(".c"), "unfinished").unwrap();
        fs::write(path("d"), text.replace("default", "other")).unwrap();
        fs::write(path("e"), "").unwrap();
        let part = dir.path().join(PARTS).join(Hash::of(b"p").as_str());
        fs::write(&part, "torn").unwrap();

        let found = cache.load();
        assert_eq!(
            found
                .saved
                .groups
                .keys()
                .map(|name| &**name)
                .collect::<Vec<_>>(),
            ["b"]
        );
        assert_eq!(found.unusable.len(), 3, "{:?}", found.unusable);
        let writer = cache.clone().start(Counts::default()).unwrap();
        writer.keep(all());
        drop(writer);
        let found = cache.load();
        assert_eq!(found.unusable, Vec::<String>::new());
        assert_eq!(found.saved.groups.len(), 2);
        assert_ne!(fs::read(&part).unwrap(), b"torn");
        assert_eq!(names(&dir.path().join(GROUPS)), ["a", "b"]);
    }
}
