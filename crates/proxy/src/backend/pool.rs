//! Connections to backends that wait for their next request. Each worker has its own: nothing is locked, nothing crosses a core.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

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
    pub(crate) sender: SendRequest<Outgoing>,
    pub(crate) address: SocketAddr,
    /// When it was made.
    pub(crate) made: Instant,
}

/// A connection is not used for longer, however busy: else one that is never idle would hold on to an address that its name has left.
const OLDEST: Duration = Duration::from_secs(5 * 60);

pub(crate) struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>, foldhash::fast::RandomState>>,
    most: usize,
    lifetime: Duration,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection in use. Given back when the answer is complete, closed otherwise.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    key: PoolKey,
    pool: Rc<Pool>,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn new(most: usize, lifetime: Duration) -> Self {
        Self {
            idle: RefCell::default(),
            most,
            lifetime,
        }
    }

    /// The connection used last, if one is still open. The others may then age and be closed.
    pub(crate) fn take(&self, key: PoolKey) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&key)?;
        while let Some(last) = waiting.pop() {
            if last.connection.sender.is_ready() && last.since.elapsed() < self.lifetime {
                return Some(last.connection);
            }
        }
        None
    }

    /// Closes what waited too long; called now and then.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, waiting| {
            waiting.retain(|idle| {
                !idle.connection.sender.is_closed() && idle.since.elapsed() < self.lifetime
            });
            !waiting.is_empty()
        });
    }

    /// Closes all that wait.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// How many connections wait.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    pub(crate) fn lease(self: &Rc<Self>, key: PoolKey, connection: Connection) -> Lease {
        Lease {
            connection,
            key,
            pool: Rc::clone(self),
        }
    }

    fn put(&self, key: PoolKey, connection: Connection) {
        let now = Instant::now();
        if now.duration_since(connection.made) > OLDEST {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.entry(key).or_default();
        if waiting.len() < self.most {
            waiting.push(Idle {
                connection,
                since: now,
            });
        }
    }
}

// === impl Lease ===

impl Lease {
    /// The answer is complete: the connection may serve the next request, once its task has noticed too.
    pub(crate) fn give_back(self) {
        let Self {
            mut connection,
            key,
            pool,
        } = self;
        if connection.sender.is_closed() {
            return;
        }
        if connection.sender.is_ready() {
            pool.put(key, connection);
            return;
        }
        tokio::task::spawn_local(async move {
            // A request body that is still on its way holds the connection back; a backend that answered early may never read it.
            let ready = tokio::time::timeout(Duration::from_secs(1), connection.sender.ready());
            if matches!(ready.await, Ok(Ok(()))) {
                pool.put(key, connection);
            }
        });
    }
}
