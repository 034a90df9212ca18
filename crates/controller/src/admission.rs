//! The admission webhook: the API server asks before it stores an object, and hears what compile would say of it.
//!
//! It helps, and nothing rests on it: compile checks every object again. So whatever goes wrong in here lets the object pass, with a
//! warning, and only a real refusal refuses. What is refused or warned about is [`Judge`]'s; this file speaks HTTP and TLS, and bounds
//! what a caller can cost.

mod judge;
mod known;
mod metrics;
mod review;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use paifang_compiler::{Admission, Request};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{self, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::review::{Answer, Asked, Unreadable};
pub(crate) use self::{
    known::Known,
    metrics::{AdmissionMetrics, Outcome},
};
use crate::{pki::Material, said};

/// Where the API server asks.
const PATH: &str = "/validate";
/// The largest question, in bytes. An object and its predecessor are at most 3 MiB together.
const LARGEST_BODY: usize = 8 << 20;
/// Connections at a time; more wait in the kernel. API servers keep a few each.
const MOST_CONNECTIONS: usize = 256;
/// Questions read or judged at a time, each with a body in memory; more wait.
const MOST_QUESTIONS: usize = 32;
/// How long a handshake may take, and how long a body.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may be idle. Longer than the 90 s after which an API server closes one by itself: a question sent into a
/// closing connection would be lost.
const IDLE: Duration = Duration::from_secs(120);
/// How long an answer may take, waiting included, unless the API server says that it waits less.
const ANSWER: Duration = Duration::from_secs(8);
/// How long questions are still taken after the end was told: until the API server has heard that this replica is going.
const LAME_DUCK: Duration = Duration::from_secs(3);
/// How long open questions are answered for after that.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause after the system gave no connection: file descriptors may have run out.
const BREATH: Duration = Duration::from_millis(100);

/// Who knows what an object would mean.
pub(crate) trait Judge: Send + Sync + 'static {
    /// What is to be said of it; `None` before everything is known that it takes to say anything.
    fn admit(&self, request: Request<'_>) -> Option<Admission>;
}

/// What all connections share.
struct Webhook {
    judge: Arc<dyn Judge>,
    metrics: AdmissionMetrics,
    questions: Semaphore,
}

/// Answers on `listener` until a moment after `stop` is true or without a sender, then finishes what is under way. Nobody is accepted
/// before there is a certificate.
pub(crate) async fn serve(
    listener: TcpListener,
    mut material: watch::Receiver<Arc<Material>>,
    judge: Arc<dyn Judge>,
    metrics: AdmissionMetrics,
    mut stop: watch::Receiver<bool>,
) {
    let webhook = Arc::new(Webhook {
        judge,
        metrics,
        questions: Semaphore::new(MOST_QUESTIONS),
    });
    let (close, closing) = watch::channel(false);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async {
        if material.wait_for(|it| it.webhook.is_some()).await.is_err() {
            // Nobody makes certificates any more: there will be no connection, and the end is near.
            std::future::pending::<()>().await;
        }
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the webhook cannot accept a connection");
                    sleep(BREATH).await;
                    continue;
                }
            };
            let Some(config) = material.borrow().webhook.clone() else {
                continue;
            };
            let connection = connection(
                stream,
                TlsAcceptor::from(config),
                Arc::clone(&webhook),
                closing.clone(),
            );
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
            while connections.try_join_next().is_some() {}
        }
    };
    let end = async {
        told(&mut stop).await;
        sleep(LAME_DUCK).await;
    };
    tokio::select! {
        () = end => {}
        () = accept => {}
    }
    close.send_replace(true);
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("questions of the API server were left unanswered");
    }
}

/// Waits for the end.
async fn told(stop: &mut watch::Receiver<bool>) {
    // Without a sender it is the end as well.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    webhook: Arc<Webhook>,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are small, and waited for.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS with a caller of the webhook"),
        Err(_) => return tracing::debug!("a caller of the webhook was too slow"),
    };
    let serve = service_fn(|request: HttpRequest<Incoming>| {
        let webhook = Arc::clone(&webhook);
        async move { Ok::<_, std::convert::Infallible>(webhook.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), serve);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = said(&error), "a connection to the webhook broke");
    }
}

// === impl Webhook ===

impl Webhook {
    async fn respond<B>(&self, request: HttpRequest<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "only /validate is answered here\n");
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        }
        let patience = patience(request.uri());
        let deadline = Instant::now() + patience;
        let Ok(Ok(_place)) = timeout(patience, self.questions.acquire()).await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many questions\n");
        };
        let body = Limited::new(request.into_body(), LARGEST_BODY).collect();
        let body = match timeout(PATIENCE.min(patience), body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                tracing::warn!(error, "a question of the API server cannot be read");
                return plain(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "more than 8 MiB, or cut off\n",
                );
            }
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body came too slowly\n"),
        };
        match self.answer(body, deadline).await {
            Ok(answer) => json(answer),
            Err(why) => {
                tracing::warn!(why, "a question to the webhook cannot be answered");
                plain(StatusCode::BAD_REQUEST, why + "\n")
            }
        }
    }

    async fn answer(&self, body: Bytes, deadline: Instant) -> Result<Answer, String> {
        let start = Instant::now();
        let asked = match Asked::read(&body) {
            Ok(asked) => asked,
            Err(Unreadable::Review(why)) => return Err(why),
            Err(Unreadable::Question { uid, why }) => {
                tracing::error!(why, "a question of the API server is not understood");
                let took = start.elapsed();
                self.metrics.count("other", "other", Outcome::Failed, took);
                return Ok(passed(uid, "the question was not understood"));
            }
        };
        drop(body);
        let kind = judge::kind(&asked).map_or("other", |kind| kind.name());
        let operation = asked.operation.as_str();
        let uid = asked.uid.clone();
        let judge = Arc::clone(&self.judge);
        // Compiling takes the processor, and may wait for who is compiling now.
        let judging = task::spawn_blocking(move || judge::judge(asked, &*judge));
        let (answer, outcome) = match tokio::time::timeout_at(deadline, judging).await {
            Ok(Ok(judged)) => (judged.answer, judged.outcome),
            Ok(Err(error)) => {
                let why = broke(error);
                tracing::error!(kind, operation, why, "an object could not be checked");
                (passed(uid, "the check broke off"), Outcome::Failed)
            }
            Err(_) => {
                tracing::error!(kind, operation, "an object could not be checked in time");
                (passed(uid, "the check took too long"), Outcome::Failed)
            }
        };
        let took = start.elapsed();
        self.metrics.count(kind, operation, outcome, took);
        tracing::debug!(kind, operation, ?outcome, ?took, "admission");
        Ok(answer)
    }
}

/// A little less than the API server waits, which it says as in `?timeout=10s`: an answer with a warning is more than none.
fn patience(asked: &Uri) -> Duration {
    let said = asked.query().into_iter().flat_map(|query| query.split('&'));
    let said = said.filter_map(|pair| pair.strip_prefix("timeout=")?.strip_suffix('s'));
    let seconds = said
        .filter_map(|seconds| seconds.parse::<u32>().ok())
        .next();
    seconds.map_or(ANSWER, |seconds| {
        ANSWER.min(Duration::from_secs(seconds.into()) * 9 / 10)
    })
}

/// Nothing is refused for our own faults.
fn passed(uid: String, why: &str) -> Answer {
    Answer {
        uid,
        refusal: None,
        warnings: vec![format!(
            "paifang-controller: {why}; not checked at admission"
        )],
    }
}

fn broke(error: task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "it was cancelled".to_owned();
    };
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic".to_owned())
}

fn json(answer: Answer) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", answer.write())
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let media_type = header::HeaderValue::from_static(media_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    response
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;
