//! A folder of its own for each test.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use paifang_compiler::{AddressPolicy, CertificateFacts, Settings};
use paifang_standalone::{Diagnostic, Outcome, Session, StateUse};

/// A folder that is removed at the end; the watched one is `dir` in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("paifang-test-{}-{count}", std::process::id()));
        fs::create_dir_all(root.join("dir")).unwrap();
        Self(root)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join("dir").join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn open(&self, state: &StateUse) -> Session {
        Session::open(&self.path(""), state, settings()).unwrap()
    }

    pub(crate) fn keep(&self) -> Session {
        self.open(&StateUse::Keep(self.state()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        addresses: AddressPolicy {
            loopback: true,
            link_local: false,
        },
        ..Settings::new(|_| Ok(CertificateFacts::default()))
    }
}

pub(crate) fn lines(outcome: &Outcome) -> Vec<String> {
    let line = |said: &Diagnostic| format!("{} {said}", said.severity);
    outcome.diagnostics.iter().map(line).collect()
}

pub(crate) fn check(scratch: &Scratch) -> Vec<String> {
    lines(&scratch.open(&StateUse::Without).load())
}
