//! Connections to backends that wait for their next request. Each worker has its own: nothing is locked, nothing crosses a core.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use super::{
    busy::Busy,
    h2::{Shared, Stream},
};
use crate::body::Outgoing;

/// What connections are interchangeable: the backend, and for a Service the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// [`paifang_snapshot::table::Backend::id`].
    pub(crate) backend: u64,
    /// The endpoint, when the backend has several that are told apart.
    pub(crate) endpoint: Option<SocketAddr>,
}

/// A connection and where it leads.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) address: SocketAddr,
    /// When it was made.
    pub(crate) made: Instant,
}

/// By which a request goes out.
pub(crate) enum Sender {
    /// A connection of HTTP/1.1, of this request alone.
    Http1(SendRequest<Outgoing>),
    /// A place on one of HTTP/2.
    Http2(Stream),
}

/// A connection is not used for longer, however busy: else one that is never idle would hold on to an address that its name has left.
pub(super) const OLDEST: Duration = Duration::from_secs(5 * 60);

pub(crate) struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>, foldhash::fast::RandomState>>,
    /// Connections of HTTP/2, which do not wait: they are shared.
    pub(crate) shared: Rc<Shared>,
    most: usize,
    lifetime: Duration,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    address: SocketAddr,
    made: Instant,
    since: Instant,
}

/// A connection in use. Given back when the answer is complete, closed otherwise.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    key: PoolKey,
    pool: Rc<Pool>,
    /// Counts against its endpoint until it ends.
    _busy: Option<Busy>,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn new(most: usize, lifetime: Duration) -> Self {
        Self {
            idle: RefCell::default(),
            shared: Rc::default(),
            most,
            lifetime,
        }
    }

    /// The connection of HTTP/1.1 used last, if one is still open. The others may then age and be closed.
    pub(crate) fn take(&self, key: PoolKey) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&key)?;
        while let Some(last) = waiting.pop() {
            if last.sender.is_ready() && last.since.elapsed() < self.lifetime {
                return Some(Connection {
                    sender: Sender::Http1(last.sender),
                    address: last.address,
                    made: last.made,
                });
            }
        }
        None
    }

    /// Closes what waited too long; called now and then.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, waiting| {
            waiting.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < self.lifetime);
            !waiting.is_empty()
        });
        self.shared.sweep(self.lifetime);
    }

    /// Closes all that wait.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.shared.clear();
    }

    /// How many connections wait.
    pub(crate) fn len(&self) -> usize {
        let idle: usize = self.idle.borrow().values().map(Vec::len).sum();
        idle + self.shared.idle()
    }

    pub(crate) fn lease(
        self: &Rc<Self>,
        key: PoolKey,
        connection: Connection,
        busy: Option<Busy>,
    ) -> Lease {
        Lease {
            connection,
            key,
            pool: Rc::clone(self),
            _busy: busy,
        }
    }

    fn put(&self, key: PoolKey, idle: Idle) {
        if idle.since.duration_since(idle.made) > OLDEST {
            return;
        }
        let mut all = self.idle.borrow_mut();
        let waiting = all.entry(key).or_default();
        if waiting.len() < self.most {
            waiting.push(idle);
        }
    }
}

// === impl Connection ===

impl Connection {
    /// A place on a shared connection.
    pub(crate) fn of(stream: Stream) -> Self {
        let shared = stream.connection();
        Self {
            address: shared.address,
            made: shared.made,
            sender: Sender::Http2(stream),
        }
    }
}

// === impl Lease ===

impl Lease {
    /// The answer is complete: the connection may serve the next request, once its task has noticed too.
    pub(crate) fn give_back(self) {
        let Self {
            connection,
            key,
            pool,
            _busy,
        } = self;
        // A place on a shared connection is free when it is dropped.
        let Sender::Http1(mut sender) = connection.sender else {
            return;
        };
        let idle = move |sender| Idle {
            sender,
            address: connection.address,
            made: connection.made,
            since: Instant::now(),
        };
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            pool.put(key, idle(sender));
            return;
        }
        tokio::task::spawn_local(async move {
            // A request body that is still on its way holds the connection back; a backend that answered early may never read it.
            let ready = tokio::time::timeout(Duration::from_secs(1), sender.ready());
            if matches!(ready.await, Ok(Ok(()))) {
                pool.put(key, idle(sender));
            }
        });
    }
}
