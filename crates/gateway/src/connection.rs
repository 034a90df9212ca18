//! One client connection: the handshake, the protocol, its end.

use std::{
    cell::Cell,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    rt::{Executor, Read, Write},
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use paifang_model::HostPattern;
use paifang_proxy::{Client, ClientTls, Tunnel};
use rustls::server::Acceptor;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Sleep};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    flight::{Counted, Flights},
    guard::{GuardedIo, Patience},
    listen::Listener,
    metrics::HandshakeFailure,
    tls,
    worker::Local,
};

/// How HTTP is spoken, settled once for a worker.
pub(crate) struct Protocols {
    http1: http1::Builder,
    /// For connections that came while the gateway was leaving: one request each.
    last: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
    patience: Patience,
    max_head: usize,
}

/// Spawns on the thread it is called on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

/// A TLS record of one alert: fatal, `unrecognized_name` (RFC 8446 §6, RFC 6066 §3). Nothing is encrypted before a `ServerHello`.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Most that is buffered of an answer, and read at a time of a body.
const BUFFER: usize = 64 << 10;
/// Flow-control windows of a stream and of a connection (reference: edge hardening).
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams a client may have open.
const STREAMS: u32 = 100;
/// Streams that a client opened and reset and we have not seen yet (CVE-2023-44487); streams that we reset because of the client
/// (CVE-2025-8671). Beyond either the connection ends.
const RESETS_BY_CLIENT: usize = 20;
const RESETS_BY_US: usize = 1_024;
/// HTTP/2 adds 32 bytes to the size of each field (RFC 9113 §6.5.2): room for 100 of them, so that both versions take the same head.
const FIELDS_OVERHEAD: u32 = 100 * 32;
/// A silent HTTP/2 client is asked whether it is still there, and given this long to answer.
const PING: Duration = Duration::from_secs(30);

/// A hyper connection that can be asked to end.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn end(self: Pin<&mut Self>);
}

// === impl Protocols ===

impl Protocols {
    pub(crate) fn new(settings: &paifang_proxy::Settings) -> Self {
        let max_head = settings.limits.head_bytes;
        let mut http1 = http1::Builder::new();
        http1
            .half_close(true)
            .title_case_headers(true)
            .max_buf_size(BUFFER.max(max_head))
            .header_read_timeout(None);
        let mut last = http1.clone();
        last.keep_alive(false);
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(BUFFER)
            .max_header_list_size(
                u32::try_from(max_head)
                    .unwrap_or(u32::MAX)
                    .saturating_add(FIELDS_OVERHEAD),
            )
            .max_pending_accept_reset_streams(RESETS_BY_CLIENT)
            .max_local_error_reset_streams(RESETS_BY_US)
            .keep_alive_interval(PING)
            .keep_alive_timeout(settings.timeouts.stall);
        Self {
            http1,
            last,
            http2,
            patience: Patience {
                head: settings.timeouts.head,
                idle: settings.timeouts.idle,
                stall: settings.timeouts.stall,
            },
            max_head,
        }
    }
}

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves a connection from its first byte to its last.
pub(crate) async fn serve(
    local: &Rc<Local>,
    listener: Listener,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let client = |tls| Client::new(peer, listener.network(), tls);
    if listener != Listener::Https {
        return serve_http1(local, stream, client(None)).await;
    }
    let patience = local.common.settings.proxy.timeouts.handshake;
    let shaken = tokio::time::timeout(patience, shake_hands(local, stream)).await;
    match shaken.unwrap_or(Err(HandshakeFailure::Timeout)) {
        Ok((stream, tls)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            serve_http2(local, stream, client(Some(tls))).await;
        }
        Ok((stream, tls)) => serve_http1(local, stream, client(Some(tls))).await,
        Err(failure) => {
            local.counts().handshake_failed(failure);
            tracing::debug!(%peer, reason = failure.as_str(), "TLS handshake failed");
        }
    }
}

/// The TLS handshake, with the certificate of the name that the client asks for.
async fn shake_hands(
    local: &Local,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, ClientTls), HandshakeFailure> {
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .map_err(|error| failure(&error))?;
    let chosen = {
        let table = local.common.tls.load();
        table.choose(start.client_hello().server_name())
    };
    let Some(chosen) = chosen else {
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = start.io.shutdown().await;
        return Err(HandshakeFailure::UnknownName);
    };
    let stream = start
        .into_stream(chosen.config)
        .await
        .map_err(|error| failure(&error))?;
    let domain: Option<HostPattern> = chosen.domain;
    let tls = tls::client_tls(domain, stream.get_ref().1);
    Ok((stream, tls))
}

fn failure(error: &io::Error) -> HandshakeFailure {
    use rustls::Error;
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    {
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            HandshakeFailure::ClientCertificate
        }
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Connection,
    }
}

async fn serve_http1<S>(local: &Rc<Local>, stream: S, client: Client)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let client = Rc::new(client);
    let protocols = &local.protocols;
    let io = GuardedIo::new(
        stream,
        Rc::clone(&client),
        protocols.max_head,
        protocols.patience,
    );
    let proxy = Rc::clone(&local.proxy);
    let caller = Rc::clone(&client);
    // Boxed: the library keeps room for this future as long as the connection lives, and most connections are idle.
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, client, local) = (Rc::clone(&proxy), Rc::clone(&caller), Rc::clone(local));
        Box::pin(async move {
            // Made inside, where it stays: it is large, and copying it costs more than a phase of the request.
            let mut response = proxy.serve(client, request).await?;
            if local.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                headers.remove("keep-alive");
            }
            Ok::<_, Infallible>(response)
        })
    });
    if local.is_draining() {
        let _ = protocols
            .last
            .serve_connection(TokioIo::new(io), service)
            .await;
        return;
    }
    let mut connection = protocols.http1.serve_connection(TokioIo::new(io), service);
    drive(local, &mut connection).await;
    if let Some(tunnel) = client.take_tunnel() {
        // Boxed: few connections come here, and every one would have to keep room for it.
        let parts = connection.into_parts();
        Box::pin(tunnel_through(
            local,
            tunnel,
            parts.io.into_inner(),
            &parts.read_buf,
        ))
        .await;
    }
}

/// What follows a `101`. Ends with the drain, as nothing else would end it.
async fn tunnel_through<S>(local: &Rc<Local>, tunnel: Tunnel, io: GuardedIo<S>, early: &[u8])
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Some((stream, held)) = io.into_parts() else {
        return;
    };
    let early = [early, &held].concat();
    let mut told = None;
    let leaving = std::future::poll_fn(|cx: &mut Context<'_>| {
        if local.is_draining() {
            return Poll::Ready(());
        }
        told.get_or_insert_with(|| local.tell(cx.waker().clone()));
        Poll::Pending
    });
    tunnel.run(stream, &early, leaving).await;
}

async fn serve_http2(local: &Rc<Local>, stream: TlsStream<TcpStream>, client: Client) {
    let client = Rc::new(client);
    let flights = Flights::new();
    let proxy = Rc::clone(&local.proxy);
    let service = {
        let flights = Rc::clone(&flights);
        service_fn(move |request: Request<Incoming>| {
            let flight = flights.begin();
            let answer = Rc::clone(&proxy).serve(Rc::clone(&client), request);
            async move {
                let response: Response<_> = match answer.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                flight.answered();
                Ok::<_, Infallible>(response.map(|body| Counted::new(body, flight)))
            }
        })
    };
    let patience = local.protocols.patience;
    let connection = local
        .protocols
        .http2
        .serve_connection(TokioIo::new(stream), service);
    let enough = Cell::new(false);
    let mut watch = std::pin::pin!(flights.watch(patience.idle, patience.stall, &enough));
    let mut serve = std::pin::pin!(drive_until(local, connection, &enough, Duration::ZERO));
    std::future::poll_fn(|cx| {
        // A client that holds all its answers up: nothing but the end of the connection frees them.
        let stuck = watch.as_mut().poll(cx);
        if stuck.is_ready() {
            stuck
        } else {
            serve.as_mut().poll(cx)
        }
    })
    .await;
}

/// Polls an HTTP/1.1 connection until it ends. When the gateway drains, its next answer says that it is the last; one that stays idle
/// is asked to end a little later, so that a request which is on its way by then is answered and not lost.
async fn drive(local: &Rc<Local>, connection: &mut (impl Graceful + Unpin)) {
    let idle = local.common.settings.drain.idle;
    drive_until(local, connection, &Cell::new(false), idle).await;
}

/// Polls a connection until it ends, and asks it to end once `enough` is set, or `rest` after a drain began.
async fn drive_until(
    local: &Rc<Local>,
    connection: impl Graceful,
    enough: &Cell<bool>,
    rest: Duration,
) {
    let mut connection = std::pin::pin!(connection);
    let mut told = None;
    let mut asked = false;
    let mut resting: Option<Pin<Box<Sleep>>> = None;
    let mut rested = |cx: &mut Context<'_>| {
        rest.is_zero()
            || resting
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(rest)))
                .as_mut()
                .poll(cx)
                .is_ready()
    };
    let result = std::future::poll_fn(|cx: &mut Context<'_>| {
        if told.is_none() {
            // A task keeps its waker: once is enough, and nothing has to be done for each request.
            told = Some(local.tell(cx.waker().clone()));
        }
        if !asked && (enough.get() || (local.is_draining() && rested(cx))) {
            asked = true;
            connection.as_mut().end();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        tracing::trace!(%error, "a client connection ended early");
    }
}

impl<C: Graceful + Unpin> Graceful for &mut C {
    fn end(mut self: Pin<&mut Self>) {
        Pin::new(&mut **self).end();
    }
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: Read + Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Graceful for http2::Connection<I, S, LocalExecutor>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = B>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: Read + Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
