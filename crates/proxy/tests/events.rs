//! Functions and event sinks: what they are sent, and what callers are told of what they make of it.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables are read once"
)]

mod support;

use std::{collections::BTreeSet, pin::Pin};

use serde_json::{Value, json};
use support::{Bench, Recorded, bench, body, first_line, header, read_request, run};
use tokio::{io::AsyncWriteExt, net::TcpStream};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Answers the requests on all its connections, one after the other, with these; the last for ever. An empty one closes unanswered.
macro_rules! answering {
    ($($bytes:expr),+) => {{
        fn serve(mut stream: TcpStream, asked: Recorded) -> Task {
            let answers: &[&str] = &[$($bytes),+];
            Box::pin(async move {
                while let Some(request) = read_request(&mut stream).await {
                    let at = asked.borrow().len();
                    asked.borrow_mut().push(request);
                    let answer = answers[at.min(answers.len() - 1)];
                    if answer.is_empty() {
                        return;
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            })
        }
        serve
    }};
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TAKEN: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
const ANSWERED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 72\r\nX-Secret: 1\r\n\r\n{\"statusCode\":\"201\",\"headers\":{\"X-Mine\":\"1\"},\"body\":{\"a\":1},\"more\":[1]}\n";

/// One function or sink: `Passthrough`, `ANY /shop/[id]/*`.
async fn remote(backend: support::Backend, target: Value, call: Value) -> Bench {
    bench(backend, |group| {
        let address = group["backends"][0]["target"]["address"].clone();
        group["backends"][0]["target"] = target;
        group["backends"][0]["target"]["origin"] = json!({"address": address});
        let api = &mut group["apis"][0];
        api["path"] = json!("/shop/[id]/*");
        api["parameters"] = json!([{
            "name": "id", "location": "Path", "type": "String", "required": true, "backendName": "order", "backendLocation": "Path",
        }]);
        api["dispatch"]["path"] = json!("/orders/[order]/*");
        if !call.is_null() {
            api["dispatch"]["call"] = call;
        }
    })
    .await
}

async fn function(backend: support::Backend, kind: &str, path: &str, own: bool) -> Bench {
    let target = json!({"type": "function", "kind": kind, "path": path});
    let call = json!({"type": "function", "onlyBusinessPath": own});
    remote(backend, target, call).await
}

async fn sink(backend: support::Backend, mode: &str) -> Bench {
    let target = json!({"type": "event", "path": "/demo/default", "source": "/shop", "mode": mode});
    let subject = json!([{"text": "order "}, {"parameter": "id"}]);
    let call = json!({"type": "event", "kind": "com.example.order", "subject": subject});
    remote(backend, target, call).await
}

fn request(more: &str, body: &str) -> String {
    format!(
        "POST /shop/%E8%AE%A2/a%20b?x=1&y=%E5%BC%A0&x=2&AppCode=c1 HTTP/1.1\r\nHost: a.com\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

fn json_of(message: &str) -> Value {
    serde_json::from_str(body(message)).unwrap_or_else(|error| panic!("{error}: {message}"))
}

fn code(answer: &str) -> Option<String> {
    header(answer, "x-ca-error-code")
}

#[test]
fn a_function_gets_the_request_as_an_event_and_its_answer_becomes_one() {
    run(|| async {
        let bench = function(answering!(ANSWERED), "Event", "/fn", false).await;
        let more = "Content-Type: text/plain\r\nX-Fc-Log-Type: Tail\r\nX-Two: 1\r\nX-Two: 2\r\nAuthorization: Bearer t\r\n";
        let answer = bench.send(&request(more, "hello")).await;
        assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
        assert_eq!(body(&answer), r#"{"a":1}"#);
        assert_eq!(header(&answer, "x-mine").as_deref(), Some("1"));
        assert_eq!(header(&answer, "x-secret"), None);
        let asked = bench.asked.borrow()[0].clone();
        assert_eq!(first_line(&asked), "POST /fn HTTP/1.1");
        for (name, value) in [
            ("content-type", Some("application/json")),
            ("x-fc-log-type", None),
            ("authorization", None),
            (
                "x-ca-request-id",
                header(&answer, "x-ca-request-id").as_deref(),
            ),
        ] {
            assert_eq!(header(&asked, name).as_deref(), value, "{name}");
        }
        let event = json_of(&asked);
        assert_eq!(event["path"], "/shop/%E8%AE%A2/a%20b");
        assert_eq!(event["httpMethod"], "POST");
        assert_eq!(
            event["queryParameters"],
            json!({"x": "1,2", "y": "张", "AppCode": "c1"})
        );
        assert_eq!(event["pathParameters"], json!({"order": "订"}));
        assert_eq!(event["headers"]["x-two"], "1, 2");
        assert_eq!(event["headers"]["authorization"], "Bearer t");
        assert_eq!(
            event["headers"]["x-ca-request-id"],
            header(&answer, "x-ca-request-id").unwrap()
        );
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("hello"), &json!(false))
        );
        let answer = bench.send(&request("", "\u{1}")).await;
        assert_eq!(code(&answer), None);
        let event = json_of(&bench.asked.borrow()[1]);
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("AQ=="), &json!(true))
        );
    });
}

#[test]
fn what_is_no_answer_of_a_function_is_told_apart() {
    run(|| async {
        let rows: [(support::Backend, &str, &str); 7] = [
            (answering!(OK), "D502FC", "it is no JSON object"),
            (answering!(BUSY), "D502FC", "the function is busy"),
            (
                answering!(
                    "HTTP/1.1 200 OK\r\nX-Fc-Error-Type: UnhandledInvocationError\r\nContent-Length: 2\r\n\r\n{}"
                ),
                "D502FC",
                "the function failed",
            ),
            (
                answering!("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", ""),
                "D504TO",
                "timeout",
            ),
            (
                answering!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
                "D502FC",
                "the answer was cut",
            ),
            (
                answering!(""),
                "N502RE",
                "connection closed before the answer",
            ),
            (
                answering!("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"),
                "D504TO",
                "timeout",
            ),
        ];
        for (backend, expected, reason) in rows {
            let bench = function(backend, "Event", "", false).await;
            let answer = bench.send(&request("", "{}")).await;
            assert_eq!(
                code(&answer).as_deref(),
                Some(expected),
                "{reason}: {answer}"
            );
            assert!(
                header(&answer, "x-ca-error-message")
                    .unwrap()
                    .contains(reason),
                "{answer}"
            );
            assert_eq!(bench.asked.borrow().len(), 1, "{reason}: sent once");
        }
    });
}

#[test]
fn a_function_takes_six_megabytes() {
    run(|| async {
        let bench = function(answering!(ANSWERED), "Event", "", false).await;
        let answer = bench.send(&request("", &"a".repeat((6 << 20) + 1))).await;
        assert_eq!(code(&answer).as_deref(), Some("I413RL"));
        assert!(bench.asked.borrow().is_empty());
        let answer = bench.send(&request("", &"a".repeat(6 << 20))).await;
        assert_eq!(code(&answer), None);
    });
}

#[test]
fn an_http_function_gets_the_request_itself() {
    run(|| async {
        for (own, target) in [
            (
                false,
                "POST /fn/hello/orders/%E8%AE%A2/a%20b?x=1&y=%E5%BC%A0&x=2&AppCode=c1 HTTP/1.1",
            ),
            (
                true,
                "POST /orders/%E8%AE%A2/a%20b?x=1&y=%E5%BC%A0&x=2&AppCode=c1 HTTP/1.1",
            ),
        ] {
            let bench = function(answering!(OK), "Http", "/fn/hello", own).await;
            let answer = bench
                .send(&request(
                    "X-Fc-Log-Type: Tail\r\nX-Acs-Action: a\r\nAuthorization: Bearer t\r\n",
                    "\u{1}",
                ))
                .await;
            assert_eq!(body(&answer), "ok");
            let asked = bench.asked.borrow()[0].clone();
            assert_eq!(first_line(&asked), target);
            assert_eq!(body(&asked), "\u{1}");
            assert_eq!(header(&asked, "authorization").as_deref(), Some("Bearer t"));
            assert_eq!(header(&asked, "x-fc-log-type"), None);
            assert_eq!(header(&asked, "x-acs-action"), None);
        }
    });
}

#[test]
fn a_sink_gets_an_event_and_the_caller_its_id() {
    run(|| async {
        let more = "Ce-Type: forged\r\nCe-Mine: forged\r\nContent-Type: application/json\r\nX-A: 1\r\nAuthorization: APPCODE c1\r\nCookie: a=b\r\nX-Ca-Nonce: n\r\n";
        let binary = sink(answering!(TAKEN), "Binary").await;
        let answer = binary.send(&request(more, "{\"n\":1}")).await;
        let id = header(&answer, "x-ca-request-id").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(json_of(&answer), json!({"eventId": id, "requestId": id}));
        let asked = binary.asked.borrow()[0].clone();
        assert_eq!(first_line(&asked), "POST /demo/default HTTP/1.1");
        for (name, value) in [
            ("ce-specversion", Some("1.0")),
            ("ce-id", Some(id.as_str())),
            ("ce-source", Some("/shop")),
            ("ce-type", Some("com.example.order")),
            ("ce-subject", Some("order%20%E8%AE%A2")),
            ("content-type", Some("application/json")),
            ("ce-mine", None),
            ("authorization", None),
            ("x-a", None),
        ] {
            assert_eq!(header(&asked, name).as_deref(), value, "{name}");
        }
        let data = json_of(&asked);
        assert_eq!(data["path"], "/shop/%E8%AE%A2/a%20b");
        assert_eq!(data["httpMethod"], "POST");
        assert_eq!(data["queryString"], "x=1&y=%E5%BC%A0&x=2");
        assert_eq!(
            (&data["body"], &data["isBase64Encoded"]),
            (&json!("{\"n\":1}"), &json!(false))
        );
        assert_eq!(data["headers"]["x-a"], "1");
        for proof in ["authorization", "cookie", "x-ca-nonce"] {
            assert_eq!(data["headers"].get(proof), None, "{proof}");
        }

        let structured = sink(answering!(TAKEN), "Structured").await;
        let answer = structured.send(&request(more, "{\"n\":1}")).await;
        let asked = structured.asked.borrow()[0].clone();
        assert_eq!(
            header(&asked, "content-type").as_deref(),
            Some("application/cloudevents+json; charset=utf-8")
        );
        assert_eq!(header(&asked, "ce-type"), None);
        let event = json_of(&asked);
        assert_eq!(event["id"], header(&answer, "x-ca-request-id").unwrap());
        assert_eq!(event["subject"], "order 订");
        assert_eq!(event["data"]["body"], "{\"n\":1}");
        let time = event["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    });
}

#[test]
fn an_api_that_says_nothing_of_its_event_has_a_default() {
    run(|| async {
        let target = json!({"type": "event", "path": "/", "source": "paifang"});
        let bench = remote(answering!(TAKEN), target, Value::Null).await;
        assert_eq!(code(&bench.send(&request("", "")).await), None);
        let asked = bench.asked.borrow()[0].clone();
        assert_eq!(
            header(&asked, "ce-type").as_deref(),
            Some("dev.paifang.api.called")
        );
        assert_eq!(header(&asked, "ce-subject"), None);
    });
}

#[test]
fn an_event_is_sent_again_with_the_same_id() {
    run(|| async {
        let rows: [(&str, support::Backend, usize, Option<&str>); 8] = [
            ("busy once", answering!(BUSY, TAKEN), 2, None),
            ("closed unanswered once", answering!("", TAKEN), 2, None),
            (
                "cut in the head",
                answering!("HTTP/1.1 20", TAKEN),
                1,
                Some("D504TO"),
            ),
            (
                "not HTTP once",
                answering!("SSH-2.0-x\r\n\r\n", TAKEN),
                2,
                None,
            ),
            ("busy", answering!(BUSY), 3, Some("D502EV")),
            ("closes unanswered", answering!(""), 3, Some("N502RE")),
            (
                "refuses",
                answering!("HTTP/1.1 400 Bad\r\nContent-Length: 7\r\n\r\nsecret!"),
                1,
                Some("D502EV"),
            ),
            (
                "fails",
                answering!("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
                1,
                Some("D502EV"),
            ),
        ];
        for (name, backend, times, expected) in rows {
            let bench = sink(backend, "Binary").await;
            let answer = bench.send(&request("", "")).await;
            assert_eq!(code(&answer).as_deref(), expected, "{name}: {answer}");
            assert!(!answer.contains("secret"));
            let asked = bench.asked.borrow();
            assert_eq!(asked.len(), times, "{name}");
            let ids: Vec<_> = asked.iter().map(|asked| header(asked, "ce-id")).collect();
            assert!(
                ids.iter().all(|id| *id == ids[0] && id.is_some()),
                "{name}: {ids:?}"
            );
            assert_eq!(bench.log.0.borrow()[0].attempts as usize, times, "{name}");
        }
    });
}

#[test]
fn an_event_that_was_taken_is_taken_whatever_the_answer_goes_on_with() {
    run(|| async {
        let rows: [support::Backend; 2] = [
            answering!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            |mut stream, asked| {
                Box::pin(async move {
                    let request = read_request(&mut stream).await.unwrap();
                    asked.borrow_mut().push(request);
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
                    let answer = format!("{head}{}", "a".repeat(100_000));
                    let _ = stream.write_all(answer.as_bytes()).await;
                })
            },
        ];
        for backend in rows {
            let bench = sink(backend, "Binary").await;
            let answer = bench.send(&request("", "")).await;
            assert_eq!(code(&answer), None, "{answer}");
            assert_eq!(bench.asked.borrow().len(), 1);
        }
    });
}

/// A function of Alibaba's.
async fn alibaba(kind: &str, service: Option<&str>) -> Bench {
    let mut named = json!({"function": "fn", "qualifier": "LATEST", "credentials": "demo/fc"});
    if let Some(service) = service {
        named["service"] = json!(service);
    }
    let target = json!({"type": "function", "kind": kind, "alibaba": named});
    signed(answering!(ANSWERED), target).await
}

/// A backend whose access key, with a token, is in a Secret.
async fn signed(backend: support::Backend, target: Value) -> Bench {
    let mut loaded = Value::Null;
    let bench = bench(backend, |group| {
        let address = group["backends"][0]["target"]["address"].clone();
        group["backends"][0]["target"] = target;
        group["backends"][0]["target"]["origin"] = json!({"address": address});
        loaded = group.clone();
    })
    .await;
    let answer = bench.send(&request("", "")).await;
    assert_eq!(
        code(&answer).as_deref(),
        Some("X500AM"),
        "without its Secret"
    );
    let group: paifang_snapshot::wire::Group = serde_json::from_value(loaded).unwrap();
    let secrets =
        json!({"demo/fc": {"accessKey": {"id": "AKID", "secret": "hush", "securityToken": "tok"}}});
    let snapshot = paifang_snapshot::wire::Snapshot {
        groups: [(group.name.clone(), std::sync::Arc::new(group))].into(),
        certificates: std::sync::Arc::new(serde_json::from_value(secrets).unwrap()),
        ..Default::default()
    };
    let (config, problems) = paifang_proxy::Config::load(&snapshot, &bench.shared.config.load());
    assert!(problems.is_empty(), "{problems:?}");
    bench.shared.config.store(std::sync::Arc::new(config));
    bench
}

#[test]
fn calls_of_alibabas_functions_are_signed() {
    run(|| async {
        let forged = "X-Fc-Log-Type: Tail\r\nX-Acs-Action: forged\r\nAuthorization: Bearer t\r\nDate: forged\r\nContent-Type: text/plain\r\n";
        let rows = [
            (
                "Event",
                Some("svc"),
                "POST /2016-08-15/services/svc.LATEST/functions/fn/invocations HTTP/1.1",
                "FC AKID:",
            ),
            (
                "Http",
                Some("svc"),
                "POST /2016-08-15/proxy/svc.LATEST/fn/shop/%E8%AE%A2/a%20b?x=1&y=%E5%BC%A0&x=2&AppCode=c1 HTTP/1.1",
                "FC AKID:",
            ),
            (
                "Event",
                None,
                "POST /2023-03-30/functions/fn/invocations?qualifier=LATEST HTTP/1.1",
                "ACS3-HMAC-SHA256 Credential=AKID,SignedHeaders=accept;content-type;host;user-agent;x-acs-accesskey-id;x-acs-action;\
                 x-acs-content-sha256;x-acs-date;x-acs-security-token;x-acs-signature-nonce;x-acs-version;x-fc-invocation-type;x-fc-log-type,Signature=",
            ),
            (
                "Http",
                None,
                "POST /shop/%E8%AE%A2/a%20b?x=1&y=%E5%BC%A0&x=2&AppCode=c1 HTTP/1.1",
                "ACS3-HMAC-SHA256 Credential=AKID,SignedHeaders=content-type;x-acs-accesskey-id;x-acs-date;x-acs-security-token,Signature=",
            ),
        ];
        for (kind, service, line, authorization) in rows {
            let bench = alibaba(kind, service).await;
            let answer = bench.send(&request(forged, "hello")).await;
            assert_eq!(code(&answer), None, "{answer}");
            let asked = bench.asked.borrow()[0].clone();
            assert_eq!(first_line(&asked), line);
            let sent = header(&asked, "authorization").unwrap();
            assert!(sent.starts_with(authorization), "{sent}");
            let token = if service.is_some() {
                "x-fc-security-token"
            } else {
                "x-acs-security-token"
            };
            assert_eq!(header(&asked, token).as_deref(), Some("tok"));
            assert!(!asked.contains("hush"));
            let head = asked.split("\r\n\r\n").next().unwrap();
            assert!(
                !head.contains("forged") && !head.contains("Tail") || service.is_none(),
                "{head}"
            );
            assert!(!head.contains("x-acs-action: forged"));
        }
    });
}

const PUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n{\"RequestId\":\"r\",\"FailedEntryCount\":0,\"EntryList\":[{\"EventId\":\"of-the-bus\"}]}";
const NOT_PUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 69\r\n\r\n{\"FailedEntryCount\":1,\"EntryList\":[{\"ErrorCode\":\"EventBusNotExist\"}]}";

/// Puts an event that a bus takes; the request's id, and what the bus was asked.
async fn taken(bus: &support::Bench, headers: &str) -> (String, String) {
    let answer = bus.send(&request(headers, "hello")).await;
    assert_eq!(code(&answer), None, "{answer}");
    let id = header(&answer, "x-ca-request-id").unwrap();
    assert_eq!(
        json_of(&answer),
        json!({"eventId": "of-the-bus", "requestId": id})
    );
    (id, bus.asked.borrow()[0].clone())
}

#[test]
fn a_bus_of_alibabas_gets_a_signed_batch_of_one() {
    run(|| async {
        let target = || json!({"type": "event", "path": "/", "source": "my.app", "alibaba": {"bus": "orders", "credentials": "demo/fc"}});
        let bus = signed(answering!(PUT), target()).await;
        let forged = "X-Acs-Signature-Nonce: forged\r\nX-Acs-Mine: forged\r\nAuthorization: Bearer t\r\nContent-Type: text/plain\r\n";
        let (id, asked) = taken(&bus, forged).await;
        assert_eq!(first_line(&asked), "POST /openapi/putEvents HTTP/1.1");
        for (name, value) in [
            (
                "content-type",
                Some("application/cloudevents-batch+json; charset=utf-8"),
            ),
            ("x-eventbridge-version", Some("2015-06-06")),
            ("x-acs-signature-method", Some("HMAC-SHA1")),
            ("x-acs-signature-version", Some("1.0")),
            ("x-acs-accesskey-id", Some("AKID")),
            ("x-acs-security-token", Some("tok")),
            ("x-acs-mine", None),
        ] {
            assert_eq!(header(&asked, name).as_deref(), value, "{name}");
        }
        let authorization = header(&asked, "authorization").unwrap();
        assert!(authorization.starts_with("acs:AKID:"), "{authorization}");
        assert!(!asked.contains("hush"));
        assert_ne!(
            header(&asked, "x-acs-signature-nonce").as_deref(),
            Some("forged")
        );
        let events = json_of(&asked);
        let event = &events[0];
        assert_eq!(events.as_array().map(Vec::len), Some(1));
        assert_eq!(event["id"], id);
        assert_eq!(event["source"], "my.app");
        assert_eq!(event["aliyuneventbusname"], "orders");
        assert_eq!(event["datacontenttype"], "application/json");
        assert_eq!(event["data"]["body"], "hello");

        not_taken(
            &target,
            &[
                (answering!(NOT_PUT), "the bus refused it", 1),
                (answering!(BUSY), "the bus is busy", 3),
                (answering!(OK), "the bus's answer cannot be read", 1),
            ],
        )
        .await;
    });
}

/// Calls of buses that do not take the event: what callers are told, and how often it is sent.
async fn not_taken(target: &dyn Fn() -> Value, rows: &[(support::Backend, &str, usize)]) {
    for (backend, reason, times) in rows {
        let bus = signed(*backend, target()).await;
        let answer = bus.send(&request("", "hello")).await;
        assert_eq!(code(&answer).as_deref(), Some("D502EV"), "{answer}");
        let message = header(&answer, "x-ca-error-message").unwrap();
        assert!(message.contains(reason), "{message}");
        assert!(!message.contains("EventBusNotExist"), "that is for the log");
        assert_eq!(bus.asked.borrow().len(), *times, "{reason}");
    }
}

#[test]
fn an_event_for_a_bus_is_sent_again_with_the_same_id_and_signed_anew() {
    run(|| async {
        for (api, taken) in [("Data", PUT), ("Control", CONTROL)] {
            let target = json!({"type": "event", "path": "/", "source": "my.app", "alibaba": {"bus": "orders", "api": api, "credentials": "demo/fc"}});
            let backend: support::Backend = match taken {
                PUT => answering!(BUSY, "", PUT),
                _ => answering!(BUSY, "", CONTROL),
            };
            let bus = signed(backend, target).await;
            let answer = bus.send(&request("", "hello")).await;
            assert_eq!(code(&answer), None, "{answer}");
            let asked = bus.asked.borrow();
            assert_eq!(asked.len(), 3, "{api}");
            let bodies: BTreeSet<_> = asked.iter().map(|asked| body(asked)).collect();
            assert_eq!(bodies.len(), 1, "{api}: the same event");
            for name in ["x-acs-signature-nonce", "authorization"] {
                let said: BTreeSet<_> = asked.iter().map(|asked| header(asked, name)).collect();
                assert_eq!(said.len(), 3, "{api}: {name} is said once");
            }
        }
    });
}

const CONTROL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 114\r\n\r\n{\"Success\":true,\"Code\":\"200\",\"RequestId\":\"r\",\"Data\":{\"FailedEntryCount\":0,\"EntryList\":[{\"EventId\":\"of-the-bus\"}]}}";
const PARTLY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 93\r\n\r\n{\"Success\":true,\"Data\":{\"FailedEntryCount\":1,\"EntryList\":[{\"ErrorCode\":\"EventBusNotExist\"}]}}";
const FORBIDDEN: &str =
    "HTTP/1.1 403 No\r\nContent-Length: 32\r\n\r\n{\"Code\":\"SignatureDoesNotMatch\"}";

#[test]
fn the_control_api_of_a_bus_gets_a_signed_form() {
    run(|| async {
        let target = || json!({"type": "event", "path": "/", "source": "my.app", "alibaba": {"bus": "orders", "api": "Control", "credentials": "demo/fc"}});
        let bus = signed(answering!(CONTROL), target()).await;
        let forged = "X-Acs-Action: forged\r\nAuthorization: Bearer t\r\nUser-Agent: forged\r\nContent-Type: text/plain\r\n";
        let (_, asked) = taken(&bus, forged).await;
        assert_eq!(first_line(&asked), "POST / HTTP/1.1");
        for (name, value) in [
            ("content-type", Some("application/x-www-form-urlencoded")),
            ("x-acs-action", Some("PutEvents")),
            ("x-acs-version", Some("2020-04-01")),
            ("x-acs-security-token", Some("tok")),
            ("x-eventbridge-version", None),
        ] {
            assert_eq!(header(&asked, name).as_deref(), value, "{name}");
        }
        let authorization = header(&asked, "authorization").unwrap();
        assert!(
            authorization.starts_with(
                "ACS3-HMAC-SHA256 Credential=AKID,SignedHeaders=accept;content-type;host;user-agent;x-acs-accesskey-id;x-acs-action;\
                 x-acs-content-sha256;x-acs-date;x-acs-security-token;x-acs-signature-nonce;x-acs-version,Signature="
            ),
            "{authorization}"
        );
        assert!(!asked.split("\r\n\r\n").next().unwrap().contains("forged"));
        assert!(
            body(&asked)
                .starts_with("EventBusName=orders&EventList=%5B%7B%22Data%22%3A%7B%22headers%22"),
            "{asked}"
        );

        not_taken(
            &target,
            &[
                (answering!(PARTLY), "the bus refused it", 1),
                (
                    answering!(FORBIDDEN),
                    "the gateway may not put events on the bus",
                    1,
                ),
                (answering!(BUSY), "the bus is busy", 3),
                (answering!(OK), "the bus's answer cannot be read", 1),
            ],
        )
        .await;
    });
}
