//! The exchange over HTTP that all types of backend share: find an address, get a connection, ask, and say in the protocol's words what went wrong.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    Request, Response,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use paifang_model::{Address, Scheme};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    Place, Upstream,
    busy::{self, Busy},
    call::copy,
    dial::dial,
    h2::{self, Found},
    pool::{Connection, Lease, PoolKey, Sender},
    tls,
};
use crate::{
    body::{Fault, Outgoing, Progress},
    config::Config,
    endpoints::Ready,
    record::Record,
    refusal::Refusal,
    serve::Worker,
    upgrade,
};

/// One exchange with a backend.
pub(crate) struct Exchange<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) config: &'a Config,
    pub(crate) upstream: &'a Upstream,
    /// [`paifang_snapshot::table::Backend::id`].
    pub(crate) backend: u64,
    /// When the whole exchange must be over.
    pub(crate) deadline: Instant,
    /// Whether it asks for another protocol, on a connection of its own.
    pub(crate) upgrades: bool,
    /// Where a streamed request body leaves why it ended early.
    pub(crate) fault: Fault,
    /// When a streamed request body last went on, where that is watched.
    pub(crate) progress: Option<Progress>,
}

/// Most that is read of an answer at a time, and that waits to be written of a request. The library allows itself 408 KiB, allocated anew for
/// each piece of a large body: a few large objects at once would then take more memory than all the rest of the gateway. With less than this
/// uploads cost more time, in smaller writes.
const BUFFER: usize = 128 << 10;

/// Why a request over HTTP/2 has no answer.
enum Unanswered {
    /// The peer has not looked at it.
    Unprocessed(Box<Request<Outgoing>>, hyper::Error),
    Failed(Refusal),
}

/// Most attempts at one request, the first included.
const ATTEMPTS: u32 = 3;

/// Sends the request and waits for the head of the answer.
pub(crate) async fn ask(
    exchange: &Exchange<'_>,
    request: Request<Outgoing>,
    record: &mut Record,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    record.dispatched.get_or_insert_with(Instant::now);
    let answer = {
        let asked = std::pin::pin!(exchange.asked(request, record));
        tokio::time::timeout_at(exchange.deadline.into(), asked)
            .await
            .unwrap_or_else(|_| Err(Refusal::backend_timeout()))
    };
    exchange.explain(answer, record)
}

/// As [`ask`], but as long as the request's body goes on. `pause` is how long it may not, and how long the head of the answer may take
/// after it.
pub(super) async fn ask_while_moving(
    exchange: &Exchange<'_>,
    pause: Duration,
    request: Request<Outgoing>,
    record: &mut Record,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    let started = *record.dispatched.get_or_insert_with(Instant::now);
    let answer = {
        let mut asked = std::pin::pin!(exchange.asked(request, record));
        let patient_until = || {
            let last = exchange.progress.as_ref().and_then(Progress::last);
            last.unwrap_or(started) + pause
        };
        loop {
            let deadline = patient_until();
            match tokio::time::timeout_at(deadline.into(), asked.as_mut()).await {
                Ok(answer) => break answer,
                Err(_) if patient_until() > deadline => {}
                Err(_) => break Err(Refusal::backend_timeout()),
            }
        }
    };
    exchange.explain(answer, record)
}

// === impl Exchange ===

impl Exchange<'_> {
    async fn asked(
        &self,
        request: Request<Outgoing>,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        let endpoints = self.endpoints().await?;
        self.attempt(endpoints.as_deref(), request, record).await
    }

    fn explain<T>(&self, answer: Result<T, Refusal>, record: &mut Record) -> Result<T, Refusal> {
        match answer {
            Ok(answer) => {
                record.answered = Some(Instant::now());
                Ok(answer)
            }
            // What the client did to its own body explains more than what the backend made of it.
            Err(refusal) => Err(self.fault.take().unwrap_or(refusal)),
        }
    }

    fn speaks_http2(&self) -> bool {
        self.upstream.http2 && !self.upgrades
    }

    /// Whether its time is up, after a while from now.
    pub(super) fn is_over_in(&self, pause: Duration) -> bool {
        Instant::now() + pause >= self.deadline
    }

    /// The endpoints to choose from, where there are several that are told apart.
    async fn endpoints(&self) -> Result<Option<Arc<Ready>>, Refusal> {
        let endpoints = match &self.upstream.place {
            Place::Name(..) => return Ok(None),
            Place::Service { name, port } => {
                let known = self.worker.shared.endpoints.load();
                known.get(name, port).cloned().unwrap_or_default()
            }
            Place::Fixed(addresses) => Box::pin(self.resolve_all(addresses)).await?,
        };
        if endpoints.is_empty() {
            return Err(Refusal::no_endpoint());
        }
        Ok(Some(endpoints))
    }

    /// Endpoints behind fixed addresses: those whose names resolve. One that does not is as good as one that is down.
    async fn resolve_all(&self, addresses: &[Address]) -> Result<Arc<Ready>, Refusal> {
        let resolver = &self.worker.resolver;
        let mut all = Vec::new();
        let mut last = Ok(());
        for address in addresses {
            match resolver.resolve(&address.host, address.port).await {
                Ok(found) => all.extend(found),
                Err(refusal) => last = Err(refusal),
            }
        }
        if all.is_empty() {
            last?;
        }
        Ok(Arc::new(Ready::alike(all)))
    }

    /// Attempts until the request was sent. Each attempt but the last may find its pooled connection closed, or its endpoint gone.
    async fn attempt(
        &self,
        endpoints: Option<&Ready>,
        mut request: Request<Outgoing>,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        let mut failed: Vec<SocketAddr> = Vec::new();
        let mut last = Refusal::no_endpoint();
        for attempt in 1..=ATTEMPTS {
            let endpoint = match endpoints {
                None => None,
                Some(all) => match self.choose(all, &failed) {
                    Some(endpoint) => Some(endpoint),
                    None => break,
                },
            };
            record.attempts += 1;
            let key = PoolKey {
                backend: self.backend,
                endpoint,
            };
            // The last attempt opens a connection of its own, so that a backend that closes idle ones cannot use them all up.
            let pooled = if attempt < ATTEMPTS && !self.upgrades {
                self.worker.pool.take(key)
            } else {
                None
            };
            let connection = match pooled {
                Some(connection) => connection,
                None => match Box::pin(self.open(key, attempt < ATTEMPTS)).await {
                    Ok(connection) => {
                        if let Some(endpoint) = endpoint {
                            self.worker.outliers.reached(endpoint);
                        }
                        record.connections += 1;
                        connection
                    }
                    Err(refusal) => {
                        last = refusal;
                        match endpoint {
                            Some(endpoint) => {
                                self.worker.outliers.failed(endpoint);
                                failed.push(endpoint);
                            }
                            None => break,
                        }
                        continue;
                    }
                },
            };
            record.upstream = Some(connection.address);
            let busy = endpoint.map(|endpoint| Busy::new(&self.worker.load, endpoint));
            let mut lease = self.worker.pool.lease(key, connection, busy);
            let sent = match &mut lease.connection.sender {
                Sender::Http1(sender) => sender.try_send_request(request).await,
                Sender::Http2(stream) => {
                    let sender = stream.sender();
                    match Box::pin(self.send_http2(sender, request)).await {
                        Ok(response) => Ok(response),
                        Err(Unanswered::Unprocessed(again, error)) => {
                            request = *again;
                            last = Refusal::backend_connect("connection closed").detail(error);
                            continue;
                        }
                        Err(Unanswered::Failed(refusal)) => return Err(refusal),
                    }
                }
            };
            match sent {
                Ok(response) => {
                    check_answer(&response, self.upgrades)?;
                    return Ok((response, lease));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        request = unsent;
                        last = Refusal::backend_connect("connection closed")
                            .detail(error.into_error());
                    }
                    None => return Err(exchange_failed(&error.into_error())),
                },
            }
        }
        Err(last)
    }

    /// Sends a request over HTTP/2. One whose body is at hand is given back when the peer says that it has not looked at it.
    async fn send_http2(
        &self,
        mut sender: http2::SendRequest<Outgoing>,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unanswered> {
        h2::to_http2(&mut request, self.upstream.scheme);
        let again = copy(&request);
        let mut error = match sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        let mut request = match unsent.or_else(|| again.filter(|_| h2::is_unprocessed(&error))) {
            Some(request) => request,
            None => return Err(Unanswered::Failed(exchange_failed(&error))),
        };
        h2::to_http1(&mut request);
        Err(Unanswered::Unprocessed(Box::new(request), error))
    }

    /// A connection when none waits: a place on a shared one if that is what is spoken, else a new one. `shared` says whether one that
    /// others have opened will do.
    async fn open(&self, key: PoolKey, shared: bool) -> Result<Connection, Refusal> {
        if !self.speaks_http2() {
            return self.connect(key.endpoint).await;
        }
        let pool = &self.worker.pool.shared;
        let mut waited = !shared;
        loop {
            let _opening = match pool.find(key, waited) {
                Found::Stream(stream) if shared => return Ok(Connection::of(stream)),
                Found::Wait(opened) => {
                    opened.notified().await;
                    waited = true;
                    continue;
                }
                Found::Open(opening) => opening,
                Found::Stream(_) => None,
            };
            let connection = self.connect(key.endpoint).await?;
            match &connection.sender {
                Sender::Http2(stream) => pool.add(key, stream),
                Sender::Http1(_) => pool.is_plain(key),
            }
            return Ok(connection);
        }
    }

    /// The next endpoint to try; `None` when at most one other was to be tried. After one that could not be reached those far away
    /// come first: what made it unreachable is likely to be near.
    fn choose(&self, among: &Ready, failed: &[SocketAddr]) -> Option<SocketAddr> {
        let outliers = &self.worker.outliers;
        match failed {
            [] if outliers.is_empty() => self
                .less_loaded(&among.near)
                .or_else(|| self.less_loaded(&among.far)),
            [] => {
                let out = outliers.left_out(&among.near, &among.far);
                let but = |all: &[SocketAddr]| self.less_loaded_but(all, &out.endpoints);
                out.again
                    .or_else(|| but(&among.near))
                    .or_else(|| but(&among.far))
            }
            [failed] => {
                let mut out = outliers.left_out(&among.near, &among.far).endpoints;
                out.push(*failed);
                self.less_loaded_but(&among.far, &out)
                    .or_else(|| self.less_loaded_but(&among.near, &out))
                    // One that is left out is better than none.
                    .or_else(|| self.less_loaded_but(&among.far, &[*failed]))
                    .or_else(|| self.less_loaded_but(&among.near, &[*failed]))
            }
            _ => None,
        }
    }

    fn less_loaded_but(&self, among: &[SocketAddr], out: &[SocketAddr]) -> Option<SocketAddr> {
        let others = among.iter().filter(|endpoint| !out.contains(endpoint));
        self.less_loaded(&others.copied().collect::<Vec<_>>())
    }

    fn less_loaded(&self, among: &[SocketAddr]) -> Option<SocketAddr> {
        busy::less_loaded(&self.worker.load, among)
    }

    async fn connect(&self, endpoint: Option<SocketAddr>) -> Result<Connection, Refusal> {
        let upstream = self.upstream;
        let until = tokio::time::Instant::now() + self.worker.settings().timeouts.connect;
        let addresses = match (endpoint, &upstream.place) {
            (Some(endpoint), _) => vec![endpoint],
            (None, Place::Name(host, port)) => {
                let resolving = self.worker.resolver.resolve(host, *port);
                tokio::time::timeout_at(until, resolving)
                    .await
                    .unwrap_or_else(|_| {
                        Err(Refusal::backend_unresolved(host).detail("no name server answers"))
                    })?
            }
            (None, _) => return Err(Refusal::no_endpoint()),
        };
        let connecting = async {
            let (policy, outliers) = (&self.worker.settings().backends, &self.worker.outliers);
            let (stream, address) = dial(&upstream.host, &addresses, policy, outliers).await?;
            let sender = match upstream.scheme {
                Scheme::Http => self.handshake(stream, address, self.speaks_http2()).await?,
                Scheme::Https => {
                    let stream = self.secure(stream).await?;
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    self.handshake(stream, address, http2).await?
                }
            };
            Ok(Connection {
                sender,
                address,
                made: Instant::now(),
            })
        };
        tokio::time::timeout_at(until, connecting)
            .await
            .unwrap_or_else(|_| Err(Refusal::backend_connect("timed out")))
    }

    async fn secure(
        &self,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Refusal> {
        let config = match self.config.backend_tls.get(&self.upstream.tls) {
            Some(Ok(config)) if self.speaks_http2() => tls::with_http2(config),
            Some(Ok(config)) => Arc::clone(config),
            Some(Err(reason)) => return Err(Refusal::backend_tls("not configured").detail(reason)),
            None => return Err(Refusal::backend_tls("not configured")),
        };
        let upstream = self.upstream;
        let name = upstream
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.as_deref())
            .unwrap_or(&upstream.host);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Refusal::backend_tls("server name is invalid"))?;
        tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| Refusal::backend_tls(tls_reason(&error)).detail(error))
    }

    async fn handshake<S>(
        &self,
        stream: S,
        address: SocketAddr,
        http2: bool,
    ) -> Result<Sender, Refusal>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let head = self.worker.settings().limits.answer_head_bytes;
        if http2 {
            return h2::handshake(stream, address, head)
                .await
                .map(Sender::Http2);
        }
        let (sender, connection) = http1::Builder::new()
            .max_header_size(head)
            .max_buf_size(BUFFER.max(head))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Refusal::backend_connect("failed").detail(error))?;
        // The task ends with its connection: when the backend closes it, or when its sender is dropped.
        let upgrades = self.upgrades;
        tokio::task::spawn_local(async move {
            let ended = if upgrades {
                Box::pin(connection.with_upgrades()).await
            } else {
                connection.await
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        Ok(Sender::Http1(sender))
    }
}

fn tls_reason(error: &std::io::Error) -> &'static str {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(error)) => certificate_reason(error),
        Some(rustls::Error::AlertReceived(alert)) => alert_reason(*alert),
        Some(_) => "handshake failed",
        None => "connection closed",
    }
}

fn certificate_reason(error: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Error;
    match error {
        Error::Expired | Error::ExpiredContext { .. } => "certificate is expired",
        Error::NotValidYet | Error::NotValidYetContext { .. } => "certificate is not valid yet",
        Error::NotValidForName | Error::NotValidForNameContext { .. } => {
            "certificate is for another name"
        }
        Error::UnknownIssuer => "certificate is of an unknown issuer",
        _ => "certificate is not trusted",
    }
}

/// What the backend says of our side.
fn alert_reason(alert: rustls::AlertDescription) -> &'static str {
    use rustls::AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => "a client certificate is required",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => "the client certificate is refused",
        _ => "handshake failed",
    }
}

/// The alert that ended an exchange: with TLS 1.3 a backend judges the client's certificate when the handshake is over for the client.
fn late_alert(error: &hyper::Error) -> Option<rustls::AlertDescription> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = inner {
            return Some(*alert);
        }
        source = error.source();
    }
    None
}

/// Answers that readers disagree about (RFC 9112 §6.3), that lose an encoding when they are passed on, or that end HTTP unasked.
fn check_answer(response: &Response<Incoming>, upgrades: bool) -> Result<(), Refusal> {
    if response.status().is_informational() {
        if upgrades && upgrade::is_granted(response.headers()) {
            return Ok(());
        }
        return Err(Refusal::backend_answer("another protocol, unasked"));
    }
    let headers = response.headers();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if headers.contains_key(CONTENT_LENGTH) => Err(Refusal::backend_answer(
            "Content-Length beside Transfer-Encoding",
        )),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(_), _) => Err(Refusal::backend_answer("an unknown Transfer-Encoding")),
    }
}

/// The request was sent, or a part of it, and no sound answer came.
fn exchange_failed(error: &hyper::Error) -> Refusal {
    if let Some(alert) = late_alert(error) {
        return Refusal::backend_tls(alert_reason(alert)).detail(error);
    }
    let reason = if error.is_parse() {
        "not HTTP"
    } else if error.is_incomplete_message() {
        "connection closed before the answer"
    } else if error.is_user() {
        "request body failed"
    } else {
        "connection failed"
    };
    Refusal::backend_answer(reason).detail(error)
}
