//! Listening to one gateway pod: what it says it serves, line by line, over mutual TLS.
//!
//! A gateway that cannot be reached, is silent, or says something that cannot be read is lost until it speaks again, and that is told
//! once. What lines mean together is [`paifang_snapshot::report::Reported`]'s matter; each new stream begins with the whole, and there
//! is a loss before each but the first.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use paifang_snapshot::report::{GATEWAY_NAME, PATH, Report};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{pki::Material, said};

/// How long a gateway may take to answer, and to say the next line: three of its heartbeats.
const SILENCE: Duration = Duration::from_secs(3);
/// The longest line, in bytes. The whole state of ten thousand groups fits.
const LONGEST_LINE: usize = 1 << 20;
/// What a buffer for lines keeps between two.
const USUAL_LINE: usize = 16 << 10;
/// The first and the longest pause before the next try.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A gateway pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its name; a pod that answers with another name got the address of this one.
    pub(crate) name: String,
    /// Its uid, by which it is told apart from earlier pods of the name.
    pub(crate) uid: String,
    /// Its address.
    pub(crate) ip: IpAddr,
}

/// What came of listening.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The next line of a stream.
    Report {
        /// The pod.
        uid: String,
        /// What it says.
        report: Report,
    },
    /// Nothing is known of the pod any more.
    Lost {
        /// The pod.
        uid: String,
        /// For people.
        why: String,
    },
}

/// How a stream ended.
enum Ended {
    Lost(String),
    /// Nobody listens to us any more.
    Unheard,
}

/// Listens to a pod until dropped, aborted, or until nobody takes what is heard. Connects again after every loss.
pub(crate) async fn follow(
    pod: Pod,
    port: u16,
    mut material: watch::Receiver<Arc<Material>>,
    heard: mpsc::Sender<Heard>,
) {
    let mut ear = Ear {
        pod,
        port,
        heard,
        lost: false,
    };
    let mut pause = PAUSES.0;
    loop {
        let config = material.borrow_and_update().reports.clone();
        let ended = match &config {
            Some(config) => ear.listen(config).await,
            None => Ended::Lost("there is no certificate to call it with yet".to_owned()),
        };
        let Ended::Lost(why) = ended else { return };
        if !ear.lost {
            pause = PAUSES.0;
        }
        if ear.tell_loss(why).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            // Another certificate may help at once.
            Ok(()) = material.changed() => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

struct Ear {
    pod: Pod,
    port: u16,
    heard: mpsc::Sender<Heard>,
    /// Whether a loss was told since the last report.
    lost: bool,
}

// === impl Ear ===

impl Ear {
    async fn listen(&mut self, config: &Arc<ClientConfig>) -> Ended {
        // Ends with this stream, however that ends.
        let mut connection = JoinSet::new();
        let address = SocketAddr::new(self.pod.ip, self.port);
        let opened = match timeout(SILENCE, open(address, config, &mut connection)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no answer from {address} {}", within())),
        };
        match opened {
            Ok(body) => self.read(body).await,
            Err(why) => Ended::Lost(why),
        }
    }

    async fn read(&mut self, mut body: Incoming) -> Ended {
        let mut line = Vec::new();
        let mut deadline = Instant::now() + SILENCE;
        loop {
            let data = match timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => {
                    return Ended::Lost(format!("the stream broke: {}", said(&error)));
                }
                Ok(None) => return Ended::Lost("the gateway ended the stream".to_owned()),
                Err(_) => return Ended::Lost(format!("no line {}", within())),
            };
            let mut parts = data.split(|byte| *byte == b'\n').peekable();
            while let Some(part) = parts.next() {
                if line.len() + part.len() > LONGEST_LINE {
                    return Ended::Lost(format!("a line is longer than {LONGEST_LINE} bytes"));
                }
                line.extend_from_slice(part);
                // What follows the last line break is the start of a line.
                if parts.peek().is_some() {
                    if let Err(ended) = self.take(&line).await {
                        return ended;
                    }
                    line.clear();
                    line.shrink_to(USUAL_LINE);
                    deadline = Instant::now() + SILENCE;
                }
            }
        }
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), Ended> {
        let report = std::str::from_utf8(line)
            .map_err(|error| Ended::Lost(format!("a line is not text: {error}")))?;
        let report = Report::read(report)
            .map_err(|error| Ended::Lost(format!("a line is not a report: {error}")))?;
        if report.pod != self.pod.name {
            let other: String = report.pod.chars().take(253).collect();
            let name = &self.pod.name;
            return Err(Ended::Lost(format!("pod {other} answers for {name}")));
        }
        let uid = self.pod.uid.clone();
        let told = self.heard.send(Heard::Report { uid, report }).await;
        told.map_err(|_| Ended::Unheard)?;
        self.lost = false;
        Ok(())
    }

    async fn tell_loss(&mut self, why: String) -> Result<(), mpsc::error::SendError<Heard>> {
        let pod = &self.pod.name;
        if self.lost {
            tracing::debug!(pod, why, "still nothing is heard from a gateway");
            return Ok(());
        }
        let uid = self.pod.uid.clone();
        self.heard.send(Heard::Lost { uid, why }).await?;
        self.lost = true;
        Ok(())
    }
}

async fn open(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    connection: &mut JoinSet<()>,
) -> Result<Incoming, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("{address} cannot be reached: {error}"))?;
    let name = ServerName::try_from(GATEWAY_NAME).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(|error| format!("no TLS with {address}: {error}"))?;
    let broke = |error: hyper::Error| format!("no answer from {address}: {}", said(&error));
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broke)?;
    connection.spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to a gateway broke");
        }
    });
    let request = Request::get(PATH)
        .header(header::HOST, GATEWAY_NAME)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(broke)?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => Err(format!("{address} answers {status}")),
    }
}

fn within() -> String {
    format!("within {} s", SILENCE.as_secs())
}

#[cfg(test)]
mod tests;
