//! A small HTTP client: one request on one connection, to an address of our choosing, whatever name the request is for.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) tls: bool,
    /// `127.0.0.1:8080`
    pub(crate) authority: String,
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Call<'c> {
    pub(crate) base: &'c Base,
    /// For the `Host` header, and the name in TLS.
    pub(crate) host: &'c str,
    pub(crate) method: &'c str,
    /// Path and query.
    pub(crate) target: &'c str,
    pub(crate) headers: &'c [(String, String)],
    pub(crate) body: &'c [u8],
    /// Whose certificates are believed; the system's roots without it.
    pub(crate) roots: Option<&'c Path>,
    /// For the whole call.
    pub(crate) patience: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl std::str::FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HOW: &str =
            "write http:// or https:// and an address, as in http://127.0.0.1:8080, without a path";
        let uri: Uri = text.parse().map_err(|_| HOW.to_owned())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(HOW.to_owned()),
        };
        let authority = uri.authority().ok_or(HOW)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(HOW.to_owned());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            authority: format!("{}:{port}", authority.host()),
        })
    }
}

impl Base {
    /// As a URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// Makes the call.
pub(crate) fn call(call: &Call<'_>) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(call.patience, exchange(call))
            .await
            .map_err(|_| {
                anyhow!(
                    "{} did not answer within {:?}",
                    call.base.url(),
                    call.patience
                )
            })?
    })
}

async fn exchange(call: &Call<'_>) -> anyhow::Result<Answer> {
    let request = request(call)?;
    let stream = TcpStream::connect(&call.base.authority)
        .await
        .with_context(|| {
            format!(
                "nobody listens at {}: start `paifang standalone`, or name the gateway with --url",
                call.base.url()
            )
        })?;
    stream.set_nodelay(true)?;
    if !call.base.tls {
        return send(TokioIo::new(stream), request).await;
    }
    let name = ServerName::try_from(call.host.to_owned())
        .with_context(|| format!("{} is no name for TLS", call.host))?;
    let connector = TlsConnector::from(Arc::new(tls(call.roots)?));
    let stream = connector.connect(name, stream).await.with_context(|| {
        format!(
            "TLS with {} as {} failed: name the issuer of its certificate with --cacert",
            call.base.url(),
            call.host
        )
    })?;
    send(TokioIo::new(stream), request).await
}

async fn send<I>(io: I, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await?;
    let connection = tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .context("the connection ended without an answer")?;
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .context("the answer ended early")?
        .to_bytes();
    // One request, one connection.
    connection.abort();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

fn request(call: &Call<'_>) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(Method::from_bytes(call.method.as_bytes())?)
        .uri(call.target)
        .header("host", call.host);
    for (name, value) in call.headers {
        if name.eq_ignore_ascii_case("host") {
            bail!(
                "the Host header is {}: it follows from the Api's domain",
                call.host
            );
        }
        request = request.header(name, value);
    }
    let body = Full::new(Bytes::copy_from_slice(call.body));
    request
        .body(body)
        .context("the request cannot be sent as it is")
}

fn tls(roots: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let failed = || format!("{} has no certificates in PEM form", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(failed)? {
                store.add(certificate.with_context(failed)?)?;
            }
            if store.is_empty() {
                bail!("{}", failed());
            }
        }
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                let _ = store.add(certificate);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}
