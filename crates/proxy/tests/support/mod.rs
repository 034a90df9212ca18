//! A worker in memory: real bytes in, real bytes out, a backend on loopback that records what it is asked.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use paifang_proxy::{
    Change, Client, Config, Observe, Record, Settings, Shared, Worker, network::BackendPolicy,
};
use paifang_snapshot::{
    table::Network,
    wire::{Credential, Group, Snapshot},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::LocalOptions,
};

pub type Recorded = Rc<RefCell<Vec<String>>>;

/// A worker, its backend, and what both have seen.
pub struct Bench {
    pub shared: Arc<Shared>,
    pub worker: Rc<Worker>,
    pub client: Rc<Client>,
    /// Requests that the backend received, as text.
    pub asked: Recorded,
    pub log: Rc<Log>,
}

#[derive(Default)]
pub struct Log(pub RefCell<Vec<Record>>, pub RefCell<Vec<Change>>);

impl Observe for Log {
    fn finished(&self, record: &Record) {
        self.0.borrow_mut().push(record.clone());
    }

    fn noticed(&self, change: Change) {
        self.1.borrow_mut().push(change);
    }
}

/// What the backend does with each connection.
pub type Backend = fn(TcpStream, Recorded) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Runs a test on a runtime like a gateway's worker.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test())
            .await
            .expect("the test hangs");
    });
}

/// A group with one API at `a.com`, anonymous, `ANY /*`, passed on to `backend`; `change` edits the wire form before it is loaded.
pub async fn bench(backend: Backend, change: impl FnOnce(&mut Value)) -> Bench {
    bench_with(backend, Settings::default(), change).await
}

/// The same with other settings; backends on loopback are allowed in any case.
pub async fn bench_with(
    backend: Backend,
    settings: Settings,
    change: impl FnOnce(&mut Value),
) -> Bench {
    let settings = Settings {
        backends: BackendPolicy::with_loopback(),
        ..settings
    };
    bench_refusing_loopback(backend, settings, change).await
}

/// The same, with backends on loopback allowed only if the settings say so.
pub async fn bench_refusing_loopback(
    backend: Backend,
    settings: Settings,
    change: impl FnOnce(&mut Value),
) -> Bench {
    let (address, asked) = listen(backend).await;
    let mut group = group(address);
    change(&mut group);
    let shared = Arc::new(Shared::new(settings));
    load(&shared, &group);
    let log = Rc::new(Log::default());
    let worker = Worker::new(Arc::clone(&shared), Rc::clone(&log) as Rc<dyn Observe>);
    Bench {
        shared,
        worker,
        client: Rc::new(client(Network::Public)),
        asked,
        log,
    }
}

pub fn client(network: Network) -> Client {
    Client::new("192.0.2.7:1234".parse().unwrap(), network, None)
}

/// Loads a group, with two Apps: `apps/mobile` (key `k1`/`s1`, code `c1`) and `apps/off`, disabled (key `k2`/`s2`).
pub fn load(shared: &Shared, group: &Value) {
    load_all(shared, std::slice::from_ref(group));
}

/// The same for several groups.
pub fn load_all(shared: &Shared, groups: &[Value]) {
    let groups = groups
        .iter()
        .map(|group| serde_json::from_value::<Group>(group.clone()).unwrap());
    let apps = json!({"format": 1, "apps": [
        {"name": "apps/mobile", "id": 1001, "disabled": false},
        {"name": "apps/off", "id": 1002, "disabled": true},
    ]});
    let credentials: Vec<Credential> = serde_json::from_value(json!([
        {"app": "apps/mobile", "name": "k", "proof": {"keyPair": {"app_key": "k1", "app_secret": "s1"}}},
        {"app": "apps/mobile", "name": "c", "proof": {"appCode": {"app_code": "c1"}}},
        {"app": "apps/off", "name": "k", "proof": {"keyPair": {"app_key": "k2", "app_secret": "s2"}}},
        {"app": "apps/mobile", "name": "old", "expiresAtMs": 1, "proof": {"keyPair": {"app_key": "k3", "app_secret": "s3"}}},
    ]))
    .unwrap();
    let snapshot = Snapshot {
        groups: groups
            .map(|group| (group.name.clone(), Arc::new(group)))
            .collect(),
        apps: Arc::new(serde_json::from_value(apps).unwrap()),
        credentials: Arc::new(credentials),
        ..Snapshot::default()
    };
    let (config, problems) = Config::load(&snapshot, &shared.config.load());
    assert!(problems.is_empty(), "{problems:?}");
    shared.config.store(Arc::new(config));
}

pub fn group(backend: SocketAddr) -> Value {
    json!({
        "format": 1, "name": "demo/g", "id": "g1", "instance": "default", "basePath": "/", "qpsLimit": 1000,
        "subDomain": {"public": "g1.api.localtest", "internal": "g1.internal.localtest", "dailyQuota": 1000},
        "httpsPolicy": "Http2Tls12", "filterAppCode": false,
        "domains": [{"name": "demo/d", "host": "a.com", "stage": null, "intranet": false, "tls": null, "webSocket": false}],
        "apis": [{
            "name": "demo/api", "displayName": "theApi", "release": 3, "hash": "h", "kind": "Common",
            "protocols": ["HTTP", "HTTPS"], "method": "ANY", "path": "/*", "mode": "Passthrough", "bodyFormat": "Form",
            "auth": {"type": "anonymous"}, "internalOnly": false,
            "dispatch": {"timeoutMs": 2000, "contentType": "Default"},
        }],
        "routes": [{"stage": "RELEASE", "api": 0, "backend": 0}],
        "backends": [{"label": "b", "target": {"type": "http", "address": format!("http://{backend}")}}],
        "grants": [
            {"app": "apps/mobile", "stage": "RELEASE", "api": "demo/api", "authorization": "demo/z"},
            {"app": "apps/off", "stage": "RELEASE", "authorization": "demo/z"},
        ],
    })
}

/// Starts one more backend.
pub async fn listen(backend: Backend) -> (SocketAddr, Recorded) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Recorded::default();
    let seen = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(backend(stream, Rc::clone(&seen)));
        }
    });
    (address, asked)
}

/// Reads one request: head, and body by Content-Length or in chunks.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().unwrap().parse().unwrap()
    });
    let chunked = text.contains("transfer-encoding: chunked");
    while bytes.len() < head + length || (chunked && !bytes.ends_with(b"0\r\n\r\n")) {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A backend that answers every request with 200 and `ok`.
pub fn ok(mut stream: TcpStream, asked: Recorded) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        while let Some(request) = read_request(&mut stream).await {
            let head_only = request.starts_with("HEAD ");
            asked.borrow_mut().push(request);
            let body = if head_only { "" } else { "ok" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Ca-Error-Code: FORGED\r\nKeep-Alive: 5\r\nX-Mine: yes\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
}

impl Bench {
    /// Sends raw bytes over a connection of their own and returns everything that comes back.
    pub async fn send(&self, request: &str) -> String {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let (worker, client) = (Rc::clone(&self.worker), Rc::clone(&self.client));
        let service =
            service_fn(move |request| Rc::clone(&worker).serve(Rc::clone(&client), request));
        let connection = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(far), service);
        let serving = tokio::task::spawn_local(connection);
        // A refusal may come, and the connection end, before all is written.
        let _ = near.write_all(request.as_bytes()).await;
        let _ = near.shutdown().await;
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        let _ = serving.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// `Ok(what the backend was asked)` for a 200 of the backend's, else `Err(code)` of the gateway's refusal.
    pub async fn forward(&self, request: &str) -> Result<String, String> {
        self.asked.borrow_mut().clear();
        let answer = self.send(request).await;
        match header(&answer, "x-ca-error-code") {
            Some(code) => {
                assert!(
                    self.asked.borrow().is_empty(),
                    "refused with {code}, yet the backend was asked"
                );
                assert!(header(&answer, "x-ca-request-id").is_some());
                Err(code)
            }
            None => {
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                Ok(self
                    .asked
                    .borrow()
                    .last()
                    .cloned()
                    .expect("the backend was asked"))
            }
        }
    }
}

/// The value of a header in a raw head.
pub fn header(head: &str, name: &str) -> Option<String> {
    head.split("\r\n\r\n")
        .next()?
        .split("\r\n")
        .skip(1)
        .find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
}

/// The first line.
pub fn first_line(head: &str) -> &str {
    head.split("\r\n").next().unwrap_or_default()
}

/// What follows the head.
pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
