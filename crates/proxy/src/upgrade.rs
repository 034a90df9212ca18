//! What follows a `101`: bytes both ways until one side has said all it has to say (RFC 6455 §1.2), nothing of it understood.
//!
//! WebSocket alone is passed through ([`is_asked_for`]); every other `Upgrade` ends at the gateway. Either side may end its direction
//! and go on listening. A pair of connections without a byte in either direction for the idle limit is ended, as is every one when the
//! gateway drains: nothing a gateway could wait for tells it that a conversation is over.

use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional_with_sizes,
};

use crate::record::{Change, Observe, Record};

/// What is on its way in each direction at most.
const BUFFER: usize = 16 << 10;
/// How long both sides are given to take the end of their connections.
const LINGER: Duration = Duration::from_secs(1);

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");
/// What a handshake consists of beside the two headers of one hop (RFC 6455 §4.1); passed on whatever the Api's mode.
const HANDSHAKE: [HeaderName; 4] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// A backend that has left HTTP, for a client that is about to. When it is dropped, used or not, its [`Record`] goes to the observer.
pub struct Tunnel {
    backend: Option<OnUpgrade>,
    idle: Duration,
    record: Box<Record>,
    observer: Rc<dyn Observe>,
    /// Whether bytes have begun to pass.
    open: bool,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// A side of a tunnel, counting what comes from it.
struct Metered<S> {
    io: S,
    read: Rc<Cell<u64>>,
    last: Rc<Cell<Instant>>,
}

/// Whether a request asks for WebSocket.
pub(crate) fn is_asked_for(upgrade: Option<&HeaderValue>) -> bool {
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Adds to a request what its hop does not pass on by itself.
pub(crate) fn ask(from: &[(HeaderName, HeaderValue)], to: &mut HeaderMap) {
    for name in &HANDSHAKE {
        to.remove(name);
    }
    for (name, value) in from {
        to.append(name, value.clone());
    }
    to.insert(header::CONNECTION, UPGRADE);
    to.insert(header::UPGRADE, WEBSOCKET);
}

/// The handshake's own headers of a request.
pub(crate) fn handshake(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let each = |name: &HeaderName| {
        let values = headers.get_all(name).iter().cloned();
        values
            .map(|value| (name.clone(), value))
            .collect::<Vec<_>>()
    };
    HANDSHAKE.iter().flat_map(each).collect()
}

/// Says again in an answer that it ends HTTP.
pub(crate) fn confirm(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
}

/// Whether an answer that ends HTTP goes over to WebSocket.
pub(crate) fn is_granted(headers: &HeaderMap) -> bool {
    is_asked_for(headers.get(header::UPGRADE))
}

// === impl Tunnel ===

impl Tunnel {
    pub(crate) fn new(
        backend: OnUpgrade,
        idle: Duration,
        record: Box<Record>,
        observer: Rc<dyn Observe>,
    ) -> Self {
        Self {
            backend: Some(backend),
            idle,
            record,
            observer,
            open: false,
        }
    }

    /// Passes bytes until both sides have ended, one has failed, neither has said anything for the idle limit, or `leaving` is over.
    /// `early` is what the client had sent behind its handshake.
    pub async fn run<S>(mut self, client: S, early: &[u8], leaving: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(backend) = self.backend.take() else {
            return;
        };
        let backend = match backend.await {
            Ok(backend) => TokioIo::new(backend),
            Err(error) => {
                tracing::debug!(%error, "a backend granted an upgrade and then ended");
                self.record.cut = true;
                return;
            }
        };
        self.open = true;
        self.observer.noticed(Change::TunnelOpened);
        self.pass(client, backend, early, leaving).await;
    }

    async fn pass<S>(
        &mut self,
        client: S,
        backend: TokioIo<Upgraded>,
        early: &[u8],
        leaving: impl Future<Output = ()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let last = Rc::new(Cell::new(Instant::now()));
        let (mut client, received) = Metered::new(client, &last);
        let (mut backend, sent) = Metered::new(backend, &last);
        let ended = {
            let copying = async {
                backend.write_all(early).await?;
                copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER).await
            };
            let mut copying = std::pin::pin!(copying);
            let mut silence = std::pin::pin!(silence(&last, self.idle));
            let mut leaving = std::pin::pin!(leaving);
            std::future::poll_fn(|cx| {
                if let Poll::Ready(ended) = copying.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                let over =
                    silence.as_mut().poll(cx).is_ready() || leaving.as_mut().poll(cx).is_ready();
                if over {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            })
            .await
        };
        self.record.received_bytes = Some(received.get() + early.len() as u64);
        self.record.sent_bytes = sent.get();
        match ended {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a side of an upgraded connection failed");
                self.record.cut = true;
            }
            None => {
                self.record.cut = true;
                let closing = async {
                    let _ = client.shutdown().await;
                    let _ = backend.shutdown().await;
                };
                let _ = tokio::time::timeout(LINGER, closing).await;
            }
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if self.open {
            self.observer.noticed(Change::TunnelClosed);
        } else {
            self.record.cut = true;
        }
        self.observer.finished(&self.record);
    }
}

/// Ends when nothing was read on either side for `idle`.
async fn silence(last: &Cell<Instant>, idle: Duration) {
    loop {
        let until = last.get() + idle;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

// === impl Metered ===

impl<S> Metered<S> {
    fn new(io: S, last: &Rc<Cell<Instant>>) -> (Self, Rc<Cell<u64>>) {
        let read = Rc::new(Cell::new(0));
        let metered = Self {
            io,
            read: Rc::clone(&read),
            last: Rc::clone(last),
        };
        (metered, read)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            self.read.set(self.read.get() + count as u64);
            self.last.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
