//! Backends that speak HTTP/2 by prior knowledge: connections are shared within what the peer allows, and requests that it has not
//! looked at are not lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{cell::Cell, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Request, Response};
use serde_json::json;
use support::{Bench, Recorded, bench, body, header, run};
use tokio::net::TcpStream;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Connection = server::Connection<TcpStream, Bytes>;

const GET: &str = "GET /p?q=1 HTTP/1.1\r\nHost: a.com\r\n\r\n";
const POST: &str = "POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Length: 5\r\n\r\nhello";

async fn http2(backend: support::Backend) -> Bench {
    bench(backend, |group| {
        group["backends"][0]["target"]["http2"] = json!(true);
    })
    .await
}

async fn accept(stream: TcpStream, asked: &Recorded, most: u32) -> Connection {
    asked.borrow_mut().push("connected".to_owned());
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(most);
    builder.handshake(stream).await.unwrap()
}

fn say_ok(mut respond: SendResponse<Bytes>) {
    let mut sending = respond.send_response(Response::new(()), false).unwrap();
    sending.send_data(Bytes::from_static(b"ok"), true).unwrap();
}

fn note(asked: &Recorded, request: &Request<RecvStream>) {
    let line = format!("{} {}", request.method(), request.uri());
    asked.borrow_mut().push(line);
}

fn connections(bench: &Bench) -> usize {
    let asked = bench.asked.borrow();
    asked.iter().filter(|line| *line == "connected").count()
}

/// Answers after a while, so that requests meet.
fn slow(stream: TcpStream, asked: Recorded) -> Task {
    Box::pin(async move {
        let mut connection = accept(stream, &asked, 8).await;
        let open = Rc::new(Cell::new(0));
        while let Some(Ok((request, respond))) = connection.accept().await {
            note(&asked, &request);
            open.set(open.get() + 1);
            assert!(open.get() <= 8, "more than the peer allows");
            let open = Rc::clone(&open);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                open.set(open.get() - 1);
                say_ok(respond);
            });
        }
    })
}

#[test]
fn requests_share_connections_within_what_the_peer_allows() {
    run(|| async {
        let bench = Rc::new(http2(slow).await);
        let together = |count: usize| {
            let bench = Rc::clone(&bench);
            async move {
                let tasks: Vec<_> = (0..count)
                    .map(|_| {
                        let bench = Rc::clone(&bench);
                        tokio::task::spawn_local(async move { bench.send(GET).await })
                    })
                    .collect();
                for task in tasks {
                    let answer = task.await.unwrap();
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    assert_eq!(
                        body(&answer).trim_end_matches("\r\n"),
                        "2\r\nok\r\n0\r\n".trim_end()
                    );
                }
            }
        };
        together(1).await;
        assert_eq!(connections(&bench), 1);
        together(8).await;
        assert_eq!(connections(&bench), 1, "eight fit on one");
        together(20).await;
        assert!((2..=20).contains(&connections(&bench)), "more need others");
        let asked = bench.asked.borrow();
        assert!(
            asked
                .iter()
                .any(|line| line.starts_with("GET http://127.0.0.1:"))
        );
        assert!(asked.iter().any(|line| line.ends_with("/p?q=1")));
    });
}

#[test]
fn a_burst_opens_one_connection_and_waits_for_it() {
    run(|| async {
        let bench = Rc::new(http2(slow).await);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let bench = Rc::clone(&bench);
                tokio::task::spawn_local(async move { bench.send(GET).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().starts_with("HTTP/1.1 200"));
        }
        assert_eq!(connections(&bench), 1);
    });
}

/// Refuses the first stream of each connection, as a server that is full may.
fn refusing(stream: TcpStream, asked: Recorded) -> Task {
    Box::pin(async move {
        let mut connection = accept(stream, &asked, 100).await;
        let mut refused = false;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            note(&asked, &request);
            if std::mem::replace(&mut refused, true) {
                say_ok(respond);
            } else {
                respond.send_reset(Reason::REFUSED_STREAM);
            }
        }
    })
}

#[test]
fn a_request_that_the_peer_refused_is_asked_again() {
    run(|| async {
        let bench = http2(refusing).await;
        let answer = bench.send(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(bench.log.0.borrow()[0].attempts, 2);
    });
}

/// Breaks streams off after it has seen the request.
fn breaking(stream: TcpStream, asked: Recorded) -> Task {
    Box::pin(async move {
        let mut connection = accept(stream, &asked, 100).await;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            note(&asked, &request);
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    })
}

#[test]
fn a_request_that_the_peer_may_have_looked_at_is_not() {
    run(|| async {
        let bench = http2(breaking).await;
        for request in [GET, POST] {
            let answer = bench.send(request).await;
            let code = header(&answer, "x-ca-error-code");
            assert_eq!(code.as_deref(), Some("N502RE"), "{answer}");
            assert_eq!(bench.log.0.borrow().last().unwrap().attempts, 1);
        }
        assert_eq!(
            bench.asked.borrow().len(),
            3,
            "one connection, two requests"
        );
    });
}

/// Ends the stream with an error right behind the head of its answer, in one piece: both are seen at once.
fn breaking_in_body(stream: TcpStream, asked: Recorded) -> Task {
    Box::pin(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        asked.borrow_mut().push("connected".to_owned());
        let mut stream = stream;
        // SETTINGS, empty.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&settings).await.unwrap();
        let mut seen = Vec::new();
        while !seen
            .windows(4)
            .any(|frame| frame == [1, 5, 0, 0] || frame == [1, 4, 0, 0])
        {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        // HEADERS with `:status: 200`, and RST_STREAM with INTERNAL_ERROR (RFC 9113 §6.2, §6.4).
        let head = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        let both = [&head[..], &reset[..]].concat();
        stream.write_all(&both).await.unwrap();
        while !matches!(stream.read_buf(&mut seen).await, Ok(0) | Err(_)) {}
    })
}

#[test]
fn the_head_of_an_answer_that_is_cut_at_once_arrives() {
    run(|| async {
        let bench = http2(breaking_in_body).await;
        let answer = bench.send(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
        assert!(bench.log.0.borrow()[0].cut);
    });
}

/// Answers one request and leaves at once, with `GOAWAY`.
fn leaving(stream: TcpStream, asked: Recorded) -> Task {
    Box::pin(async move {
        let mut connection = accept(stream, &asked, 100).await;
        if let Some(Ok((request, respond))) = connection.accept().await {
            note(&asked, &request);
            say_ok(respond);
            connection.graceful_shutdown();
        }
        while let Some(Ok((request, respond))) = connection.accept().await {
            note(&asked, &request);
            say_ok(respond);
        }
    })
}

#[test]
fn a_peer_that_leaves_after_every_answer_fails_nobody() {
    run(|| async {
        let bench = http2(leaving).await;
        for _ in 0..20 {
            for request in [GET, POST] {
                let answer = bench.send(request).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
        assert!(connections(&bench) > 1);
    });
}

/// Leaves without having looked at anything: `GOAWAY` with a last stream below the request's.
fn leaving_first(stream: TcpStream, asked: Recorded) -> Task {
    Box::pin(async move {
        let first = !asked.borrow().iter().any(|line| line == "connected");
        if first {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            asked.borrow_mut().push("connected".to_owned());
            let mut stream = stream;
            // SETTINGS, empty; then, once the request is there, GOAWAY with last stream 0 and no error (RFC 9113 §6.8).
            stream
                .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            let mut seen = Vec::new();
            while !seen
                .windows(4)
                .any(|frame| frame == [1, 5, 0, 0] || frame == [1, 4, 0, 0])
            {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            stream.write_all(&goaway).await.unwrap();
            let _ = stream.read_buf(&mut seen).await;
            return;
        }
        let mut connection = accept(stream, &asked, 100).await;
        while let Some(Ok((request, respond))) = connection.accept().await {
            note(&asked, &request);
            say_ok(respond);
        }
    })
}

#[test]
fn a_request_behind_the_last_that_a_leaving_peer_looks_at_is_asked_again() {
    run(|| async {
        let bench = http2(leaving_first).await;
        let answer = bench.send(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(connections(&bench), 2);
    });
}

#[test]
fn a_server_that_speaks_http1_only_is_said_to_be_the_trouble() {
    run(|| async {
        let bench = http2(support::ok).await;
        let answer = bench.send(GET).await;
        let code = header(&answer, "x-ca-error-code");
        assert_eq!(code.as_deref(), Some("N502RE"), "{answer}");
    });
}
