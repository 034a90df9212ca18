//! Requests from outside to end the process: SIGTERM and SIGINT. The first asks for a drain, the second for an end at once.

use std::{
    io,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Signals as they arrive. A thread listens; whoever waits may be any thread.
#[derive(Debug)]
pub struct Signals(Receiver<Signal>);

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: Kubernetes, systemd.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
}

// === impl Signals ===

impl Signals {
    /// From now on neither signal ends the process by itself.
    ///
    /// # Errors
    /// When the system lets no handler be set or no thread be started.
    pub fn listen() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("no runtime for signals")?;
        let _entered = runtime.enter();
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        drop(_entered);
        let (sender, receiver) = channel();
        let listen = move || {
            runtime.block_on(async {
                loop {
                    let next = std::future::poll_fn(|cx| {
                        if terminate.poll_recv(cx).is_ready() {
                            return std::task::Poll::Ready(Signal::Terminate);
                        }
                        interrupt.poll_recv(cx).map(|_| Signal::Interrupt)
                    });
                    if sender.send(next.await).is_err() {
                        return;
                    }
                }
            });
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(listen)
            .context("no thread for signals")?;
        Ok(Self(receiver))
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// When the listening thread has ended.
    pub fn next(&self) -> io::Result<Signal> {
        self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The next signal, if one comes within `patience`.
    pub fn next_within(&self, patience: Duration) -> Option<Signal> {
        self.0.recv_timeout(patience).ok()
    }
}
