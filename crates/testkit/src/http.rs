//! HTTP/1.1 in plain text over one kept connection, blocking: for the API server behind `kubectl proxy`, for etcd, for services in a cluster.
//!
//! Small on purpose, since tests must see each reset and each closed connection: nothing is retried here and nothing is followed.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::Net;

/// The longest line of a head that is read, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

/// A client of one address.
#[derive(Debug)]
pub struct Client {
    net: Net,
    address: SocketAddr,
    host: String,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    /// Whether the server had closed a connection that had answered before, and no byte of this answer had come: HTTP allows that,
    /// and clients ask again on a new connection.
    pub stale: bool,
    /// What went wrong.
    pub error: io::Error,
}

// === impl Response ===

impl Response {
    /// The first field of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&field.1)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
    }
}

// === impl Failure ===

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let when = if self.stale {
            " (on a kept connection, before any byte)"
        } else {
            ""
        };
        write!(f, "{}{when}", self.error)
    }
}

impl std::error::Error for Failure {}

// === impl Client ===

impl Client {
    /// A client of `address` in `net`, with a Host header. Connects at the first request.
    #[must_use]
    pub fn new(net: &Net, address: SocketAddr, host: &str, timeout: Duration) -> Self {
        Self {
            net: net.clone(),
            address,
            host: host.to_owned(),
            timeout,
            connection: None,
        }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// There is no whole answer; the connection is dropped, the next request opens another.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        let kept = self.connection.take().filter(still_open);
        let reused = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open().map_err(|error| Failure {
                stale: false,
                error,
            })?,
        };
        let mut started = false;
        let answer = self
            .send(&mut connection, method, target, headers, body)
            .and_then(|()| read(&mut connection, method, &mut started));
        match answer {
            Ok((response, keep)) => {
                if keep {
                    self.connection = Some(connection);
                }
                Ok(response)
            }
            Err(error) => Err(Failure {
                stale: reused && !started && is_closed(&error),
                error,
            }),
        }
    }

    /// Closes the kept connection.
    pub fn close(&mut self) {
        self.connection = None;
    }

    fn open(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = self.net.connect(self.address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    fn send(
        &self,
        connection: &mut BufReader<TcpStream>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut message = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            message.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            message.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        message.extend_from_slice(body);
        connection.get_mut().write_all(&message)
    }
}

/// Whether the server has not closed it, as far as is known here.
fn still_open(connection: &BufReader<TcpStream>) -> bool {
    let stream = connection.get_ref();
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let quiet =
        matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    quiet && stream.set_nonblocking(false).is_ok()
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// The answer, and whether the connection may be used again.
fn read(
    connection: &mut BufReader<TcpStream>,
    method: &str,
    started: &mut bool,
) -> io::Result<(Response, bool)> {
    let (mut status, mut headers);
    loop {
        *started = !connection.fill_buf()?.is_empty();
        status = status_of(&line(connection)?)?;
        headers = fields(connection)?;
        if status >= 200 || status == 101 {
            break;
        }
    }
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    let mut keep = response
        .header("connection")
        .is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok((response, keep));
    }
    if response
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        response.body = chunks(connection)?;
    } else if let Some(length) = response.header("content-length") {
        let length = length.parse().map_err(|_| bad("the length is no number"))?;
        response.body.resize(length, 0);
        connection.read_exact(&mut response.body)?;
    } else {
        keep = false;
        connection.read_to_end(&mut response.body)?;
    }
    Ok((response, keep))
}

fn status_of(line: &str) -> io::Result<u16> {
    let code = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok())
        .ok_or_else(|| bad(&format!("no status line: {line:?}")))
}

fn fields(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(connection)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad(&format!("no field: {line:?}")))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn chunks(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let text = line(connection)?;
        let size = text.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16)
            .map_err(|_| bad(&format!("no chunk: {text:?}")))?;
        if size == 0 {
            fields(connection)?;
            return Ok(body);
        }
        let at = body.len();
        body.resize(at + size, 0);
        connection.read_exact(&mut body[at..])?;
        line(connection)?;
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    connection.by_ref().take(MAX_LINE).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed within the answer",
        )),
    }
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
