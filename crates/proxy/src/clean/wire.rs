//! HTTP/1.1 framing as it stands on the wire, checked before the HTTP library sees a byte.
//!
//! The library frames messages safely, but it repairs or hides what a gateway must refuse: bare line feeds, `Content-Length` beside
//! `Transfer-Encoding` or twice, a second `Host`, a fragment in the target (reference: measured table of 47 payloads). [`Wire`] is
//! a state machine without I/O: it is shown bytes as they arrive and says how many of them are sound. It stops at every message
//! boundary, so that nothing of the next request passes before this one has been understood.
//!
//! Rules: RFC 9112 §2.2 (line ends), §3 (request line), §3.2 (Host), §5 (fields), §6 (body length), §7.1 (chunks).

use super::head::MAX_FIELDS;
use crate::refusal::Refusal;

/// What may pass of the bytes shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This many bytes from the front are sound; show the rest again afterwards. Never 0.
    Pass(usize),
    /// Nothing can be said yet; show these bytes again with more behind them.
    More,
    /// The request must be answered with this refusal, and the connection closed.
    Refuse(Refusal),
}

/// Where in the byte stream of a connection we are.
#[derive(Debug)]
pub struct Wire {
    state: State,
    /// Bytes of an incomplete head, chunk line or trailer section already looked at for its end.
    seen: usize,
    max_head: usize,
    /// Size of the trailer section so far.
    trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before or inside a request's head.
    Head,
    /// Inside a body of known length, this many bytes before its end.
    Body(u64),
    /// Before a chunk-size line.
    ChunkLine,
    /// Inside a chunk's data.
    Chunk(u64),
    /// Before the line end behind a chunk's data.
    ChunkEnd,
    /// Inside the trailer section.
    Trailers,
    /// After a refusal.
    Refused,
}

/// Length of the body that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// The method of [`SUBSTITUTE`]. No client can send it: [`Wire`] refuses methods it does not know.
pub const REFUSED_METHOD: &str = "PAIFANG-REFUSED";

/// What the HTTP library is shown instead of a refused head, so that the answer leaves by the same way as every other and in its
/// turn. The refusal itself waits in the connection's [`crate::Client`].
pub const SUBSTITUTE: &[u8] =
    b"PAIFANG-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Longest target that the HTTP library takes, in bytes.
const MAX_TARGET: usize = 65_533;
/// Longest chunk-size line, extensions included.
const MAX_CHUNK_LINE: usize = 256;
/// Most digits of a chunk size: 2^60 is more than any limit.
const MAX_CHUNK_DIGITS: usize = 15;

// === impl Wire ===

impl Wire {
    /// At the beginning of a connection. `max_head` bounds request line and headers together, in bytes (Ref §10).
    pub fn new(max_head: usize) -> Self {
        Self {
            state: State::Head,
            seen: 0,
            max_head,
            trailers: 0,
        }
    }

    /// Whether a request's head has begun to arrive, is complete, or neither: between requests this is true.
    pub fn between_requests(&self) -> bool {
        self.state == State::Head
    }

    /// Whether a request's body is still arriving.
    pub fn in_body(&self) -> bool {
        !matches!(self.state, State::Head | State::Refused)
    }

    /// Looks at all bytes received and not passed yet.
    pub fn inspect(&mut self, input: &[u8]) -> Verdict {
        if input.is_empty() {
            return Verdict::More;
        }
        let verdict = match self.state {
            State::Head => self.head(input),
            State::Body(left) => self.data(input, left, State::Body, State::Head),
            State::ChunkLine => self.chunk_line(input),
            State::Chunk(left) => self.data(input, left, State::Chunk, State::ChunkEnd),
            State::ChunkEnd => self.chunk_end(input),
            State::Trailers => self.trailer_line(input),
            State::Refused => Verdict::More,
        };
        match &verdict {
            Verdict::Pass(_) => self.seen = 0,
            Verdict::More => {}
            Verdict::Refuse(_) => self.state = State::Refused,
        }
        verdict
    }

    fn head(&mut self, input: &[u8]) -> Verdict {
        // RFC 9112 §2.2: one empty line in front of a request line is tolerated.
        let start = if input.starts_with(b"\r\n") { 2 } else { 0 };
        let Some(end) = head_end(input, self.seen.max(start)) else {
            if input.len() >= self.max_head {
                return Verdict::Refuse(Refusal::url_too_large());
            }
            self.seen = input.len().saturating_sub(3);
            return match early_fault(&input[start..]) {
                Some(refusal) => Verdict::Refuse(refusal.closing()),
                None => Verdict::More,
            };
        };
        if end > self.max_head {
            return Verdict::Refuse(Refusal::url_too_large());
        }
        match check_head(&input[start..end]) {
            Ok(Framing::None | Framing::Length(0)) => {}
            Ok(Framing::Length(length)) => self.state = State::Body(length),
            Ok(Framing::Chunked) => {
                self.state = State::ChunkLine;
                self.trailers = 0;
            }
            Err(refusal) => return Verdict::Refuse(refusal.closing()),
        }
        Verdict::Pass(end)
    }

    fn data(&mut self, input: &[u8], left: u64, here: fn(u64) -> State, after: State) -> Verdict {
        let pass = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let left = left - pass as u64;
        self.state = if left == 0 { after } else { here(left) };
        Verdict::Pass(pass)
    }

    fn chunk_line(&mut self, input: &[u8]) -> Verdict {
        let line = match take_line(input, MAX_CHUNK_LINE) {
            Line::Whole(line) => line,
            Line::Partial => return Verdict::More,
            Line::Bad => return refuse_body("chunk size line is malformed"),
        };
        let digits = line
            .iter()
            .position(|&b| b == b';')
            .map_or(line, |at| &line[..at]);
        let Some(size) = chunk_size(digits) else {
            return refuse_body("chunk size is malformed");
        };
        if has_control(line) {
            return refuse_body("chunk extension is malformed");
        }
        self.state = if size == 0 {
            State::Trailers
        } else {
            State::Chunk(size)
        };
        Verdict::Pass(line.len() + 2)
    }

    fn chunk_end(&mut self, input: &[u8]) -> Verdict {
        match input {
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkLine;
                Verdict::Pass(2)
            }
            [b'\r'] => Verdict::More,
            _ => refuse_body("chunk data is not followed by CRLF"),
        }
    }

    fn trailer_line(&mut self, input: &[u8]) -> Verdict {
        let line = match take_line(input, self.max_head) {
            Line::Whole(line) => line,
            Line::Partial => return Verdict::More,
            Line::Bad => return refuse_body("trailer section is malformed"),
        };
        self.trailers += line.len() + 2;
        if self.trailers > self.max_head {
            return refuse_body("trailer section is too long");
        }
        if line.is_empty() {
            self.state = State::Head;
        } else if check_field(line).is_err() {
            return refuse_body("trailer section is malformed");
        }
        Verdict::Pass(line.len() + 2)
    }
}

fn refuse_body(reason: &str) -> Verdict {
    Verdict::Refuse(Refusal::body(reason).closing())
}

enum Line<'i> {
    /// Without its CRLF.
    Whole(&'i [u8]),
    Partial,
    Bad,
}

fn take_line(input: &[u8], limit: usize) -> Line<'_> {
    match memchr::memchr(b'\n', input) {
        Some(at) if at > 0 && at <= limit && input[at - 1] == b'\r' => {
            let line = &input[..at - 1];
            if memchr::memchr(b'\r', line).is_some() {
                Line::Bad
            } else {
                Line::Whole(line)
            }
        }
        None if input.len() <= limit => Line::Partial,
        _ => Line::Bad,
    }
}

/// Position behind the empty line that ends a head, looking from `from` on.
fn head_end(input: &[u8], from: usize) -> Option<usize> {
    let from = from.min(input.len());
    let mut at = from;
    while let Some(found) = memchr::memchr(b'\n', &input[at..]) {
        at += found + 1;
        // `\n\r\n` and `\n\n` both end what other parsers take for a head; the second is refused by the line check.
        match &input[at..] {
            [b'\r', b'\n', ..] => return Some(at + 2),
            [b'\n', ..] => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Faults that are certain before the head is complete, so that a client that waits for an answer gets one.
fn early_fault(input: &[u8]) -> Option<Refusal> {
    let at = memchr::memchr(b'\n', input)?;
    if at == 0 || input[at - 1] != b'\r' {
        return Some(Refusal::request_line("line ends in a bare LF"));
    }
    request_line(&input[..at - 1]).err()
}

fn check_head(head: &[u8]) -> Result<Framing, Refusal> {
    let mut lines = Lines { rest: head };
    let first = lines
        .next()
        .ok_or_else(|| Refusal::request_line("no request line"))??;
    let version = request_line(first)?;
    let mut fields = Fields::default();
    for (at, line) in lines.enumerate() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if at == MAX_FIELDS {
            return Err(Refusal::url_too_large());
        }
        let colon = check_field(line)?;
        fields.note(&line[..colon], &line[colon + 1..])?;
    }
    fields.framing(version)
}

/// Lines of a complete head, without their CRLF.
struct Lines<'h> {
    rest: &'h [u8],
}

impl<'h> Iterator for Lines<'h> {
    type Item = Result<&'h [u8], Refusal>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(at + 1);
        self.rest = rest;
        Some(match line {
            [line @ .., b'\r', b'\n'] => Ok(line),
            _ => Err(Refusal::request_line("line ends in a bare LF")),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// `method SP request-target SP HTTP-version`, each separated by exactly one space (RFC 9112 §3).
fn request_line(line: &[u8]) -> Result<Version, Refusal> {
    let malformed = || Refusal::request_line("request line is malformed");
    let method_end = memchr::memchr(b' ', line).ok_or_else(malformed)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target_end = memchr::memchr(b' ', rest).ok_or_else(malformed)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    if method.is_empty() || !method.iter().all(|&b| TOKEN[b as usize]) {
        return Err(malformed());
    }
    if !matches!(
        method,
        b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"PATCH" | b"OPTIONS"
    ) {
        return Err(Refusal::method(&String::from_utf8_lossy(method)));
    }
    if target.is_empty() {
        return Err(malformed());
    }
    if !is_target(target) {
        return Err(Refusal::uri_characters());
    }
    if target.len() > MAX_TARGET {
        return Err(Refusal::url_too_large());
    }
    if target[0] != b'/' && http::Uri::try_from(target).is_err() {
        return Err(Refusal::request_line("target is not a URL"));
    }
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ => Err(Refusal::request_line("version is not HTTP/1.1 or HTTP/1.0")),
    }
}

/// Checks `name:value`, and says where the colon is. No folding, no space before the colon, no control character (RFC 9112 §5).
#[inline]
fn check_field(line: &[u8]) -> Result<usize, Refusal> {
    let colon = memchr::memchr(b':', line)
        .ok_or_else(|| Refusal::header(&printable(line), "has no colon"))?;
    let name = &line[..colon];
    if name.is_empty() {
        return Err(Refusal::header("", "has no name"));
    }
    if !name.iter().all(|&b| TOKEN[b as usize]) {
        return Err(Refusal::header(&printable(name), "has an illegal name"));
    }
    if has_control(&line[colon + 1..]) {
        return Err(Refusal::header(
            &printable(name),
            "has a control character in its value",
        ));
    }
    Ok(colon)
}

/// The fields that decide where a message ends.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    host: bool,
}

impl Fields {
    #[inline]
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.note_host(),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.note_encoding(value),
            _ => Ok(()),
        }
    }

    fn note_host(&mut self) -> Result<(), Refusal> {
        if self.host {
            return Err(Refusal::header("Host", "appears twice"));
        }
        self.host = true;
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::header("Content-Length", "appears twice"));
        }
        let digits = value.trim_ascii();
        let length = std::str::from_utf8(digits)
            .ok()
            .filter(|text| {
                !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit())
            })
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Refusal::header("Content-Length", "is not a number"))?;
        self.length = Some(length);
        Ok(())
    }

    fn note_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::header("Transfer-Encoding", "appears twice"));
        }
        if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::header("Transfer-Encoding", "is not `chunked`"));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        if !self.host {
            return Err(Refusal::missing_header("Host"));
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Refusal::header(
                "Content-Length",
                "stands beside Transfer-Encoding",
            )),
            (_, true) if version == Version::Http10 => Err(Refusal::header(
                "Transfer-Encoding",
                "is not defined for HTTP/1.0",
            )),
            (_, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::None),
        }
    }
}

/// Whether these bytes may stand in a request target, of either version of HTTP.
pub(super) fn is_target(text: &[u8]) -> bool {
    text.iter().all(|&b| TARGET[b as usize])
}

fn chunk_size(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_CHUNK_DIGITS {
        return None;
    }
    digits.iter().try_fold(0_u64, |size, &b| {
        let digit = char::from(b).to_digit(16)?;
        Some(size << 4 | u64::from(digit))
    })
}

/// Whether a control character other than a tab is present. Eight bytes at a time: values are most of a head.
#[inline]
fn has_control(text: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let is_control = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
    let mut chunks = text.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let below_space = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let delete = word ^ (LOW * 0x7f);
        let is_delete = delete.wrapping_sub(LOW) & !delete & HIGH;
        if below_space | is_delete != 0 && chunk.iter().any(is_control) {
            return true;
        }
    }
    chunks.remainder().iter().any(is_control)
}

fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(64)
        .map(|&b| {
            if (0x20..0x7f).contains(&b) {
                char::from(b)
            } else {
                '?'
            }
        })
        .collect()
}

/// RFC 9110 §5.6.2 `tchar`.
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", false);

/// Bytes of a request target. RFC 3986 without the fragment; `{`, `|` and `}` are tolerated, as deployed clients send them.
const TARGET: [bool; 256] = table(b"-._~:/?[]@!$&'()*+,;=%{|}", false);

const fn table(extra: &[u8], initial: bool) -> [bool; 256] {
    let mut table = [initial; 256];
    let mut b = 0;
    while b < 256 {
        if (b as u8).is_ascii_alphanumeric() {
            table[b] = true;
        }
        b += 1;
    }
    let mut at = 0;
    while at < extra.len() {
        table[extra[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::refusal::Code;

    /// Feeds bytes whole; answers how many passed, or the refusal's code.
    fn run(input: &[u8]) -> Result<usize, Code> {
        feed(input, input.len())
    }

    /// Feeds bytes in pieces of `step`.
    fn feed(input: &[u8], step: usize) -> Result<usize, Code> {
        let mut wire = Wire::new(8192);
        let (mut passed, mut shown) = (0, 0);
        while shown < input.len() {
            shown = (shown + step).min(input.len());
            loop {
                match wire.inspect(&input[passed..shown]) {
                    Verdict::Pass(count) => passed += count,
                    Verdict::More => break,
                    Verdict::Refuse(refusal) => {
                        assert!(refusal.close);
                        return Err(refusal.code);
                    }
                }
            }
        }
        Ok(passed)
    }

    #[test]
    fn sound_requests_pass_whole_and_in_pieces() {
        let rows: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\nGET /a?b=c HTTP/1.1\r\nHost: a\r\nX-Y: z\tz\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.0\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe5\xbc\xa0\r\n\r\n",
        ];
        for row in rows {
            for step in 1..=row.len() {
                assert_eq!(
                    feed(row, step),
                    Ok(row.len()),
                    "{} by {step}",
                    printable(row)
                );
            }
        }
    }

    #[test]
    fn attacks_are_refused_by_name() {
        let head =
            |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
        let chunked =
            |body: &str| [head("Transfer-Encoding: chunked"), body.as_bytes().to_vec()].concat();
        let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
        let rows = [
            (
                "length_beside_chunked",
                head("Content-Length: 3\r\nTransfer-Encoding: chunked"),
                Code::I400HD,
            ),
            (
                "chunked_beside_length",
                head("Transfer-Encoding: chunked\r\nContent-Length: 3"),
                Code::I400HD,
            ),
            (
                "leading_comma_in_te",
                head("Transfer-Encoding: ,chunked"),
                Code::I400HD,
            ),
            (
                "two_te",
                head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
                Code::I400HD,
            ),
            (
                "te_list",
                head("Transfer-Encoding: gzip, chunked"),
                Code::I400HD,
            ),
            (
                "te_identity",
                head("Transfer-Encoding: identity"),
                Code::I400HD,
            ),
            (
                "te_space_before_colon",
                head("Transfer-Encoding : chunked"),
                Code::I400HD,
            ),
            (
                "te_in_http_1_0",
                b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                Code::I400HD,
            ),
            (
                "chunk_size_0x",
                chunked("0x5\r\nabcde\r\n0\r\n\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_size_plus",
                chunked("+5\r\nabcde\r\n0\r\n\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_size_underscore",
                chunked("5_0\r\nabcde\r\n0\r\n\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_size_space",
                chunked(" 5\r\nabcde\r\n0\r\n\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_size_overflow",
                chunked("fffffffffffffffff\r\nabcde\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_data_without_crlf",
                chunked("5\r\nabcdeXX0\r\n\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_line_bare_lf",
                chunked("5\nabcde\r\n0\r\n\r\n"),
                Code::I400BD,
            ),
            (
                "chunk_data_bare_lf",
                chunked("5\r\nabcde\n0\r\n\r\n"),
                Code::I400BD,
            ),
            ("trailer_bare_lf", chunked("0\r\nX: y\n\r\n"), Code::I400BD),
            (
                "bare_lf_in_head",
                b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".to_vec(),
                Code::I400RU,
            ),
            (
                "bare_lf_everywhere",
                b"GET / HTTP/1.1\nHost: a\n\n".to_vec(),
                Code::I400RU,
            ),
            ("bare_cr_in_value", head("X-A: a\rX-B: b"), Code::I400HD),
            ("nul_in_value", head("X-A: a\0b"), Code::I400HD),
            (
                "delete_in_value",
                head("X-A: aaaaaaaaaaaa\x7fb"),
                Code::I400HD,
            ),
            ("folded_value", head("X-A: a\r\n b"), Code::I400HD),
            ("line_without_colon", head("X-A"), Code::I400HD),
            ("empty_name", head(": a"), Code::I400HD),
            ("length_list", head("Content-Length: 5, 5"), Code::I400HD),
            (
                "length_twice",
                head("Content-Length: 5\r\nContent-Length: 5"),
                Code::I400HD,
            ),
            ("length_plus", head("Content-Length: +5"), Code::I400HD),
            ("length_hex", head("Content-Length: 0x5"), Code::I400HD),
            ("length_empty", head("Content-Length:"), Code::I400HD),
            ("length_negative", head("Content-Length: -1"), Code::I400HD),
            (
                "length_too_long",
                head("Content-Length: 99999999999999999999"),
                Code::I400HD,
            ),
            ("no_host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Code::I400MH),
            ("two_hosts", head("Host: b"), Code::I400HD),
            ("fragment", line("GET /a#b HTTP/1.1"), Code::I400PH),
            ("backslash", line("GET /a\\b HTTP/1.1"), Code::I400PH),
            ("raw_8_bit", line("GET /\u{5f20} HTTP/1.1"), Code::I400PH),
            ("version_1_2", line("GET / HTTP/1.2"), Code::I400RU),
            ("version_2", line("GET / HTTP/2.0"), Code::I400RU),
            ("no_url", line("GET http:// HTTP/1.1"), Code::I400RU),
            (
                "bad_authority",
                line("GET http://a:b@[c/ HTTP/1.1"),
                Code::I400RU,
            ),
            ("no_host_but_port", line("GET :80/a HTTP/1.1"), Code::I400RU),
            ("two_spaces", line("GET  / HTTP/1.1"), Code::I400RU),
            ("space_in_target", line("GET /a b HTTP/1.1"), Code::I400RU),
            ("trace", line("TRACE / HTTP/1.1"), Code::I405UM),
            ("connect", line("CONNECT a:80 HTTP/1.1"), Code::I405UM),
            ("lower_case_method", line("get / HTTP/1.1"), Code::I405UM),
            ("http_0_9", b"GET /\r\n\r\n".to_vec(), Code::I400RU),
            (
                "binary",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
                Code::I400RU,
            ),
        ];
        for (name, input, expected) in rows {
            assert_eq!(run(&input), Err(expected), "{name}");
            for step in 1..8 {
                assert_eq!(feed(&input, step), Err(expected), "{name} by {step}");
            }
        }
    }

    #[test]
    fn heads_are_bounded_even_when_they_never_end() {
        let endless = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(),
            &[b'a'; 9000],
        ]
        .concat();
        assert_eq!(run(&endless), Err(Code::I413UL));
        assert_eq!(feed(&endless, 100), Err(Code::I413UL));
        let fields = |count: usize| {
            let more = "X: y\r\n".repeat(count - 1);
            format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n").into_bytes()
        };
        assert!(run(&fields(MAX_FIELDS)).is_ok());
        assert_eq!(run(&fields(MAX_FIELDS + 1)), Err(Code::I413UL));
        let long_line = [
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;".as_slice(),
            &[b'a'; 300],
        ]
        .concat();
        assert_eq!(run(&long_line), Err(Code::I400BD));
    }

    /// How far a stream passes, in pieces that end at `cuts`; and whether it is refused there.
    fn outcome(input: &[u8], cuts: &[usize]) -> (usize, bool) {
        let mut wire = Wire::new(200);
        let mut passed = 0;
        for &shown in cuts.iter().chain([&input.len()]) {
            let shown = shown.clamp(passed, input.len());
            loop {
                match wire.inspect(&input[passed..shown]) {
                    Verdict::Pass(count) => {
                        assert!(count > 0 && passed + count <= shown);
                        passed += count;
                    }
                    Verdict::More => break,
                    Verdict::Refuse(_) => return (passed, true),
                }
            }
        }
        (passed, false)
    }

    fn any_stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n",
            "POST /",
            " HTTP/1.1\r\n",
            "Host: a\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
            "\r\n",
            "\r",
            "\n",
            "3\r\nabc\r\n",
            "5;x=y\r\nab\r\nc",
            "0\r\n",
            "0\r\n\r\n",
            "0\r\nX: y\r\n\r\n",
            "fffffffffffffff\r\n",
            "abcde",
            ":",
            " ",
            "\0",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn what_passes_does_not_depend_on_how_it_arrives(
            input in any_stream(),
            mut cuts in prop::collection::vec(0_usize..600, 0..20),
        ) {
            cuts.sort_unstable();
            let whole = outcome(&input, &[]);
            prop_assert_eq!(outcome(&input, &cuts), whole);
            let each: Vec<usize> = (0..input.len()).collect();
            prop_assert_eq!(outcome(&input, &each), whole);
        }
    }

    #[test]
    fn control_characters_are_found_at_every_position() {
        for length in 0..40 {
            let clean = vec![b'a'; length];
            assert!(!has_control(&clean));
            for at in 0..length {
                for bad in [0, 1, b'\n', b'\r', 0x1f, 0x7f] {
                    let mut text = clean.clone();
                    text[at] = bad;
                    assert!(has_control(&text), "{bad} at {at} of {length}");
                }
                for good in [b'\t', b' ', 0x80, 0xff, b'~'] {
                    let mut text = clean.clone();
                    text[at] = good;
                    assert!(!has_control(&text), "{good} at {at} of {length}");
                }
            }
        }
    }
}
