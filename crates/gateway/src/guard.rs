//! The reader in front of the HTTP library: HTTP/1.1 goes no further than [`Wire`] has understood it, and no client may make us wait
//! for ever.
//!
//! Bytes are read straight into the library's buffer and judged there; what is sound stays where it is. Only an incomplete head, or
//! what a client sent ahead of its turn, is held back in a buffer of our own. A head that is refused is replaced by
//! [`SUBSTITUTE`], whose answer the proxy gives with the refusal kept in the [`Client`]; nothing that came behind it is looked at.
//! A refusal inside a body fails the body.
//!
//! Times cost nothing while all goes well: one timer a connection, set the first time it has to wait, moved only when it rings or
//! when a wait is shorter than what it was set to. Deliberately absent: TLS, and HTTP/2, which frames messages itself.

use std::{
    cell::RefMut,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use paifang_proxy::{
    Client,
    clean::wire::{SUBSTITUTE, Verdict, Wire},
    refusal::Refusal,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// How much of a request that nobody wants is read before the connection is closed for good, so that its answer can be read.
const LINGER_BYTES: usize = 256 << 10;
/// How long.
const LINGER: Duration = Duration::from_secs(1);

/// The longest that a client may make us wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the whole of a head, and for the first byte of a connection.
    pub(crate) head: Duration,
    /// For the next request.
    pub(crate) idle: Duration,
    /// For the next byte of a body, or for room to write.
    pub(crate) stall: Duration,
}

/// A connection's bytes, judged.
pub(crate) struct GuardedIo<S> {
    io: S,
    wire: Wire,
    client: Rc<Client>,
    patience: Patience,
    /// Received and not handed on.
    held: Vec<u8>,
    /// How many of `held`, from the front, may be handed on.
    sound: usize,
    /// Whether nothing can be said of `held` without more.
    starved: bool,
    reading: Reading,
    /// Whether a whole head has been handed on.
    served: bool,
    read_wait: Option<(Wait, Instant)>,
    write_wait: Option<Instant>,
    alarm: Alarm,
    closing: Closing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// Nothing more is handed on: what `held` has, then the end.
    Ended,
    /// A body that can never be completed.
    Failed,
    /// The client has said that it sends no more.
    Eof,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    First,
    Next,
    Head,
    Body,
}

/// One timer for whatever ends first.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    set_to: Option<Instant>,
}

enum Closing {
    No,
    Lingering { left: usize, until: Instant },
    Done,
}

/// What was found in bytes shown to [`Wire`].
struct Judged {
    sound: usize,
    then: Then,
}

enum Then {
    /// A message ends here, or the bytes do.
    Stop,
    Starved,
    Refused {
        in_head: bool,
        refusal: Refusal,
    },
}

// === impl GuardedIo ===

impl<S> GuardedIo<S> {
    pub(crate) fn new(io: S, client: Rc<Client>, max_head: usize, patience: Patience) -> Self {
        Self {
            io,
            wire: Wire::new(max_head),
            client,
            patience,
            held: Vec::new(),
            sound: 0,
            starved: false,
            reading: Reading::Open,
            served: false,
            read_wait: None,
            write_wait: None,
            alarm: Alarm::default(),
            closing: Closing::No,
        }
    }

    /// The connection itself, and what was received and not handed on; `None` when that is not known any more.
    pub(crate) fn into_parts(self) -> Option<(S, Vec<u8>)> {
        match self.reading {
            Reading::Open | Reading::Eof => Some((self.io, self.held)),
            Reading::Ended | Reading::Failed => None,
        }
    }

    fn refused(&self) -> RefMut<'_, Option<Refusal>> {
        self.client.refused.borrow_mut()
    }

    /// Hands on what is sound of `held`, as far as there is room.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.sound.min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.sound -= count;
        if count == self.held.len() {
            // An idle connection keeps no buffer.
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
        self.passed();
    }

    fn passed(&mut self) {
        self.served = true;
        self.read_wait = None;
    }

    /// Acts on what was found. `held` begins behind what is sound.
    fn conclude(&mut self, then: Then) {
        self.starved = matches!(then, Then::Starved);
        let Then::Refused { in_head, refusal } = then else {
            return;
        };
        if in_head {
            self.substitute(refusal);
        } else {
            self.refused().get_or_insert(refusal);
            self.reading = Reading::Failed;
        }
    }

    /// Hands on [`SUBSTITUTE`] instead of a head, and nothing after it.
    fn substitute(&mut self, refusal: Refusal) {
        *self.refused() = Some(refusal);
        self.held = SUBSTITUTE.to_vec();
        self.sound = SUBSTITUTE.len();
        self.starved = false;
        self.reading = Reading::Ended;
    }

    fn waits_for(&self) -> Wait {
        if self.wire.in_body() {
            Wait::Body
        } else if !self.held.is_empty() {
            Wait::Head
        } else if self.served {
            Wait::Next
        } else {
            Wait::First
        }
    }

    /// The client has sent nothing. Pending, unless it was given long enough.
    fn wait_to_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let wait = self.waits_for();
        let until = match self.read_wait {
            Some((same, until)) if same == wait => until,
            _ => {
                let patience = match wait {
                    Wait::First | Wait::Head => self.patience.head,
                    Wait::Next => self.patience.idle,
                    Wait::Body => self.patience.stall,
                };
                now + patience
            }
        };
        self.read_wait = Some((wait, until));
        if now < until {
            self.alarm.set(cx, now, until);
            return Poll::Pending;
        }
        match wait {
            Wait::First | Wait::Next => self.reading = Reading::Ended,
            Wait::Head => self.substitute(Refusal::request_timeout()),
            Wait::Body => {
                self.refused().get_or_insert(Refusal::request_timeout());
                self.reading = Reading::Failed;
            }
        }
        Poll::Ready(())
    }

    /// The client takes nothing. Pending, unless it was given long enough.
    fn wait_to_write(&mut self, cx: &mut Context<'_>) -> io::Error {
        let now = Instant::now();
        let until = *self.write_wait.get_or_insert(now + self.patience.stall);
        if now < until {
            self.alarm.set(cx, now, until);
            return io::ErrorKind::WouldBlock.into();
        }
        io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not take its answer",
        )
    }

    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(result) => {
                self.write_wait = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let error = self.wait_to_write(cx);
                if error.kind() == io::ErrorKind::WouldBlock {
                    Poll::Pending
                } else {
                    Poll::Ready(Err(error))
                }
            }
        }
    }

    /// Judges `bytes`, which are all that was received and not handed on.
    fn judge(&mut self, bytes: &[u8]) -> Judged {
        let mut sound = 0;
        while sound < bytes.len() {
            let in_head = self.wire.between_requests();
            match self.wire.inspect(&bytes[sound..]) {
                Verdict::Pass(count) => sound += count,
                Verdict::More => {
                    return Judged {
                        sound,
                        then: Then::Starved,
                    };
                }
                Verdict::Refuse(refusal) => {
                    return Judged {
                        sound,
                        then: Then::Refused { in_head, refusal },
                    };
                }
            }
            if self.wire.between_requests() {
                break;
            }
        }
        Judged {
            sound,
            then: Then::Stop,
        }
    }

    fn judge_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        let Judged { sound, then } = self.judge(&held);
        self.held = held;
        self.sound = sound;
        self.conclude(then);
    }

    /// Judges what was just read into the library's buffer, and takes back what may not be handed on. Only with nothing held.
    fn judge_in_place(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let Judged { sound, then } = self.judge(&buf.filled()[before..]);
        self.held.extend_from_slice(&buf.filled()[before + sound..]);
        buf.set_filled(before + sound);
        if sound > 0 {
            self.passed();
        }
        self.conclude(then);
    }

    /// The end of what the client sends. A head that was begun is answered.
    fn end(&mut self) {
        self.reading = Reading::Eof;
        if !self.held.is_empty() && self.wire.between_requests() {
            self.substitute(Refusal::request_line("it ends before its head does").closing());
            self.reading = Reading::Eof;
        }
        self.held.truncate(self.sound);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.sound > 0 {
                this.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            match this.reading {
                Reading::Open => {}
                Reading::Ended | Reading::Eof => return Poll::Ready(Ok(())),
                Reading::Failed => {
                    let reason = "the body is refused, or did not arrive in time";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
            }
            if !this.held.is_empty() && !this.starved {
                this.judge_held();
                continue;
            }
            let before = buf.filled().len();
            if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
                ready!(this.wait_to_read(cx));
                continue;
            }
            if buf.filled().len() == before {
                this.end();
            } else if this.held.is_empty() {
                this.judge_in_place(buf, before);
                if buf.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(&buf.filled()[before..]);
                buf.set_filled(before);
                this.starved = false;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(cx, result)
    }

    /// Ends our side; then, if the client may still be sending what nobody wants, reads and forgets some of it: a connection that is
    /// closed with bytes unread is reset, and the client would lose its answer (RFC 9112 §9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Closing::No = this.closing {
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.wrote(cx, result))?;
            let refused =
                matches!(this.reading, Reading::Ended | Reading::Failed) && !this.was_idle();
            let unread = refused || this.wire.in_body() || !this.held.is_empty();
            this.closing = if unread && this.reading != Reading::Eof {
                Closing::Lingering {
                    left: LINGER_BYTES,
                    until: Instant::now() + LINGER,
                }
            } else {
                Closing::Done
            };
        }
        ready!(this.linger(cx));
        this.closing = Closing::Done;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> GuardedIo<S> {
    /// Whether reading ended because no request came.
    fn was_idle(&self) -> bool {
        matches!(self.read_wait, Some((Wait::First | Wait::Next, _)))
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Closing::Lingering { left, until } = &mut self.closing else {
            return Poll::Ready(());
        };
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && buf.filled().len() <= *left => {
                    *left -= buf.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let now = Instant::now();
                    if now >= *until {
                        return Poll::Ready(());
                    }
                    self.alarm.set(cx, now, *until);
                    return Poll::Pending;
                }
            }
        }
    }
}

// === impl Alarm ===

impl Alarm {
    /// Wakes the task at `at`, or earlier: whoever is woken too early asks again.
    fn set(&mut self, cx: &mut Context<'_>, now: Instant, at: Instant) {
        if self
            .set_to
            .is_some_and(|set_to| set_to > now && set_to <= at)
        {
            return;
        }
        self.set_to = Some(at);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(at.into());
                sleep
            }
            None => self
                .sleep
                .insert(Box::pin(tokio::time::sleep_until(at.into()))),
        };
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
