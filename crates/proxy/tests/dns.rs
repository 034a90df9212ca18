//! Names of backends, with a name server that says what each test wants: answers that end, that change into addresses nobody may
//! reach, and that stop coming.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use paifang_proxy::Settings;
use serde_json::json;
use support::{Bench, bench_with, header, ok, run};
use tokio::net::UdpSocket;

const GET: &str = "GET /p HTTP/1.1\r\nHost: a.com\r\n\r\n";

/// A name server that answers every question about A and AAAA with what it holds.
#[derive(Clone, Default)]
struct NameServer {
    addresses: Rc<RefCell<Vec<IpAddr>>>,
    ttl: Rc<Cell<u32>>,
    /// Says nothing at all.
    mute: Rc<Cell<bool>>,
    /// Questions asked for type A.
    asked: Rc<Cell<usize>>,
}

impl NameServer {
    async fn start(addresses: &[&str], ttl: u32) -> (Self, SocketAddr) {
        let server = Self::default();
        server.say(addresses);
        server.ttl.set(ttl);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::task::spawn_local(server.clone().serve(socket));
        (server, address)
    }

    fn say(&self, addresses: &[&str]) {
        *self.addresses.borrow_mut() = addresses.iter().map(|text| text.parse().unwrap()).collect();
    }

    async fn serve(self, socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
            if !self.mute.get() {
                let answer = self.answer(&buffer[..count]);
                socket.send_to(&answer, peer).await.unwrap();
            }
        }
    }

    /// RFC 1035 §4: a header of 12 bytes, the question as it came, and its answers.
    fn answer(&self, query: &[u8]) -> Vec<u8> {
        let mut end = 12;
        while query[end] != 0 {
            end += 1 + usize::from(query[end]);
        }
        let kind = u16::from_be_bytes([query[end + 1], query[end + 2]]);
        self.asked.set(self.asked.get() + usize::from(kind == 1));
        let all = self.addresses.borrow();
        let fitting: Vec<&IpAddr> = all
            .iter()
            .filter(|address| (kind == 1 && address.is_ipv4()) || (kind == 28 && address.is_ipv6()))
            .collect();
        let no_such_name = all.is_empty();
        let mut out = query[..2].to_vec();
        out.extend([0x81, if no_such_name { 0x83 } else { 0x80 }, 0, 1, 0]);
        out.extend([fitting.len() as u8, 0, 0, 0, 0]);
        out.extend(&query[12..end + 5]);
        for address in fitting {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(self.ttl.get().to_be_bytes());
            match address {
                IpAddr::V4(v4) => out.extend([&[0, 4][..], &v4.octets()].concat()),
                IpAddr::V6(v6) => out.extend([&[0, 16][..], &v6.octets()].concat()),
            }
        }
        out
    }
}

/// A worker whose backend is at `backend.test`, a name that `server` knows, on the port of a server on loopback.
async fn bench(server: SocketAddr, loopback: bool) -> Bench {
    let mut settings = Settings {
        name_servers: vec![server],
        ..Settings::default()
    };
    settings.backends.allowed = vec!["127.0.0.2/32".parse().unwrap()];
    settings.timeouts.connect = Duration::from_secs(2);
    let change = |group: &mut serde_json::Value| {
        let target = &mut group["backends"][0]["target"];
        let port = target["address"].as_str().unwrap().rsplit(':').next();
        *target =
            json!({"type": "http", "address": format!("http://backend.test:{}", port.unwrap())});
        group["apis"][0]["dispatch"]["timeoutMs"] = json!(10_000);
    };
    if loopback {
        bench_with(ok, settings, change).await
    } else {
        support::bench_refusing_loopback(ok, settings, change).await
    }
}

async fn code(bench: &Bench) -> Option<String> {
    header(&bench.send(GET).await, "x-ca-error-code")
}

/// Closes idle connections, so that the next request has to look the name up.
fn forget_connections(bench: &Bench) {
    bench.worker.close_idle();
}

#[test]
fn an_answer_is_kept_as_long_as_it_says() {
    run(|| async {
        let (server, address) = NameServer::start(&["127.0.0.1"], 2).await;
        let bench = bench(address, true).await;
        for _ in 0..5 {
            assert_eq!(code(&bench).await, None);
            forget_connections(&bench);
        }
        let asked = server.asked.get();
        assert_eq!(asked, 1, "five connections within its time");
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(code(&bench).await, None);
        assert_eq!(server.asked.get(), 2, "it is asked again");
    });
}

#[test]
fn requests_at_the_same_time_ask_once() {
    run(|| async {
        let (server, address) = NameServer::start(&["127.0.0.1"], 60).await;
        let bench = Rc::new(bench(address, true).await);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let bench = Rc::clone(&bench);
                tokio::task::spawn_local(async move { code(&bench).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), None);
        }
        assert_eq!(server.asked.get(), 1);
    });
}

#[test]
fn a_name_that_moves_to_a_forbidden_address_is_refused_there() {
    run(|| async {
        for moved in [
            &["127.0.0.1"][..],
            &["169.254.169.254"],
            &["::ffff:127.0.0.1"],
            &["::ffff:169.254.169.254"],
            &["::1"],
            &["0.0.0.0"],
            &["::"],
            &["fd00:ec2::254"],
            &["100.100.100.200"],
            &["127.0.0.1", "169.254.169.254"],
        ] {
            // Allowed, and nobody listens there.
            let (server, address) = NameServer::start(&["127.0.0.2"], 1).await;
            let bench = bench(address, false).await;
            let first = code(&bench).await;
            assert_eq!(first.as_deref(), Some("D504CO"), "before it moved");
            server.say(moved);
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            assert_eq!(code(&bench).await.as_deref(), Some("D504IL"), "{moved:?}");
            assert!(bench.asked.borrow().is_empty());
        }
    });
}

#[test]
fn of_allowed_and_forbidden_addresses_the_allowed_are_used() {
    run(|| async {
        let (_, address) = NameServer::start(&["169.254.169.254", "127.0.0.1"], 60).await;
        let bench = bench(address, true).await;
        for _ in 0..5 {
            assert_eq!(code(&bench).await, None);
            forget_connections(&bench);
        }
    });
}

#[test]
fn forbidden_addresses_are_refused_as_they_are_written() {
    run(|| async {
        let (_, server) = NameServer::start(&[], 1).await;
        for written in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
        ] {
            let settings = Settings {
                name_servers: vec![server],
                ..Settings::default()
            };
            let bench = support::bench_refusing_loopback(ok, settings, |group| {
                group["backends"][0]["target"] =
                    json!({"type": "http", "address": format!("http://{written}:8080")});
            })
            .await;
            assert_eq!(code(&bench).await.as_deref(), Some("D504IL"), "{written}");
        }
    });
}

#[test]
fn known_addresses_outlive_a_name_server_that_fails_but_not_a_name_that_is_gone() {
    run(|| async {
        let (server, address) = NameServer::start(&["127.0.0.1"], 1).await;
        let bench = bench(address, true).await;
        assert_eq!(code(&bench).await, None);
        server.mute.set(true);
        forget_connections(&bench);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(code(&bench).await, None, "no answer: the one before");

        let (server, address) = NameServer::start(&["127.0.0.1"], 1).await;
        let bench = self::bench(address, true).await;
        assert_eq!(code(&bench).await, None);
        server.say(&[]);
        forget_connections(&bench);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(code(&bench).await.as_deref(), Some("D504RE"), "gone");
        let asked = server.asked.get();
        assert_eq!(code(&bench).await.as_deref(), Some("D504RE"));
        assert_eq!(server.asked.get(), asked, "and not asked again at once");
    });
}

#[test]
fn a_name_server_that_never_answers_is_said_to_be_the_trouble() {
    run(|| async {
        let (server, address) = NameServer::start(&["127.0.0.1"], 1).await;
        server.mute.set(true);
        let bench = bench(address, true).await;
        assert_eq!(code(&bench).await.as_deref(), Some("D504RE"));
    });
}
