//! HTTP/2 towards backends: connections that many requests share.
//!
//! A connection takes as many requests at a time as its peer allows; when all are full another is opened. Requests that find none wait
//! for the one that is being opened instead of opening one each. A connection that its peer is leaving (`GOAWAY`) takes no new
//! requests and ends with its last one. What is spoken, and whether at all, is [`super::http`]'s.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    error::Error,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Request, Uri, Version,
    header::{CONNECTION, HOST, HeaderMap},
    uri::{Authority, PathAndQuery},
};
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use paifang_model::Scheme;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use super::pool::{OLDEST, PoolKey};
use crate::{body::Outgoing, refusal::Refusal};

/// Flow-control windows: what may be on its way to a client that does not read, for one answer and for all of a connection. The second
/// has room for 128 of the first, so that slow readers do not hold up the others.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// HTTP/2 adds 32 bytes to the size of each field (RFC 9113 §6.5.2): room for 100 of them.
const FIELDS_OVERHEAD: u32 = 100 * 32;
/// A connection with requests on it that is silent for so long is asked whether it is still there, and given so long to answer.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// A connection that requests share.
pub(crate) struct Multiplexed {
    sender: http2::SendRequest<Outgoing>,
    pub(crate) address: SocketAddr,
    pub(crate) made: Instant,
    /// Requests on it.
    open: Cell<usize>,
    /// Requests that its peer lets be on it.
    most: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
}

/// One request's place on a shared connection.
pub(crate) struct Stream(Rc<Multiplexed>);

/// A worker's shared connections.
#[derive(Default)]
pub(crate) struct Shared {
    all: RefCell<HashMap<PoolKey, Peer, foldhash::fast::RandomState>>,
}

#[derive(Default)]
struct Peer {
    connections: Vec<Rc<Multiplexed>>,
    opening: Option<Rc<Notify>>,
    /// It chose HTTP/1.1 when it was last asked, so that nothing is gained by waiting for others.
    plain: bool,
}

/// What a request finds.
pub(crate) enum Found {
    /// A place.
    Stream(Stream),
    /// Nothing: whoever is told this opens a connection, and others wait for it if there is an [`Opening`].
    Open(Option<Opening>),
    /// Somebody is opening one.
    Wait(Rc<Notify>),
}

/// Lets others wait while it exists.
pub(crate) struct Opening {
    shared: Rc<Shared>,
    key: PoolKey,
}

/// Spawns on the thread it is called on.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Begins HTTP/2 on a connection, without asking (RFC 9113 §3.3) or after ALPN has settled it.
pub(crate) async fn handshake<S>(
    stream: S,
    address: SocketAddr,
    head_bytes: usize,
) -> Result<Stream, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let head = u32::try_from(head_bytes).unwrap_or(u32::MAX);
    let (sender, mut connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(head.saturating_add(FIELDS_OVERHEAD))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Refusal::backend_connect("failed").detail(error))?;
    let most = Rc::new(Cell::new(connection.current_max_send_streams()));
    let told = Rc::clone(&most);
    // The task ends with its connection: when the backend closes it, or when its senders are dropped.
    tokio::task::spawn_local(async move {
        let ended = std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut connection).poll(cx);
            told.set(connection.current_max_send_streams());
            polled
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    let now = Instant::now();
    Ok(Stream::new(&Rc::new(Multiplexed {
        sender,
        address,
        made: now,
        open: Cell::new(0),
        most,
        idle_since: Cell::new(now),
    })))
}

// === impl Shared ===

impl Shared {
    /// A place on a connection, or what to do about there being none. Whoever has `waited` does not wait again.
    pub(crate) fn find(self: &Rc<Self>, key: PoolKey, waited: bool) -> Found {
        let mut all = self.all.borrow_mut();
        let peer = all.entry(key).or_default();
        peer.connections.retain(|connection| !connection.is_over());
        // The fullest that has room: the others may then become idle and be closed.
        let fitting = peer.connections.iter().filter(|it| it.has_room());
        if let Some(connection) = fitting.max_by_key(|connection| connection.open.get()) {
            return Found::Stream(Stream::new(connection));
        }
        match &peer.opening {
            Some(opening) if !waited => Found::Wait(Rc::clone(opening)),
            Some(_) => Found::Open(None),
            None if peer.plain => Found::Open(None),
            None => {
                peer.opening = Some(Rc::default());
                Found::Open(Some(Opening {
                    shared: Rc::clone(self),
                    key,
                }))
            }
        }
    }

    /// Others may use this connection too.
    pub(crate) fn add(&self, key: PoolKey, stream: &Stream) {
        let mut all = self.all.borrow_mut();
        let peer = all.entry(key).or_default();
        peer.plain = false;
        peer.connections.push(Rc::clone(&stream.0));
    }

    /// The peer speaks HTTP/1.1 only.
    pub(crate) fn is_plain(&self, key: PoolKey) {
        self.all.borrow_mut().entry(key).or_default().plain = true;
    }

    /// Closes what nobody has used for `lifetime`.
    pub(crate) fn sweep(&self, lifetime: Duration) {
        self.all.borrow_mut().retain(|_, peer| {
            peer.connections
                .retain(|it| !it.is_over() && (!it.is_idle() || it.idle_for() <= lifetime));
            !peer.connections.is_empty() || peer.opening.is_some()
        });
    }

    pub(crate) fn clear(&self) {
        for peer in self.all.borrow_mut().values_mut() {
            peer.connections.clear();
        }
    }

    /// Connections without a request.
    pub(crate) fn idle(&self) -> usize {
        let all = self.all.borrow();
        let each = |peer: &Peer| peer.connections.iter().filter(|it| it.is_idle()).count();
        all.values().map(each).sum()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut all = self.shared.all.borrow_mut();
        let opening = all.get_mut(&self.key).and_then(|peer| peer.opening.take());
        if let Some(opening) = opening {
            opening.notify_waiters();
        }
    }
}

// === impl Multiplexed ===

impl Multiplexed {
    fn has_room(&self) -> bool {
        self.open.get() < self.most.get().max(1)
    }

    fn is_idle(&self) -> bool {
        self.open.get() == 0
    }

    fn idle_for(&self) -> Duration {
        self.idle_since.get().elapsed()
    }

    /// Whether it takes no more requests.
    fn is_over(&self) -> bool {
        self.sender.is_closed() || self.made.elapsed() > OLDEST
    }
}

// === impl Stream ===

impl Stream {
    fn new(connection: &Rc<Multiplexed>) -> Self {
        connection.open.set(connection.open.get() + 1);
        Self(Rc::clone(connection))
    }

    pub(crate) fn connection(&self) -> &Multiplexed {
        &self.0
    }

    pub(crate) fn sender(&self) -> http2::SendRequest<Outgoing> {
        self.0.sender.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let open = self.0.open.get() - 1;
        self.0.open.set(open);
        if open == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

// === requests ===

/// Writes scheme and authority where HTTP/2 has them (RFC 9113 §8.3.1).
pub(crate) fn to_http2(request: &mut Request<Outgoing>, scheme: Scheme) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    let authority = take_host(headers);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        parts.authority = authority;
    }
    parts.scheme = Some(match scheme {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    if parts.authority.is_none() {
        parts.authority = Some(Authority::from_static("none"));
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

fn take_host(headers: &mut HeaderMap) -> Option<Authority> {
    let host = headers.remove(HOST)?;
    Authority::try_from(host.as_bytes()).ok()
}

/// The other way, for a request that goes over HTTP/1.1 after all.
pub(crate) fn to_http1(request: &mut Request<Outgoing>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = None;
    let host = parts
        .authority
        .take()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let path = parts
        .path_and_query
        .unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    *request.version_mut() = Version::HTTP_11;
}

/// Whether the peer says that it has not looked at the request (RFC 9113 §8.7): it refused the stream, or left before it came to it.
pub(crate) fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_http2_and_back_unchanged() {
        let mut request = Request::new(Outgoing::Empty);
        *request.uri_mut() = "/a?b=c".parse().unwrap();
        let host = HeaderValue::from_static("svc.internal:8080");
        request.headers_mut().insert(HOST, host.clone());
        to_http2(&mut request, Scheme::Https);
        assert_eq!(*request.uri(), "https://svc.internal:8080/a?b=c");
        assert!(!request.headers().contains_key(HOST));
        to_http2(&mut request, Scheme::Https);
        assert_eq!(*request.uri(), "https://svc.internal:8080/a?b=c");
        to_http1(&mut request);
        assert_eq!(*request.uri(), "/a?b=c");
        assert_eq!(request.headers()[HOST], host);
        assert_eq!(request.version(), Version::HTTP_11);
    }
}
