//! A load generator that sends an exact number of requests, each prepared beforehand, over kept connections.
//!
//! One thread, closed loop: a request on every connection, then the answer of each, and again. It counts; it does not time.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use paifang_signing::{Algorithm, Key, Signer, Unsigned};
use rustls::{ClientConfig, ClientConnection, StreamOwned, client::danger};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::folder::{Fleet, HOST, KEY, SECRET};

/// Connections that are kept open.
pub(crate) const CONNECTIONS: usize = 64;

/// Which requests to send. Requests are made when they are needed, so that time stamps are fresh and nonces never repeat.
pub(crate) struct Plan<'a> {
    pub(crate) tls: bool,
    /// Name for SNI.
    pub(crate) name: String,
    make: Box<dyn Fn(usize) -> Vec<u8> + 'a>,
}

impl<'a> Plan<'a> {
    /// The same small GET again and again.
    pub(crate) fn plain(tls: bool) -> Self {
        let request = request("/a/b", HOST, &[]);
        Self {
            tls,
            name: HOST.into(),
            make: Box::new(move |_| request.clone()),
        }
    }

    /// This request again and again, without TLS.
    pub(crate) fn same(request: Vec<u8>) -> Self {
        Self {
            tls: false,
            name: HOST.into(),
            make: Box::new(move |_| request.clone()),
        }
    }

    /// Calls to Apis all over the fleet.
    pub(crate) fn open(fleet: &'a Fleet) -> Self {
        Self {
            tls: false,
            name: Fleet::host(0),
            make: Box::new(|n| {
                let api = spread(n, fleet.apis);
                request(&fleet.target(api), &Fleet::host(api), &[])
            }),
        }
    }

    /// Signed calls over TLS to the fleet's last group: a connection is for one name.
    pub(crate) fn signed(fleet: &'a Fleet) -> Self {
        let key = Key::new(SECRET);
        let last = fleet.apis - 1000;
        let make = move |n: usize| {
            let api = last + spread(n, 1000);
            let target = fleet.target(api);
            let signer = Signer {
                app_key: KEY,
                key: &key,
                algorithm: Algorithm::HmacSha256,
                stage: Some("RELEASE"),
                also_sign: &[],
            };
            let unsigned = Unsigned {
                method: "GET",
                target: &target,
                headers: &[],
                body: b"",
            };
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let nonce = format!(
                "{:08x}-{:04x}-4000-8000-{:012x}",
                n,
                std::process::id() & 0xffff,
                now.as_nanos() & 0xffff_ffff_ffff
            );
            let signed = signer
                .sign(
                    &unsigned,
                    u64::try_from(now.as_millis()).unwrap_or(0),
                    &nonce,
                )
                .expect("the fleet's targets can be signed");
            request(&target, &Fleet::host(api), &signed.headers)
        };
        Self {
            tls: true,
            name: Fleet::host(last),
            make: Box::new(make),
        }
    }
}

/// Visits every number below `count`, far apart from one another.
fn spread(n: usize, count: usize) -> usize {
    n.wrapping_mul(7919) % count
}

fn request(target: &str, host: &str, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Open connections to one gateway.
pub(crate) struct Load<'a> {
    plan: &'a Plan<'a>,
    connections: Vec<Box<dyn Peer>>,
    sent: usize,
}

trait Peer: Read + Write {}
impl<T: Read + Write> Peer for T {}

impl<'a> Load<'a> {
    pub(crate) fn open(address: SocketAddr, plan: &'a Plan<'a>) -> Result<Self> {
        let tls = plan.tls.then(client_config).transpose()?;
        let connections = (0..CONNECTIONS)
            .map(|_| connect(address, tls.as_ref(), &plan.name))
            .collect::<Result<_>>()?;
        Ok(Self {
            plan,
            connections,
            sent: 0,
        })
    }

    /// Sends this many requests, rounded up to whole rounds; every answer must be 200. How many were sent.
    pub(crate) fn send(&mut self, count: usize) -> Result<usize> {
        let rounds = count.div_ceil(self.connections.len());
        for _ in 0..rounds {
            for connection in &mut self.connections {
                connection.write_all(&(self.plan.make)(self.sent))?;
                connection.flush()?;
                self.sent += 1;
            }
            for connection in &mut self.connections {
                read_answer(connection.as_mut())?;
            }
        }
        Ok(rounds * self.connections.len())
    }
}

fn connect(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    name: &str,
) -> Result<Box<dyn Peer>> {
    let stream =
        TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    Ok(match tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(
            ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned())?)?,
            stream,
        )),
    })
}

fn read_answer(connection: &mut dyn Peer) -> Result<()> {
    let mut buffer = Vec::with_capacity(2048);
    let mut piece = [0; 4096];
    loop {
        let count = connection.read(&mut piece)?;
        ensure!(count > 0, "closed in the middle of an answer");
        buffer.extend_from_slice(&piece[..count]);
        let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("not a 200:\n{head}");
        }
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(|v| v.trim().parse::<usize>())
            })
            .context("no Content-Length")??;
        if buffer.len() == end + 4 + length {
            return Ok(());
        }
    }
}

fn client_config() -> Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .dangerous()
    .with_custom_certificate_verifier(Arc::new(Anyone))
    .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The server is our own child on loopback: its certificate is not what is measured.
#[derive(Debug)]
struct Anyone;

impl danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<danger::ServerCertVerified, rustls::Error> {
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
