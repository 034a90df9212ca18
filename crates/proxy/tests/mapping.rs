//! Parameters from the caller to the backend, in the three modes (Ref §4).

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables are read once"
)]

mod support;

use serde_json::{Value, json};
use support::{bench, body, first_line, header, ok, run};

/// One row: what the Api declares, what is sent, and what the backend must be asked.
struct Row {
    name: &'static str,
    api: Value,
    request: String,
    expected: Result<Expected, &'static str>,
}

struct Expected {
    line: &'static str,
    headers: Vec<(&'static str, Option<&'static str>)>,
    body: &'static str,
}

fn asks(line: &'static str) -> Result<Expected, &'static str> {
    Ok(Expected {
        line,
        headers: vec![],
        body: "",
    })
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.com\r\nX-Other: 1\r\n\r\n")
}

fn form(target: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: a.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn parameter(extra: Value) -> Value {
    let mut whole = json!({"type": "String"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let name = whole["name"].clone();
    let location = whole["location"].clone();
    let map = whole.as_object_mut().unwrap();
    map.entry("backendName").or_insert(name);
    map.entry("backendLocation").or_insert(location);
    whole
}

fn mapping(parameters: &[Value]) -> Value {
    json!({"mode": "Mapping", "parameters": parameters.iter().cloned().map(parameter).collect::<Vec<_>>()})
}

fn with(mut api: Value, more: Value) -> Value {
    merge(&mut api, &more);
    api
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn rows() -> Vec<Row> {
    let query = |extra: Value| {
        let mut whole = json!({"name": "q", "location": "Query"});
        merge(&mut whole, &extra);
        mapping(&[whole])
    };
    let row = |name, api, request, expected| Row {
        name,
        api,
        request,
        expected,
    };
    vec![
        row("passthrough keeps path and query as they came", json!({}), get("/a%20b/%E5%BC%A0?x=1&x=%2B&e"), asks("GET /a%20b/%E5%BC%A0?x=1&x=%2B&e HTTP/1.1")),
        row("passthrough adds constants behind the query", json!({"dispatch": {"constants": [{"name": "k", "location": "Query", "value": "a b"}]}}), get("/p?x=1"), asks("GET /p?x=1&k=a%20b HTTP/1.1")),
        row("mapping drops undeclared query", mapping(&[]), get("/p?x=1"), asks("GET /p HTTP/1.1")),
        row("a query parameter is renamed", query(json!({"backendName": "r"})), get("/p?q=a%2Bb+c&z=1"), asks("GET /p?r=a%2Bb%20c HTTP/1.1")),
        row("a scalar takes the first value", query(json!({})), get("/p?q=1&q=2"), asks("GET /p?q=1 HTTP/1.1")),
        row("an array takes all", query(json!({"array": true})), get("/p?q=1&q=2"), asks("GET /p?q=1&q=2 HTTP/1.1")),
        row("an array checks all", query(json!({"array": true, "type": "Int"})), get("/p?q=1&q=x"), Err("I400IP")),
        row("an encoded name is the same name", query(json!({})), get("/p?%71=1"), asks("GET /p?q=1 HTTP/1.1")),
        row("a nameless pair is ignored", query(json!({})), get("/p?=a&q=1"), asks("GET /p?q=1 HTTP/1.1")),
        row("a bare name is the empty value", query(json!({})), get("/p?q"), asks("GET /p?q= HTTP/1.1")),
        row("a default fills in", query(json!({"default": "7", "type": "Int"})), get("/p"), asks("GET /p?q=7 HTTP/1.1")),
        row("an optional one stays away", query(json!({})), get("/p"), asks("GET /p HTTP/1.1")),
        row("a required one must be there", query(json!({"required": true})), get("/p"), Err("I400MP")),
        row("broken UTF-8 is refused", query(json!({})), get("/p?q=%FF"), Err("I400IP")),
        row("a type is checked", query(json!({"type": "Int"})), get("/p?q=1.5"), Err("I400IP")),
        row("an enumeration is checked", query(json!({"rules": {"oneOf": ["a", "b"]}})), get("/p?q=c"), Err("I400IP")),
        row("a range is checked", query(json!({"type": "Int", "rules": {"maximum": 9}})), get("/p?q=10"), Err("I400IP")),
        row("a length is checked in characters", query(json!({"rules": {"maxLength": 2}})), get("/p?q=%E5%BC%A0%E4%B8%89"), asks("GET /p?q=%E5%BC%A0%E4%B8%89 HTTP/1.1")),
        row("a pattern is checked", query(json!({"rules": {"pattern": "^[a-z]+$"}})), get("/p?q=A"), Err("I400IP")),
        row("a schema is checked", query(json!({"rules": {"jsonSchema": "{\"type\":\"object\"}"}})), get("/p?q=%5B%5D"), Err("I400IP")),
        row("a schema passes", query(json!({"rules": {"jsonSchema": "{\"type\":\"object\"}"}})), get("/p?q=%7B%7D"), asks("GET /p?q=%7B%7D HTTP/1.1")),
        row(
            "path, query, header and form change places",
            with(
                mapping(&[
                    json!({"name": "city", "location": "Path", "required": true, "backendName": "place", "backendLocation": "Query"}),
                    json!({"name": "id", "location": "Query", "backendName": "id", "backendLocation": "Path"}),
                    json!({"name": "x-units", "location": "Header", "backendName": "units", "backendLocation": "Form"}),
                    json!({"name": "note", "location": "Form", "backendName": "x-note", "backendLocation": "Header"}),
                ]),
                json!({"path": "/forecast/[city]", "dispatch": {"path": "/v1/[id]/forecast"}}),
            ),
            "POST /forecast/%E5%8C%97%E4%BA%AC?id=a%2Fb HTTP/1.1\r\nHost: a.com\r\nX-Units: metric\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\nnote=1".into(),
            Ok(Expected {
                line: "POST /v1/a%2Fb/forecast?place=%E5%8C%97%E4%BA%AC HTTP/1.1",
                headers: vec![("x-note", Some("1")), ("x-units", None), ("content-type", Some("application/x-www-form-urlencoded; charset=UTF-8")), ("content-length", Some("12"))],
                body: "units=metric",
            }),
        ),
        row("a path value cannot climb", with(mapping(&[json!({"name": "q", "location": "Query", "backendLocation": "Path"})]), json!({"dispatch": {"path": "/v/[q]"}})), get("/p?q=.."), Err("I400IP")),
        row("a path value cannot add segments", with(mapping(&[json!({"name": "q", "location": "Query", "backendLocation": "Path"})]), json!({"dispatch": {"path": "/v/[q]"}})), get("/p?q=a%2F..%3Fx"), asks("GET /v/a%2F..%3Fx HTTP/1.1")),
        row("a tail is appended as it came", json!({"path": "/files/*", "dispatch": {"path": "/store/*"}}), get("/files/a%20b//c"), asks("GET /store/a%20b//c HTTP/1.1")),
        row("a header value cannot end its header", query(json!({"backendLocation": "Header", "backendName": "x-q"})), get("/p?q=a%0D%0AX-Evil:1"), Err("I400IP")),
        row(
            "mapping keeps what describes the body and drops the rest",
            mapping(&[json!({"name": "x-kept", "location": "Header"})]),
            "POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Type: application/json\r\nX-Kept: k\r\nX-Dropped: d\r\nCookie: c\r\nAccept: text/html\r\nContent-Length: 2\r\n\r\n{}".into(),
            Ok(Expected {
                line: "POST /p HTTP/1.1",
                headers: vec![("content-type", Some("application/json")), ("x-kept", Some("k")), ("x-dropped", None), ("cookie", None), ("accept", Some("text/html")), ("content-length", Some("2"))],
                body: "{}",
            }),
        ),
        row(
            "mapping with passthrough keeps the undeclared",
            with(mapping(&[json!({"name": "q", "location": "Query", "backendName": "r"}), json!({"name": "x-a", "location": "Header", "backendName": "x-b"})]), json!({"mode": "MappingPassthrough"})),
            "GET /p?q=1&z=%20&z=2 HTTP/1.1\r\nHost: a.com\r\nX-A: 1\r\nX-Other: o\r\n\r\n".into(),
            Ok(Expected { line: "GET /p?r=1&z=%20&z=2 HTTP/1.1", headers: vec![("x-a", None), ("x-b", Some("1")), ("x-other", Some("o"))], body: "" }),
        ),
        row("a declared form drops the undeclared", mapping(&[json!({"name": "f", "location": "Form"})]), form("/p", "f=a+b&g=1"), Ok(Expected { line: "POST /p HTTP/1.1", headers: vec![("content-length", Some("7"))], body: "f=a%20b" })),
        row("a stream is forwarded byte for byte", with(mapping(&[]), json!({"bodyFormat": "Stream"})), form("/p", "f=a+b&g=1"), Ok(Expected { line: "POST /p HTTP/1.1", headers: vec![("content-length", Some("9"))], body: "f=a+b&g=1" })),
        row("a form in another charset is refused", mapping(&[]), "POST /p HTTP/1.1\r\nHost: a.com\r\nContent-Type: application/x-www-form-urlencoded; charset=GBK\r\nContent-Length: 3\r\n\r\na=1".into(), Err("I400CT")),
        row("the method can be changed", json!({"dispatch": {"method": "POST"}}), get("/p"), asks("POST /p HTTP/1.1")),
        row(
            "constants and system parameters are added in every mode",
            json!({"dispatch": {
                "constants": [{"name": "x-source", "location": "Header", "value": "gateway"}],
                "system": [
                    {"from": "CaClientIp", "name": "x-ip", "location": "Header"}, {"from": "CaDomain", "name": "x-domain", "location": "Header"},
                    {"from": "CaApiName", "name": "x-api", "location": "Header"}, {"from": "CaHttpSchema", "name": "s", "location": "Query"},
                    {"from": "CaProxy", "name": "x-proxy", "location": "Header"}, {"from": "CaStage", "name": "x-stage", "location": "Header"},
                    {"from": "CaAppId", "name": "x-app", "location": "Header"}, {"from": "CaClientUa", "name": "x-ua", "location": "Header"},
                ],
            }}),
            "GET /p HTTP/1.1\r\nHost: A.com:80\r\nUser-Agent: me\r\nX-Source: forged\r\nX-Forwarded-For: 6.6.6.6\r\nX-Client-S-Dn: CN=forged\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n".into(),
            Ok(Expected {
                line: "GET /p?s=HTTP HTTP/1.1",
                headers: vec![
                    ("x-source", Some("gateway")), ("x-ip", Some("192.0.2.7")), ("x-domain", Some("a.com")), ("x-api", Some("theApi")),
                    ("x-proxy", Some("AliCloudApiGateway")), ("x-stage", Some("RELEASE")), ("x-app", None), ("x-ua", Some("me")),
                    ("x-forwarded-for", Some("192.0.2.7")), ("x-forwarded-proto", Some("http")), ("x-client-s-dn", None),
                    ("x_forwarded_for", None), ("via", Some("1.1 paifang")),
                ],
                body: "",
            }),
        ),
        row("hop-by-hop headers end here", json!({}), "GET /p HTTP/1.1\r\nHost: a.com\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nTE: gzip\r\nKeep-Alive: 5\r\nX-Kept: 1\r\n\r\n".into(), Ok(Expected { line: "GET /p HTTP/1.1", headers: vec![("connection", None), ("x-mine", None), ("te", None), ("keep-alive", None), ("x-kept", Some("1"))], body: "" })),
        row("trailers are asked for anew, for this hop", json!({}), "GET /p HTTP/1.1\r\nHost: a.com\r\nConnection: TE, X-Mine\r\nX-Mine: 1\r\nTE: gzip, trailers;q=0.5\r\n\r\n".into(), Ok(Expected { line: "GET /p HTTP/1.1", headers: vec![("connection", Some("TE")), ("te", Some("trailers")), ("x-mine", None)], body: "" })),
        row("a custom content type replaces the client's", json!({"dispatch": {"contentType": {"Custom": "text/x"}}}), form("/p", "a=1"), Ok(Expected { line: "POST /p HTTP/1.1", headers: vec![("content-type", Some("text/x"))], body: "a=1" })),
        row("eight gateways are a loop", json!({}), format!("GET /p HTTP/1.1\r\nHost: a.com\r\nVia: {}\r\n\r\n", ["1.1 paifang"; 8].join(", ")), Err("I508LD")),
    ]
}

#[test]
fn every_row() {
    run(|| async {
        for row in rows() {
            let bench = bench(ok, |group| merge(&mut group["apis"][0], &row.api)).await;
            let outcome = bench.forward(&row.request).await;
            match (outcome, row.expected) {
                (Ok(asked), Ok(expected)) => {
                    assert_eq!(first_line(&asked), expected.line, "{}", row.name);
                    for (name, value) in expected.headers {
                        assert_eq!(
                            header(&asked, name).as_deref(),
                            value,
                            "{}: {name}",
                            row.name
                        );
                    }
                    assert_eq!(body(&asked), expected.body, "{}", row.name);
                }
                (Err(code), Err(expected)) => assert_eq!(code, expected, "{}", row.name),
                (outcome, expected) => {
                    panic!(
                        "{}: {outcome:?}, expected {:?}",
                        row.name,
                        expected.map(|expected| expected.line)
                    );
                }
            }
        }
    });
}

#[test]
fn stage_variables_are_filled_in_per_route() {
    run(|| async {
        let bench = bench(ok, |group| {
            merge(
                &mut group["apis"][0],
                &json!({"dispatch": {"constants": [{"name": "x-r", "location": "Header", "value": "in #region#"}]}}),
            );
            group["routes"][0]["variables"] = json!({"region": "cn"});
        });
        let asked = bench.await.forward(&get("/p")).await.unwrap();
        assert_eq!(first_line(&asked), "GET /p HTTP/1.1");
        assert_eq!(header(&asked, "x-r").as_deref(), Some("in cn"));
    });
}

#[test]
fn filtered_app_codes_never_reach_the_backend() {
    run(|| async {
        let bench = bench(ok, |group| group["filterAppCode"] = json!(true)).await;
        let request = "GET /p?a=1&AppCode=c1&b=2 HTTP/1.1\r\nHost: a.com\r\nAuthorization: APPCODE c1\r\n\r\n";
        let asked = bench.forward(request).await.unwrap();
        assert!(!asked.contains("c1"), "{asked}");
        assert_eq!(first_line(&asked), "GET /p?a=1&b=2 HTTP/1.1");
    });
}
