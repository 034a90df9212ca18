//! One thread: its listeners, its connections, its share of the proxy. Nothing of it is touched by another thread while requests pass,
//! but the counters and the configuration's pointer.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use paifang_proxy::{Change, Observe, Record, Shared};
use slab::Slab;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    access_log::{self, Pen},
    connection::{self, Protocols},
    listen::{Listener, Sockets},
    metrics::{Tally, WorkerCounts},
    settings::Settings,
    tls::TlsTable,
};

/// How long a listener rests when the system gives no more connections.
const REST: Duration = Duration::from_millis(50);
/// How often a worker looks after its idle backend connections.
const SWEEP: Duration = Duration::from_secs(5);

/// What all workers of a gateway share.
pub(crate) struct Common {
    pub(crate) proxy: Arc<Shared>,
    pub(crate) tls: ArcSwap<TlsTable>,
    pub(crate) settings: Settings,
    /// Connections of all workers, on each listener.
    pub(crate) open: [AtomicUsize; Listener::ALL.len()],
}

/// What a gateway is doing, for its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for the first configuration. Who connects waits too: an answer would be a wrong one.
    Starting,
    /// Accepting and serving.
    Serving,
    /// Accepting no more; what is in flight may end until then.
    Draining { until: Instant },
    /// Ending now.
    Forced,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    /// Connections that were cut.
    pub(crate) cut: usize,
}

/// A worker as its tasks see it.
pub(crate) struct Local {
    pub(crate) common: Arc<Common>,
    pub(crate) proxy: Rc<paifang_proxy::Worker>,
    pub(crate) protocols: Protocols,
    observer: Rc<Observer>,
    draining: Cell<bool>,
    /// One waker for each connection that has to be told of a drain.
    told: RefCell<Slab<Option<Waker>>>,
    open: Cell<usize>,
    all_closed: Notify,
}

/// A connection counts from its acceptance until this is dropped.
struct Counted {
    local: Rc<Local>,
    listener: Listener,
}

/// A connection's place among those that are told of a drain.
pub(crate) struct Told {
    local: Rc<Local>,
    key: usize,
}

/// Tells metrics and access log.
struct Observer {
    tally: Tally,
    pen: Option<Pen>,
}

/// Everything a worker's thread is started with.
pub(crate) struct Start {
    pub(crate) number: usize,
    pub(crate) sockets: Sockets,
    pub(crate) common: Arc<Common>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) tally: Tally,
    pub(crate) pen: Option<Pen>,
}

// === impl Start ===

impl Start {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn spawn(self) -> anyhow::Result<thread::JoinHandle<Ended>> {
        let number = self.number;
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || match self.run() {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::error!(
                        worker = number,
                        error = format!("{error:#}"),
                        "a worker has ended"
                    );
                    Ended::default()
                }
            })
            .with_context(|| format!("no thread for worker {number}"))
    }

    fn run(self) -> anyhow::Result<Ended> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .context("no runtime for a worker")?;
        let observer = Rc::new(Observer {
            tally: self.tally,
            pen: self.pen,
        });
        let observe: Rc<dyn Observe> = Rc::<Observer>::clone(&observer);
        let local = Rc::new(Local {
            proxy: paifang_proxy::Worker::new(Arc::clone(&self.common.proxy), observe),
            protocols: Protocols::new(&self.common.settings.proxy),
            common: self.common,
            observer: Rc::clone(&observer),
            draining: Cell::new(false),
            told: RefCell::default(),
            open: Cell::new(0),
            all_closed: Notify::new(),
        });
        let ended = runtime.block_on(work(Rc::clone(&local), self.sockets, self.phase));
        drop(local);
        // Drops what is left of connections; their requests are still told to the observer.
        drop(runtime);
        if let Some(pen) = &observer.pen {
            observer
                .tally
                .counts()
                .log_lines_dropped
                .add(pen.hand_over());
        }
        ended
    }
}

/// From the first connection to the last.
async fn work(
    local: Rc<Local>,
    sockets: Sockets,
    mut phase: watch::Receiver<Phase>,
) -> anyhow::Result<Ended> {
    let mut accepting = Vec::new();
    for (listener, socket) in sockets {
        let socket = TcpListener::from_std(socket).context("a listener cannot be used")?;
        let task = accept(Rc::clone(&local), listener, socket, phase.clone());
        accepting.push(tokio::task::spawn_local(task));
    }
    tokio::task::spawn_local(sweep(Rc::clone(&local)));
    tokio::task::spawn_local(turn_pages(Rc::clone(&local)));

    let until = loop {
        match *phase.borrow_and_update() {
            Phase::Starting | Phase::Serving => {}
            Phase::Draining { until } => break until,
            Phase::Forced => break Instant::now(),
        }
        if phase.changed().await.is_err() {
            break Instant::now();
        }
    };
    stop_accepting(accepting).await;
    local.drain();
    let forced = async {
        let _ = phase.wait_for(|phase| *phase == Phase::Forced).await;
    };
    first(
        local.closed(),
        first(forced, tokio::time::sleep_until(until.into())),
    )
    .await;
    Ok(Ended {
        cut: local.open.get(),
    })
}

async fn stop_accepting(accepting: Vec<JoinHandle<()>>) {
    for task in accepting {
        if let Err(error) = task.await {
            tracing::error!(%error, "a listener had ended by a panic");
        }
    }
}

/// Whichever is first.
async fn first(left: impl Future<Output = ()>, right: impl Future<Output = ()>) {
    let mut left = std::pin::pin!(left);
    let mut right = std::pin::pin!(right);
    std::future::poll_fn(|cx| {
        if left.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        right.as_mut().poll(cx)
    })
    .await;
}

/// Accepts from the first configuration until a drain begins, and then what the kernel had already accepted: those clients have sent their requests.
async fn accept(
    local: Rc<Local>,
    listener: Listener,
    socket: TcpListener,
    mut phase: watch::Receiver<Phase>,
) {
    let begun = phase.wait_for(|phase| *phase != Phase::Starting).await;
    if begun.map_or(true, |phase| *phase != Phase::Serving) {
        return;
    }
    let mut leaving = std::pin::pin!(async move {
        let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    });
    let mut complained = false;
    loop {
        let next = std::future::poll_fn(|cx| match socket.poll_accept(cx) {
            std::task::Poll::Ready(accepted) => std::task::Poll::Ready(Some(accepted)),
            std::task::Poll::Pending => leaving.as_mut().poll(cx).map(|()| None),
        });
        match next.await {
            None => return,
            Some(Ok((stream, peer))) => {
                complained = false;
                local.open(listener, stream, peer);
            }
            Some(Err(error)) if lost(&error) => {}
            Some(Err(error)) => {
                // Out of file descriptors or memory. Trying again at once would only burn the core that must free some.
                local.counts().accept_failed();
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%listener, %error, "no connection can be accepted");
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Whether the client was gone before it was accepted, which is nobody's trouble.
fn lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Closes idle backend connections that waited too long.
async fn sweep(local: Rc<Local>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        local.proxy.sweep();
        local
            .counts()
            .idle_backend_connections
            .set(local.proxy.idle_connections() as u64);
    }
}

/// Hands over the access log when it is old enough.
async fn turn_pages(local: Rc<Local>) {
    let Some(pen) = &local.observer.pen else {
        return;
    };
    loop {
        pen.begun().await;
        tokio::time::sleep(access_log::AGE).await;
        local.counts().log_lines_dropped.add(pen.hand_over());
    }
}

// === impl Local ===

impl Local {
    pub(crate) fn counts(&self) -> &WorkerCounts {
        self.observer.tally.counts()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Serves a connection in a task of its own, so that a panic is that connection's alone.
    fn open(self: &Rc<Self>, listener: Listener, stream: TcpStream, peer: SocketAddr) {
        let Some(counted) = self.count(listener) else {
            self.counts().turned_away(listener);
            return;
        };
        // Not worth losing a connection over.
        let _ = stream.set_nodelay(true);
        let local = Rc::clone(self);
        tokio::task::spawn_local(async move {
            connection::serve(&local, listener, stream, peer).await;
            drop(counted);
        });
    }

    /// Takes a connection's place, if there is one.
    fn count(self: &Rc<Self>, listener: Listener) -> Option<Counted> {
        let limits = self.common.settings.connections;
        let open = &self.common.open;
        let total: usize = open.iter().map(|count| count.load(Relaxed)).sum();
        if total >= limits.total || open[listener as usize].load(Relaxed) >= limits.per_listener {
            return None;
        }
        open[listener as usize].fetch_add(1, Relaxed);
        self.open.set(self.open.get() + 1);
        self.counts().opened(listener);
        Some(Counted {
            local: Rc::clone(self),
            listener,
        })
    }

    /// A place among the connections that are woken when a drain begins.
    pub(crate) fn tell(self: &Rc<Self>, waker: Waker) -> Told {
        Told {
            key: self.told.borrow_mut().insert(Some(waker)),
            local: Rc::clone(self),
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        for (_, waker) in self.told.borrow_mut().iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    async fn closed(&self) {
        while self.open.get() > 0 {
            self.all_closed.notified().await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if thread::panicking() {
            self.local.counts().panicked();
        }
        self.local.counts().closed(self.listener);
        self.local.common.open[self.listener as usize].fetch_sub(1, Relaxed);
        self.local.open.set(self.local.open.get() - 1);
        if self.local.open.get() == 0 {
            self.local.all_closed.notify_one();
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.local.told.borrow_mut().remove(self.key);
    }
}

// === impl Observer ===

impl Observe for Observer {
    fn finished(&self, record: &Record) {
        self.tally.request(record);
        if let Some(pen) = &self.pen {
            let lost = pen.note(record);
            if lost > 0 {
                self.tally.counts().log_lines_dropped.add(lost);
            }
        }
    }

    fn noticed(&self, change: Change) {
        self.tally.counts().noticed(change);
    }
}
