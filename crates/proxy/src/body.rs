//! Bodies: what goes to a backend, and what comes back to the client. Streamed, unless a phase needed the whole of it.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::{
    backend::Lease,
    record::{Observe, Record},
    refusal::Refusal,
    trailers::Trailers,
};

/// Why a body could not be read or sent to its end.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

// === towards the backend ===

/// A request's body on its way to a backend.
pub(crate) enum Outgoing {
    Empty,
    Whole(Bytes),
    Stream(Limited),
}

/// A streamed request body within the limit. Of trailers those pass that are allow-listed.
pub(crate) struct Limited {
    incoming: Incoming,
    left: u64,
    fault: Fault,
    progress: Option<Progress>,
    trailers: Rc<Trailers>,
}

/// Where a streamed body leaves the reason it ended early, for the task that waits for the backend's answer.
#[derive(Clone, Default)]
pub(crate) struct Fault(Rc<RefCell<Option<Refusal>>>);

/// When the last piece of a streamed body went on.
#[derive(Clone, Default)]
pub(crate) struct Progress(Rc<Cell<Option<Instant>>>);

impl Progress {
    fn note(&self) {
        self.0.set(Some(Instant::now()));
    }

    /// `None` when nothing went on yet.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.0.get()
    }
}

impl Fault {
    pub(crate) fn set(&self, refusal: Refusal) {
        self.0.borrow_mut().get_or_insert(refusal);
    }

    pub(crate) fn take(&self) -> Option<Refusal> {
        self.0.borrow_mut().take()
    }
}

impl Limited {
    pub(crate) fn new(
        incoming: Incoming,
        limit: u64,
        fault: Fault,
        trailers: Rc<Trailers>,
        progress: Option<Progress>,
    ) -> Self {
        Self {
            incoming,
            left: limit,
            fault,
            progress,
            trailers,
        }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(limited) => limited.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(limited) => limited.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(limited) => limited.incoming.size_hint(),
        }
    }
}

impl Limited {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.fault.set(
                        Refusal::body("it was cut or is malformed")
                            .closing()
                            .detail(&error),
                    );
                    return Poll::Ready(Some(Err(error.into())));
                }
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => match passing(frame, &self.trailers) {
                    Some(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    None => continue,
                },
            };
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    self.fault.set(Refusal::body_too_large());
                    return Poll::Ready(Some(Err("body over the limit".into())));
                }
            }
            if let Some(progress) = &self.progress {
                progress.note();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }
}

/// What passes of a frame that is no data.
fn passing(frame: Frame<Bytes>, allowed: &Trailers) -> Option<Frame<Bytes>> {
    let trailers = frame.into_trailers().ok()?;
    allowed.filter(trailers).map(Frame::trailers)
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn collect(mut incoming: Incoming, limit: u64) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::body("it was cut or is malformed")
                .closing()
                .detail(error)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if (first.len() + whole.len() + data.len()) as u64 > limit {
            return Err(Refusal::body_too_large());
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
    }
    Ok(if first.is_empty() {
        whole.freeze()
    } else {
        first
    })
}

// === towards the client ===

/// The body of an answer. When it is dropped, sent to its end or not, the request's [`Record`] goes to its observer.
pub struct Body {
    inner: Inner,
    finish: Option<Box<Finish>>,
}

enum Inner {
    Empty,
    Whole(Bytes),
    Backend(Incoming),
}

/// What has to happen when an answer is over.
struct Finish {
    record: Box<Record>,
    observer: Rc<dyn Observe>,
    /// The connection that the answer comes from, to be used again once the answer is complete.
    lease: Option<Lease>,
    time: Time,
    trailers: Option<Rc<Trailers>>,
    /// Made when the backend first makes us wait.
    sleep: Option<Pin<Box<Sleep>>>,
    /// What cut the answer, while what came before it is written.
    broken: Option<hyper::Error>,
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Time {
    /// As long as it likes: it is at hand.
    Any,
    /// All of it until then.
    Until(Instant),
    /// However long, but never silent for so long.
    Silent(Duration),
}

impl Body {
    /// An answer of the gateway's own.
    pub(crate) fn own(bytes: Bytes, record: Box<Record>, observer: Rc<dyn Observe>) -> Self {
        Self {
            inner: if bytes.is_empty() {
                Inner::Empty
            } else {
                Inner::Whole(bytes)
            },
            finish: Some(Box::new(Finish {
                record,
                observer,
                lease: None,
                time: Time::Any,
                trailers: None,
                sleep: None,
                broken: None,
            })),
        }
    }

    /// A backend's answer.
    pub(crate) fn of_backend(
        incoming: Incoming,
        lease: Lease,
        time: Time,
        trailers: Rc<Trailers>,
        record: Box<Record>,
        observer: Rc<dyn Observe>,
    ) -> Self {
        Self {
            inner: Inner::Backend(incoming),
            finish: Some(Box::new(Finish {
                record,
                observer,
                lease: Some(lease),
                time,
                trailers: Some(trailers),
                sleep: None,
                broken: None,
            })),
        }
    }

    /// A body that nobody observes.
    pub fn unobserved(bytes: Bytes) -> Self {
        Self {
            inner: if bytes.is_empty() {
                Inner::Empty
            } else {
                Inner::Whole(bytes)
            },
            finish: None,
        }
    }

    fn poll_backend(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.finish.as_mut().and_then(|it| it.broken.take()) {
            self.cut();
            return Poll::Ready(Some(Err(error.into())));
        }
        let Inner::Backend(incoming) = &mut self.inner else {
            return Poll::Ready(None);
        };
        loop {
            match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(finish) = &mut self.finish {
                            finish.moved(data.len());
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        let allowed = self.finish.as_ref().and_then(|it| it.trailers.as_ref());
                        match allowed.and_then(|allowed| passing(frame, allowed)) {
                            Some(trailers) => return Poll::Ready(Some(Ok(trailers))),
                            None => continue,
                        }
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    let Some(finish) = &mut self.finish else {
                        return Poll::Ready(Some(Err(error.into())));
                    };
                    // An error drops what the connection has not written yet, which may be all of the head. So it waits for a turn:
                    // a client that sees no byte of an answer may take its request for one that was never looked at, and repeat it.
                    finish.broken = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    self.inner = Inner::Empty;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(self.poll_deadline(cx));
                    self.cut();
                    let late = io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the backend's answer took too long",
                    );
                    return Poll::Ready(Some(Err(late.into())));
                }
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.finish {
            Some(finish) => finish.poll_late(cx),
            None => Poll::Pending,
        }
    }

    fn cut(&mut self) {
        if let Some(finish) = &mut self.finish {
            finish.record.cut = true;
            finish.record.cut_by_backend = true;
            finish.lease = None;
        }
    }
}

impl Finish {
    /// A piece of the answer is here.
    fn moved(&mut self, bytes: usize) {
        self.record.sent_bytes += bytes as u64;
        if matches!(self.time, Time::Silent(_)) {
            // The timer begins anew when there is something to wait for.
            self.sleep = None;
        }
    }

    /// Ready when the backend takes too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = match self.time {
            Time::Any => return Poll::Pending,
            Time::Until(until) => until,
            Time::Silent(longest) => Instant::now() + longest,
        };
        self.sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())))
            .as_mut()
            .poll(cx)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                if let Some(finish) = &mut self.finish {
                    finish.record.sent_bytes = bytes.len() as u64;
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Backend(_) => self.poll_backend(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Backend(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Backend(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let complete = self.is_end_stream();
        let Some(mut finish) = self.finish.take() else {
            return;
        };
        if complete {
            if let Some(lease) = finish.lease.take() {
                lease.give_back();
            }
        } else if finish.record.method != http::Method::HEAD {
            finish.record.cut = true;
        }
        finish.observer.finished(&finish.record);
    }
}
