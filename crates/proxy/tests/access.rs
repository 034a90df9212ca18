//! Who gets in: host, stage, protocol, network, limits, signature, AppCode, authorization (product.md §4, phases 2 to 6).

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables are read once"
)]

mod support;

use std::{rc::Rc, time::SystemTime};

use paifang_signing::{Algorithm, Key, Signer, Unsigned};
use paifang_snapshot::table::Network;
use serde_json::{Value, json};
use support::{Bench, bench, client, header, load, ok, run};

fn app_auth(group: &mut Value, more: Value) {
    let mut auth = json!({"type": "app", "appCode": "HeaderAndQuery", "allowSha1": false, "allowSha256": true, "requireNonce": false});
    auth.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    group["apis"][0]["auth"] = auth;
}

async fn with_app_auth(more: Value) -> Bench {
    bench(ok, |group| app_auth(group, more)).await
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A request as it is signed; `tamper` changes its text afterwards.
struct Call<'c> {
    key: &'c str,
    secret: &'c str,
    method: &'c str,
    target: &'c str,
    headers: &'c [(&'c str, &'c str)],
    body: &'c str,
    nonce: &'c str,
    age_ms: i64,
    algorithm: Algorithm,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            key: "k1",
            secret: "s1",
            method: "GET",
            target: "/p?b=2&a=1",
            headers: &[],
            body: "",
            nonce: "",
            age_ms: 0,
            algorithm: Algorithm::HmacSha256,
        }
    }
}

impl Call<'_> {
    fn text(&self) -> String {
        let fresh = format!("{:x}", fastrand_u64());
        let nonce = if self.nonce.is_empty() {
            &fresh
        } else {
            self.nonce
        };
        let key = Key::new(self.secret);
        let headers: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect();
        let signer = Signer {
            app_key: self.key,
            key: &key,
            algorithm: self.algorithm,
            stage: None,
            also_sign: &[],
        };
        let unsigned = Unsigned {
            method: self.method,
            target: self.target,
            headers: &headers,
            body: self.body.as_bytes(),
        };
        let signed = signer
            .sign(
                &unsigned,
                u64::try_from(now_ms() - self.age_ms).unwrap(),
                nonce,
            )
            .unwrap();
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: a.com\r\n",
            self.method, self.target
        );
        for (name, value) in signed.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text + "\r\n" + self.body
    }
}

fn fastrand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

const FORM: &[(&str, &str)] = &[(
    "Content-Type",
    "application/x-www-form-urlencoded; charset=utf-8",
)];
const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

#[test]
fn sound_signatures_pass_and_every_change_is_refused() {
    run(|| async {
        let bench = with_app_auth(json!({"allowSha1": true})).await;
        let calls = [
            Call::default(),
            Call {
                target: "/%E5%BC%A0%20x?q=%2B+%20&e=&n=1&n=2&u=%E4%B8%AD",
                ..Call::default()
            },
            Call {
                method: "POST",
                headers: FORM,
                body: "c=3&d=a+b%26c",
                ..Call::default()
            },
            Call {
                method: "POST",
                headers: JSON,
                body: "{\"a\":1}",
                ..Call::default()
            },
            Call {
                algorithm: Algorithm::HmacSha1,
                ..Call::default()
            },
            Call {
                age_ms: 14 * 60_000,
                ..Call::default()
            },
            Call {
                age_ms: -14 * 60_000,
                ..Call::default()
            },
        ];
        for call in &calls {
            assert!(bench.forward(&call.text()).await.is_ok(), "{}", call.text());
        }
        let tampered: [(&str, fn(String) -> String, &str); 8] = [
            (
                "method",
                |text| text.replacen("GET ", "DELETE ", 1),
                "A403IS",
            ),
            ("path", |text| text.replacen("/p?", "/q?", 1), "A403IS"),
            (
                "query value",
                |text| text.replacen("a=1", "a=9", 1),
                "A403IS",
            ),
            (
                "query added",
                |text| text.replacen("?b", "?x=1&b", 1),
                "A403IS",
            ),
            (
                "accept",
                |text| text.replacen("\r\n\r\n", "\r\nDate: x\r\n\r\n", 1),
                "A403IS",
            ),
            (
                "nonce",
                |text| swap_header(&text, "x-ca-nonce", "other"),
                "A403IS",
            ),
            (
                "signature",
                |text| swap_header(&text, "x-ca-signature", "AAAA"),
                "A403IS",
            ),
            ("key", |text| swap_header(&text, "x-ca-key", "k9"), "A400IK"),
        ];
        for (name, tamper, code) in tampered {
            assert_eq!(
                bench.forward(&tamper(Call::default().text())).await,
                Err(code.to_owned()),
                "{name}"
            );
        }
        let form = Call {
            method: "POST",
            headers: FORM,
            body: "c=3",
            ..Call::default()
        }
        .text()
        .replace("c=3", "c=4");
        assert_eq!(bench.forward(&form).await, Err("A403IS".into()));
        let json = Call {
            method: "POST",
            headers: JSON,
            body: "{\"a\":1}",
            ..Call::default()
        }
        .text()
        .replace("{\"a\":1}", "{\"a\":2}");
        assert_eq!(bench.forward(&json).await, Err("I400I5".into()));
    });
}

fn swap_header(text: &str, name: &str, value: &str) -> String {
    let lines = text.split("\r\n").map(|line| match line.split_once(':') {
        Some((found, _)) if found.eq_ignore_ascii_case(name) => format!("{found}: {value}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

#[test]
fn the_answer_to_a_wrong_signature_shows_the_servers_string() {
    run(|| async {
        let bench = with_app_auth(json!({})).await;
        let text = Call {
            secret: "wrong",
            ..Call::default()
        }
        .text();
        let answer = bench.send(&text).await;
        let message = header(&answer, "x-ca-error-message").unwrap();
        assert!(
            message.starts_with("Invalid Signature, Server StringToSign:`GET#"),
            "{message}"
        );
        assert!(message.ends_with("/p?a=1&b=2`"), "{message}");
        assert!(answer.starts_with("HTTP/1.1 403"));
    });
}

#[test]
fn time_nonce_method_and_secret_each_have_their_refusal() {
    run(|| async {
        let bench = with_app_auth(json!({"requireNonce": true})).await;
        let rows = [
            (
                "old",
                Call {
                    age_ms: 16 * 60_000,
                    ..Call::default()
                }
                .text(),
                "S403TE",
            ),
            (
                "from the future",
                Call {
                    age_ms: -16 * 60_000,
                    ..Call::default()
                }
                .text(),
                "S403TE",
            ),
            (
                "sha1 not allowed",
                Call {
                    algorithm: Algorithm::HmacSha1,
                    ..Call::default()
                }
                .text(),
                "I400HD",
            ),
            (
                "expired credential",
                Call {
                    key: "k3",
                    secret: "s3",
                    ..Call::default()
                }
                .text(),
                "A400IK",
            ),
            (
                "disabled app",
                Call {
                    key: "k2",
                    secret: "s2",
                    ..Call::default()
                }
                .text(),
                "I403AA",
            ),
            (
                "no signature",
                "GET /p HTTP/1.1\r\nHost: a.com\r\nX-Ca-Key: k1\r\nX-Ca-Nonce: n\r\n\r\n".into(),
                "I400MH",
            ),
            (
                "no nonce",
                "GET /p HTTP/1.1\r\nHost: a.com\r\nX-Ca-Key: k1\r\nX-Ca-Signature: AAAA\r\n\r\n"
                    .into(),
                "I400NC",
            ),
            (
                "nothing",
                "GET /p HTTP/1.1\r\nHost: a.com\r\n\r\n".into(),
                "A400MA",
            ),
        ];
        for (name, text, code) in rows {
            assert_eq!(bench.forward(&text).await, Err(code.to_owned()), "{name}");
        }
        let once = Call {
            nonce: "n-1",
            ..Call::default()
        };
        assert!(bench.forward(&once.text()).await.is_ok());
        assert_eq!(bench.forward(&once.text()).await, Err("S403NU".into()));
        let forged = Call {
            nonce: "n-2",
            secret: "wrong",
            ..Call::default()
        };
        assert_eq!(bench.forward(&forged.text()).await, Err("A403IS".into()));
        let real = Call {
            nonce: "n-2",
            ..Call::default()
        };
        assert!(
            bench.forward(&real.text()).await.is_ok(),
            "a forged request must not spend a nonce"
        );
    });
}

#[test]
fn app_codes_work_where_the_api_says() {
    run(|| async {
        let by_header = "GET /p HTTP/1.1\r\nHost: a.com\r\nAuthorization:appcode  c1\r\n\r\n";
        let by_query = "GET /p?AppCode=c1 HTTP/1.1\r\nHost: a.com\r\n\r\n";
        let wrong = "GET /p HTTP/1.1\r\nHost: a.com\r\nAuthorization: APPCODE nope\r\n\r\n";
        let rows = [
            ("HeaderAndQuery", Ok(()), Ok(())),
            ("Header", Ok(()), Err("A400AC")),
            ("Disabled", Err("A400AC"), Err("A400AC")),
        ];
        for (setting, header, query) in rows {
            let bench = with_app_auth(json!({"appCode": setting})).await;
            let outcome = |result: Result<String, String>| result.map(drop);
            assert_eq!(
                outcome(bench.forward(by_header).await),
                header.map_err(str::to_owned),
                "{setting}"
            );
            assert_eq!(
                outcome(bench.forward(by_query).await),
                query.map_err(str::to_owned),
                "{setting}"
            );
            assert_eq!(
                outcome(bench.forward(wrong).await),
                Err("A400AC".into()),
                "{setting}"
            );
        }
    });
}

#[test]
fn authorizations_open_one_api_in_one_stage_until_their_end() {
    run(|| async {
        let call = "GET /p HTTP/1.1\r\nHost: a.com\r\nAuthorization: APPCODE c1\r\n\r\n";
        let grant = |more: Value| {
            let mut grant =
                json!({"app": "apps/mobile", "stage": "RELEASE", "authorization": "demo/z"});
            grant
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            grant
        };
        let rows = [
            ("none", json!([]), Err("I403AA")),
            (
                "this api",
                json!([grant(json!({"api": "demo/api"}))]),
                Ok(()),
            ),
            ("every api", json!([grant(json!({}))]), Ok(())),
            (
                "another stage",
                json!([grant(json!({"stage": "TEST"}))]),
                Err("I403AA"),
            ),
            (
                "another app",
                json!([grant(json!({"app": "apps/off"}))]),
                Err("I403AA"),
            ),
            (
                "ended",
                json!([grant(json!({"expiresAtMs": 1}))]),
                Err("A403EP"),
            ),
            (
                "ended, but another lasts",
                json!([
                    grant(json!({"expiresAtMs": 1})),
                    grant(json!({"expiresAtMs": now_ms() + 60_000}))
                ]),
                Ok(()),
            ),
        ];
        for (name, grants, expected) in rows {
            let bench = bench(ok, |group| {
                app_auth(group, json!({}));
                group["grants"] = grants;
            })
            .await;
            let outcome = bench.forward(call).await.map(drop);
            assert_eq!(outcome, expected.map_err(str::to_owned), "{name}");
        }
    });
}

#[test]
fn revoking_ends_access_at_once() {
    run(|| async {
        let call = "GET /p HTTP/1.1\r\nHost: a.com\r\nAuthorization: APPCODE c1\r\n\r\n";
        let group = std::cell::RefCell::new(Value::Null);
        let bench = bench(ok, |edited| {
            app_auth(edited, json!({}));
            *group.borrow_mut() = edited.clone();
        })
        .await;
        assert!(bench.forward(call).await.is_ok());
        group.borrow_mut()["grants"] = json!([]);
        load(&bench.shared, &group.borrow());
        assert_eq!(bench.forward(call).await, Err("I403AA".into()));
    });
}

#[test]
fn host_stage_protocol_and_network_decide_before_the_caller() {
    run(|| async {
        let mut bench = bench(ok, |group| {
            group["apis"][0]["path"] = json!("/p");
            group["apis"][0]["method"] = json!("GET");
            group["domains"] = json!([
                {"name": "demo/d", "host": "a.com", "stage": null, "intranet": false, "tls": null, "webSocket": false},
                {"name": "demo/w", "host": "*.w.com", "stage": "TEST", "intranet": false, "tls": null, "webSocket": false},
                {"name": "demo/i", "host": "in.com", "stage": null, "intranet": true, "tls": null, "webSocket": false},
                {"name": "demo/m", "host": "m.com", "stage": null, "intranet": false, "webSocket": false,
                 "tls": {"certificate": "demo/c", "clientCa": "demo/ca", "passClientSubject": false, "redirectHttp": false}},
                {"name": "demo/r", "host": "r.com", "stage": null, "intranet": false, "webSocket": false,
                 "tls": {"certificate": "demo/c", "clientCa": null, "passClientSubject": false, "redirectHttp": true}},
            ]);
            group["routes"] = json!([{"stage": "RELEASE", "api": 0, "backend": 0}, {"stage": "TEST", "api": 0, "backend": 0}]);
        })
        .await;
        let get = |host: &str, more: &str| format!("GET /p HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        let rows = [
            (get("a.com", ""), Ok(())),
            (get("A.COM.", ""), Ok(())),
            (get("b.com", ""), Err("I404DO")),
            (get("x.w.com", ""), Ok(())),
            (get("x.y.w.com", ""), Err("I404DO")),
            (get("in.com", ""), Err("A403IN")),
            (get("g1.internal.localtest", ""), Err("A403IN")),
            (get("g1.api.localtest", ""), Ok(())),
            (get("m.com", ""), Err("I403PT")),
            (get("a.com", "X-Ca-Stage: TEST\r\n"), Ok(())),
            (get("a.com", "X-Ca-Stage: PRE\r\n"), Err("I404NF")),
            (get("a.com", "X-Ca-Stage: nonsense\r\n"), Err("I400SG")),
            (
                get("a.com", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
                Err("I403PT"),
            ),
            (
                "POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Length: 0\r\n\r\n".into(),
                Err("I404NF"),
            ),
            (
                "HEAD /p HTTP/1.1\r\nHost: a.com\r\n\r\n".into(),
                Err("I404NF"),
            ),
            (
                "GET /other HTTP/1.1\r\nHost: a.com\r\n\r\n".into(),
                Err("I404NF"),
            ),
        ];
        for (text, expected) in rows {
            let outcome = bench.forward(&text).await.map(drop);
            assert_eq!(outcome, expected.map_err(str::to_owned), "{text}");
        }
        let redirect = bench
            .send("GET /p?x=%20 HTTP/1.1\r\nHost: r.com:8080\r\n\r\n")
            .await;
        assert!(redirect.starts_with("HTTP/1.1 301"), "{redirect}");
        assert_eq!(
            header(&redirect, "location").as_deref(),
            Some("https://r.com/p?x=%20")
        );
        let trial = bench.send(&get("g1.api.localtest", "")).await;
        assert_eq!(
            header(&trial, "content-disposition").as_deref(),
            Some("attachment; filename=ApiResponseForInnerDomain")
        );
        bench.client = Rc::new(client(Network::Internal));
        assert!(bench.forward(&get("in.com", "")).await.is_ok());
        assert!(
            bench
                .forward(&get("g1.internal.localtest", ""))
                .await
                .is_ok()
        );
        assert_eq!(
            bench.forward(&get("g1.api.localtest", "")).await,
            Err("I404DO".into())
        );
    });
}

#[test]
fn internal_apis_answer_on_the_internal_listener_only() {
    run(|| async {
        let mut bench = bench(ok, |group| {
            group["apis"][0]["internalOnly"] = json!(true);
            group["domains"][0]["intranet"] = json!(false);
        })
        .await;
        let public = "GET /p HTTP/1.1\r\nHost: a.com\r\n\r\n";
        assert_eq!(bench.forward(public).await, Err("A403IN".into()));
        bench.client = Rc::new(client(Network::Internal));
        let internal = "GET /p HTTP/1.1\r\nHost: g1.internal.localtest\r\n\r\n";
        assert!(bench.forward(internal).await.is_ok());
    });
}

#[test]
fn limits_of_the_group_and_the_sub_domain_hold() {
    run(|| async {
        let bench = bench(ok, |group| {
            group["qpsLimit"] = json!(6);
            group["subDomain"]["dailyQuota"] = json!(2);
        })
        .await;
        let get = |host: &str| format!("GET /p HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert!(bench.forward(&get("g1.api.localtest")).await.is_ok());
        assert!(bench.forward(&get("g1.api.localtest")).await.is_ok());
        let answer = bench.send(&get("g1.api.localtest")).await;
        assert_eq!(
            header(&answer, "x-ca-error-code").as_deref(),
            Some("T429ID")
        );
        assert!(
            header(&answer, "x-ca-error-message")
                .unwrap()
                .contains("only 2 requests per day")
        );
        let mut refused = 0;
        for _ in 0..20 {
            refused += usize::from(bench.forward(&get("a.com")).await == Err("T429GR".into()));
        }
        assert!(refused >= 10, "{refused}");
    });
}

#[test]
fn a_connection_opened_before_its_domain_asked_for_certificates_is_not_enough() {
    run(|| async {
        let mut bench = bench(ok, |group| {
            group["domains"][0]["tls"] = json!({
                "certificate": "demo/c", "clientCa": "demo/ca", "passClientSubject": true, "redirectHttp": false,
            });
        })
        .await;
        let tls = |subject: Option<&'static str>, domain: &str| {
            let tls = paifang_proxy::ClientTls {
                domain: Some(domain.parse().unwrap()),
                subject: subject.map(http::HeaderValue::from_static),
            };
            let peer = "192.0.2.7:1234".parse().unwrap();
            Rc::new(paifang_proxy::Client::new(peer, Network::Public, Some(tls)))
        };
        let get = "GET /p HTTP/1.1\r\nHost: a.com\r\n\r\n";
        bench.client = tls(None, "a.com");
        assert_eq!(bench.forward(get).await, Err("I421MD".into()));
        bench.client = tls(Some("CN=x"), "b.com");
        assert_eq!(bench.forward(get).await, Err("I421MD".into()));
        bench.client = tls(Some("CN=x"), "a.com");
        let asked = bench.forward(get).await.unwrap();
        assert_eq!(header(&asked, "x-client-s-dn").as_deref(), Some("CN=x"));
    });
}

#[test]
fn nobody_unknown_makes_the_gateway_hold_a_body() {
    run(|| async {
        let bench = with_app_auth(json!({})).await;
        let rows = [
            ("X-Ca-Key: nobody\r\nX-Ca-Signature: AAAA\r\n", "A400IK"),
            (
                "X-Ca-Key: k1\r\nX-Ca-Signature: AAAA\r\nX-Ca-Timestamp: 1\r\n",
                "S403TE",
            ),
            ("Authorization: APPCODE nope\r\n", "A400AC"),
            ("", "A400MA"),
        ];
        for (headers, code) in rows {
            // The body is announced and never sent: only a refusal before it is read can answer.
            let request = format!(
                "POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-MD5: x\r\n{headers}Content-Length: 1000\r\n\r\na=1"
            );
            assert_eq!(
                bench.forward(&request).await,
                Err(code.to_owned()),
                "{headers}"
            );
        }
    });
}
