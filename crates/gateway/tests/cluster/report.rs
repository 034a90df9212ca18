//! Reports: to whom, and what.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use paifang_gateway::cluster;
use paifang_model::ObjectName;
use paifang_snapshot::report::{CONTROLLER_NAME, GATEWAY_NAME, PATH, Report, Reported};
use paifang_testkit::ControlPlane;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::json;

use crate::support::*;

struct Ca(CertifiedIssuer<'static, KeyPair>);

struct Pair {
    chain: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pair(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Pair {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn gateway(&self) -> Pair {
        self.pair(GATEWAY_NAME, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn controller(&self) -> Pair {
        self.pair(CONTROLLER_NAME, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

fn put_tls(site: &Site<'_>, pair: &Pair, ca: &Ca) {
    let data = |text: &str| STANDARD.encode(text);
    site.put("secrets", &json!({
        "metadata": {"name": "paifang-gateway-tls", "labels": {"paifang.dev/instance": "ALL", "paifang.dev/part": "report-tls"}},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": data(&pair.chain), "tls.key": data(&pair.key), "ca.crt": data(&ca.0.pem())},
    }));
}

struct Reader {
    lines: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    state: Reported,
}

/// Reads reports with this certificate, believing this CA; the error of whoever says no.
fn read(address: SocketAddr, ca: &Ca, pair: Option<&Pair>) -> Result<Reader, String> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.0.der().clone()).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes())
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::try_from(GATEWAY_NAME).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {GATEWAY_NAME}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(format!("answered {line:?}"));
    }
    while line != "\r\n" {
        line.clear();
        lines
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
    }
    let mut reader = Reader {
        lines,
        state: Reported::default(),
    };
    reader.next();
    Ok(reader)
}

impl Reader {
    /// The next line. Each comes as a chunk of its own.
    fn next(&mut self) -> Report {
        let mut size = String::new();
        self.lines.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.lines.read_exact(&mut chunk).unwrap();
        let report = Report::read(std::str::from_utf8(&chunk).unwrap()).unwrap();
        self.state.add(report.clone());
        report
    }

    fn until(&mut self, what: &str, done: impl Fn(&Reported) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(&self.state) {
            assert!(Instant::now() < until, "never: {what}: {:?}", self.state);
            self.next();
        }
    }
}

#[test]
fn whoever_may_know_is_told_what_is_in_force() {
    let site = Site::new(ControlPlane::shared());
    let ca = Ca::new();
    let running = Running::start(cluster::Settings {
        report: Some(([127, 0, 0, 1], 0).into()),
        zone: Some("zone-a".to_owned()),
        ..site.settings()
    });
    running.await_ready();
    let address = running.subscription.report_address().unwrap();
    let none = BTreeMap::new();
    let first = site.publish(&group("g", "one", None), &none);
    running.await_answer("g.example.com", "/mock", 200, "one");
    let controller = ca.controller();
    let waiting = {
        let (ca, controller) = (Ca::new(), ca.controller());
        thread::spawn(move || read(address, &ca, Some(&controller)).err())
    };
    thread::sleep(Duration::from_millis(300));
    put_tls(&site, &ca.gateway(), &ca);
    assert!(
        waiting.join().unwrap().is_some(),
        "whoever was waiting is told by the certificate that it is the wrong place"
    );

    let mut reader = read(address, &ca, Some(&controller)).unwrap();
    let g = ObjectName::new("ns", "g");
    assert_eq!(reader.state.groups.get(&g), Some(&first));
    assert_eq!(
        (
            reader.state.pod.as_str(),
            reader.state.instance.as_str(),
            reader.state.zone.as_str(),
            reader.state.ready
        ),
        ("gateway-0", "default", "zone-a", true)
    );
    assert_eq!(reader.state.problems.len(), 0);

    let started = Instant::now();
    let heartbeat = reader.next();
    assert!(
        heartbeat.groups.is_empty() && heartbeat.problems.is_none(),
        "{heartbeat:?}"
    );
    reader.next();
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );

    let second = site.publish(&group("g", "two", None), &none);
    reader.until("the change", |state| state.groups.get(&g) == Some(&second));
    assert_eq!(
        running.get("g.example.com", "/mock").1,
        "two",
        "it is served when it is told"
    );
    site.put_manifest("g", "garbage");
    reader.until("the problem", |state| !state.problems.is_empty());
    assert_eq!(reader.state.groups.get(&g), Some(&second));
    let problem = reader.state.problems.first().unwrap();
    assert_eq!(problem.group.as_ref(), Some(&g));
    assert!(problem.message.contains("cannot be read"), "{problem:?}");
    site.delete("configmaps", "paifang-group-g");
    reader.until("gone", |state| {
        state.groups.is_empty() && state.problems.is_empty()
    });

    // Who may not know.
    let stranger = Ca::new();
    let other = ca.pair("somebody.else", ExtendedKeyUsagePurpose::ClientAuth);
    let server = ca.pair(CONTROLLER_NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let foreign = stranger.controller();
    for (whom, pair) in [
        ("nobody", None),
        ("another CA's controller", Some(&foreign)),
        ("somebody else of our CA", Some(&other)),
        ("a server", Some(&server)),
    ] {
        assert!(read(address, &ca, pair).is_err(), "{whom}");
    }

    // The CA and both certificates are replaced: the stream goes on, the next reader must be of the new CA.
    let next = Ca::new();
    put_tls(&site, &next.gateway(), &next);
    let renewed = next.controller();
    eventually("the new certificate", || {
        read(address, &next, Some(&renewed)).is_ok()
    });
    assert!(
        read(address, &next, Some(&controller)).is_err(),
        "the old CA is believed no more"
    );
    reader.next();
    // A certificate that cannot be used leaves the last good one.
    put_tls(
        &site,
        &Pair {
            key: ca.gateway().key,
            ..next.gateway()
        },
        &next,
    );
    reader.until("the problem", |state| {
        state
            .problems
            .iter()
            .any(|problem| problem.message.contains("report port"))
    });
    assert!(read(address, &next, Some(&renewed)).is_ok());

    // At most eight at a time.
    let mut readers = Vec::new();
    while let Ok(reader) = read(address, &next, Some(&renewed)) {
        readers.push(reader);
        assert!(readers.len() < 20);
    }
    eventually("counted", || running.metric("paifang_report_readers") == 8);
    drop(readers);
    eventually("their places are free", || {
        running.metric("paifang_report_readers") == 1
    });

    // At the end.
    running.gateway.control().drain();
    let started = Instant::now();
    while reader.state.ready {
        reader.next();
    }
    assert!(
        started.elapsed() < Duration::from_millis(400),
        "at once: {:?}",
        started.elapsed()
    );
}
