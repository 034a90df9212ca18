//! From addresses to a TCP connection: each is judged, then the first that answers is taken.
//!
//! While one does not answer the next is tried beside it, after a quarter of a second, or at once when one fails (RFC 8305 §5): an
//! address that swallows packets costs that quarter and not the whole time for connecting.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{net::TcpStream, time::Sleep};

use super::outlier::Outliers;
use crate::{network::BackendPolicy, refusal::Refusal};

/// How long an attempt is alone.
const ALONE: Duration = Duration::from_millis(250);
/// Most addresses of one name that are tried.
const MOST: usize = 8;

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Attempts under way, and what is left to try.
struct Race<'a> {
    left: std::slice::Iter<'a, SocketAddr>,
    running: Vec<(SocketAddr, Attempt)>,
    alone: Option<Pin<Box<Sleep>>>,
    last: Option<Refusal>,
    outliers: &'a Outliers,
}

/// A connection to the first of `addresses` that is allowed and answers.
pub(super) async fn dial(
    host: &str,
    addresses: &[SocketAddr],
    policy: &BackendPolicy,
    outliers: &Outliers,
) -> Result<(TcpStream, SocketAddr), Refusal> {
    let mut allowed: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    let mut last = Refusal::backend_unresolved(host);
    for &address in addresses {
        if policy.allows(address.ip()) {
            allowed.push(address);
        } else {
            last = Refusal::backend_illegal(host, address);
        }
    }
    let (stream, address) = match &allowed[..] {
        [] => return Err(last),
        [only] => {
            let stream = TcpStream::connect(only).await;
            (stream.map_err(|error| failed(&error))?, *only)
        }
        _ => {
            outliers.put_last(&mut allowed);
            allowed.truncate(MOST);
            let mut race = Race::new(&allowed, outliers);
            std::future::poll_fn(|cx| race.poll(cx)).await?
        }
    };
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    Ok((stream, address))
}

/// What is told of a connection that could not be made.
fn failed(error: &io::Error) -> Refusal {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let reason = match error.kind() {
        ConnectionRefused => "refused",
        TimedOut => "timed out",
        HostUnreachable | NetworkUnreachable => "unreachable",
        _ => "failed",
    };
    Refusal::backend_connect(reason).detail(error)
}

// === impl Race ===

impl<'a> Race<'a> {
    fn new(addresses: &'a [SocketAddr], outliers: &'a Outliers) -> Self {
        Self {
            left: addresses.iter(),
            running: Vec::new(),
            alone: None,
            last: None,
            outliers,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(TcpStream, SocketAddr), Refusal>> {
        loop {
            let mut at = 0;
            while let Some((address, attempt)) = self.running.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Ok(stream)) => {
                        self.outliers.reached(*address);
                        return Poll::Ready(Ok((stream, *address)));
                    }
                    Poll::Ready(Err(error)) => {
                        self.outliers.failed(*address);
                        self.last = Some(failed(&error));
                        drop(self.running.swap_remove(at));
                        self.alone = None;
                    }
                }
            }
            if let Some(alone) = &mut self.alone
                && alone.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            let Some(&next) = self.left.next() else {
                return match self.last.take() {
                    Some(last) if self.running.is_empty() => Poll::Ready(Err(last)),
                    last => {
                        self.last = last;
                        self.alone = None;
                        Poll::Pending
                    }
                };
            };
            self.running
                .push((next, Box::pin(TcpStream::connect(next))));
            self.alone = Some(Box::pin(tokio::time::sleep(ALONE)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    /// A listener whose queue is full: whoever connects hears nothing. The connections that fill it must live on.
    async fn silent() -> (tokio::net::TcpListener, SocketAddr, Vec<Attempt>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling: Vec<Attempt> = Vec::new();
        for _ in 0..8 {
            let mut attempt: Attempt = Box::pin(TcpStream::connect(address));
            let _ = tokio::time::timeout(Duration::from_millis(20), &mut attempt).await;
            filling.push(attempt);
        }
        (listener, address, filling)
    }

    #[test]
    fn an_address_that_fails_or_says_nothing_is_passed_over() {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let live = listener.local_addr().unwrap();
            let outliers = Outliers::default();
            let policy = BackendPolicy::with_loopback();
            let (_listener, silent, _filling) = silent().await;
            for before in ["127.0.0.1:1".parse().unwrap(), silent] {
                let addresses = [before, live];
                let (_, reached) = dial("a", &addresses, &policy, &outliers).await.unwrap();
                assert_eq!(reached, live, "behind {before}");
            }
            let dead = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
            let refusal = dial("a", &dead, &policy, &outliers).await.unwrap_err();
            assert_eq!(refusal.code, crate::refusal::Code::D504CO);
        });
    }

    #[test]
    fn only_what_is_allowed_is_tried() {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let live = listener.local_addr().unwrap();
            let outliers = Outliers::default();
            let closed = BackendPolicy::default();
            let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), live.port());
            for addresses in [vec![live], vec![mapped], vec![live, mapped]] {
                let refusal = dial("a", &addresses, &closed, &outliers).await.unwrap_err();
                assert_eq!(refusal.code, crate::refusal::Code::D504IL, "{addresses:?}");
            }
            let mixed = ["169.254.169.254:80".parse().unwrap(), live];
            let policy = BackendPolicy::with_loopback();
            let (_, reached) = dial("a", &mixed, &policy, &outliers).await.unwrap();
            assert_eq!(reached, live);
        });
    }
}
