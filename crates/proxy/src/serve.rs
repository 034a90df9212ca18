//! One request, phase by phase.

use std::{
    cell::RefCell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, response};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use paifang_model::{HostPattern, Protocol};
use paifang_signing::Scratch;
use paifang_snapshot::{
    table::{Captures, Network},
    wire::Auth,
};

use crate::{
    authenticate::{self, Identity},
    backend::{self, Backend, Call, Credentials, Exchange, Kind, Load, Outliers, Pool, Resolver},
    body::{Body, Fault, Limited, Outgoing, Progress, Time, collect},
    clean::{
        head::{self, Cleaned},
        wire::REFUSED_METHOD,
    },
    config::Config,
    endpoints::Endpoints,
    locate,
    map::{self, Inputs},
    nonce::Nonces,
    record::{Observe, Record, RequestId},
    refusal::Refusal,
    respond,
    settings::Settings,
    trailers::Trailers,
    upgrade::{self, Tunnel},
};

/// What all workers of a process share.
pub struct Shared {
    /// The configuration in service. Whoever publishes swaps it; a request loads it once.
    pub config: ArcSwap<Config>,
    /// Endpoints of the Services that it names.
    pub endpoints: ArcSwap<Endpoints>,
    /// Nonces seen.
    pub nonces: Nonces,
    /// Fixed at start.
    pub settings: Settings,
    /// The origin of durations.
    pub started: Instant,
}

/// One thread's share of the work: its own pool of backend connections, its own buffers.
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) resolver: Resolver,
    pub(crate) load: Load,
    pub(crate) outliers: Outliers,
    pub(crate) trailers: Rc<Trailers>,
    pub(crate) observer: Rc<dyn Observe>,
    scratch: RefCell<Scratch>,
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    /// The client's end.
    pub peer: SocketAddr,
    /// Which listener it came in on.
    pub network: Network,
    /// TLS, if the connection has it.
    pub tls: Option<ClientTls>,
    /// Why [`crate::clean::wire::Wire`] refused what arrived, set before the request it concerns is handed on.
    pub refused: RefCell<Option<Refusal>>,
    /// What follows the last answer, once that has been sent and was a `101`.
    tunnel: RefCell<Option<Tunnel>>,
    /// What `X-Forwarded-For` says of it, written once a connection.
    pub(crate) forwarded_for: HeaderValue,
}

/// What the handshake settled.
#[derive(Debug)]
pub struct ClientTls {
    /// The bound domain whose certificate and client CA were used; absent for the default certificate.
    pub domain: Option<HostPattern>,
    /// Subject of the verified client certificate, as `X-Client-S-Dn` carries it.
    pub subject: Option<HeaderValue>,
}

/// A request's body, as far as it has been read.
enum Received {
    /// To its end, because a phase needs it.
    Whole(Bytes),
    /// Not at all.
    Stream(Incoming),
}

/// An answer on its way out, before the headers every answer has.
pub(crate) enum Answer {
    /// Of a backend.
    Backend(Response<Incoming>, crate::backend::Lease, Time),
    /// Of the gateway: a Mock's, or a redirect.
    Own(Response<Bytes>),
    /// Of a backend that goes over to another protocol.
    Upgrade(Box<(response::Parts, OnUpgrade, backend::Lease)>),
}

/// The status in the [`Record`] of a request whose client did not wait; nginx made this number usual. It is never sent.
const CLIENT_LEFT: u16 = 499;

// === impl Client ===

impl Client {
    /// A connection on which nothing was refused yet.
    pub fn new(peer: SocketAddr, network: Network, tls: Option<ClientTls>) -> Self {
        let address = peer.ip().to_canonical().to_string();
        Self {
            peer,
            network,
            tls,
            refused: RefCell::new(None),
            tunnel: RefCell::new(None),
            forwarded_for: HeaderValue::try_from(address)
                .unwrap_or(HeaderValue::from_static("unknown")),
        }
    }

    pub(crate) fn upgrade_to(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// What the connection is for now that HTTP on it has ended; `None` when it has simply ended.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.borrow_mut().take()
    }
}

// === impl Shared ===

impl Shared {
    /// Serves nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            config: ArcSwap::from_pointee(Config::empty()),
            endpoints: ArcSwap::default(),
            nonces: Nonces::new(settings.limits.nonces),
            settings,
            started: Instant::now(),
        }
    }
}

// === impl Worker ===

impl Worker {
    /// A worker for the current thread. `observer` is told of every request that is over.
    pub fn new(shared: Arc<Shared>, observer: Rc<dyn Observe>) -> Rc<Self> {
        let limits = &shared.settings.limits;
        let pool = Pool::new(
            limits.idle_per_backend,
            shared.settings.timeouts.backend_idle,
        );
        Rc::new(Self {
            pool: Rc::new(pool),
            resolver: Resolver::new(&shared.settings.name_servers),
            outliers: Outliers::new(Rc::clone(&observer)),
            load: Load::default(),
            trailers: Rc::new(shared.settings.trailers.clone()),
            scratch: RefCell::new(Scratch::new()),
            observer,
            shared,
        })
    }

    /// Closes idle connections that waited too long; to be called every few seconds.
    pub fn sweep(&self) {
        self.pool.sweep();
        self.outliers.sweep();
    }

    /// Closes every idle connection to a backend, as after a change of network.
    pub fn close_idle(&self) {
        self.pool.clear();
    }

    /// Idle connections to backends.
    pub fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Answers a request. There always is an answer.
    ///
    /// # Errors
    /// None: the type is what the HTTP library asks for.
    pub async fn serve(
        self: Rc<Self>,
        client: Rc<Client>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let now = Now::read(&self.shared);
        let mut record = Box::new(Record::begin(&client, &request, &now));
        let via_sub_domain = &mut false;
        let mut unanswered = Unanswered {
            record: &mut record,
            observer: &*self.observer,
            answered: false,
        };
        let answer = self
            .answer(&client, request, &now, unanswered.record, via_sub_domain)
            .await;
        unanswered.answered = true;
        drop(unanswered);
        Ok(respond::respond(
            answer,
            record,
            *via_sub_domain,
            &self,
            &client,
        ))
    }

    async fn answer(
        &self,
        client: &Client,
        request: Request<Incoming>,
        now: &Now,
        record: &mut Record,
        via_sub_domain: &mut bool,
    ) -> Result<Answer, Refusal> {
        let (mut parts, incoming) = request.into_parts();
        if parts.version == Version::HTTP_2 {
            head::join_cookies(&mut parts.headers);
        }
        if parts.method.as_str() == REFUSED_METHOD {
            let refused = client.refused.borrow_mut().take();
            return Err(refused.unwrap_or_else(|| Refusal::request_line("malformed")));
        }
        let config = self.shared.config.load_full();

        let cleaned = head::clean(&parts)?;
        record.host = Some(cleaned.host.clone().into_owned());
        let mut captures = Captures::new();
        let bound = locate::bind(&config.table, client, &cleaned, now)?;
        *via_sub_domain = bound.on_public_sub_domain();
        record.group = Some(Arc::clone(bound.group()));
        if bound.redirects(client) {
            return respond::redirect(&cleaned);
        }
        bound.check_connection(client, &cleaned)?;
        let mut located = bound.route(client, now, &cleaned, &mut captures)?;
        record.group = Some(Arc::clone(located.group()));
        record.route = Some(Arc::clone(located.route));
        let protocol = protocol(client, &cleaned, parts.version);
        located.check_protocol(protocol, client)?;
        located.check_limits()?;

        let api = &*located.route.api;
        let limits = &self.shared.settings.limits;
        let backend = config
            .backend(located.route.backend.id)
            .ok_or_else(Refusal::unusable_api)?;
        let kind = backend.kind();
        let limit = kind.map_or(limits.body_bytes, |kind| kind.body_limit(api, limits));
        let declared = map::declared_length(&cleaned)?;
        if declared.is_some_and(|length| length > limit) {
            return Err(Refusal::body_too_large());
        }
        let claim = match &api.auth {
            Auth::Anonymous => None,
            Auth::App(rules) => Some(authenticate::claim(&cleaned, rules, &config.keys, now)?),
        };
        let whole =
            kind.is_some_and(|kind| kind.needs_whole_body(api)) || needs_whole_body(&cleaned, api);
        let received = if whole && !hyper::body::Body::is_end_stream(&incoming) {
            // Boxed, like everything that few requests wait for: it would make the future of every request larger to move.
            let reading = Box::pin(collect(incoming, limit.min(limits.body_bytes)));
            let whole = tokio::time::timeout(self.shared.settings.timeouts.body, reading)
                .await
                .unwrap_or_else(|_| Err(Refusal::request_timeout()));
            Received::Whole(
                whole.map_err(|refusal| client.refused.borrow_mut().take().unwrap_or(refusal))?,
            )
        } else {
            Received::Stream(incoming)
        };

        let identity = match claim {
            None => Identity::Anonymous,
            Some(claim) => {
                let request = authenticate::Request {
                    cleaned: &cleaned,
                    headers: &parts.headers,
                    method: parts.method.as_str(),
                    body: received.whole().map(|whole| &**whole),
                };
                let mut scratch = self.scratch.borrow_mut();
                claim.prove(&request, &self.shared.nonces, now, &mut scratch)?
            }
        };
        record.caller = identity.caller().cloned();
        let permit = identity.authorise(&located, now)?;

        let mut mapped = map::map(&Inputs {
            worker: self,
            backend,
            client,
            cleaned: &cleaned,
            headers: &parts.headers,
            captures: &captures,
            located: &located,
            permit: &permit,
            whole: received.whole(),
            record,
            now,
        })?;
        if protocol == Protocol::Websocket && !can_upgrade(backend, &received) {
            return Err(Refusal::protocol(protocol));
        }
        let remote = match &**backend {
            Backend::Remote(remote) => remote,
            Backend::Own(mock) => return Ok(Answer::Own(mock.answer())),
            Backend::Unusable(reason) => return Err(Refusal::unusable_api().detail(reason)),
        };
        let route = Arc::clone(located.route);
        let call = match &remote.kind {
            None => None,
            Some(kind) => Some((
                &**kind,
                Box::new(Call {
                    route: &route,
                    method: parts.method.clone(),
                    path: cleaned.path.clone().into_owned(),
                    values: std::mem::take(&mut mapped.values),
                    id: record.id.clone(),
                    now: now.wall,
                    credentials: credentials(&**kind, &config)?,
                }),
            )),
        };
        drop(located);
        drop(cleaned);

        let fault = Fault::default();
        let progress = call.as_ref().map(|_| Progress::default());
        let body = match (mapped.body.take(), received) {
            (Some(body), _) | (None, Received::Whole(body)) => Outgoing::Whole(body),
            (None, Received::Stream(stream)) if hyper::body::Body::is_end_stream(&stream) => {
                Outgoing::Empty
            }
            (None, Received::Stream(stream)) => {
                let trailers = Rc::clone(&self.trailers);
                let fault = fault.clone();
                let limited = Limited::new(stream, limit, fault, trailers, progress.clone());
                Outgoing::Stream(limited)
            }
        };
        let handshake =
            (protocol == Protocol::Websocket).then(|| upgrade::handshake(&parts.headers));
        let mut request = mapped.into_request(parts, body, &self.trailers)?;
        if let Some(handshake) = &handshake {
            upgrade::ask(handshake, request.headers_mut());
        }
        let exchange = Exchange {
            worker: self,
            config: &config,
            upstream: &remote.upstream,
            backend: route.backend.id,
            deadline: Instant::now() + route.api.timeout,
            upgrades: handshake.is_some(),
            fault,
            progress,
        };
        let answer = match call {
            // Boxed: it would make the future of every request larger to move.
            Some((kind, call)) => {
                Box::pin(backend::dispatch(kind, &call, &exchange, request, record)).await
            }
            None => backend::ask(&exchange, request, record)
                .await
                .map(|(response, lease)| Answer::of(response, lease, exchange.deadline)),
        };
        answer.map_err(|refusal| client.refused.borrow_mut().take().unwrap_or(refusal))
    }
}

/// The access key that requests of this kind are signed with.
fn credentials(kind: &dyn Kind, config: &Config) -> Result<Option<Credentials>, Refusal> {
    let Some(secret) = kind.credentials() else {
        return Ok(None);
    };
    let key = config.access_key(secret);
    key.map(|key| Some(Arc::clone(key))).ok_or_else(|| {
        Refusal::unusable_api().detail(format_args!("Secret {secret} has no access key"))
    })
}

/// Whether a request for WebSocket can be passed on: to a backend that is asked as mapped, and without a body.
fn can_upgrade(backend: &Backend, received: &Received) -> bool {
    let bodiless = match received {
        Received::Whole(_) => false,
        Received::Stream(stream) => hyper::body::Body::is_end_stream(stream),
    };
    bodiless && matches!(backend, Backend::Remote(remote) if remote.kind.is_none())
}

impl Answer {
    fn of(mut response: Response<Incoming>, lease: backend::Lease, deadline: Instant) -> Self {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = hyper::upgrade::on(&mut response);
            return Self::Upgrade(Box::new((response.into_parts().0, upgrade, lease)));
        }
        Self::Backend(response, lease, Time::Until(deadline))
    }
}

impl Received {
    fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Stream(_) => None,
        }
    }
}

/// Tells the observer of a request whose client left before there was an answer: the library then drops it where it stands.
struct Unanswered<'s> {
    record: &'s mut Record,
    observer: &'s dyn Observe,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.record.cut = true;
            self.record.status = StatusCode::from_u16(CLIENT_LEFT).unwrap_or_default();
            self.observer.finished(self.record);
        }
    }
}

/// The protocol a request uses, as an Api lists it.
fn protocol(client: &Client, cleaned: &Cleaned<'_>, version: Version) -> Protocol {
    if version == Version::HTTP_11 && upgrade::is_asked_for(cleaned.known.upgrade) {
        Protocol::Websocket
    } else if client.tls.is_some() {
        Protocol::Https
    } else {
        Protocol::Http
    }
}

/// A form whose fields are signed or mapped, or a body whose digest was sent.
fn needs_whole_body(cleaned: &Cleaned<'_>, api: &paifang_snapshot::table::Api) -> bool {
    let signed = matches!(api.auth, Auth::App(_)) && cleaned.known.key.is_some();
    let form = map::is_form(cleaned);
    let mapped = form && map::maps_form(api);
    mapped || (form && signed) || (signed && cleaned.known.content_md5.is_some())
}

/// The instant a request is judged at.
pub(crate) struct Now {
    pub(crate) wall: SystemTime,
    pub(crate) instant: Instant,
    /// Milliseconds since the epoch.
    pub(crate) unix_ms: i64,
    /// Nanoseconds since the process began.
    pub(crate) monotonic_ns: u64,
}

impl Now {
    fn read(shared: &Shared) -> Self {
        let wall = SystemTime::now();
        let unix = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let instant = Instant::now();
        let elapsed = instant.saturating_duration_since(shared.started);
        Self {
            wall,
            instant,
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            monotonic_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The UTC day, counted from the epoch.
    pub(crate) fn day(&self) -> u32 {
        u32::try_from(self.unix_ms / 86_400_000).unwrap_or(0)
    }

    /// Seconds of a clock that does not go back.
    pub(crate) fn monotonic_s(&self) -> u64 {
        self.monotonic_ns / 1_000_000_000
    }
}

impl Record {
    fn begin(client: &Client, request: &Request<Incoming>, now: &Now) -> Self {
        Self {
            id: RequestId::random(),
            arrived: now.wall,
            started: now.instant,
            peer: client.peer,
            version: request.version(),
            tls: client.tls.is_some(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: None,
            group: None,
            route: None,
            caller: None,
            upstream: None,
            attempts: 0,
            connections: 0,
            dispatched: None,
            answered: None,
            status: StatusCode::OK,
            refusal: None,
            sent_bytes: 0,
            received_bytes: None,
            cut: false,
            cut_by_backend: false,
        }
    }
}
