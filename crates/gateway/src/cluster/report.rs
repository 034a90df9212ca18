//! The report port: what this gateway serves, told to whoever may know, over mutual TLS.
//!
//! Nobody is answered before there is a certificate to show and a CA to believe; both are taken over when they change, and connections
//! that there are go on. A reader that does not keep up is told less often, never something old.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use paifang_snapshot::{
    report::{CONTROLLER_NAME, HEARTBEAT, PATH, Reported},
    wire::Certificate,
};
use prometheus_client::metrics::gauge::Gauge;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    version::TLS13,
};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// Readers at a time: both controllers, and a few more while they are replaced.
const MOST_READERS: usize = 8;
/// Connections that have not shown who they are.
const MOST_STRANGERS: usize = 16;
/// The longest that one may take for that, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(5);
/// A reader that acknowledges nothing for so long is gone.
const DEAF: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the port shows and believes; `None` while it does not know.
pub(super) type Tls = Option<Arc<ServerConfig>>;

/// A running report port. Dropping it ends it.
pub(super) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What readers are told from.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) state: watch::Receiver<Arc<Reported>>,
    pub(super) tls: watch::Receiver<Tls>,
    pub(super) readers: Gauge,
}

/// Believes a certificate that the CA issued to a controller, and no other of the same CA.
#[derive(Debug)]
struct Controllers {
    chain: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

// === impl Server ===

impl Server {
    /// Serves on `listener`.
    ///
    /// # Errors
    /// When the system gives no thread or runtime.
    pub(super) fn start(listener: TcpListener, sources: Sources) -> anyhow::Result<Self> {
        let address = listener
            .local_addr()
            .context("the report listener has no address")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the report port")?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let accepting = tokio::spawn(accept(listener, sources));
                let _ = stopped.await;
                accepting.abort();
            });
        };
        let thread = thread::Builder::new()
            .name("report".to_owned())
            .spawn(serve)
            .context("no thread for the report port")?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the port needs of a Secret with `tls.crt`, `tls.key` and `ca.crt`.
///
/// # Errors
/// What is wrong with it; never key material.
pub(super) fn server_config(certificate: &Certificate) -> Result<Arc<ServerConfig>, String> {
    let provider = tls::provider();
    let key = tls::certificate::certified_key(certificate, &provider)?;
    let roots = tls::certificate::roots(certificate)?;
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| format!("ca.crt cannot be used: {error}"))?;
    let name = ServerName::try_from(CONTROLLER_NAME).map_err(|error| error.to_string())?;
    let controllers = Controllers { chain, name };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| format!("no TLS 1.3: {error}"))?
        .with_client_cert_verifier(Arc::new(controllers))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would not be asked for its certificate again, whatever is believed by then.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

async fn accept(listener: TcpListener, mut sources: Sources) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the report port cannot be served");
            return;
        }
    };
    let strangers = Arc::new(Semaphore::new(MOST_STRANGERS));
    let readers = Arc::new(Semaphore::new(MOST_READERS));
    if sources.tls.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        let Ok(stranger) = Arc::clone(&strangers).acquire_owned().await else {
            return;
        };
        let Ok((stream, peer)) = listener.accept().await else {
            // No file descriptors, most likely: waiting is all that helps.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (sources, readers) = (sources.clone(), Arc::clone(&readers));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(DEAF));
            let Some(config) = sources.tls.borrow().clone() else {
                return;
            };
            let shaking = TlsAcceptor::from(config).accept(stream);
            let stream = match tokio::time::timeout(PATIENCE, shaking).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::warn!(%peer, %error, "the report port turned someone away");
                    return;
                }
                Err(_) => return,
            };
            let Ok(_reader) = readers.try_acquire_owned() else {
                tracing::warn!(%peer, most = MOST_READERS, "too many read reports");
                return;
            };
            drop(stranger);
            sources.readers.inc();
            serve(stream, &sources).await;
            sources.readers.dec();
        });
    }
}

async fn serve(stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, sources: &Sources) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, sources);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a reader of reports has gone");
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Body> {
    let (status, media_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, PATH) => (StatusCode::OK, "application/x-ndjson", lines(sources)),
        (_, PATH) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            text("only GET\n"),
        ),
        _ => (StatusCode::NOT_FOUND, "text/plain", text("no such page\n")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static(media_type),
    );
    response
}

fn text(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
}

/// The whole state, then what changes, and a line at each heartbeat.
fn lines(sources: &Sources) -> Body {
    let mut state = sources.state.clone();
    state.mark_changed();
    let before: Option<Arc<Reported>> = None;
    let lines = stream::unfold((state, before), |(mut state, before)| async move {
        let changed = tokio::time::timeout(HEARTBEAT, state.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            // The gateway is gone.
            return None;
        }
        let now = Arc::clone(&state.borrow_and_update());
        let line = match &before {
            None => now.whole(),
            Some(before) => now.since(before),
        };
        let frame = Frame::data(Bytes::from(line.line()));
        Some((Ok::<_, Infallible>(frame), (state, Some(now))))
    });
    StreamBody::new(lines).boxed_unsync()
}

// === impl Controllers ===

impl ClientCertVerifier for Controllers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
