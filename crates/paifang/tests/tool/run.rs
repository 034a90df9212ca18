//! Runs the program, for a moment or for as long as a test needs it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Generous: a busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a run left.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn paifang() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paifang"));
    command
        .env_remove("PAIFANG_APP_SECRET")
        .env_remove("PAIFANG_LOG")
        .stdin(Stdio::null());
    command
}

pub(crate) fn run<const N: usize>(args: [&str; N]) -> Done {
    finish(paifang().args(args))
}

pub(crate) fn finish(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The samples of the repository.
pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../config")
        .canonicalize()
        .unwrap()
}

/// A folder that is removed at the end; the watched one is `dir` in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("paifang-tool-{}-{count}", std::process::id()));
        fs::create_dir_all(root.join("dir")).unwrap();
        Self(root)
    }

    /// A copy of a sample.
    pub(crate) fn sample(name: &str) -> Self {
        let scratch = Self::new();
        for entry in fs::read_dir(samples().join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), scratch.dir().join(entry.file_name())).unwrap();
        }
        scratch
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.0.join("dir")
    }

    pub(crate) fn at(&self) -> String {
        self.dir().display().to_string()
    }

    /// The default one.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join(".paifang")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir().join(name), text).unwrap();
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir().join(name)).unwrap();
        assert!(text.contains(from), "{name} has {from}");
        self.write(name, &text.replace(from, to));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running gateway, or another server of the program. Ends with its test.
pub(crate) struct Running {
    child: Child,
    pub(crate) addresses: BTreeMap<String, String>,
    err: Arc<Mutex<String>>,
}

impl Running {
    /// On free ports, with an echo backend that the folder's backends are pointed at.
    pub(crate) fn start(scratch: &Scratch, more: &[&str]) -> Self {
        let mut command = paifang();
        command.arg("standalone").arg(scratch.dir());
        for listener in ["--http", "--https", "--internal", "--admin"] {
            if !more.contains(&listener) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        command
            .args(["--echo", "127.0.0.1:0", "--workers", "1"])
            .args(more);
        Self::of(command)
    }

    /// A command that says when it is ready.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = Arc::new(Mutex::new(String::new()));
        let (said, mut stderr) = (Arc::clone(&err), child.stderr.take().unwrap());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                said.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut running = Self {
            child,
            addresses: BTreeMap::new(),
            err,
        };
        let Some(pairs) = line.trim_end().strip_prefix("ready ") else {
            panic!("{line:?} instead of ready:\n{}", running.err());
        };
        let pairs = pairs.split(' ').filter_map(|pair| pair.split_once('='));
        running.addresses = pairs
            .map(|(name, address)| (name.to_owned(), address.to_owned()))
            .collect();
        running
    }

    /// The backends of a sample at port 9000 are the echo server from now on.
    pub(crate) fn with_echo(sample: &str, more: &[&str]) -> (Scratch, Self) {
        let scratch = Scratch::sample(sample);
        let running = Self::start(&scratch, more);
        let echo = running.addresses["echo"].clone();
        for entry in fs::read_dir(scratch.dir()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if text.contains("127.0.0.1:9000") && path.extension().is_some_and(|end| end == "yaml")
            {
                fs::write(&path, text.replace("127.0.0.1:9000", &echo)).unwrap();
            }
        }
        (scratch, running)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addresses["http"])
    }

    pub(crate) fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Waits until standard error says it.
    pub(crate) fn says(&self, text: &str) {
        let began = Instant::now();
        while !self.err().contains(text) {
            assert!(
                began.elapsed() < PATIENCE,
                "{text:?} is not said:\n{}",
                self.err()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Status and body of a plain GET.
    pub(crate) fn get(&self, host: &str, path: &str) -> (u16, String) {
        self.get_at(&self.addresses["http"], host, path)
    }

    pub(crate) fn get_at(&self, address: &str, host: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Waits until a plain GET answers so.
    pub(crate) fn serves(&self, host: &str, path: &str, body: &str) {
        let began = Instant::now();
        while self.get(host, path).1 != body {
            assert!(
                began.elapsed() < PATIENCE,
                "{:?} instead of {body:?}:\n{}",
                self.get(host, path),
                self.err()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn call<const N: usize>(
        &self,
        scratch: &Scratch,
        api: &str,
        args: [&str; N],
    ) -> Done {
        let (dir, url) = (scratch.at(), self.url());
        finish(
            paifang()
                .args(["call", api, "--dir", &dir, "--url", &url])
                .args(args),
        )
    }

    /// SIGTERM; the exit code.
    pub(crate) fn end(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(
                began.elapsed() < PATIENCE,
                "it does not end:\n{}",
                self.err()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
