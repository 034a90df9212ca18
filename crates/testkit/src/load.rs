//! HTTP load for tests that must be able to say "not one request failed": every failure is told, with its time.
//!
//! Connections are kept alive and their number, the time and the requests are bounded. Nothing is retried unless asked for.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crate::{Net, http::Client};

/// The longest that load may last: tests are bounded in time.
const MAX_DURATION: Duration = Duration::from_secs(900);
/// The most connections.
const MAX_CONNECTIONS: usize = 256;
/// Of failures beyond this many only the number is kept.
const MAX_TOLD: usize = 1000;

/// What to send, and how much of it.
#[derive(Clone, Debug)]
pub struct Load {
    net: Net,
    address: SocketAddr,
    host: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    expected: u16,
    connections: usize,
    duration: Duration,
    most: u64,
    pause: Duration,
    timeout: Duration,
    keep_alive: bool,
    tolerate_stale: bool,
}

/// Load that is going on.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Outcome>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many requests were sent.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The failures, in the order of their time; of very many only the first thousand of each connection.
    pub failures: Vec<Failure>,
    /// How often a kept connection was found closed by the server after a request had been sent on it and before any byte of an
    /// answer. Counted among the failures too, unless [`Load::tolerate_stale`]: then these were sent once more.
    pub stale: u64,
    /// How many answers each pod gave, from the header `X-Pod` that the echo image sets.
    pub pods: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
}

/// One failed request.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it was sent.
    pub sent: SystemTime,
    /// How long it took to fail.
    pub took: Duration,
    /// What happened: a status that was not expected with the start of its body, or an error of the connection.
    pub what: String,
}

// === impl Load ===

impl Load {
    /// GETs of `target` at `address`, expecting 200: 4 kept connections, 10 s, a request time-out of 10 s, no pauses.
    #[must_use]
    pub fn new(net: &Net, address: SocketAddr, host: &str, target: &str) -> Self {
        Self {
            net: net.clone(),
            address,
            host: host.to_owned(),
            method: "GET".to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            expected: 200,
            connections: 4,
            duration: Duration::from_secs(10),
            most: u64::MAX,
            pause: Duration::ZERO,
            timeout: Duration::from_secs(10),
            keep_alive: true,
            tolerate_stale: false,
        }
    }

    /// Another method, with a body.
    #[must_use]
    pub fn method(mut self, method: &str, body: &[u8]) -> Self {
        method.clone_into(&mut self.method);
        body.clone_into(&mut self.body);
        self
    }

    /// One more header field on each request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The only status that is no failure.
    #[must_use]
    pub fn expect(mut self, status: u16) -> Self {
        self.expected = status;
        self
    }

    /// How many connections send at once, 1 to 256.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, MAX_CONNECTIONS);
        self
    }

    /// When to stop at the latest; at most 15 minutes.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration.min(MAX_DURATION);
        self
    }

    /// After how many requests to stop, over all connections together.
    #[must_use]
    pub fn requests(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// How long each connection rests between two requests.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// How long an answer may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A new connection for each request.
    #[must_use]
    pub fn without_keep_alive(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    /// As most HTTP clients do, sends a request once more if a kept connection turns out to be closed before any byte of the
    /// answer. For GETs only.
    #[must_use]
    pub fn tolerate_stale(mut self) -> Self {
        self.tolerate_stale = true;
        self
    }

    /// Sends all of it; what came of it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        self.start().wait()
    }

    /// Begins to send, on threads of its own.
    #[must_use]
    pub fn start(&self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let until = Instant::now() + self.duration;
        let workers = (0..self.connections).map(|_| {
            let (load, stop, sent) = (self.clone(), Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || load.send(until, &stop, &sent))
        });
        Running {
            workers: workers.collect(),
            stop,
            sent,
        }
    }

    fn send(&self, until: Instant, stop: &AtomicBool, sent: &AtomicU64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut client = Client::new(&self.net, self.address, &self.host, self.timeout);
        while !stop.load(Relaxed)
            && Instant::now() < until
            && sent.fetch_add(1, Relaxed) < self.most
        {
            self.send_one(&mut client, &mut outcome);
            if !self.keep_alive {
                client.close();
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        outcome
    }

    fn send_one(&self, client: &mut Client, outcome: &mut Outcome) {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (sent, began) = (SystemTime::now(), Instant::now());
        let mut answer = client.request(&self.method, &self.target, &headers, &self.body);
        if answer.as_ref().is_err_and(|failure| failure.stale) {
            outcome.stale += 1;
            if self.tolerate_stale {
                answer = client.request(&self.method, &self.target, &headers, &self.body);
            }
        }
        let took = began.elapsed();
        outcome.requests += 1;
        outcome.latencies.push(took);
        let what = match answer {
            Ok(answer) if answer.status == self.expected => {
                if let Some(pod) = answer.header("x-pod") {
                    *outcome.pods.entry(pod.to_owned()).or_default() += 1;
                }
                return;
            }
            Ok(answer) => format!(
                "{}: {}",
                answer.status,
                answer.text().chars().take(200).collect::<String>()
            ),
            Err(failure) => failure.to_string(),
        };
        outcome.failed += 1;
        if outcome.failures.len() < MAX_TOLD {
            outcome.failures.push(Failure { sent, took, what });
        }
    }
}

// === impl Running ===

impl Running {
    /// How many requests were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Stops after the requests that are under way; what came of it.
    #[must_use]
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        self.wait()
    }

    /// Waits for its end; what came of it.
    ///
    /// # Panics
    /// When one of its threads did.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        let mut all = Outcome::default();
        for worker in std::mem::take(&mut self.workers) {
            let outcome = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.requests += outcome.requests;
            all.failed += outcome.failed;
            all.stale += outcome.stale;
            all.failures.extend(outcome.failures);
            all.latencies.extend(outcome.latencies);
            for (pod, count) in outcome.pods {
                *all.pods.entry(pod).or_default() += count;
            }
        }
        all.failures.sort_by_key(|failure| failure.sent);
        all.latencies.sort_unstable();
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

// === impl Outcome ===

impl Outcome {
    /// The latency that this share of the requests (0 to 1) did not exceed, failed ones included.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index within the list"
    )]
    pub fn quantile(&self, share: f64) -> Duration {
        let at = (self.latencies.len() as f64 * share) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(at.min(last))
            .copied()
            .unwrap_or_default()
    }

    /// Fails the test unless at least `least` requests were sent and not one failed.
    ///
    /// # Panics
    /// Otherwise; the message holds the first failures.
    pub fn must_be_flawless(&self, least: u64) {
        assert!(self.failed == 0, "{self}");
        assert!(
            self.requests >= least,
            "only {} requests were sent, not {least}",
            self.requests
        );
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [0.5, 0.99].map(|share| self.quantile(share));
        writeln!(
            f,
            "{} requests, {} failed, {} stale; p50 {p50:?}, p99 {p99:?}; {:?}",
            self.requests, self.failed, self.stale, self.pods
        )?;
        for failure in self.failures.iter().take(20) {
            let at = failure
                .sent
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            writeln!(
                f,
                "  at {:.3} after {:?}: {}",
                at.as_secs_f64(),
                failure.took,
                failure.what
            )?;
        }
        Ok(())
    }
}
