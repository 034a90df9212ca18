//! What follows a `101`: bytes both ways until one side has said all it has to say (RFC 6455 §1.2), nothing of it understood.
//!
//! WebSocket alone is passed through ([`is_asked_for`]); every other `Upgrade` ends at the gateway. Either side may end its direction
//! and go on listening. A pair of connections without a byte in either direction for the idle limit is ended, as is every one when the
//! gateway drains: nothing a gateway could wait for tells it that a conversation is over. Both sides are then told so by a close frame
//! with code 1001, between two frames of the other's, so that a client knows that it may connect again.

mod frames;

use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional_with_sizes,
};

use self::frames::{Frames, Speaker, goodbye};
use crate::{
    backend::Lease,
    record::{Change, Observe, Record},
};

/// What is on its way in each direction at most.
const BUFFER: usize = 16 << 10;
/// How long both sides are given to end a frame, and to take the end of their connections.
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
    /// Counts against the backend's endpoint for as long as the tunnel lasts.
    _lease: Lease,
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

/// A side of a tunnel: what comes from it is counted, and ends with a goodbye when the gateway leaves.
struct Side<S> {
    io: S,
    speaker: Speaker,
    frames: Frames,
    read: u64,
    goodbye: Option<Bytes>,
    shared: Rc<Conversation>,
}

/// What both sides of a tunnel know.
struct Conversation {
    /// When a byte came last.
    last: Cell<Instant>,
    leaving: Cell<bool>,
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
        lease: Lease,
        idle: Duration,
        record: Box<Record>,
        observer: Rc<dyn Observe>,
    ) -> Self {
        Self {
            backend: Some(backend),
            _lease: lease,
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
        let shared = Rc::new(Conversation {
            last: Cell::new(Instant::now()),
            leaving: Cell::new(false),
        });
        let mut client = Side::new(client, Speaker::Client, &shared);
        let mut backend = Side::new(backend, Speaker::Server, &shared);
        client.frames.follow(early, false);
        let ended = {
            let copying = async {
                backend.write_all(early).await?;
                copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER).await
            };
            let mut copying = std::pin::pin!(copying);
            let over = async {
                tokio::select! {
                    () = shared.silence(self.idle) => {}
                    () = leaving => {}
                }
            };
            tokio::select! {
                biased;
                ended = copying.as_mut() => Some(ended),
                () = over => {
                    shared.leaving.set(true);
                    tokio::time::timeout(LINGER, copying).await.ok()
                }
            }
        };
        self.record.received_bytes = Some(client.read + early.len() as u64);
        self.record.sent_bytes = backend.read;
        self.record.cut = shared.leaving.get();
        match ended {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a side of an upgraded connection failed");
                self.record.cut = true;
            }
            None => {
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

// === impl Conversation ===

impl Conversation {
    /// Ends when nothing was read on either side for `idle`.
    async fn silence(&self, idle: Duration) {
        loop {
            let until = self.last.get() + idle;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

// === impl Side ===

impl<S> Side<S> {
    fn new(io: S, speaker: Speaker, shared: &Rc<Conversation>) -> Self {
        Self {
            io,
            speaker,
            frames: Frames::default(),
            read: 0,
            goodbye: None,
            shared: Rc::clone(shared),
        }
    }

    /// Says goodbye in this side's place, as far as there is room, and then nothing more.
    fn say_goodbye(&mut self, buf: &mut ReadBuf<'_>) {
        let (speaker, closed) = (self.speaker, self.frames.is_closed());
        let goodbye = self.goodbye.get_or_insert_with(|| {
            // One that has said it itself has said all.
            if closed {
                Bytes::new()
            } else {
                goodbye(speaker).into()
            }
        });
        let now = goodbye.split_to(goodbye.len().min(buf.remaining()));
        buf.put_slice(&now);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let leaving = self.shared.leaving.get();
        if leaving && self.frames.is_between() {
            self.say_goodbye(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if came > 0 {
            let kept = self.frames.follow(&buf.filled()[before..], leaving);
            buf.set_filled(before + kept);
            self.read += kept as u64;
            self.shared.last.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const FRAME: &[u8] = b"\x82\x0aabcdefghij";
    const GOODBYE: &[u8] = b"\x88\x02\x03\xe9";

    /// What passes when a server says `before`, the gateway wants to leave, and the server says `after`.
    async fn passes(before: &[u8], after: &[u8]) -> Vec<u8> {
        let shared = Rc::new(Conversation {
            last: Cell::new(Instant::now()),
            leaving: Cell::new(false),
        });
        let (mut server, io) = tokio::io::duplex(1 << 10);
        let mut side = Side::new(io, Speaker::Server, &shared);
        server.write_all(before).await.unwrap();
        let mut seen = vec![0; before.len()];
        side.read_exact(&mut seen).await.unwrap();
        server.write_all(after).await.unwrap();
        shared.leaving.set(true);
        let mut rest = [0; 3];
        loop {
            // However little room there is.
            let count = side.read(&mut rest).await.unwrap();
            if count == 0 {
                return seen;
            }
            seen.extend_from_slice(&rest[..count]);
        }
    }

    #[tokio::test]
    async fn a_goodbye_is_said_between_two_frames() {
        let next = b"\x82\x03not".as_slice();
        // A frame that has begun ends first, and the next does not begin.
        let (begun, rest) = FRAME.split_at(6);
        let seen = passes(begun, &[rest, next].concat()).await;
        assert_eq!(seen, [FRAME, GOODBYE].concat());
        assert_eq!(passes(FRAME, next).await, [FRAME, GOODBYE].concat());
        assert_eq!(passes(b"", next).await, GOODBYE);
        // One that has said it itself has said all.
        let own = b"\x88\x02\x03\xe8".as_slice();
        assert_eq!(passes(own, b"").await, own);
        let (begun, rest) = own.split_at(3);
        assert_eq!(passes(begun, rest).await, own);
    }
}
