//! Saved files are noticed, however they are saved.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod folder;

use std::{
    fs::{self, File},
    io::Write as _,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use folder::Scratch;
use paifang_standalone::{Stop, Touched, Watch};

/// Generous: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(20);

struct Watching {
    told: Receiver<Touched>,
    stop: Stop,
    thread: Option<thread::JoinHandle<()>>,
}

fn watch(scratch: &Scratch) -> Watching {
    let mut watch = Watch::start(&scratch.path(""));
    let stop = watch.stop();
    let (sender, told) = channel();
    let thread = thread::spawn(move || {
        while let Some(touched) = watch.wait() {
            if sender.send(touched).is_err() {
                return;
            }
        }
    });
    Watching {
        told,
        stop,
        thread: Some(thread),
    }
}

impl Watching {
    fn tells(&self, file: &str) {
        loop {
            match self.told.recv_timeout(PATIENCE).expect("a change is told") {
                Touched::Anything => return,
                Touched::Files(files) if files.iter().any(|told| told.as_os_str() == file) => {
                    return;
                }
                Touched::Files(_) => {}
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn every_way_of_saving_is_noticed() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", "a: 1\n");
    let watching = watch(&scratch);

    scratch.write("a.yaml", "a: 2\n");
    watching.tells("a.yaml");

    // As editors do: beside it, then over it.
    fs::write(scratch.path(".a.yaml.swp"), "a: 3\n").unwrap();
    fs::rename(scratch.path(".a.yaml.swp"), scratch.path("a.yaml")).unwrap();
    watching.tells("a.yaml");

    // Away, then new.
    fs::rename(scratch.path("a.yaml"), scratch.path("a.yaml~")).unwrap();
    scratch.write("a.yaml", "a: 4\n");
    watching.tells("a.yaml");

    scratch.write("new/folder/b.yaml", "b: 1\n");
    watching.tells("new/folder/b.yaml");

    fs::remove_file(scratch.path("a.yaml")).unwrap();
    watching.tells("a.yaml");
}

#[test]
fn a_file_that_is_still_written_is_waited_for() {
    let scratch = Scratch::new();
    let watching = watch(&scratch);
    let mut file = File::create(scratch.path("a.yaml")).unwrap();
    for _ in 0..3 {
        file.write_all(b"a: 1\n").unwrap();
        file.flush().unwrap();
        thread::sleep(Duration::from_millis(12));
    }
    drop(file);
    watching.tells("a.yaml");
}
