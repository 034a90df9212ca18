//! The echo backend: answers every request with what it received, for quick starts and tests. Beside `standalone` it is a thread, in a cluster
//! (`paifang echo`) a pod of its own.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, process::ExitCode, thread};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use paifang_runtime::signal::Signals;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    output::{out, tell},
    standalone::PATIENCE,
};

/// The largest body that is echoed, in bytes.
const MAX_BODY: usize = 64 << 20;

/// Run a backend that answers every request with what it received
///
/// For trying things out where there is no backend yet, in a cluster above all: the image of Paifang has this command too. Each answer is one JSON
/// object with method, path, query, headers (each a list of values) and body. It has no other use, and no limits but 64 MiB of body.
///
/// When it is ready it prints one line on standard output, `ready echo=127.0.0.1:9000`. SIGTERM and SIGINT end it at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  Beside a gateway on this machine:
      paifang echo
  In a cluster, reached by its pod's address:
      paifang echo --listen 0.0.0.0:9000")]
pub(crate) struct Args {
    /// Where it listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
}

/// Runs until a signal ends it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen()?;
    let address = start(args.listen, "--listen ADDR")?;
    out(format!("ready echo={address}\n"))?;
    while signals.next_within(PATIENCE).is_none() {}
    tell("ended");
    Ok(ExitCode::SUCCESS)
}

/// Starts the backend on a thread of its own; the real address. It ends with the process. `option` is what says the address on the command line.
pub(crate) fn start(address: SocketAddr, option: &str) -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the echo server cannot start")?;
    let listener = runtime
        .block_on(TcpListener::bind(address))
        .with_context(|| {
            format!(
                "the echo server cannot listen on {address}: choose another address with {option}"
            )
        })?;
    let address = listener.local_addr()?;
    thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, serve(listener));
        })
        .context("the echo server cannot start")?;
    Ok(address)
}

async fn serve(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others end meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // A client that goes away is its own business.
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (status, echo) = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => (StatusCode::OK, echo(&head, &body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => (
            StatusCode::PAYLOAD_TOO_LARGE,
            json!({"error": "the body is too long to be echoed"}),
        ),
        Err(_) => (
            StatusCode::BAD_REQUEST,
            json!({"error": "the body ended early"}),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(format!("{echo}\n"))));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

fn echo(head: &http::request::Parts, body: &Bytes) -> Value {
    let mut echo = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": headers(&head.headers),
    });
    match std::str::from_utf8(body) {
        Ok(text) => echo["body"] = text.into(),
        Err(_) => echo["bodyBase64"] = STANDARD.encode(body).into(),
    }
    echo
}

fn headers(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.as_str()).or_default().push(text);
    }
    all
}
