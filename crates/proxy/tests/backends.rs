//! Backends that refuse, stall, break off, talk nonsense or close too early; and what the client is told.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables are read once"
)]

mod support;

use std::{net::SocketAddr, pin::Pin, time::Duration};

use paifang_model::ObjectName;
use paifang_proxy::{Change, Endpoints, Ready};
use serde_json::json;
use support::{Bench, Recorded, bench, body, header, listen, ok, read_request, run};
use tokio::{io::AsyncWriteExt, net::TcpStream};

type Task = Pin<Box<dyn Future<Output = ()>>>;

const GET: &str = "GET /p HTTP/1.1\r\nHost: a.com\r\n\r\n";

/// Answers one request with these bytes, then closes.
macro_rules! answering {
    ($bytes:expr) => {{
        fn serve(mut stream: TcpStream, asked: Recorded) -> Task {
            Box::pin(async move {
                if let Some(request) = read_request(&mut stream).await {
                    asked.borrow_mut().push(request);
                    let _ = stream.write_all($bytes).await;
                }
            })
        }
        serve
    }};
}

/// A bench whose backend is port `port` of a Service, with the address of what answers; the Service has no endpoints yet.
async fn service(backend: support::Backend, port: &str) -> (Bench, SocketAddr) {
    let mut live = String::new();
    let bench = bench(backend, |group| {
        let target = &mut group["backends"][0]["target"];
        live = target["address"].as_str().unwrap().to_owned();
        *target = json!({"type": "vpc", "scheme": "HTTP", "host": "svc", "endpoints": {"service": {"name": "a/b", "port": port}}});
    })
    .await;
    (bench, live.trim_start_matches("http://").parse().unwrap())
}

/// The endpoints of the Service from now on, of a port of this name.
fn endpoints(bench: &Bench, port: &str, ready: Ready) {
    let service = ObjectName::new("a", "b");
    let endpoints: Endpoints = [(service, port, ready)].into_iter().collect();
    bench.shared.endpoints.store(endpoints.into());
}

#[test]
fn answers_pass_unchanged_but_for_hop_headers_and_ours() {
    run(|| async {
        let bench = bench(ok, |_| {}).await;
        let answer = bench.send(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(header(&answer, "x-mine").as_deref(), Some("yes"));
        assert_eq!(
            header(&answer, "x-ca-error-code"),
            None,
            "only the gateway may say it refused"
        );
        assert_eq!(header(&answer, "keep-alive").as_deref(), Some("timeout=25"));
        assert_eq!(header(&answer, "server").as_deref(), Some("Paifang"));
        assert_eq!(body(&answer), "ok");
        let asked = bench.asked.borrow()[0].clone();
        assert_eq!(
            header(&asked, "x-ca-request-id"),
            header(&answer, "x-ca-request-id")
        );
        let head = bench.send("HEAD /p HTTP/1.1\r\nHost: a.com\r\n\r\n").await;
        assert_eq!(
            (header(&head, "content-length").as_deref(), body(&head)),
            (Some("2"), "")
        );
    });
}

#[test]
fn failures_have_their_codes() {
    run(|| async {
        let rows: [(&str, support::Backend, &str); 6] = [
            ("not HTTP", answering!(b"SSH-2.0-x\r\n\r\n"), "N502RE"),
            ("nothing", answering!(b""), "N502RE"),
            (
                "half a head",
                answering!(b"HTTP/1.1 200 OK\r\nContent-"),
                "N502RE",
            ),
            (
                "two lengths",
                answering!(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
                "N502RE",
            ),
            (
                "bad status",
                answering!(b"HTTP/1.1 2000 OK\r\n\r\n"),
                "N502RE",
            ),
            (
                "huge head",
                answering!(
                    format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(100_000)).as_bytes()
                ),
                "N502RE",
            ),
        ];
        for (name, backend, code) in rows {
            let bench = bench(backend, |_| {}).await;
            let answer = bench.send(GET).await;
            assert_eq!(
                header(&answer, "x-ca-error-code").as_deref(),
                Some(code),
                "{name}: {answer}"
            );
            assert_eq!(
                bench.asked.borrow().len(),
                1,
                "{name}: a request that was sent is not sent again"
            );
        }
    });
}

#[test]
fn a_cut_body_never_looks_complete() {
    run(|| async {
        let rows: [support::Backend; 4] = [
            answering!(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
            answering!(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
            answering!(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            answering!(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ];
        for backend in rows {
            let bench = bench(backend, |_| {}).await;
            let answer = bench.send(GET).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
            assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
            assert!(bench.log.0.borrow()[0].cut);
        }
    });
}

#[test]
fn the_answer_of_an_older_backend_is_told_in_our_own_version() {
    run(|| async {
        let bench = bench(answering!(b"HTTP/1.0 200 OK\r\n\r\nabc"), |_| {}).await;
        let answer = bench.send(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.ends_with("3\r\nabc\r\n0\r\n\r\n"),
            "its end is said: {answer}"
        );
    });
}

#[test]
fn unreachable_backends_are_told_apart() {
    run(|| async {
        let rows = [
            ("http://127.0.0.1:1", "D504CO"),
            ("http://no-such-host.invalid", "D504RE"),
            ("http://169.254.169.254", "D504IL"),
            ("http://[::ffff:169.254.169.254]", "D504IL"),
            ("http://0.0.0.0:80", "D504IL"),
        ];
        for (address, code) in rows {
            let bench = bench(ok, |group| {
                group["backends"][0]["target"] = json!({"type": "http", "address": address});
            })
            .await;
            let answer = bench.send(GET).await;
            assert_eq!(
                header(&answer, "x-ca-error-code").as_deref(),
                Some(code),
                "{address}"
            );
            assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        }
    });
}

#[test]
fn a_silent_backend_runs_into_the_apis_timeout() {
    fn silent(mut stream: TcpStream, asked: Recorded) -> Task {
        Box::pin(async move {
            let request = read_request(&mut stream).await;
            asked.borrow_mut().extend(request);
            tokio::time::sleep(Duration::from_secs(20)).await;
        })
    }
    run(|| async {
        let bench = bench(silent, |group| {
            group["apis"][0]["dispatch"]["timeoutMs"] = json!(50)
        })
        .await;
        let answer = bench.send(GET).await;
        assert_eq!(
            header(&answer, "x-ca-error-code").as_deref(),
            Some("D504TO")
        );
        assert_eq!(bench.asked.borrow().len(), 1);
    });
}

#[test]
fn a_stalled_answer_is_cut_at_the_apis_timeout() {
    fn stalled(mut stream: TcpStream, _: Recorded) -> Task {
        Box::pin(async move {
            read_request(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
                .await;
            tokio::time::sleep(Duration::from_secs(20)).await;
        })
    }
    run(|| async {
        let bench = bench(stalled, |group| {
            group["apis"][0]["dispatch"]["timeoutMs"] = json!(50)
        })
        .await;
        let answer = bench.send(GET).await;
        assert_eq!(body(&answer), "abc");
        assert!(bench.log.0.borrow()[0].cut);
    });
}

#[test]
fn connections_are_used_again_and_a_closed_one_is_replaced() {
    /// Answers one request as if the connection stayed open, then closes it.
    fn fickle(mut stream: TcpStream, asked: Recorded) -> Task {
        Box::pin(async move {
            if let Some(request) = read_request(&mut stream).await {
                asked.borrow_mut().push(request);
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        })
    }
    run(|| async {
        let steady = bench(ok, |_| {}).await;
        for _ in 0..5 {
            assert!(steady.forward(GET).await.is_ok());
        }
        assert_eq!(steady.worker.idle_connections(), 1);
        let fickle = bench(fickle, |_| {}).await;
        for _ in 0..20 {
            assert!(
                fickle.forward(GET).await.is_ok(),
                "an idle connection that closed must not fail a request"
            );
        }
    });
}

#[test]
fn request_bodies_are_bounded_declared_or_not() {
    run(|| async {
        let bench = bench(ok, |_| {}).await;
        let declared = "POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Length: 9000000\r\n\r\n";
        assert_eq!(bench.forward(declared).await, Err("I413RL".into()));
        let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
        let streamed = format!(
            "POST /p HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk.repeat(130)
        );
        let answer = bench.send(&streamed).await;
        assert_eq!(
            header(&answer, "x-ca-error-code").as_deref(),
            Some("I413RL"),
            "{answer}"
        );
        let whole = format!(
            "POST /p HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk.repeat(120)
        );
        assert!(bench.forward(&whole).await.is_ok());
    });
}

#[test]
fn a_client_that_leaves_mid_body_is_not_the_backends_fault() {
    run(|| async {
        let bench = bench(ok, |_| {}).await;
        let answer = bench
            .send("POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Length: 10\r\n\r\nabc")
            .await;
        let code = header(&answer, "x-ca-error-code");
        assert!(
            code.is_none() || code.as_deref() == Some("I400BD"),
            "{answer}"
        );
        assert!(bench.asked.borrow().is_empty());
    });
}

#[test]
fn mocks_answer_without_a_network() {
    run(|| async {
        let bench = bench(ok, |group| {
            group["backends"][0]["target"] = json!({"type": "mock", "status": 418, "headers": [["X-A", "b"], ["X-A", "c"]], "body": "tea"});
        })
        .await;
        let answer = bench.send(GET).await;
        assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
        assert_eq!(
            (header(&answer, "x-a").as_deref(), body(&answer)),
            (Some("b"), "tea")
        );
        assert!(bench.asked.borrow().is_empty());
    });
}

#[test]
fn services_without_endpoints_say_so_and_dead_ones_are_passed_over() {
    run(|| async {
        let none = bench(ok, |group| {
            group["backends"][0]["target"] = json!({"type": "vpc", "scheme": "HTTP", "host": "svc", "endpoints": {"service": {"name": "a/b", "port": "80"}}});
        })
        .await;
        let answer = none.send(GET).await;
        assert_eq!(
            header(&answer, "x-ca-error-code").as_deref(),
            Some("X504VE")
        );
        let one_dead = bench(ok, |group| {
            let live = group["backends"][0]["target"]["address"].clone();
            group["backends"][0]["target"] =
                json!({"type": "vpc", "scheme": "HTTP", "host": "svc.internal", "endpoints": {"fixed": ["http://127.0.0.1:1", live]}});
        })
        .await;
        for _ in 0..20 {
            let asked = one_dead.forward(GET).await.unwrap();
            assert_eq!(header(&asked, "host").as_deref(), Some("svc.internal"));
        }
    });
}

#[test]
fn near_endpoints_are_asked_and_far_ones_when_none_is_near_or_one_fails() {
    run(|| async {
        let (bench, live) = service(ok, "web").await;
        let dead: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for (port, near, far, attempts) in [
            ("web", vec![live], vec![dead], Some(1)),
            ("web", vec![], vec![live], Some(1)),
            ("web", vec![dead], vec![live], Some(2)),
            ("web", vec![dead, dead, dead], vec![live], Some(2)),
            ("", vec![live], vec![], None),
        ] {
            let ready = Ready {
                near: near.clone(),
                far: far.clone(),
            };
            endpoints(&bench, port, ready);
            for _ in 0..20 {
                let answer = bench.send(GET).await;
                let attempted = bench.log.0.borrow().last().unwrap().attempts;
                match attempts {
                    Some(attempts) => {
                        assert!(
                            answer.starts_with("HTTP/1.1 200"),
                            "{near:?} {far:?}: {answer}"
                        );
                        // Fewer once the dead one is left out.
                        assert!(attempted <= attempts, "{near:?} {far:?}");
                    }
                    None => assert_eq!(
                        header(&answer, "x-ca-error-code").as_deref(),
                        Some("X504VE"),
                        "the port has another name"
                    ),
                }
            }
        }
    });
}

/// An answer that goes on for minutes keeps its endpoint as busy as one that is still waited for.
#[test]
fn an_endpoint_is_busy_until_its_answers_have_ended() {
    fn streaming(mut stream: TcpStream, asked: Recorded) -> Task {
        Box::pin(async move {
            while let Some(request) = read_request(&mut stream).await {
                let endless = request.starts_with("GET /endless");
                asked.borrow_mut().push(request);
                let answer = if endless {
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if endless {
                    std::future::pending::<()>().await;
                }
            }
        })
    }
    run(|| async {
        let (bench, first) = service(streaming, "").await;
        let (second, asked_second) = listen(streaming).await;
        endpoints(&bench, "", Ready::alike(vec![first, second]));
        let bench = std::rc::Rc::new(bench);
        let endless = std::rc::Rc::clone(&bench);
        tokio::task::spawn_local(async move {
            endless
                .send("GET /endless HTTP/1.1\r\nHost: a.com\r\n\r\n")
                .await
        });
        let both = || (bench.asked.borrow().len(), asked_second.borrow().len());
        while both() == (0, 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Its head has come back, and is on its way to the client.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (idle, before) = match both() {
            (1, 0) => (1, (1, 20)),
            _ => (0, (20, 1)),
        };
        for _ in 0..20 {
            assert!(bench.send(GET).await.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(both(), before, "all to endpoint {idle}");
    });
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_left_out_and_tried_again() {
    run(|| async {
        let (bench, live) = service(ok, "").await;
        // A port that is taken, and where nobody listens yet.
        let late = tokio::net::TcpSocket::new_v4().unwrap();
        late.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let ready = Ready {
            near: vec![late.local_addr().unwrap()],
            far: vec![live],
        };
        endpoints(&bench, "", ready);
        for sent in 1..=5 {
            assert!(bench.log.1.borrow().is_empty(), "before request {sent}");
            assert!(bench.send(GET).await.starts_with("HTTP/1.1 200"));
            assert_eq!(bench.log.0.borrow().last().unwrap().attempts, 2);
        }
        assert_eq!(*bench.log.1.borrow(), [Change::Ejected]);
        let listener = late.listen(16).unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(ok(stream, Recorded::default()));
            }
        });
        while bench.log.1.borrow().len() < 2 {
            assert!(bench.send(GET).await.starts_with("HTTP/1.1 200"));
            assert_eq!(bench.log.0.borrow().last().unwrap().attempts, 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(*bench.log.1.borrow(), [Change::Ejected, Change::Returned]);
    });
}

#[test]
fn the_record_tells_what_happened() {
    run(|| async {
        let bench = bench(ok, |_| {}).await;
        bench.send(GET).await;
        let records = bench.log.0.borrow();
        let record = &records[0];
        assert_eq!(record.status, 200);
        assert_eq!(record.sent_bytes, 2);
        assert_eq!(record.attempts, 1);
        assert!(record.upstream.is_some() && record.answered >= record.dispatched && !record.cut);
        assert_eq!(&*record.route.as_ref().unwrap().api.name.name, "api");
        assert_eq!(record.host.as_deref(), Some("a.com"));
    });
}
