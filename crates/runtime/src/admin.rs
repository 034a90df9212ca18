//! The admin port: a few pages to read, on a thread of its own. Loopback unless told otherwise.
//!
//! There is no page that changes anything, and none is meant to be reached from outside: no TLS, no authentication.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};

use crate::{metrics, metrics::Metrics, readiness::Readiness};

/// Connections served at a time; more wait in the kernel.
const MOST_CONNECTIONS: usize = 32;
/// The longest that a client may take for a request's head, and between two.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest life of a connection.
const LIFE: Duration = Duration::from_secs(120);

/// What a page shows.
#[derive(Debug, Clone)]
pub struct Page {
    /// 200 unless the page is there to say no.
    pub status: StatusCode,
    /// `Content-Type`.
    pub media_type: &'static str,
    /// The whole of it.
    pub body: Bytes,
}

/// The pages of a process.
#[derive(Default)]
pub struct Pages(Vec<Entry>);

struct Entry {
    path: &'static str,
    about: &'static str,
    show: Box<dyn Fn() -> Page + Send + Sync>,
}

/// A running admin port. Dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

// === impl Page ===

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            media_type: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }

    /// JSON.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            media_type: "application/json",
            body: text.into(),
        }
    }
}

// === impl Pages ===

impl Pages {
    /// `/livez`, `/readyz` and `/metrics`.
    pub fn standard(readiness: Readiness, metrics: Metrics) -> Self {
        Self::default()
            .with("/livez", "200 while the process lives", || {
                Page::text(StatusCode::OK, "ok\n")
            })
            .with(
                "/readyz",
                "200 when it wants traffic, else 503 and why not",
                move || ready(&readiness),
            )
            .with("/metrics", "metrics as OpenMetrics text", move || Page {
                status: StatusCode::OK,
                media_type: metrics::MEDIA_TYPE,
                body: metrics.text().into(),
            })
    }

    /// Adds a page. `about` is its line on `/`.
    #[must_use]
    pub fn with(
        mut self,
        path: &'static str,
        about: &'static str,
        show: impl Fn() -> Page + Send + Sync + 'static,
    ) -> Self {
        self.0.push(Entry {
            path,
            about,
            show: Box::new(show),
        });
        self
    }

    fn answer<B>(&self, request: &Request<B>) -> Page {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Page::text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET; nothing can be changed here\n",
            );
        }
        let path = request.uri().path();
        match self.0.iter().find(|entry| entry.path == path) {
            Some(entry) => (entry.show)(),
            None if path == "/" => self.list(),
            None => Page::text(StatusCode::NOT_FOUND, "no such page; / lists them\n"),
        }
    }

    fn list(&self) -> Page {
        let lines = self
            .0
            .iter()
            .map(|entry| format!("{:<10} {}\n", entry.path, entry.about));
        Page::text(StatusCode::OK, lines.collect::<String>())
    }
}

fn ready(readiness: &Readiness) -> Page {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        Page::text(StatusCode::OK, "ready\n")
    } else {
        Page::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", reasons.join("\n")),
        )
    }
}

// === impl Admin ===

impl Admin {
    /// Serves `pages` on `listener`.
    ///
    /// # Errors
    /// When the system gives no thread or runtime.
    pub fn serve(listener: TcpListener, pages: Pages) -> anyhow::Result<Self> {
        let address = listener
            .local_addr()
            .context("the admin listener has no address")?;
        listener
            .set_nonblocking(true)
            .context("the admin listener cannot be used")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the admin port")?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let accepting = tokio::spawn(accept(listener, Arc::new(pages)));
                let _ = stopped.await;
                accepting.abort();
            });
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(serve)
            .context("no thread for the admin port")?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin port cannot be served");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptors, most likely: waiting is all that helps.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = respond(pages.answer(&request));
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(LIFE, connection).await;
            drop(permit);
        });
    }
}

fn respond(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static(page.media_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-store"),
    );
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn pages_can_be_read_and_nothing_else() {
        let readiness = Readiness::new();
        let hold = readiness.hold("the first configuration is not loaded");
        let pages = Pages::standard(readiness, Metrics::new("test", "1"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = Admin::serve(listener, pages).unwrap();

        assert!(ask(admin.address(), "GET /livez").starts_with("HTTP/1.1 200"));
        let unready = ask(admin.address(), "GET /readyz");
        assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
        assert!(
            unready.ends_with("the first configuration is not loaded\n"),
            "{unready}"
        );
        drop(hold);
        assert!(ask(admin.address(), "GET /readyz").starts_with("HTTP/1.1 200"));
        assert!(ask(admin.address(), "GET /metrics").contains("test_build_info"));
        assert!(ask(admin.address(), "GET /").contains("/readyz"));
        assert!(ask(admin.address(), "GET /nothing").starts_with("HTTP/1.1 404"));
        assert!(ask(admin.address(), "POST /readyz").starts_with("HTTP/1.1 405"));
        assert!(ask(admin.address(), "DELETE /livez").starts_with("HTTP/1.1 405"));
    }
}
