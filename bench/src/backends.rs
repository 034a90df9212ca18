//! What each type of backend costs beside plain HTTP: one gateway with an Api of each type, called in turn while callgrind counts.
//!
//! All Apis are in one group and pass everything on, and every backend is the same nginx, so that two cases differ in nothing but the
//! type: what it writes, signs and reads. Left out: TLS towards backends, DNS (addresses are numbers) and the stores themselves.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    folder::{HOST, Site, kind, secret},
    load::Plan,
    measure::{Bench, Count, Ports},
};

/// What is posted and put: a small order.
const BODY: &str = r#"{"order":"4711","customer":"alice","items":[{"sku":"A-1","count":2},{"sku":"B-7","count":1}],"note":"leave it at the door, please","total":{"currency":"CNY","amount":"128.00"}}"#;

/// One type of backend, and how it is called.
pub(crate) struct Case {
    /// Also the first segment of its path.
    pub(crate) name: &'static str,
    /// For the table.
    pub(crate) about: &'static str,
    /// The case that it is compared with; none for plain HTTP itself.
    pub(crate) beside: Option<&'static str>,
    method: &'static str,
    /// `type` and configuration of its BackendService.
    service: (&'static str, Value),
    /// What its Api says of its backend.
    call: Value,
}

fn case(
    name: &'static str,
    about: &'static str,
    beside: Option<&'static str>,
    method: &'static str,
    service: (&'static str, Value),
    call: Value,
) -> Case {
    Case {
        name,
        about,
        beside,
        method,
        service,
        call,
    }
}

/// All cases, those that others are compared with first.
pub(crate) fn cases(ports: &Ports) -> Vec<Case> {
    let mut all = plain(ports);
    all.extend(functions(ports));
    all.extend(objects(ports));
    all.extend(events(ports));
    all
}

fn plain(ports: &Ports) -> Vec<Case> {
    let http = |port| ("HTTP", json!({"http": {"address": url(port)}}));
    let path = json!({"path": "/plain/*"});
    let (get, post) = (Some("get"), Some("post"));
    vec![
        case(
            "get",
            "HTTP, GET",
            None,
            "GET",
            http(ports.http),
            path.clone(),
        ),
        case(
            "post",
            "HTTP, POST of a small body",
            None,
            "POST",
            http(ports.http),
            path.clone(),
        ),
        case(
            "vpc",
            "VPC, one fixed address, GET",
            get,
            "GET",
            (
                "VPC",
                json!({"vpc": {"addresses": [format!("127.0.0.1:{}", ports.http)]}}),
            ),
            path.clone(),
        ),
        case(
            "h2c-get",
            "HTTP over HTTP/2 without TLS, GET",
            get,
            "GET",
            (
                "HTTP",
                json!({"http": {"address": url(ports.http2), "httpVersion": "HTTP2"}}),
            ),
            path.clone(),
        ),
        case(
            "h2c-post",
            "the same, POST",
            post,
            "POST",
            (
                "HTTP",
                json!({"http": {"address": url(ports.http2), "httpVersion": "HTTP2"}}),
            ),
            path,
        ),
        case(
            "mock",
            "Mock of 1 KiB",
            get,
            "GET",
            ("Mock", json!({"mock": {"body": "m".repeat(1024)}})),
            json!({}),
        ),
    ]
}

fn functions(ports: &Ports) -> Vec<Case> {
    let url = url(ports.http);
    let by_url = |kind: &str| {
        let config = json!({"url": format!("{url}/{}", kind.to_lowercase()), "kind": kind});
        ("FunctionCompute", json!({"functionCompute": config}))
    };
    let v2 = json!({"version": "2.0", "region": "cn-hangzhou", "service": "svc", "function": "hello", "endpoint": url});
    let v3 =
        json!({"version": "3.0", "region": "cn-hangzhou", "function": "hello", "endpoint": url});
    let signed = |function: &Value, kind: &str| {
        let config =
            json!({"alibaba": function, "kind": kind, "credentialsRef": {"name": "access"}});
        ("FunctionCompute", json!({"functionCompute": config}))
    };
    let path = json!({"path": "/plain/*"});
    let (post, event, http) = (Some("post"), Some("fc-event"), Some("fc-http"));
    vec![
        case(
            "fc-http",
            "FunctionCompute, HTTP function by URL",
            post,
            "POST",
            by_url("HTTP"),
            path.clone(),
        ),
        case(
            "fc2-http",
            "the same, signed for 2.0",
            http,
            "POST",
            signed(&v2, "HTTP"),
            path.clone(),
        ),
        case(
            "fc3-http",
            "the same, signed for 3.0",
            http,
            "POST",
            signed(&v3, "HTTP"),
            path.clone(),
        ),
        case(
            "fc-event",
            "FunctionCompute, event by URL",
            post,
            "POST",
            by_url("Event"),
            path.clone(),
        ),
        case(
            "fc2-event",
            "the same, signed for 2.0",
            event,
            "POST",
            signed(&v2, "Event"),
            path.clone(),
        ),
        case(
            "fc3-event",
            "the same, signed for 3.0 (hashes its body)",
            event,
            "POST",
            signed(&v3, "Event"),
            path,
        ),
    ]
}

fn objects(ports: &Ports) -> Vec<Case> {
    let store = |dialect: &str, version: &str| {
        let mut config = json!({"endpoint": url(ports.http), "bucket": "bench", "region": "cn-hangzhou", "dialect": dialect, "credentialsRef": {"name": "access"}});
        if dialect == "OSS" {
            config["signatureVersion"] = version.into();
        }
        ("OSS", json!({"oss": config}))
    };
    let (get, put) = (
        json!({"object": {"action": "GetObject", "key": "/plain/*"}}),
        json!({"object": {"action": "PutObject", "key": "/plain/*"}}),
    );
    let (beside_get, beside_post) = (Some("get"), Some("post"));
    vec![
        case(
            "oss4-get",
            "OSS V4, GetObject of 1 KiB",
            beside_get,
            "GET",
            store("OSS", "V4"),
            get.clone(),
        ),
        case(
            "oss1-get",
            "OSS V1, GetObject of 1 KiB",
            beside_get,
            "GET",
            store("OSS", "V1"),
            get.clone(),
        ),
        case(
            "s3-get",
            "S3, GetObject of 1 KiB",
            beside_get,
            "GET",
            store("S3", ""),
            get,
        ),
        case(
            "oss4-put",
            "OSS V4, PutObject of a small body",
            beside_post,
            "PUT",
            store("OSS", "V4"),
            put.clone(),
        ),
        case(
            "oss1-put",
            "OSS V1, PutObject of a small body",
            beside_post,
            "PUT",
            store("OSS", "V1"),
            put.clone(),
        ),
        case(
            "s3-put",
            "S3, PutObject of a small body",
            beside_post,
            "PUT",
            store("S3", ""),
            put,
        ),
    ]
}

fn events(ports: &Ports) -> Vec<Case> {
    let url = url(ports.http);
    let sink = |mode: &str| {
        let config = json!({"sink": format!("{url}/sink"), "source": "/bench", "mode": mode});
        ("EventBridge", json!({"eventBridge": config}))
    };
    let bus = json!({"region": "cn-hangzhou", "bus": "orders", "source": "bench", "endpoint": url});
    let bus = json!({"alibaba": bus, "credentialsRef": {"name": "access"}});
    let call = json!({"event": {"type": "com.example.order"}});
    vec![
        case(
            "event-binary",
            "EventBridge, sink, mode Binary",
            Some("post"),
            "POST",
            sink("Binary"),
            call.clone(),
        ),
        case(
            "event-structured",
            "EventBridge, sink, mode Structured",
            Some("post"),
            "POST",
            sink("Structured"),
            call.clone(),
        ),
        case(
            "bus",
            "EventBridge, a bus, signed",
            Some("event-structured"),
            "POST",
            ("EventBridge", json!({"eventBridge": bus})),
            call,
        ),
    ]
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Case {
    fn objects(&self) -> [Value; 2] {
        let (of, config) = &self.service;
        let display_name = format!("case_{}", self.name.replace('-', "_"));
        let mut backend = self.call.clone();
        backend["serviceRef"] = json!({"name": self.name});
        let request = json!({"protocols": ["HTTP"], "method": self.method, "path": format!("/{}/*", self.name), "mode": "Passthrough"});
        [
            kind(
                "BackendService",
                self.name,
                json!({"displayName": display_name, "type": of, "stages": {"RELEASE": config}}),
            ),
            kind(
                "Api",
                self.name,
                json!({"groupRef": {"name": "backends"}, "displayName": display_name, "auth": {"type": "Anonymous"}, "request": request, "backend": backend, "stages": {"RELEASE": {}}}),
            ),
        ]
    }

    fn request(&self) -> Vec<u8> {
        let (method, name) = (self.method, self.name);
        let head = format!(
            "{method} /{name}/reports/2026/november.json HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: paifang-bench\r\nAccept: */*\r\n"
        );
        match method {
            "GET" => format!("{head}\r\n"),
            _ => format!(
                "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
                BODY.len()
            ),
        }
        .into_bytes()
    }

    pub(crate) fn plan(&self) -> Plan<'static> {
        Plan::same(self.request())
    }
}

/// The folder with all cases.
fn folder(site: &Site, cases: &[Case]) -> Result<PathBuf> {
    let mut objects = vec![
        kind(
            "ApiGroup",
            "backends",
            json!({"displayName": "backends", "qpsLimit": 1_000_000}),
        ),
        kind(
            "DomainBinding",
            "backends",
            json!({"groupRef": {"name": "backends"}, "domain": HOST, "network": "Internet"}),
        ),
        secret(
            "access",
            "Opaque",
            json!({"accessKeyId": "LTAI0000000000000000TEST", "accessKeySecret": "benchmark-secret-not-for-production"}),
        ),
    ];
    objects.extend(cases.iter().flat_map(Case::objects));
    site.folder("backends", &objects)
}

/// Counts every case in one run of the gateway; instructions of a request.
pub(crate) fn measure(bench: &Bench, site: &Site) -> Result<Vec<(Case, Count)>> {
    let cases = cases(&bench.ports());
    let plans: Vec<_> = cases.iter().map(Case::plan).collect();
    let counts = bench.count_in_turn(&folder(site, &cases)?, &plans)?;
    Ok(cases.into_iter().zip(counts).collect())
}
