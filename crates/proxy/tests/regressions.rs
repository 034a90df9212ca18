//! What attackers, careless backends and unlucky moments once got away with, or might: one test for each.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables are read once"
)]

mod support;

use std::{pin::Pin, rc::Rc, time::SystemTime};

use http::header::HeaderValue;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use paifang_proxy::{ClientTls, Settings};
use paifang_signing::{Algorithm, Key, Signer, Unsigned};
use paifang_snapshot::table::Network;
use serde_json::{Value, json};
use support::{
    Bench, Recorded, bench, bench_with, body, client, first_line, header, load_all, ok,
    read_request, run,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

type Task = Pin<Box<dyn Future<Output = ()>>>;

const GET: &str = "GET /p HTTP/1.1\r\nHost: a.com\r\n\r\n";

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.com\r\n{headers}\r\n")
}

/// Every value of a header.
fn all(head: &str, name: &str) -> Vec<String> {
    let lines = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'));
    lines
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

// === headers that only the gateway may write ===

#[test]
fn what_an_api_adds_cannot_double_or_replace_the_gateways_own_headers() {
    run(|| async {
        let added = |name: &str| json!({"name": name, "location": "Header", "value": "forged"});
        let names = [
            "x-forwarded-for",
            "x-forwarded-proto",
            "via",
            "x-ca-request-id",
            "x-client-s-dn",
            "host",
        ];
        let bench = bench(ok, |group| {
            let constants = names.map(added);
            group["apis"][0]["dispatch"]["constants"] = json!(constants);
        })
        .await;
        let asked = bench.forward(GET).await.unwrap();
        for name in names {
            let values = all(&asked, name);
            assert!(values.len() <= 1, "{name}: {values:?}");
            assert!(!values.contains(&"forged".to_owned()), "{name}");
        }
    });
}

#[test]
fn only_trusted_proxies_may_say_where_a_request_comes_from() {
    run(|| async {
        let names = [
            "X-Real-IP",
            "Forwarded",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
        ];
        let headers: String = names
            .iter()
            .map(|name| format!("{name}: for=6.6.6.6\r\n"))
            .collect();
        let strangers = bench(ok, |_| {}).await;
        let asked = strangers.forward(&get("/p", &headers)).await.unwrap();
        for name in names {
            assert_eq!(header(&asked, name), None, "{name}");
        }
        let settings = Settings {
            trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
            ..Settings::default()
        };
        let trusted = bench_with(ok, settings, |_| {}).await;
        let asked = trusted.forward(&get("/p", &headers)).await.unwrap();
        for name in names {
            assert_eq!(
                header(&asked, name).as_deref(),
                Some("for=6.6.6.6"),
                "{name}"
            );
        }
    });
}

#[test]
fn the_clients_address_is_the_last_one_that_a_trusted_proxy_told() {
    run(|| async {
        let settings = Settings {
            trusted_proxies: vec![
                "192.0.2.0/24".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ],
            ..Settings::default()
        };
        let bench = bench_with(ok, settings, |group| {
            group["apis"][0]["dispatch"]["system"] =
                json!([{"from": "CaClientIp", "name": "x-ip", "location": "Header"}]);
        })
        .await;
        let rows = [
            // A proxy that adds a line of its own below the one its client sent.
            (
                vec!["6.6.6.6", "203.0.113.9"],
                "203.0.113.9",
                "6.6.6.6, 203.0.113.9, 192.0.2.7",
            ),
            (
                vec!["6.6.6.6, 203.0.113.9, 10.1.1.1"],
                "203.0.113.9",
                "6.6.6.6, 203.0.113.9, 10.1.1.1, 192.0.2.7",
            ),
            (
                vec!["6.6.6.6, 203.0.113.9:4711"],
                "203.0.113.9",
                "6.6.6.6, 203.0.113.9:4711, 192.0.2.7",
            ),
            (
                vec!["6.6.6.6, [2001:db8::9]:4711"],
                "2001:db8::9",
                "6.6.6.6, [2001:db8::9]:4711, 192.0.2.7",
            ),
            (
                vec!["6.6.6.6, ::ffff:10.1.1.1, unknown"],
                "192.0.2.7",
                "6.6.6.6, ::ffff:10.1.1.1, unknown, 192.0.2.7",
            ),
            (
                vec!["203.0.113.9, ::ffff:10.1.1.1"],
                "203.0.113.9",
                "203.0.113.9, ::ffff:10.1.1.1, 192.0.2.7",
            ),
            (vec![""], "192.0.2.7", "192.0.2.7"),
        ];
        for (lines, address, forwarded) in rows {
            let headers: String = lines
                .iter()
                .map(|line| format!("X-Forwarded-For: {line}\r\n"))
                .collect();
            let asked = bench.forward(&get("/p", &headers)).await.unwrap();
            assert_eq!(
                header(&asked, "x-ip").as_deref(),
                Some(address),
                "{lines:?}"
            );
            assert_eq!(all(&asked, "x-forwarded-for"), [forwarded], "{lines:?}");
        }
    });
}

// === names that an Api writes at the backend ===

#[test]
fn callers_cannot_say_what_the_gateway_says_by_parameters_of_its_own() {
    run(|| async {
        let system = json!([
            {"from": "CaAppId", "name": "x-app", "location": "Header"},
            {"from": "CaDomain", "name": "domain", "location": "Query"},
            {"from": "CaAppKey", "name": "key", "location": "Query"},
        ]);
        let constants = json!([{"name": "k", "location": "Query", "value": "v"}]);
        let request = get(
            "/p?domain=evil&x=1&%64omain=evil&key=evil&k=evil&y=%ff",
            "X-App: 1\r\nX-Kept: 1\r\n",
        );
        for mode in ["Passthrough", "MappingPassthrough"] {
            let bench = bench(ok, |group| {
                group["apis"][0]["mode"] = json!(mode);
                group["apis"][0]["dispatch"]["system"] = system.clone();
                group["apis"][0]["dispatch"]["constants"] = constants.clone();
            })
            .await;
            let asked = bench.forward(&request).await.unwrap();
            assert!(!asked.contains("evil"), "{mode}: {asked}");
            assert!(first_line(&asked).contains("x=1"), "{mode}: {asked}");
            assert!(
                first_line(&asked).contains("domain=a.com"),
                "{mode}: {asked}"
            );
            assert_eq!(
                header(&asked, "x-app"),
                None,
                "{mode}: nobody is known, so nobody may be told"
            );
            assert_eq!(header(&asked, "x-kept").as_deref(), Some("1"), "{mode}");
        }
    });
}

#[test]
fn a_checked_parameter_has_no_unchecked_twin_under_its_backend_name() {
    run(|| async {
        let parameter = |name: &str, from: &str, backend: &str, to: &str| json!({"name": name, "location": from, "type": "Int", "backendName": backend, "backendLocation": to});
        let bench = bench(ok, |group| {
            group["apis"][0]["mode"] = json!("MappingPassthrough");
            group["apis"][0]["parameters"] = json!([
                parameter("q", "Query", "r", "Query"),
                parameter("h", "Query", "x-h", "Header"),
                parameter("f", "Form", "g", "Form"),
            ]);
        })
        .await;
        let form = "f=1&g=evil&o=1";
        let request = format!(
            "POST /p?q=1&r=evil&o=1 HTTP/1.1\r\nHost: a.com\r\nX-H: evil\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let asked = bench.forward(&request).await.unwrap();
        assert!(!asked.contains("evil"), "{asked}");
        assert_eq!(first_line(&asked), "POST /p?r=1&o=1 HTTP/1.1");
        assert_eq!(body(&asked), "g=1&o=1");
    });
}

#[test]
fn a_filtered_app_code_stays_here_in_every_mode() {
    run(|| async {
        for mode in ["Passthrough", "Mapping", "MappingPassthrough"] {
            let bench = bench(ok, |group| {
                group["filterAppCode"] = json!(true);
                group["apis"][0]["mode"] = json!(mode);
            })
            .await;
            let request = get("/p?a=1&AppCode=c1&b=2", "Authorization: APPCODE c1\r\n");
            let asked = bench.forward(&request).await.unwrap();
            assert!(!asked.contains("c1"), "{mode}: {asked}");
        }
    });
}

// === paths ===

#[test]
fn a_value_moved_into_the_path_cannot_climb_behind_an_escaped_slash() {
    run(|| async {
        let bench = bench(ok, |group| {
            group["apis"][0]["mode"] = json!("Mapping");
            group["apis"][0]["dispatch"]["path"] = json!("/v/[q]");
            group["apis"][0]["parameters"] =
                json!([{"name": "q", "location": "Query", "type": "String", "backendName": "q", "backendLocation": "Path"}]);
        })
        .await;
        for bad in [
            "..",
            "a%2F..%2Fb",
            "..%2Fa",
            "a%2F.",
            "a%5C..%5Cb",
            "a%00",
            "..;x",
            "%0A",
        ] {
            assert_eq!(
                bench.forward(&get(&format!("/p?q={bad}"), "")).await,
                Err("I400IP".into()),
                "{bad}"
            );
        }
        let asked = bench.forward(&get("/p?q=a%2Fb..c;d", "")).await.unwrap();
        assert_eq!(first_line(&asked), "GET /v/a%2Fb..c%3Bd HTTP/1.1");
    });
}

#[test]
fn base_paths_match_however_they_are_spelt() {
    run(|| async {
        let bench = bench(ok, |group| group["basePath"] = json!("/caf\u{e9}/a%2Db")).await;
        for path in ["/caf%C3%A9/a-b/p", "/caf%c3%a9/a%2db/p"] {
            let asked = bench.forward(&get(path, "")).await.unwrap();
            assert_eq!(first_line(&asked), "GET /p HTTP/1.1");
        }
    });
}

// === signatures ===

fn with_app_auth(group: &mut Value) {
    group["apis"][0]["auth"] = json!({"type": "app", "appCode": "HeaderAndQuery", "allowSha1": false, "allowSha256": true, "requireNonce": false});
}

fn signed(target: &str, headers: &[(&str, &str)], also_sign: &[&str]) -> String {
    let key = Key::new("s1");
    let signer = Signer {
        app_key: "k1",
        key: &key,
        algorithm: Algorithm::HmacSha256,
        stage: None,
        also_sign,
    };
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|&(name, value)| (name.into(), value.into()))
        .collect();
    let unsigned = Unsigned {
        method: "GET",
        target,
        headers: &headers,
        body: b"",
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let nonce = format!("{target}{headers:?}{}", now.as_nanos());
    let nonce = paifang_signing::content_md5(nonce.as_bytes());
    let signed = signer
        .sign(&unsigned, u64::try_from(now.as_millis()).unwrap(), &nonce)
        .unwrap();
    let lines: String = signed
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    get(target, &lines)
}

#[test]
fn a_signed_header_can_be_neither_doubled_nor_stripped() {
    run(|| async {
        let bench = bench(ok, with_app_auth).await;
        let call = |more: &str| {
            signed("/p", &[("X-Biz", "1")], &["X-Biz"]).replacen(
                "\r\n\r\n",
                &format!("\r\n{more}\r\n\r\n"),
                1,
            )
        };
        assert!(bench.forward(&call("X-Other: 1")).await.is_ok());
        for tampering in [
            "X-Biz: 2",
            "accept: text/html",
            "Connection: x-biz",
            "Connection: close, X-BIZ",
        ] {
            assert_eq!(
                bench.forward(&call(tampering)).await,
                Err("I400HD".into()),
                "{tampering}"
            );
        }
    });
}

#[test]
fn a_nonce_that_is_required_is_signed() {
    run(|| async {
        let bench = bench(ok, |group| {
            with_app_auth(group);
            group["apis"][0]["auth"]["requireNonce"] = json!(true);
        })
        .await;
        assert!(bench.forward(&signed("/p", &[], &[])).await.is_ok());
        // Whoever carries this request could repeat it for ever, each time with another nonce.
        let signature = Key::new("s1").sign(Algorithm::HmacSha256, "GET\n\n\n\n\nx-ca-key:k1\n/p");
        let headers = format!(
            "X-Ca-Key: k1\r\nX-Ca-Nonce: n\r\nX-Ca-Signature-Headers: x-ca-key\r\nX-Ca-Signature: {signature}\r\n"
        );
        assert_eq!(
            bench.forward(&get("/p", &headers)).await,
            Err("I400HD".into())
        );
    });
}

// === values that would be more than values ===

#[test]
fn no_control_character_reaches_a_backends_head() {
    run(|| async {
        for (to, path) in [("Query", "/v"), ("Header", "/v"), ("Path", "/v/[x-q]")] {
            let bench = bench(ok, |group| {
                group["apis"][0]["mode"] = json!("MappingPassthrough");
                group["apis"][0]["dispatch"]["path"] = json!(path);
                group["apis"][0]["parameters"] =
                    json!([{"name": "q", "location": "Query", "type": "String", "backendName": "x-q", "backendLocation": to}]);
            })
            .await;
            for byte in (0..0x20).chain([0x7f]) {
                let outcome = bench
                    .forward(&get(&format!("/p?q=a%{byte:02X}b&o=%{byte:02X}"), ""))
                    .await;
                let tab_in_header = to == "Header" && byte == 9;
                assert_eq!(
                    outcome.is_ok(),
                    to == "Query" || tab_in_header,
                    "{to} {byte}: {outcome:?}"
                );
                if let Ok(asked) = outcome {
                    let bad = |line: &str| {
                        line.contains(|c: char| c.is_control() && !(c == '\t' && tab_in_header))
                    };
                    assert!(!asked.split("\r\n").any(bad), "{to} {byte}: {asked:?}");
                }
            }
        }
    });
}

// === answers of backends ===

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

#[test]
fn answers_with_two_meanings_are_refused() {
    run(|| async {
        let rows: [(&str, support::Backend); 4] = [
            (
                "length beside chunks",
                answering!(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
            ),
            (
                "an encoding that would be lost",
                answering!(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
            ),
            (
                "an encoding to the end",
                answering!(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcde"),
            ),
            (
                "another protocol, unasked",
                answering!(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc"),
            ),
        ];
        for (name, backend) in rows {
            let bench = bench(backend, |_| {}).await;
            let answer = bench.send(GET).await;
            assert_eq!(
                header(&answer, "x-ca-error-code").as_deref(),
                Some("N502RE"),
                "{name}: {answer}"
            );
            assert_eq!(bench.worker.idle_connections(), 0, "{name}");
        }
    });
}

#[test]
fn answers_without_a_body_claim_none() {
    run(|| async {
        let rows: [(&str, support::Backend, &str); 2] = [
            (
                "204",
                answering!(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
                "GET",
            ),
            (
                "HEAD for GET",
                answering!(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
                "HEAD",
            ),
        ];
        for (name, backend, method) in rows {
            let bench = bench(backend, |group| {
                group["apis"][0]["dispatch"]["method"] = json!(method)
            })
            .await;
            let answer = bench.send(GET).await;
            assert!(answer.starts_with("HTTP/1.1 20"), "{name}: {answer}");
            assert_ne!(
                header(&answer, "content-length").as_deref(),
                Some("5"),
                "{name}"
            );
        }
        let mock = bench(ok, |group| {
            group["backends"][0]["target"] =
                json!({"type": "mock", "status": 204, "headers": [], "body": "tea"});
        })
        .await;
        let answer = mock.send(GET).await;
        assert_eq!(
            (body(&answer), header(&answer, "content-length")),
            ("", None)
        );
        let records = mock.log.0.borrow();
        assert!(!records[0].cut && records[0].sent_bytes == 0);
    });
}

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    fn poison(mut stream: TcpStream, asked: Recorded) -> Task {
        Box::pin(async move {
            while let Some(request) = read_request(&mut stream).await {
                let body = if request.starts_with("HEAD ") {
                    ""
                } else {
                    "ok"
                };
                asked.borrow_mut().push(request);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
    }
    run(|| async {
        let bench = bench(poison, |_| {}).await;
        for _ in 0..10 {
            for request in [GET, "HEAD /p HTTP/1.1\r\nHost: a.com\r\n\r\n"] {
                assert!(!bench.send(request).await.contains("evil"));
            }
        }
    });
}

#[test]
fn a_streamed_body_survives_a_pooled_connection_that_closed() {
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
        let bench = bench(fickle, |_| {}).await;
        let request = "POST /p HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
        for _ in 0..20 {
            let asked = bench.forward(request).await.unwrap();
            assert_eq!(bench.asked.borrow().len(), 1);
            assert!(
                asked.ends_with("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
                    || asked.ends_with("6\r\nabcdef\r\n0\r\n\r\n"),
                "{asked}"
            );
        }
    });
}

// === several groups behind one host ===

/// Two groups on `a.com`: the first, at `/v1`, answers nothing; the second, at `/`, everything.
async fn behind_one_host(change: impl FnOnce(&mut Value)) -> Bench {
    let mut groups = Vec::new();
    let bench = bench(ok, |group| {
        let mut narrow = group.clone();
        narrow["name"] = json!("demo/narrow");
        narrow["basePath"] = json!("/v1");
        narrow["routes"] = json!([]);
        narrow["grants"] = json!([]);
        narrow["subDomain"] = json!({"public": "n.api.localtest", "internal": "n.internal.localtest", "dailyQuota": 1000});
        change(group);
        groups = vec![narrow, group.clone()];
    })
    .await;
    load_all(&bench.shared, &groups);
    bench
}

#[test]
fn the_group_that_answers_is_the_one_whose_limits_count() {
    run(|| async {
        let bench = behind_one_host(|group| group["qpsLimit"] = json!(1)).await;
        assert!(bench.forward(&get("/v1/p", "")).await.is_ok());
        assert_eq!(bench.forward(&get("/v1/p", "")).await, Err("T429GR".into()));
    });
}

#[test]
fn the_domain_that_answers_is_the_one_whose_client_certificates_count() {
    run(|| async {
        let bench = behind_one_host(|group| {
            group["domains"][0]["tls"] = json!({
                "certificate": "demo/cert", "clientCa": "demo/ca", "redirectHttp": false, "passClientSubject": false,
            });
        })
        .await;
        for path in ["/p", "/v1/p"] {
            assert_eq!(
                bench.forward(&get(path, "")).await,
                Err("I403PT".into()),
                "{path}"
            );
        }
        let mut elsewhere = client(Network::Public);
        elsewhere.tls = Some(ClientTls {
            domain: Some("b.com".parse().unwrap()),
            subject: Some(HeaderValue::from_static("CN=b")),
        });
        let bench = Bench {
            client: Rc::new(elsewhere),
            ..bench
        };
        for path in ["/p", "/v1/p"] {
            assert_eq!(
                bench.forward(&get(path, "")).await,
                Err("I421MD".into()),
                "{path}"
            );
        }
    });
}

// === what is written down ===

#[test]
fn a_request_whose_client_leaves_before_the_answer_is_recorded() {
    fn silent(mut stream: TcpStream, asked: Recorded) -> Task {
        Box::pin(async move {
            let request = read_request(&mut stream).await;
            asked.borrow_mut().extend(request);
            std::future::pending().await
        })
    }
    run(|| async {
        let bench = bench(silent, |_| {}).await;
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let (worker, client) = (Rc::clone(&bench.worker), Rc::clone(&bench.client));
        let service =
            service_fn(move |request| Rc::clone(&worker).serve(Rc::clone(&client), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(far), service);
        let serving = tokio::task::spawn_local(connection);
        near.write_all(GET.as_bytes()).await.unwrap();
        while bench.asked.borrow().is_empty() {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        let records = bench.log.0.borrow();
        assert_eq!(records.len(), 1);
        assert!(records[0].cut && records[0].route.is_some());
        assert_eq!(records[0].status.as_u16(), 499);
    });
}
