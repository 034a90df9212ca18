//! Snapshots, a backend and clients.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use paifang_gateway::{AccessLog, Drain, Gateway, Settings};
use paifang_model::{HttpsPolicy, Method, ObjectName, Protocol, Stage};
use paifang_proxy::{Timeouts, network::BackendPolicy};
use paifang_snapshot::wire::{
    Api, ApiKind, Auth, Backend, BodyFormat, Call, ContentType, Dispatch, Domain, FORMAT, Group,
    HttpTarget, MockTarget, Mode, Route, Snapshot, SubDomain, Target,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn name(name: &str) -> ObjectName {
    ObjectName::new("ns", name)
}

/// Settings for loopback, every port chosen by the system, no access log, and an end without delay.
pub(crate) fn settings() -> Settings {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Settings {
        http: any,
        https: any,
        internal: any,
        admin: any,
        workers: NonZeroUsize::new(2).unwrap(),
        proxy: paifang_proxy::Settings {
            backends: BackendPolicy::with_loopback(),
            ..paifang_proxy::Settings::default()
        },
        access_log: AccessLog::Off,
        drain: Drain {
            lame_duck: Duration::ZERO,
            idle: Duration::from_millis(200),
            deadline: Duration::from_secs(5),
        },
        ..Settings::default()
    }
}

/// The same, with little patience for clients.
pub(crate) fn hasty() -> Settings {
    let short = Duration::from_millis(200);
    Settings {
        proxy: paifang_proxy::Settings {
            timeouts: Timeouts {
                head: short,
                idle: short,
                stall: short,
                handshake: short,
                ..Timeouts::default()
            },
            backends: BackendPolicy::with_loopback(),
            ..paifang_proxy::Settings::default()
        },
        ..settings()
    }
}

/// Open client connections of a listener, as the metrics tell.
pub(crate) fn open_connections(gateway: &Gateway, listener: &str) -> u64 {
    let text = ask(gateway.admin(), &get("/metrics")).body;
    let begin = format!("paifang_connections_open{{listener=\"{listener}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&begin))
        .unwrap()
        .parse()
        .unwrap()
}

/// A domain without TLS.
pub(crate) fn domain(host: &str) -> Domain {
    Domain {
        name: name(host),
        host: host.parse().unwrap(),
        stage: None,
        intranet: false,
        tls: None,
        web_socket: false,
    }
}

fn api(name: &str, path: &str) -> Api {
    Api {
        name: self::name(name),
        display_name: String::new(),
        release: 3,
        hash: "cafe".into(),
        kind: ApiKind::Common,
        protocols: [Protocol::Http, Protocol::Https].into_iter().collect(),
        method: Method::Any,
        path: path.parse().unwrap(),
        mode: Mode::Passthrough,
        body_format: BodyFormat::Stream,
        parameters: Vec::new(),
        auth: Auth::Anonymous,
        internal_only: false,
        dispatch: Dispatch {
            method: None,
            path: None,
            timeout_ms: 8_000,
            content_type: ContentType::Client,
            constants: Vec::new(),
            system: Vec::new(),
            call: Call::Plain,
        },
    }
}

/// A group with `/mock`, which answers `body`, and `/echo/*`, which leads to `backend`.
pub(crate) fn group(domains: Vec<Domain>, body: &str, backend: SocketAddr) -> Group {
    let route = |at| Route {
        stage: Stage::release(),
        api: at,
        backend: at,
        variables: BTreeMap::new(),
    };
    Group {
        format: FORMAT,
        name: name("group"),
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        instance: "default".to_owned(),
        base_path: "/".parse().unwrap(),
        qps_limit: 100_000,
        sub_domain: SubDomain {
            public: Some(
                "0123456789abcdef0123456789abcdef.api.localtest"
                    .parse()
                    .unwrap(),
            ),
            internal: Some(
                "0123456789abcdef0123456789abcdef.internal.localtest"
                    .parse()
                    .unwrap(),
            ),
            daily_quota: 1_000,
        },
        https_policy: HttpsPolicy::Http2Tls13,
        filter_app_code: false,
        domains,
        apis: vec![
            Arc::new(api("echo", "/echo/*")),
            Arc::new(api("mock", "/mock")),
        ],
        routes: vec![route(0), route(1)],
        backends: vec![
            Backend {
                label: "echo".to_owned(),
                target: Target::Http(HttpTarget {
                    address: format!("http://{backend}").parse().unwrap(),
                    host: None,
                    tls: None,
                    http2: false,
                }),
            },
            Backend {
                label: "inline".to_owned(),
                target: Target::Mock(MockTarget {
                    status: 200,
                    headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
                    body: body.to_owned(),
                }),
            },
        ],
        grants: Vec::new(),
    }
}

/// What serves this one group.
pub(crate) fn snapshot(group: Group) -> Snapshot {
    Snapshot {
        groups: [(group.name.clone(), Arc::new(group))].into(),
        ..Snapshot::default()
    }
}

/// A gateway that serves `www.example.com` without TLS.
pub(crate) fn serving(settings: Settings, backend: &Echo) -> Gateway {
    let gateway = Gateway::start(settings).unwrap();
    let applied = gateway.apply(&snapshot(group(
        vec![domain("www.example.com")],
        "hello",
        backend.address,
    )));
    assert_eq!(applied.problems, []);
    gateway
}

pub(crate) fn connect(address: Option<SocketAddr>) -> TcpStream {
    let stream = TcpStream::connect(address.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An answer as it stands on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Reads one answer; `None` when the connection ends before it begins.
pub(crate) fn read(stream: &mut impl Read) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ if head.is_empty() => return None,
            other => panic!("cut in {:?}: {other:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut answer = Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: String::new(),
    };
    let length: usize = answer
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    answer.body = String::from_utf8(body).unwrap();
    Some(answer)
}

/// Sends `request` on a connection of its own, and reads one answer.
pub(crate) fn ask(address: Option<SocketAddr>, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read(&mut stream).unwrap_or_else(|| panic!("no answer to {request:?}"))
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
}

/// Whether the other end closes, all data read.
pub(crate) fn closes(stream: &mut impl Read) -> bool {
    let mut rest = Vec::new();
    matches!(stream.read_to_end(&mut rest), Ok(0))
}

/// Tries until `done`; fails after a generous time.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// A backend that answers with the method, path and body it got. `/echo/wait` waits until it is let go.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    waiting: usize,
    seen: usize,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::<Gate>::default();
        let shared = Arc::clone(&gate);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gate = Arc::clone(&shared);
                thread::spawn(move || echo(&stream, &gate));
            }
        });
        Self { address, gate }
    }

    pub(crate) fn let_go(&self) {
        self.gate.state.lock().unwrap().open = true;
        self.gate.changed.notify_all();
    }

    /// Waits until so many requests wait to be let go.
    pub(crate) fn await_waiting(&self, count: usize) {
        eventually("requests wait at the backend", || {
            self.gate.state.lock().unwrap().waiting >= count
        });
    }

    /// Heads that arrived.
    pub(crate) fn seen(&self) -> usize {
        self.gate.state.lock().unwrap().seen
    }
}

fn echo(stream: &TcpStream, gate: &Gate) {
    let mut reader = BufReader::new(stream);
    while let Some((line, body)) = request(&mut reader, gate) {
        if line.contains("/echo/wait") {
            let mut state = gate.state.lock().unwrap();
            state.waiting += 1;
            let (state, timeout) = gate
                .changed
                .wait_timeout_while(state, PATIENCE, |state| !state.open)
                .unwrap();
            assert!(!timeout.timed_out());
            drop(state);
        }
        let target = line.rsplit_once(' ').map_or("", |(target, _)| target);
        let text = format!("{target} {}", String::from_utf8_lossy(&body));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead, gate: &Gate) -> Option<(String, Vec<u8>)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        chunked |= line == "transfer-encoding: chunked";
    }
    gate.state.lock().unwrap().seen += 1;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while chunked {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    Some((first.trim_end().to_owned(), body))
}
