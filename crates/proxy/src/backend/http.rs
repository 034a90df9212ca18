//! The exchange over HTTP that all types of backend share: find an address, get a connection, ask, and say in the protocol's words what went wrong.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    Request, Response,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use paifang_model::{Address, Scheme};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    Place, Upstream,
    dial::dial,
    pool::{Connection, Lease, PoolKey},
};
use crate::{
    body::{Fault, Outgoing, Progress},
    config::Config,
    endpoints::Ready,
    record::Record,
    refusal::Refusal,
    serve::Worker,
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
    /// Where a streamed request body leaves why it ended early.
    pub(crate) fault: Fault,
    /// When a streamed request body last went on.
    pub(crate) progress: Progress,
}

/// Requests under way to each endpoint of the Services, for the choice of the less loaded of two.
pub(crate) type Load = Rc<RefCell<HashMap<SocketAddr, u32, foldhash::fast::RandomState>>>;

/// Counts a request to an endpoint while it exists.
struct Busy {
    load: Load,
    endpoint: SocketAddr,
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
        loop {
            let deadline = exchange.progress.last().unwrap_or(started) + pause;
            match tokio::time::timeout_at(deadline.into(), asked.as_mut()).await {
                Ok(answer) => break answer,
                Err(_) if exchange.progress.last().unwrap_or(started) + pause > deadline => {}
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
            let pooled = if attempt < ATTEMPTS {
                self.worker.pool.take(key)
            } else {
                None
            };
            let connection = match pooled {
                Some(connection) => connection,
                None => match Box::pin(self.connect(endpoint)).await {
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
            let _busy = endpoint.map(|endpoint| Busy::new(&self.worker.load, endpoint));
            let mut lease = self.worker.pool.lease(key, connection);
            match lease.connection.sender.try_send_request(request).await {
                Ok(response) => {
                    check_answer(&response)?;
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

    /// The less loaded of two that are picked at random.
    fn less_loaded(&self, among: &[SocketAddr]) -> Option<SocketAddr> {
        let pick = || among.get(fastrand::usize(..among.len().max(1))).copied();
        let (first, second) = (pick()?, pick()?);
        let load = self.worker.load.borrow();
        let of = |endpoint| load.get(&endpoint).copied().unwrap_or(0);
        Some(if of(second) < of(first) {
            second
        } else {
            first
        })
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
                Scheme::Http => self.handshake(stream).await?,
                Scheme::Https => self.handshake(self.secure(stream).await?).await?,
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

    async fn handshake<S>(&self, stream: S) -> Result<http1::SendRequest<Outgoing>, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let head = self.worker.settings().limits.answer_head_bytes;
        let (sender, connection) = http1::Builder::new()
            .max_header_size(head)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Refusal::backend_connect("failed").detail(error))?;
        // The task ends with its connection: when the backend closes it, or when its sender is dropped.
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        Ok(sender)
    }
}

fn tls_reason(error: &std::io::Error) -> &'static str {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(_)) => "certificate is not trusted",
        Some(_) => "handshake failed",
        None => "connection closed",
    }
}

/// Answers that readers disagree about (RFC 9112 §6.3), that lose an encoding when they are passed on, or that end HTTP unasked.
fn check_answer(response: &Response<Incoming>) -> Result<(), Refusal> {
    if response.status().is_informational() {
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

// === impl Busy ===

impl Busy {
    fn new(load: &Load, endpoint: SocketAddr) -> Self {
        *load.borrow_mut().entry(endpoint).or_default() += 1;
        Self {
            load: Rc::clone(load),
            endpoint,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut load = self.load.borrow_mut();
        if let Some(count) = load.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                load.remove(&self.endpoint);
            }
        }
    }
}
