//! Large objects through the gateway: how much memory it takes, and how many bytes it moves for a second of processor time, beside nginx
//! that proxies the same in the same run.
//!
//! Both run on one core with one worker; the store and the client share the other. Rounds alternate; what is compared is processor time
//! (`schedstat`, user and system), not the clock. The store is part of this program: it makes objects out of nothing and forgets what is
//! put, so that neither disk nor page cache counts.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::{
    folder::{HOST, Site, kind, secret},
    measure::{Bench, as_f64, wait_port},
    process::{Process, free_port},
};

/// Bytes of the object.
const SIZE: usize = 1 << 30;
/// Rounds that are compared, each of every gateway.
const ROUNDS: usize = 3;
/// What is written and read at a time.
const PIECE: usize = 256 << 10;

/// What moving an object costs.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    pub(crate) action: &'static str,
    /// Most memory that the gateway had, bytes: resident, its program included.
    pub(crate) memory: f64,
    /// The same before the first object.
    pub(crate) memory_before: f64,
    /// Bytes for a second of processor time, ours to nginx's as it is by default; lowest, median and highest round.
    pub(crate) to_default: [f64; 3],
    /// Ours to nginx's with buffering off and buffers of 64 KiB.
    pub(crate) to_streaming: [f64; 3],
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Put,
}

/// Moves the object through all three, round by round.
pub(crate) fn measure(bench: &Bench, site: &Site) -> Result<Vec<Bulk>> {
    let store = store()?;
    [Action::Get, Action::Put]
        .into_iter()
        .map(|action| bulk(bench, site, store, action))
        .collect()
}

fn bulk(bench: &Bench, site: &Site, store: u16, action: Action) -> Result<Bulk> {
    let (ours, at) = bench.plainly(&folder(site, store)?)?;
    let (by_default, default_at) = nginx(bench, store, true)?;
    let (streaming, streaming_at) = nginx(bench, store, false)?;
    let memory_before = peak(ours.id())?;
    let (mut to_default, mut to_streaming) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let moved = round(&ours, at, action)?;
        to_default.push(moved / round(&by_default, default_at, action)?);
        to_streaming.push(moved / round(&streaming, streaming_at, action)?);
    }
    Ok(Bulk {
        action: match action {
            Action::Get => "GetObject",
            Action::Put => "PutObject",
        },
        memory: peak(ours.id())?,
        memory_before,
        to_default: spread(to_default),
        to_streaming: spread(to_streaming),
    })
}

/// Lowest, median, highest.
fn spread(mut rounds: Vec<f64>) -> [f64; 3] {
    rounds.sort_by(f64::total_cmp);
    [rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]]
}

/// Bytes for a nanosecond of processor time of one object.
fn round(process: &Process, address: SocketAddr, action: Action) -> Result<f64> {
    let before = processor_time(process.id())?;
    match action {
        Action::Get => get(address)?,
        Action::Put => put(address)?,
    }
    Ok(as_f64(SIZE) / (processor_time(process.id())? - before))
}

// === what is compared ===

fn folder(site: &Site, store: u16) -> Result<PathBuf> {
    let config = json!({"endpoint": format!("http://127.0.0.1:{store}"), "bucket": "bench", "region": "cn-hangzhou", "dialect": "OSS", "credentialsRef": {"name": "access"}});
    let api = |action: &str, method: &str| {
        let name = action.to_lowercase();
        kind(
            "Api",
            &name,
            json!({
                "groupRef": {"name": "store"}, "displayName": name, "auth": {"type": "Anonymous"},
                "request": {"protocols": ["HTTP"], "method": method, "path": "/o/*", "mode": "Passthrough", "bodyFormat": "Stream"},
                "backend": {"serviceRef": {"name": "store"}, "object": {"action": action, "key": "/*"}},
                "stages": {"RELEASE": {}},
            }),
        )
    };
    site.folder(
        "store",
        &[
            kind("ApiGroup", "store", json!({"displayName": "store"})),
            kind(
                "DomainBinding",
                "store",
                json!({"groupRef": {"name": "store"}, "domain": HOST, "network": "Internet"}),
            ),
            secret(
                "access",
                "Opaque",
                json!({"accessKeyId": "AKID0000TEST", "accessKeySecret": "benchmark-secret-not-for-production"}),
            ),
            kind(
                "BackendService",
                "store",
                json!({"displayName": "store", "type": "OSS", "stages": {"RELEASE": {"oss": config}}}),
            ),
            api("GetObject", "GET"),
            api("PutObject", "PUT"),
        ],
    )
}

/// nginx as a proxy of the store: with its own defaults, or passing on what it has, in buffers as large as ours.
fn nginx(bench: &Bench, store: u16, buffering: bool) -> Result<(Process, SocketAddr)> {
    let port = free_port()?;
    let name = if buffering { "buffering" } else { "streaming" };
    let home = bench.home();
    let config = home.join(format!("nginx-{name}.conf"));
    let off = if buffering {
        ""
    } else {
        "proxy_buffering off; proxy_request_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; client_body_buffer_size 64k;"
    };
    fs::write(
        &config,
        format!(
            "worker_processes 1; daemon off; master_process off; pid {home}/nginx-{name}.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {home}/{name}1; proxy_temp_path {home}/{name}2; fastcgi_temp_path {home}/{name}3; uwsgi_temp_path {home}/{name}4; scgi_temp_path {home}/{name}5;
  upstream u {{ server 127.0.0.1:{store}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; {off} }}
  }}
}}
",
            home = home.display(),
        ),
    )?;
    let process = bench.on_first_core(&["nginx", "-c"], &config, &format!("nginx-{name}.log"))?;
    wait_port(port)?;
    Ok((process, SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
}

/// Nanoseconds that all threads of a process were on a processor.
fn processor_time(id: u32) -> Result<f64> {
    let mut all = 0.0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        all += text
            .split_whitespace()
            .next()
            .context("schedstat is empty")?
            .parse::<f64>()?;
    }
    Ok(all)
}

/// Most resident memory that a process had, bytes.
fn peak(id: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    let kib: f64 = line
        .split_whitespace()
        .next()
        .context("no number")?
        .parse()?;
    Ok(kib * 1024.0)
}

// === the client ===

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

fn get(address: SocketAddr) -> Result<()> {
    let mut stream = connect(address)?;
    write!(stream, "GET /o/big HTTP/1.1\r\nHost: {HOST}\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let length = head(&mut reader, "HTTP/1.1 200")?;
    ensure!(length == SIZE, "an object of {length} bytes");
    forget(&mut reader, length)
}

fn put(address: SocketAddr) -> Result<()> {
    let mut stream = connect(address)?;
    write!(
        stream,
        "PUT /o/big HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {SIZE}\r\n\r\n"
    )?;
    give(&mut stream, SIZE)?;
    let mut reader = BufReader::new(stream);
    let length = head(&mut reader, "HTTP/1.1 200")?;
    forget(&mut reader, length)
}

/// Reads a head, which has to begin so; the length of what follows.
fn head(reader: &mut impl BufRead, begin: &str) -> Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with(begin) {
        bail!("not {begin}: {line}");
    }
    let mut length = 0;
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "closed inside a head");
        if line == "\r\n" {
            return Ok(length);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
}

fn forget(reader: &mut impl Read, mut length: usize) -> Result<()> {
    let mut piece = vec![0; PIECE];
    while length > 0 {
        let most = length.min(PIECE);
        let count = reader.read(&mut piece[..most])?;
        ensure!(count > 0, "{length} bytes are missing");
        length -= count;
    }
    Ok(())
}

fn give(writer: &mut impl Write, mut length: usize) -> Result<()> {
    let piece = vec![b'o'; PIECE];
    while length > 0 {
        let count = length.min(PIECE);
        writer.write_all(&piece[..count])?;
        length -= count;
    }
    Ok(())
}

// === the store ===

/// Starts it; its port. It ends with this program.
fn store() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that ends is the other side's choice; what is missing is noticed by the client.
            thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::with_capacity(PIECE, stream.try_clone()?);
    loop {
        let method = reader.fill_buf()?.first().copied();
        match method {
            None => return Ok(()),
            Some(b'G') => {
                head(&mut reader, "GET ")?;
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nETag: \"0\"\r\n\r\n"
                )?;
                give(&mut stream, SIZE)?;
            }
            Some(_) => {
                let length = head(&mut reader, "PUT ")?;
                forget(&mut reader, length)?;
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
        }
    }
}
