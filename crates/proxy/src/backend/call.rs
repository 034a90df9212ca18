//! One call of a backend: what its kind is told, and the way from the mapped request to the answer.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use paifang_model::Location;
use paifang_snapshot::table::{Api, Route, TextPiece};

use super::{
    Credentials, Exchange, Kind, Lease,
    http::{ask, ask_while_moving},
};
use crate::{
    body::{Outgoing, Time},
    record::{Record, RequestId},
    refusal::Refusal,
    serve::Answer,
};

/// Most times that a request is sent, the first included, when its kind lets it be repeated.
const MOST_SENT: u32 = 3;
/// How long the first repetition waits; the next waits four times as long.
const PAUSE: Duration = Duration::from_millis(50);

#[allow(dead_code, reason = "the types that have a kind follow")]
/// What a kind is told of a call beside the mapped request.
pub(crate) struct Call<'r> {
    /// The route that was called.
    pub(crate) route: &'r Route,
    /// The method as the caller sent it.
    pub(crate) method: Method,
    /// The path as the caller sent it, cleaned and still encoded, with the group's base path.
    pub(crate) path: String,
    /// Values of the parameters that go to the path or that [`paifang_snapshot::table::Call`] mentions, decoded, by their position
    /// in [`Api::parameters`].
    pub(crate) values: Vec<(u16, String)>,
    /// `X-Ca-Request-Id`.
    pub(crate) id: RequestId,
    /// When the request came.
    pub(crate) now: SystemTime,
    /// The access key of [`Kind::credentials`]; there whenever the kind names one.
    pub(crate) credentials: Option<Credentials>,
}

impl Call<'_> {
    /// The release that was called.
    pub(crate) fn api(&self) -> &Api {
        &self.route.api
    }

    /// The access key.
    ///
    /// # Errors
    /// When the kind names none.
    pub(crate) fn credentials(&self) -> Result<&Credentials, Refusal> {
        self.credentials
            .as_ref()
            .ok_or_else(|| Refusal::unusable_api().detail("no access key"))
    }

    /// Parameters that go to the backend's path: their names there and their values.
    pub(crate) fn path_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().filter_map(|(at, value)| {
            let parameter = self.api().parameters.get(usize::from(*at))?;
            (parameter.backend_location == Location::Path)
                .then_some((&*parameter.backend_name, &**value))
        })
    }

    /// A text with its parameters filled in.
    pub(crate) fn fill_in<'t>(&'t self, text: &'t [TextPiece]) -> Cow<'t, str> {
        let piece = |piece: &'t TextPiece| match piece {
            TextPiece::Text(text) => &**text,
            TextPiece::Parameter(wanted) => self
                .values
                .iter()
                .find(|(at, _)| at == wanted)
                .map_or("", |(_, value)| value),
        };
        match text {
            [only] => Cow::Borrowed(piece(only)),
            pieces => Cow::Owned(pieces.iter().map(piece).collect()),
        }
    }
}

/// Asks in the way of `kind`.
pub(crate) async fn dispatch(
    kind: &dyn Kind,
    call: &Call<'_>,
    exchange: &Exchange<'_>,
    request: Request<Outgoing>,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let mut request = kind.prepare(call, request)?;
    let mut sent = 1;
    let mut pause = PAUSE;
    loop {
        let copy = (sent < MOST_SENT).then(|| copy(&request)).flatten();
        let answer = match kind.pause(call.api()) {
            None => ask(exchange, request, record).await,
            Some(pause) => ask_while_moving(exchange, pause, request, record).await,
        };
        let outcome = answer.as_ref().ok().map(|(answer, _)| answer.status());
        match copy.filter(|_| kind.may_repeat(outcome)) {
            Some(again) if !exchange.is_over_in(pause) => {
                tokio::time::sleep(pause).await;
                request = again;
                kind.renew(call, &mut request)?;
            }
            _ => {
                let (answer, lease) = answer?;
                return finish(kind, call, exchange, answer, lease).await;
            }
        }
        sent += 1;
        pause *= 4;
    }
}

/// The same request once more, where its body is at hand.
pub(super) fn copy(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let body = match request.body() {
        Outgoing::Empty => Outgoing::Empty,
        Outgoing::Whole(bytes) => Outgoing::Whole(bytes.clone()),
        Outgoing::Stream(_) => return None,
    };
    let mut copy = Request::new(body);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

async fn finish(
    kind: &dyn Kind,
    call: &Call<'_>,
    exchange: &Exchange<'_>,
    answer: Response<Incoming>,
    lease: Lease,
) -> Result<Answer, Refusal> {
    let pause = kind.pause(call.api());
    let (head, body) = answer.into_parts();
    let Some(most) = kind.reads(call, &head) else {
        let answer = Response::from_parts(head, body);
        let time = match pause {
            None => Time::Until(exchange.deadline),
            Some(pause) => Time::Silent(pause),
        };
        return Ok(Answer::Backend(answer, lease, time));
    };
    let deadline = pause.map_or(exchange.deadline, |pause| Instant::now() + pause);
    let reading = read(body, most, kind);
    let body = tokio::time::timeout_at(deadline.into(), reading)
        .await
        .unwrap_or_else(|_| Err(Refusal::backend_timeout()));
    let body = match body {
        Ok(body) => {
            lease.give_back();
            body
        }
        Err(_) if kind.ends_with_head() => Bytes::new(),
        Err(refusal) => return Err(refusal),
    };
    kind.finish(call, without_framing(head), body)
        .map(Answer::Own)
}

/// The head of an answer whose body is written anew: what told the length of the old one is gone.
fn without_framing(mut head: response::Parts) -> response::Parts {
    head.headers.remove(http::header::CONTENT_LENGTH);
    head.headers.remove(http::header::TRANSFER_ENCODING);
    head
}

async fn read(mut body: Incoming, most: usize, kind: &dyn Kind) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| kind.unreadable("the answer was cut").detail(error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > most {
            return Err(kind.unreadable("the answer is too large"));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Whether an answer says that the backend could not do what it was asked now, and might later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
