//! The access log: one JSON object for each request that is over.
//!
//! Workers write lines into buffers of their own and hand them, full or 200 ms old, to one thread that writes. A log that cannot keep
//! up loses lines, which are counted; it never makes a request wait. Deliberately absent: queries, headers and bodies, where callers
//! put secrets.

use std::{
    cell::RefCell,
    fs::OpenOptions,
    io::{self, Write},
    mem,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use http::Version;
use paifang_model::ObjectName;
use paifang_proxy::{Record, clean::wire::REFUSED_METHOD};
use tokio::sync::Notify;

use crate::settings::AccessLog;

/// A buffer of this size is handed over.
const FULL: usize = 64 << 10;
/// A buffer of this age is.
pub(crate) const AGE: Duration = Duration::from_millis(200);
/// Buffers that may wait to be written.
const WAITING: usize = 64;

/// The writing thread. It ends when every [`Pen`] is gone and all is written.
pub(crate) struct Writer {
    sender: SyncSender<Vec<u8>>,
    thread: thread::JoinHandle<()>,
}

/// A worker's end of the log. Stays on its thread.
pub(crate) struct Pen {
    sender: SyncSender<Vec<u8>>,
    page: RefCell<Page>,
    /// Told when a line is written into an empty buffer.
    begun: Notify,
}

#[derive(Default)]
struct Page {
    text: Vec<u8>,
    lines: u64,
    clock: Clock,
}

/// The text of the second last written.
#[derive(Default)]
struct Clock {
    second: u64,
    text: [u8; 19],
}

// === impl Writer ===

impl Writer {
    /// Starts to write; nothing for [`AccessLog::Off`].
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn start(log: &AccessLog) -> anyhow::Result<Option<Self>> {
        let target: Box<dyn Write + Send> = match log {
            AccessLog::Off => return Ok(None),
            AccessLog::Stdout => Box::new(io::stdout()),
            AccessLog::Stderr => Box::new(io::stderr()),
            AccessLog::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Box::new(file.with_context(|| {
                    format!("the access log {} cannot be written", path.display())
                })?)
            }
        };
        let (sender, receiver) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(target, &receiver))
            .context("no thread for the access log")?;
        Ok(Some(Self { sender, thread }))
    }

    pub(crate) fn pen(&self) -> Pen {
        Pen {
            sender: self.sender.clone(),
            page: RefCell::default(),
            begun: Notify::new(),
        }
    }

    /// Waits until all is written. Every pen must be gone.
    pub(crate) fn finish(self) {
        drop(self.sender);
        let _ = self.thread.join();
    }
}

fn write(mut target: Box<dyn Write + Send>, pages: &Receiver<Vec<u8>>) {
    let mut broken = false;
    for page in pages {
        let written = target.write_all(&page).and_then(|()| target.flush());
        match &written {
            Err(error) if !broken => tracing::error!(%error, "the access log cannot be written"),
            Ok(()) if broken => tracing::info!("the access log can be written again"),
            _ => {}
        }
        broken = written.is_err();
    }
}

// === impl Pen ===

impl Pen {
    /// Notes a request that is over. The answer says how many lines were lost.
    pub(crate) fn note(&self, record: &Record) -> u64 {
        let mut page = self.page.borrow_mut();
        let Page { text, lines, clock } = &mut *page;
        line(text, clock, record);
        *lines += 1;
        if *lines == 1 {
            self.begun.notify_one();
        }
        if text.len() < FULL {
            return 0;
        }
        drop(page);
        self.hand_over()
    }

    /// Hands over what was written so far. The answer says how many lines were lost.
    pub(crate) fn hand_over(&self) -> u64 {
        let mut page = self.page.borrow_mut();
        let lines = mem::take(&mut page.lines);
        if lines == 0 {
            return 0;
        }
        // As much room as the last one needed, so that a busy worker grows no buffer and an idle one keeps little.
        let room = page.text.len();
        let text = mem::replace(&mut page.text, Vec::with_capacity(room));
        match self.sender.try_send(text) {
            Ok(()) => 0,
            Err(_) => lines,
        }
    }

    /// Waits for a line in an empty buffer.
    pub(crate) async fn begun(&self) {
        self.begun.notified().await;
    }
}

/// Writes one line.
fn line(out: &mut Vec<u8>, clock: &mut Clock, record: &Record) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.write(out, record.arrived);
    out.extend_from_slice(b"\",\"request_id\":\"");
    out.extend_from_slice(record.id.as_str().as_bytes());
    out.push(b'"');
    let _ = write!(
        out,
        ",\"client_ip\":\"{}\"",
        record.peer.ip().to_canonical()
    );
    // A head that was refused as bytes was never understood: it has neither method nor path.
    if record.method.as_str() != REFUSED_METHOD {
        text(out, "method", record.method.as_str());
        text(out, "path", record.uri.path());
    }
    if let Some(host) = &record.host {
        text(out, "host", host);
    }
    text(out, "protocol", protocol(record.version));
    flag(out, "tls", record.tls);
    if let Some(group) = &record.group {
        name(out, "group", &group.name);
    }
    if let Some(route) = &record.route {
        name(out, "api", &route.api.name);
        number(out, "release", route.api.release);
        text(out, "stage", route.stage.as_str());
        text(out, "backend", &route.backend.label);
    }
    if let Some(caller) = &record.caller {
        name(out, "app", &caller.name);
    }
    number(out, "status", record.status.as_u16().into());
    if let Some(refusal) = &record.refusal {
        text(out, "error_code", refusal.code.as_str());
        if !refusal.detail.is_empty() {
            text(out, "error_detail", &refusal.detail);
        }
    }
    if let Some(upstream) = &record.upstream {
        let _ = write!(out, ",\"upstream\":\"{upstream}\"");
    }
    number(out, "attempts", record.attempts.into());
    number(out, "connections", record.connections.into());
    millis(out, "total_ms", record.started.elapsed());
    if let (Some(dispatched), Some(answered)) = (record.dispatched, record.answered) {
        millis(out, "upstream_ms", between(dispatched, answered));
    }
    number(out, "sent_bytes", record.sent_bytes);
    if let Some(received) = record.received_bytes {
        number(out, "received_bytes", received);
    }
    flag(out, "cut", record.cut);
    if record.cut_by_backend {
        text(out, "cut_by", "backend");
    }
    out.extend_from_slice(b"}\n");
}

fn between(from: Instant, to: Instant) -> Duration {
    to.saturating_duration_since(from)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP",
    }
}

fn key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    out.push(b'"');
    escape(out, value);
    out.push(b'"');
}

fn name(out: &mut Vec<u8>, label: &str, name: &ObjectName) {
    key(out, label);
    out.push(b'"');
    escape(out, &name.namespace);
    out.push(b'/');
    escape(out, &name.name);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    key(out, name);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Milliseconds with three digits behind the point.
fn millis(out: &mut Vec<u8>, name: &str, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, name, micros / 1_000);
    let rest = micros % 1_000;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// The last decimal digit of a number.
fn digit(number: u64) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// RFC 8259 §7. Bytes that need no escape, all but a few, are copied at once.
fn escape(out: &mut Vec<u8>, value: &str) {
    let mut rest = value.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|&b| b < 0x20 || matches!(b, b'"' | b'\\' | 0x7f))
    {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        match from[0] {
            b @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', b]),
            b => {
                let hex = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex[usize::from(b >> 4)], hex[usize::from(b & 15)]]);
            }
        }
        rest = &from[1..];
    }
    out.extend_from_slice(rest);
}

// === impl Clock ===

impl Clock {
    /// RFC 3339 in UTC with milliseconds.
    fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second || self.text[0] == 0 {
            self.second = since.as_secs();
            self.text = second(self.second);
        }
        out.extend_from_slice(&self.text);
        let ms = u64::from(since.subsec_millis());
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }
}

/// `YYYY-MM-DDThh:mm:ss` of a second since the epoch.
pub(crate) fn second(unix: u64) -> [u8; 19] {
    let (days, of_day) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    [
        digit(year / 1000),
        digit(year / 100),
        digit(year / 10),
        digit(year),
        b'-',
        digit(month / 10),
        digit(month),
        b'-',
        digit(day / 10),
        digit(day),
        b'T',
        digit(h / 10),
        digit(h),
        b':',
        digit(m / 10),
        digit(m),
        b':',
        digit(s / 10),
        digit(s),
    ]
}

/// Year, month and day of a day since the epoch (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date_1() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_102_444_800, "2100-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(std::str::from_utf8(&second(unix)).unwrap(), text);
        }
    }

    #[test]
    fn values_cannot_break_out_of_their_line() {
        for value in [
            "plain",
            "a\"b\\c",
            "line\nend\r\t\0\x1f\x7f",
            "张三",
            "\"",
            "",
        ] {
            let mut out = Vec::new();
            out.extend_from_slice(b"{\"x\":\"");
            escape(&mut out, value);
            out.extend_from_slice(b"\"}");
            assert!(!out.iter().any(|&b| b < 0x20 || b == 0x7f), "{value:?}");
            let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(parsed["x"], value);
        }
    }

    #[test]
    fn durations_have_three_digits_behind_the_point() {
        for (micros, text) in [
            (0, "0.000"),
            (7, "0.007"),
            (1_234, "1.234"),
            (60_000_050, "60000.050"),
        ] {
            let mut out = Vec::new();
            millis(&mut out, "ms", Duration::from_micros(micros));
            assert_eq!(
                std::str::from_utf8(&out).unwrap(),
                format!(",\"ms\":{text}")
            );
        }
    }
}
