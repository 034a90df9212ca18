//! TLS: names, client certificates, versions, HTTP/2, and certificates that change.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use paifang_gateway::{DefaultCertificate, Gateway, Settings};
use paifang_model::{HttpsPolicy, Redacted};
use paifang_snapshot::wire::{Certificate, Domain, DomainTls, Snapshot};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::support::*;

/// A CA and what it issues.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str], common_name: &str) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        Certificate {
            chain: Some(params.signed_by(&key, &self.0).unwrap().pem()),
            key: Some(Redacted::new(key.serialize_pem())),
            ..Certificate::default()
        }
    }

    fn ca(&self) -> Certificate {
        Certificate {
            ca: Some(self.0.pem()),
            ..Certificate::default()
        }
    }

    fn client(
        &self,
        certificate: Option<&Certificate>,
        alpn: &[&str],
        tls12: bool,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let versions: &[_] = if tls12 { &[&TLS12] } else { &[&TLS13] };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let chain =
                    CertificateDer::pem_slice_iter(certificate.chain.as_ref().unwrap().as_bytes());
                let key = PrivateKeyDer::from_pem_slice(
                    certificate.key.as_ref().unwrap().expose().as_bytes(),
                );
                builder
                    .with_client_auth_cert(chain.map(Result::unwrap).collect(), key.unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = alpn
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }
}

fn secure(host: &str, certificate: &str, client_ca: Option<&str>) -> Domain {
    Domain {
        tls: Some(DomainTls {
            certificate: name(certificate),
            client_ca: client_ca.map(name),
            pass_client_subject: client_ca.is_some(),
            redirect_http: false,
        }),
        ..domain(host)
    }
}

fn with_certificates(
    echo: &Echo,
    domains: Vec<Domain>,
    certificates: &[(&str, &Certificate)],
) -> Snapshot {
    let certificates = certificates
        .iter()
        .map(|(secret, certificate)| (name(secret), (*certificate).clone()));
    Snapshot {
        certificates: Arc::new(certificates.collect()),
        ..snapshot(group(domains, "hello", echo.address))
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands to the end.
fn shake(
    address: Option<SocketAddr>,
    config: &Arc<ClientConfig>,
    host: &str,
) -> Result<Tls, String> {
    let stream = connect(address);
    let connection =
        ClientConnection::new(Arc::clone(config), host.to_owned().try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn
            .complete_io(&mut tls.sock)
            .map_err(|error| error.to_string())?;
    }
    Ok(tls)
}

fn get_from(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn ask_tls(tls: &mut Tls, host: &str, path: &str) -> Answer {
    tls.write_all(get_from(host, path).as_bytes()).unwrap();
    read(tls).unwrap()
}

#[test]
fn each_name_gets_its_certificate_and_an_unknown_one_an_alert() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let exact = authority.issue(&["a.example.com"], "exact");
    let wildcard = authority.issue(&["*.example.com"], "wildcard");
    let gateway = Gateway::start(settings()).unwrap();
    let domains = vec![
        secure("a.example.com", "exact", None),
        secure("*.example.com", "wildcard", None),
    ];
    let snapshot = with_certificates(
        &echo,
        domains,
        &[("exact", &exact), ("wildcard", &wildcard)],
    );
    assert_eq!(gateway.apply(&snapshot).problems, []);
    let config = authority.client(None, &["http/1.1"], false);
    for (host, certificate) in [("a.example.com", &exact), ("b.example.com", &wildcard)] {
        let mut tls = shake(gateway.addresses().https, &config, host).unwrap();
        let expected =
            CertificateDer::from_pem_slice(certificate.chain.as_ref().unwrap().as_bytes()).unwrap();
        assert_eq!(tls.conn.peer_certificates().unwrap()[0], expected, "{host}");
        assert_eq!(ask_tls(&mut tls, host, "/mock").body, "hello");
        assert_eq!(ask_tls(&mut tls, host, "/echo/a").body, "GET /echo/a ");
    }
    for host in ["a.b.example.com", "other.org", "127.0.0.1"] {
        let error = shake(gateway.addresses().https, &config, host).unwrap_err();
        assert!(
            error.contains("UnrecognisedName") || error.contains("UnrecognizedName"),
            "{host}: {error}"
        );
    }
    let metrics = ask(gateway.admin(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").body;
    assert!(
        metrics.contains("paifang_tls_handshake_failures_total{reason=\"unknown_name\"} 3\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("paifang_certificate_expiry_timestamp_seconds{domain=\"a.example.com\"}"),
        "{metrics}"
    );
}

#[test]
fn the_default_certificate_serves_names_that_have_none() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let made = authority.issue(
        &["0123456789abcdef0123456789abcdef.api.localtest"],
        "default",
    );
    let gateway = Gateway::start(Settings {
        default_certificate: Some(DefaultCertificate {
            chain: made.chain.unwrap(),
            key: made.key.unwrap(),
        }),
        ..settings()
    })
    .unwrap();
    gateway.apply(&with_certificates(&echo, Vec::new(), &[]));
    let host = "0123456789abcdef0123456789abcdef.api.localtest";
    let config = authority.client(None, &["http/1.1"], false);
    let mut tls = shake(gateway.addresses().https, &config, host).unwrap();
    assert_eq!(ask_tls(&mut tls, host, "/mock").body, "hello");
}

#[test]
fn a_domain_that_wants_client_certificates_gets_them_or_nothing() {
    let (echo, authority, stranger) = (Echo::start(), Authority::new(), Authority::new());
    let server = authority.issue(&["a.example.com", "b.example.com"], "server");
    let gateway = Gateway::start(settings()).unwrap();
    let domains = vec![
        secure("a.example.com", "cert", Some("ca")),
        secure("b.example.com", "cert", None),
    ];
    let ca = authority.ca();
    assert_eq!(
        gateway
            .apply(&with_certificates(
                &echo,
                domains,
                &[("cert", &server), ("ca", &ca)]
            ))
            .problems,
        []
    );
    let address = gateway.addresses().https;

    let device = authority.issue(&["device"], "device 7");
    let config = authority.client(Some(&device), &["http/1.1"], false);
    let mut tls = shake(address, &config, "a.example.com").unwrap();
    assert_eq!(ask_tls(&mut tls, "a.example.com", "/mock").body, "hello");

    // TLS 1.3: the client thinks that the handshake is over before the server has seen its certificate.
    for certificate in [None, Some(stranger.issue(&["device"], "device 7"))] {
        let config = authority.client(certificate.as_ref(), &["http/1.1"], false);
        let refused = shake(address, &config, "a.example.com").and_then(|mut tls| {
            let _ = tls.write_all(get_from("a.example.com", "/mock").as_bytes());
            let mut byte = [0];
            match tls.read(&mut byte) {
                Ok(1) => Ok(()),
                Ok(_) => Err("closed".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        });
        assert!(refused.is_err(), "{certificate:?}");
    }
    // Another domain's connection is not good enough.
    let config = authority.client(None, &["http/1.1"], false);
    let mut tls = shake(address, &config, "b.example.com").unwrap();
    assert_eq!(ask_tls(&mut tls, "b.example.com", "/mock").status, 200);
    assert_eq!(ask_tls(&mut tls, "a.example.com", "/mock").status, 421);
    eventually("both failures are counted", || {
        let metrics = ask(gateway.admin(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").body;
        metrics.contains("paifang_tls_handshake_failures_total{reason=\"client_certificate\"} 2\n")
    });
}

#[test]
fn versions_and_protocols_are_those_of_the_policy() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let server = authority.issue(&["a.example.com"], "server");
    let gateway = Gateway::start(settings()).unwrap();
    let (h1, h2) = (&["http/1.1"][..], &["h2", "http/1.1"][..]);
    for (policy, alpn, tls12, expected) in [
        (
            HttpsPolicy::Http2Tls13,
            h2,
            false,
            Some((ProtocolVersion::TLSv1_3, "h2")),
        ),
        (
            HttpsPolicy::Http2Tls13,
            h2,
            true,
            Some((ProtocolVersion::TLSv1_2, "h2")),
        ),
        (
            HttpsPolicy::Http2Tls13,
            h1,
            false,
            Some((ProtocolVersion::TLSv1_3, "http/1.1")),
        ),
        (
            HttpsPolicy::Http2Tls12,
            h2,
            true,
            Some((ProtocolVersion::TLSv1_2, "h2")),
        ),
        (HttpsPolicy::Http2Tls12, h2, false, None),
        (
            HttpsPolicy::Http1Tls12,
            h2,
            false,
            Some((ProtocolVersion::TLSv1_3, "http/1.1")),
        ),
        (
            HttpsPolicy::Http1Tls12,
            h2,
            true,
            Some((ProtocolVersion::TLSv1_2, "http/1.1")),
        ),
        (HttpsPolicy::Http1Tls12, &["h2"][..], false, None),
    ] {
        let mut group = group(
            vec![secure("a.example.com", "cert", None)],
            "hello",
            echo.address,
        );
        group.https_policy = policy;
        let certificates = Arc::new([(name("cert"), server.clone())].into());
        gateway.apply(&Snapshot {
            certificates,
            ..snapshot(group)
        });
        let config = authority.client(None, alpn, tls12);
        let got = shake(gateway.addresses().https, &config, "a.example.com")
            .ok()
            .map(|tls| {
                let protocol = tls
                    .conn
                    .alpn_protocol()
                    .map(|protocol| String::from_utf8_lossy(protocol).into_owned());
                (tls.conn.protocol_version().unwrap(), protocol.unwrap())
            });
        let got = got
            .as_ref()
            .map(|(version, protocol)| (*version, protocol.as_str()));
        assert_eq!(got, expected, "{policy:?} {alpn:?} {tls12}");
    }
}

#[test]
fn a_certificate_changes_and_open_connections_stay() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let (old, new) = (
        authority.issue(&["a.example.com"], "old"),
        authority.issue(&["a.example.com"], "new"),
    );
    let gateway = Gateway::start(settings()).unwrap();
    let domains = || vec![secure("a.example.com", "cert", None)];
    gateway.apply(&with_certificates(&echo, domains(), &[("cert", &old)]));
    let config = authority.client(None, &["http/1.1"], false);
    let shown = |tls: &Tls| {
        tls.conn.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    };
    let mut open = shake(gateway.addresses().https, &config, "a.example.com").unwrap();
    let before = shown(&open);
    assert_eq!(ask_tls(&mut open, "a.example.com", "/mock").status, 200);

    let half = Certificate {
        key: new.key.clone(),
        ..old.clone()
    };
    let applied = gateway.apply(&with_certificates(&echo, domains(), &[("cert", &half)]));
    assert_eq!(applied.problems.len(), 1, "{applied:?}");
    assert_eq!(applied.problems[0].certificate, Some(name("cert")));
    let fresh = authority.client(None, &["http/1.1"], false);
    assert_eq!(
        shown(&shake(gateway.addresses().https, &fresh, "a.example.com").unwrap()),
        before
    );

    assert_eq!(
        gateway
            .apply(&with_certificates(&echo, domains(), &[("cert", &new)]))
            .problems,
        []
    );
    let fresh = authority.client(None, &["http/1.1"], false);
    assert_ne!(
        shown(&shake(gateway.addresses().https, &fresh, "a.example.com").unwrap()),
        before
    );
    assert_eq!(ask_tls(&mut open, "a.example.com", "/mock").status, 200);
}

/// An HTTP/2 client's hands on a connection to `a.example.com`.
async fn http2(
    authority: &Authority,
    address: Option<SocketAddr>,
    window: u32,
) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = tokio::net::TcpStream::connect(address.unwrap())
        .await
        .unwrap();
    let connector = TlsConnector::from(authority.client(None, &["h2"], false));
    let tls = connector
        .connect("a.example.com".try_into().unwrap(), stream)
        .await
        .unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(tls))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
}

fn request(path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("https://a.example.com{path}"))
        .body(Empty::new())
        .unwrap()
}

fn serving_tls(settings: Settings, body: &str, echo: &Echo, authority: &Authority) -> Gateway {
    let gateway = Gateway::start(settings).unwrap();
    let server = authority.issue(&["a.example.com"], "server");
    let applied = gateway.apply(&Snapshot {
        certificates: Arc::new([(name("cert"), server)].into()),
        ..snapshot(group(
            vec![secure("a.example.com", "cert", None)],
            body,
            echo.address,
        ))
    });
    assert_eq!(applied.problems, []);
    gateway
}

#[test]
fn http2_serves_many_streams_and_goes_away_when_the_gateway_does() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let gateway = serving_tls(settings(), "hello", &echo, &authority);
    run(async {
        let (sender, connection) = http2(&authority, gateway.addresses().https, 65_535).await;
        let fetch = |path: &str| {
            let (mut sender, request) = (sender.clone(), request(path));
            async move {
                let response = sender.send_request(request).await.unwrap();
                let status = response.status();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
            }
        };
        for at in 0..50 {
            let path = format!("/echo/{at}");
            assert_eq!(fetch(&path).await, (200, format!("GET {path} ")));
        }
        let waiting = tokio::spawn(fetch("/echo/wait"));
        let draining = tokio::task::spawn_blocking({
            let control = gateway.control();
            move || {
                echo.await_waiting(1);
                control.drain();
                let drained = std::thread::spawn(move || gateway.wait());
                echo.let_go();
                drained.join().unwrap()
            }
        });
        assert_eq!(waiting.await.unwrap(), (200, "GET /echo/wait ".to_owned()));
        drop(sender);
        connection.await.unwrap().unwrap();
        assert_eq!(draining.await.unwrap().cut, 0);
    });
}

#[test]
fn http2_clients_that_ask_nothing_or_take_nothing_are_let_go() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let gateway = serving_tls(hasty(), &"x".repeat(100_000), &echo, &authority);
    run(async {
        let (mut sender, connection) = http2(&authority, gateway.addresses().https, 65_535).await;
        assert_eq!(
            sender
                .send_request(request("/echo/a"))
                .await
                .unwrap()
                .status(),
            200
        );
        connection.await.unwrap().unwrap();

        let (mut sender, connection) = http2(&authority, gateway.addresses().https, 1_000).await;
        let unread = sender.send_request(request("/mock")).await.unwrap();
        assert_eq!(unread.status(), 200);
        assert!(connection.await.unwrap().is_err(), "cut, not ended");
    });
    eventually("nothing is open", || {
        open_connections(&gateway, "https") == 0
    });
}

#[test]
fn who_does_not_shake_hands_is_let_go() {
    let (echo, authority) = (Echo::start(), Authority::new());
    let gateway = serving_tls(hasty(), "hello", &echo, &authority);
    let mut silent = connect(gateway.addresses().https);
    assert!(closes(&mut silent));
    let mut plain = connect(gateway.addresses().https);
    plain.write_all(get("/mock").as_bytes()).unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    eventually("both are counted", || {
        let text = ask(gateway.admin(), &get("/metrics")).body;
        ["timeout", "protocol"].iter().all(|reason| {
            text.contains(&format!(
                "paifang_tls_handshake_failures_total{{reason=\"{reason}\"}} 1\n"
            ))
        })
    });
}
