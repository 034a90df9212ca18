//! A valid fixture, one mutation, one expected reason and field: every refusal there is.

use std::collections::BTreeSet;

use paifang_compiler::{Memory, Reason, Settings, compile};
use serde_json::{Value, json};

use crate::support::{documents, gather, id, render, settings, verdict};

const FIXTURE: &str = r#"
kind: ApiGroup
metadata: {name: g, namespace: demo}
spec: {displayName: weatherGroup, stageVariables: {RELEASE: {v: v1}}}
---
kind: ApiGroup
metadata: {name: closed, namespace: elsewhere}
spec: {}
---
kind: BackendService
metadata: {name: http, namespace: demo}
spec: {type: HTTP, stages: {RELEASE: {http: {address: "https://b.example.com", tls: {caSecretRef: {name: ca}}}}}}
---
kind: BackendService
metadata: {name: vpc, namespace: demo}
spec: {type: VPC, stages: {RELEASE: {vpc: {service: {name: s, port: 80}}}}}
---
kind: BackendService
metadata: {name: mock, namespace: demo}
spec: {type: Mock, stages: {RELEASE: {mock: {headers: [{name: X-A, value: b}]}}}}
---
kind: BackendService
metadata: {name: function, namespace: demo}
spec: {type: FunctionCompute, stages: {}}
---
kind: BackendService
metadata: {name: oss, namespace: demo}
spec: {type: OSS, stages: {}}
---
kind: BackendService
metadata: {name: events, namespace: demo}
spec: {type: EventBridge, stages: {}}
---
kind: Service
metadata: {name: s, namespace: demo}
spec: {ports: [{name: web, port: 80, ready: []}]}
---
kind: Service
metadata: {name: far, namespace: shop}
spec: {ports: [{port: 80, ready: []}]}
---
kind: Service
metadata: {name: metadata, namespace: demo}
spec: {externalName: 169.254.169.254}
---
kind: Secret
metadata: {name: ca, namespace: demo}
stringData: {ca.crt: CA}
---
kind: Secret
metadata: {name: tls, namespace: demo}
stringData: {tls.crt: CERT 1 d.example.com, tls.key: KEY 1}
---
kind: Secret
metadata: {name: key, namespace: demo}
stringData: {appKey: k1, appSecret: s1}
---
kind: Secret
metadata: {name: code, namespace: demo}
stringData: {appCode: c1}
---
kind: Api
metadata: {name: a, namespace: demo}
spec:
  groupRef: {name: g}
  displayName: getForecast
  request:
    method: GET
    path: /a/[x]
    parameters:
    - {name: x, in: Path, backend: {name: "y"}}
    - {name: q, in: Query, type: Int, minimum: 1, maximum: 9, default: "3"}
    - {name: h, in: Header, minLength: 1, maxLength: 9, pattern: "^a", enum: [a, ab]}
    - {name: f, in: Form, jsonSchema: "{}"}
  backend:
    serviceRef: {name: http}
    path: /#v#/[y]
    constants: [{name: c, in: Header, value: "1"}]
    system: [{from: CaStage, name: s, in: Query}]
  response: {contentType: text/plain, errorCodes: [{code: "1"}]}
  stages: {RELEASE: {}}
---
kind: Api
metadata: {name: inline, namespace: demo}
spec: {groupRef: {name: g}, request: {method: GET, path: /inline}, backend: {mock: {}}, stages: {RELEASE: {}}}
---
kind: App
metadata: {name: p, namespace: demo}
spec: {credentials: [{name: key, type: KeyPair, secretRef: {name: key}}, {name: code, type: AppCode, secretRef: {name: code}}]}
---
kind: App
metadata: {name: second, namespace: demo}
spec: {}
---
kind: Authorization
metadata: {name: z, namespace: demo}
spec: {apis: [{name: a}], apps: [{name: p}], stage: RELEASE}
---
kind: DomainBinding
metadata: {name: d, namespace: demo}
spec: {groupRef: {name: g}, domain: d.example.com, tls: {secretRef: {name: tls}, clientCaSecretRef: {name: ca}}}
---
kind: DomainBinding
metadata: {name: e, namespace: demo}
spec: {groupRef: {name: g}, domain: e.example.com}
"#;

const A: &str = "Api demo/a";
const INLINE: &str = "Api demo/inline";
const G: &str = "ApiGroup demo/g";
const HTTP: &str = "BackendService demo/http";
const VPC: &str = "BackendService demo/vpc";
const MOCK: &str = "BackendService demo/mock";
const P: &str = "App demo/p";
const Z: &str = "Authorization demo/z";
const D: &str = "DomainBinding demo/d";

/// Object, place below its spec, new value (null removes), reason, field.
type Row = (&'static str, &'static str, Value, Reason, &'static str);

/// A list of so many.
type Many<'m> = &'m dyn Fn(usize, &dyn Fn(usize) -> Value) -> Value;

#[allow(clippy::enum_glob_use)]
fn rows() -> Vec<Row> {
    use Reason::*;
    let long = |length: usize| json!("a".repeat(length));
    let many = |count: usize, one: &dyn Fn(usize) -> Value| {
        Value::from((0..count).map(one).collect::<Vec<_>>())
    };
    let stages = |count: usize, value: Value| -> Value {
        let stage = |at: usize| (format!("S{at}"), value.clone());
        Value::Object((0..count).map(stage).collect())
    };
    let mut rows = vec![
        // ApiGroup
        (G, "", json!("x"), Malformed, "spec"),
        (
            G,
            "/displayName",
            json!("abc"),
            InvalidValue,
            "spec.displayName",
        ),
        (
            G,
            "/displayName",
            json!("1abcd"),
            InvalidValue,
            "spec.displayName",
        ),
        (
            G,
            "/displayName",
            long(51),
            InvalidValue,
            "spec.displayName",
        ),
        (G, "/description", long(181), TooLong, "spec.description"),
        (G, "/basePath", json!("x"), InvalidPath, "spec.basePath"),
        (G, "/basePath", json!("/[a]"), InvalidPath, "spec.basePath"),
        (
            G,
            "/basePath",
            json!(format!("/{}", "a".repeat(256))),
            TooLong,
            "spec.basePath",
        ),
        (G, "/instance", json!("a.b"), InvalidValue, "spec.instance"),
        (G, "/qpsLimit", json!(0), OutOfRange, "spec.qpsLimit"),
        (
            G,
            "/subDomain",
            json!({"dailyQuota": 1_000_000_001}),
            OutOfRange,
            "spec.subDomain.dailyQuota",
        ),
        (
            G,
            "/stageVariables",
            json!({"release": {}}),
            InvalidStage,
            "spec.stageVariables.release",
        ),
        (
            G,
            "/stageVariables",
            stages(21, json!({})),
            TooMany,
            "spec.stageVariables",
        ),
        (
            G,
            "/stageVariables/RELEASE",
            Value::Object((0..51).map(|at| (format!("v{at}"), json!(""))).collect()),
            TooMany,
            "spec.stageVariables.RELEASE",
        ),
        (
            G,
            "/stageVariables/RELEASE",
            json!({"1": ""}),
            InvalidValue,
            "spec.stageVariables.RELEASE.1",
        ),
        (
            G,
            "/stageVariables/RELEASE/v",
            json!("a\nb"),
            InvalidValue,
            "spec.stageVariables.RELEASE.v",
        ),
        (
            G,
            "/stageVariables/RELEASE/v",
            long(1025),
            TooLong,
            "spec.stageVariables.RELEASE.v",
        ),
        (
            G,
            "/allowedNamespaces",
            json!({"from": "Selector"}),
            Required,
            "spec.allowedNamespaces.selector",
        ),
        (
            G,
            "/allowedNamespaces",
            json!({"from": "All", "selector": {}}),
            Contradiction,
            "spec.allowedNamespaces.selector",
        ),
        (
            G,
            "/allowedNamespaces",
            json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            InvalidValue,
            "spec.allowedNamespaces.selector.matchExpressions[0].operator",
        ),
        (
            G,
            "/allowedNamespaces",
            json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            Contradiction,
            "spec.allowedNamespaces.selector.matchExpressions[0].values",
        ),
        // BackendService
        (
            HTTP,
            "/displayName",
            json!("a-b-c"),
            InvalidValue,
            "spec.displayName",
        ),
        (
            HTTP,
            "/stages",
            stages(21, json!({"http": {"address": "http://a"}})),
            TooMany,
            "spec.stages",
        ),
        (
            HTTP,
            "/stages/Release",
            json!({"http": {"address": "http://a"}}),
            InvalidStage,
            "spec.stages.Release",
        ),
        (
            HTTP,
            "/stages/RELEASE",
            json!({"mock": {}}),
            Contradiction,
            "spec.stages.RELEASE",
        ),
        (
            HTTP,
            "/stages/RELEASE/mock",
            json!({}),
            Contradiction,
            "spec.stages.RELEASE",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/address",
            json!("b.example.com"),
            InvalidAddress,
            "spec.stages.RELEASE.http.address",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/address",
            json!("https://b.example.com/x"),
            InvalidAddress,
            "spec.stages.RELEASE.http.address",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/address",
            json!("https://169.254.169.254"),
            AddressNotAllowed,
            "spec.stages.RELEASE.http.address",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/address",
            json!("http://b.example.com"),
            Contradiction,
            "spec.stages.RELEASE.http.tls",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/host",
            json!("a b"),
            InvalidHost,
            "spec.stages.RELEASE.http.host",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/tls/serverName",
            json!("a b"),
            InvalidHost,
            "spec.stages.RELEASE.http.tls.serverName",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/tls/caSecretRef/name",
            json!("A"),
            InvalidValue,
            "spec.stages.RELEASE.http.tls.caSecretRef.name",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/tls/caSecretRef/name",
            json!("gone"),
            SecretNotFound,
            "spec.stages.RELEASE.http.tls.caSecretRef",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/tls/caSecretRef/name",
            json!("key"),
            SecretInvalid,
            "spec.stages.RELEASE.http.tls.caSecretRef",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/tls/clientCertificateRef",
            json!({"name": "gone"}),
            SecretNotFound,
            "spec.stages.RELEASE.http.tls.clientCertificateRef",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/addresses",
            json!(["10.0.0.1:80"]),
            Contradiction,
            "spec.stages.RELEASE.vpc",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service",
            Value::Null,
            Contradiction,
            "spec.stages.RELEASE.vpc",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc",
            json!({"addresses": ["10.0.0.1"]}),
            InvalidAddress,
            "spec.stages.RELEASE.vpc.addresses[0]",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc",
            json!({"addresses": ["10.0.0.1:80", "10.0.0.1:80"]}),
            Duplicate,
            "spec.stages.RELEASE.vpc.addresses[1]",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc",
            json!({"addresses": ["100.100.100.200:80"]}),
            AddressNotAllowed,
            "spec.stages.RELEASE.vpc.addresses[0]",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc",
            json!({"addresses": many(101, &|at| json!(format!("10.0.0.1:{}", at + 1)))}),
            TooMany,
            "spec.stages.RELEASE.vpc.addresses",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/port",
            json!(0),
            OutOfRange,
            "spec.stages.RELEASE.vpc.service.port",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/port",
            json!("no port"),
            OutOfRange,
            "spec.stages.RELEASE.vpc.service.port",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/port",
            json!(81),
            ServicePortNotFound,
            "spec.stages.RELEASE.vpc.service.port",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/port",
            json!("admin"),
            ServicePortNotFound,
            "spec.stages.RELEASE.vpc.service.port",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/name",
            json!("gone"),
            ServiceNotFound,
            "spec.stages.RELEASE.vpc.service.name",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/name",
            json!("No"),
            InvalidValue,
            "spec.stages.RELEASE.vpc.service.name",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/name",
            json!("metadata"),
            AddressNotAllowed,
            "spec.stages.RELEASE.vpc.service.name",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service",
            json!({"name": "far", "namespace": "shop", "port": 80}),
            ReferenceNotGranted,
            "spec.stages.RELEASE.vpc.service.namespace",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/service/namespace",
            json!("a.b"),
            InvalidValue,
            "spec.stages.RELEASE.vpc.service.namespace",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/host",
            json!("a b"),
            InvalidHost,
            "spec.stages.RELEASE.vpc.host",
        ),
        (
            VPC,
            "/stages/RELEASE/vpc/tls",
            json!({}),
            Contradiction,
            "spec.stages.RELEASE.vpc.tls",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/statusCode",
            json!(199),
            OutOfRange,
            "spec.stages.RELEASE.mock.statusCode",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/headers/0/name",
            json!("a b"),
            InvalidValue,
            "spec.stages.RELEASE.mock.headers[0].name",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/headers/0/name",
            json!("Connection"),
            InvalidValue,
            "spec.stages.RELEASE.mock.headers[0].name",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/headers/0/value",
            json!("a\r\nb"),
            InvalidValue,
            "spec.stages.RELEASE.mock.headers[0].value",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/headers/0/value",
            long(2049),
            TooLong,
            "spec.stages.RELEASE.mock.headers[0].value",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/headers",
            many(33, &|at| json!({"name": format!("h{at}"), "value": ""})),
            TooMany,
            "spec.stages.RELEASE.mock.headers",
        ),
        (
            MOCK,
            "/stages/RELEASE/mock/body",
            long(32_769),
            TooLong,
            "spec.stages.RELEASE.mock.body",
        ),
    ];
    rows.extend(other_backends());
    rows.extend(apis(&long, &many));
    rows.extend(parameters(&long, &many));
    rows.extend([
        // App
        (P, "/displayName", long(27), InvalidValue, "spec.displayName"),
        (P, "/description", long(181), TooLong, "spec.description"),
        (P, "/credentials", many(21, &|at| json!({"name": format!("c{at}"), "type": "AppCode"})), TooMany, "spec.credentials"),
        (P, "/credentials/1/name", json!("key"), Duplicate, "spec.credentials[1].name"),
        (P, "/credentials/1/name", json!("A"), InvalidValue, "spec.credentials[1].name"),
        (P, "/credentials/0/secretRef/name", json!("A"), InvalidValue, "spec.credentials[0].secretRef.name"),
        (P, "/credentials/0/secretRef/name", json!("gone"), SecretNotFound, "spec.credentials[0].secretRef"),
        (P, "/credentials/0/secretRef/name", json!("code"), SecretInvalid, "spec.credentials[0].secretRef"),
        (P, "/credentials/0/secretRef", Value::Null, SecretNotFound, "spec.credentials[0]"),
        (P, "/credentials/1", json!({"name": "two", "type": "KeyPair", "secretRef": {"name": "key"}}), Duplicate, "spec.credentials[1]"),
        (P, "/credentials/0", json!({"name": "a", "type": "KeyPair", "secretRef": {"name": "key"}, "notBefore": "2026-01-02T00:00:00Z", "expiresAt": "2026-01-01T00:00:00Z"}), Contradiction, "spec.credentials[0].expiresAt"),
        ("App demo/second", "/credentials", json!([{"name": "a", "type": "KeyPair", "secretRef": {"name": "key"}}]), Conflicted, "spec.credentials[0]"),
        ("App demo/second", "/credentials", json!([{"name": "a", "type": "AppCode", "secretRef": {"name": "code"}}]), Conflicted, "spec.credentials[0]"),
        // Authorization
        (Z, "/description", long(181), TooLong, "spec.description"),
        (Z, "/group", json!({"name": "g"}), Contradiction, "spec"),
        (Z, "/apis", Value::Null, Contradiction, "spec"),
        (Z, "/apis", many(101, &|at| json!({"name": format!("a{at}")})), TooMany, "spec.apis"),
        (Z, "/apis/0/name", json!("A"), InvalidValue, "spec.apis[0].name"),
        (Z, "/apis", json!([{"name": "a"}, {"name": "a"}]), Duplicate, "spec.apis[1].name"),
        (
            Z,
            "/apis",
            json!([{"name": "inline"}, {"name": "a-gone"}]),
            ApiNotFound,
            "spec.apis[1].name",
        ),
        (Z, "/apis/0/name", json!("gone"), ApiNotFound, "spec.apis[0].name"),
        (Z, "/apps", json!([]), Required, "spec.apps"),
        (Z, "/apps", many(101, &|_| json!({"name": "p"})), TooMany, "spec.apps"),
        (Z, "/apps/0/name", json!("gone"), AppNotFound, "spec.apps[0]"),
        (Z, "/apps/0/namespace", json!("A"), InvalidValue, "spec.apps[0].namespace"),
        (Z, "/stage", json!("live"), InvalidStage, "spec.stage"),
        // DomainBinding
        (D, "/groupRef/name", json!("G"), InvalidValue, "spec.groupRef.name"),
        (D, "/groupRef/name", json!("gone"), GroupNotFound, "spec.groupRef"),
        (D, "/domain", json!("*.com"), InvalidHost, "spec.domain"),
        (D, "/domain", json!("x.api.localtest"), DomainNotAllowed, "spec.domain"),
        (D, "/domain", json!("internal.localtest"), DomainNotAllowed, "spec.domain"),
        (D, "/domain", json!("d.example.org"), DomainNotAllowed, "spec.domain"),
        (D, "/domain", json!("badexample.com"), DomainNotAllowed, "spec.domain"),
        (D, "/domain", json!("x.example.com"), CertificateMismatch, "spec.tls.secretRef"),
        (D, "/stage", json!("live"), InvalidStage, "spec.stage"),
        (D, "/tls/secretRef/name", json!("T"), InvalidValue, "spec.tls.secretRef.name"),
        (D, "/tls/secretRef/name", json!("gone"), SecretNotFound, "spec.tls.secretRef"),
        (D, "/tls/secretRef/name", json!("ca"), SecretInvalid, "spec.tls.secretRef"),
        (D, "/tls/clientCaSecretRef/name", json!("gone"), SecretNotFound, "spec.tls.clientCaSecretRef"),
        (D, "/tls/clientCaSecretRef/name", json!("C"), InvalidValue, "spec.tls.clientCaSecretRef.name"),
        (D, "/tls", json!({"secretRef": {"name": "tls"}, "passClientSubject": true}), Contradiction, "spec.tls.passClientSubject"),
        ("DomainBinding demo/e", "/domain", json!("d.example.com"), Conflicted, "spec.domain"),
    ]);
    rows
}

/// Functions, object stores and events.
#[allow(clippy::enum_glob_use)]
fn other_backends() -> Vec<Row> {
    use Reason::*;
    const FUNCTION: &str = "BackendService demo/function";
    const OSS: &str = "BackendService demo/oss";
    const EVENTS: &str = "BackendService demo/events";
    let function = |value: Value| json!({"functionCompute": value});
    let oss = |key: &str, value: Value| {
        let mut oss = json!({"endpoint": "https://o.example.com", "bucket": "abc", "region": "r", "credentialsRef": {"name": "c"}});
        oss[key] = value;
        json!({"oss": oss})
    };
    let events = |value: Value| json!({"eventBridge": value});
    let at = "/stages/RELEASE";
    let alibaba = |value: Value| {
        let mut alibaba = json!({"region": "r", "function": "f", "accountId": "1"});
        for (key, value) in value.as_object().into_iter().flatten() {
            alibaba[key] = value.clone();
        }
        function(json!({"kind": "Event", "alibaba": alibaba, "credentialsRef": {"name": "c"}}))
    };
    vec![
        (
            FUNCTION,
            at,
            function(
                json!({"kind": "Event", "url": "http://f.svc", "tls": {"serverName": "f.svc"}}),
            ),
            Contradiction,
            "spec.stages.RELEASE.functionCompute.tls",
        ),
        (
            FUNCTION,
            at,
            function(json!({"kind": "Event"})),
            Contradiction,
            "spec.stages.RELEASE.functionCompute",
        ),
        (
            FUNCTION,
            at,
            function(json!({"kind": "Event", "url": "f.svc"})),
            InvalidAddress,
            "spec.stages.RELEASE.functionCompute.url",
        ),
        (
            FUNCTION,
            at,
            function(json!({"kind": "Event", "url": "http://f.svc/?a"})),
            InvalidAddress,
            "spec.stages.RELEASE.functionCompute.url",
        ),
        (
            FUNCTION,
            at,
            function(json!({"kind": "Event", "url": "http://169.254.1.1/a"})),
            AddressNotAllowed,
            "spec.stages.RELEASE.functionCompute.url",
        ),
        (
            FUNCTION,
            at,
            function(
                json!({"kind": "Event", "url": "http://f.svc", "credentialsRef": {"name": "c"}}),
            ),
            Contradiction,
            "spec.stages.RELEASE.functionCompute.credentialsRef",
        ),
        (
            FUNCTION,
            at,
            alibaba(json!({"version": "2.0"})),
            Required,
            "spec.stages.RELEASE.functionCompute.alibaba.service",
        ),
        (
            FUNCTION,
            at,
            function(
                json!({"kind": "HTTP", "alibaba": {"version": "3.0", "region": "r", "function": "f", "accountId": "1"}, "credentialsRef": {"name": "c"}}),
            ),
            Required,
            "spec.stages.RELEASE.functionCompute.alibaba.endpoint",
        ),
        (
            FUNCTION,
            at,
            alibaba(json!({"accountId": null})),
            Required,
            "spec.stages.RELEASE.functionCompute.alibaba.accountId",
        ),
        (
            FUNCTION,
            at,
            alibaba(json!({"endpoint": "x"})),
            InvalidAddress,
            "spec.stages.RELEASE.functionCompute.alibaba.endpoint",
        ),
        (
            FUNCTION,
            at,
            function(
                json!({"kind": "Event", "alibaba": {"region": "r", "function": "f", "accountId": "1"}}),
            ),
            Required,
            "spec.stages.RELEASE.functionCompute.credentialsRef",
        ),
        (
            OSS,
            at,
            oss("region", json!("cn")),
            SecretNotFound,
            "spec.stages.RELEASE.oss.credentialsRef",
        ),
        (
            OSS,
            at,
            json!({"oss": {"endpoint": "https://o.example.com", "bucket": "abc", "region": "r", "dialect": "S3", "signatureVersion": "V1", "credentialsRef": {"name": "c"}}}),
            Contradiction,
            "spec.stages.RELEASE.oss.signatureVersion",
        ),
        (
            OSS,
            at,
            oss("endpoint", json!("o")),
            InvalidAddress,
            "spec.stages.RELEASE.oss.endpoint",
        ),
        (
            OSS,
            at,
            oss("endpoint", json!("http://169.254.1.1")),
            AddressNotAllowed,
            "spec.stages.RELEASE.oss.endpoint",
        ),
        (
            OSS,
            at,
            oss("bucket", json!("A")),
            InvalidValue,
            "spec.stages.RELEASE.oss.bucket",
        ),
        (
            OSS,
            at,
            oss("region", json!("R")),
            InvalidValue,
            "spec.stages.RELEASE.oss.region",
        ),
        (
            OSS,
            at,
            oss("credentialsRef", json!({"name": "C"})),
            InvalidValue,
            "spec.stages.RELEASE.oss.credentialsRef.name",
        ),
        (
            EVENTS,
            at,
            events(json!({"sink": "http://b.svc/x", "tls": {"serverName": "b.svc"}})),
            Contradiction,
            "spec.stages.RELEASE.eventBridge.tls",
        ),
        (
            EVENTS,
            at,
            events(json!({})),
            Contradiction,
            "spec.stages.RELEASE.eventBridge",
        ),
        (
            EVENTS,
            at,
            events(json!({"sink": "b"})),
            InvalidAddress,
            "spec.stages.RELEASE.eventBridge.sink",
        ),
        (
            EVENTS,
            at,
            events(json!({"alibaba": {"region": "r", "bus": "b", "source": "s"}})),
            Required,
            "spec.stages.RELEASE.eventBridge.alibaba.accountId",
        ),
    ]
}

#[allow(clippy::enum_glob_use)]
fn apis(long: &dyn Fn(usize) -> Value, many: Many<'_>) -> Vec<Row> {
    use Reason::*;
    vec![
        (
            A,
            "/groupRef/name",
            json!("G"),
            InvalidValue,
            "spec.groupRef.name",
        ),
        (
            A,
            "/groupRef/namespace",
            json!("G"),
            InvalidValue,
            "spec.groupRef.namespace",
        ),
        (
            A,
            "/groupRef/name",
            json!("gone"),
            GroupNotFound,
            "spec.groupRef",
        ),
        (
            A,
            "/groupRef",
            json!({"name": "closed", "namespace": "elsewhere"}),
            NamespaceNotAllowed,
            "spec.groupRef",
        ),
        (
            A,
            "/displayName",
            json!("a b c d"),
            InvalidValue,
            "spec.displayName",
        ),
        (A, "/description", long(2001), TooLong, "spec.description"),
        (
            A,
            "/auth",
            json!({"signatureMethods": []}),
            Required,
            "spec.auth.signatureMethods",
        ),
        (
            A,
            "/auth",
            json!({"signatureMethods": ["HmacSHA1", "HmacSHA1"]}),
            Duplicate,
            "spec.auth.signatureMethods[1]",
        ),
        (
            A,
            "/request/protocols",
            json!([]),
            Required,
            "spec.request.protocols",
        ),
        (
            A,
            "/request/protocols",
            json!(["HTTP", "HTTP"]),
            Duplicate,
            "spec.request.protocols[1]",
        ),
        (
            A,
            "/request/kind",
            json!("Register"),
            Contradiction,
            "spec.request.protocols",
        ),
        (
            A,
            "/request/kind",
            json!("Unregister"),
            Contradiction,
            "spec.request.protocols",
        ),
        (
            A,
            "/request/method",
            json!("TRACE"),
            InvalidValue,
            "spec.request.method",
        ),
        (A, "/request/method", json!("get"), Malformed, "spec"),
        (
            A,
            "/request/path",
            json!("a"),
            InvalidPath,
            "spec.request.path",
        ),
        (
            A,
            "/request/path",
            json!("/a"),
            PathParameterMismatch,
            "spec.request.parameters[0].name",
        ),
        (
            A,
            "/request/path",
            json!("/a/[x]/[z]"),
            PathParameterMismatch,
            "spec.request.path",
        ),
        (
            A,
            "/request/path",
            json!(format!("/[x]/{}", "a".repeat(1020))),
            TooLong,
            "spec.request.path",
        ),
        (
            A,
            "/request/mode",
            json!("Passthrough"),
            Contradiction,
            "spec.request.parameters[1].in",
        ),
        (
            A,
            "/request/bodyFormat",
            json!("Stream"),
            Contradiction,
            "spec.request.parameters[3].in",
        ),
        (
            A,
            "/request/parameters",
            many(101, &|at| json!({"name": format!("q{at}"), "in": "Query"})),
            TooMany,
            "spec.request.parameters",
        ),
        (
            A,
            "/backend/serviceRef/name",
            json!("H"),
            InvalidValue,
            "spec.backend.serviceRef.name",
        ),
        (
            A,
            "/backend/serviceRef/name",
            json!("gone"),
            BackendNotFound,
            "spec.backend.serviceRef",
        ),
        (
            A,
            "/backend/serviceRef",
            Value::Null,
            Contradiction,
            "spec.backend",
        ),
        (A, "/backend/mock", json!({}), Contradiction, "spec.backend"),
        (
            A,
            "/backend/method",
            json!("TRACE"),
            InvalidValue,
            "spec.backend.method",
        ),
        (
            A,
            "/backend/path",
            json!("v/[y]"),
            InvalidPath,
            "spec.backend.path",
        ),
        (
            A,
            "/backend/path",
            json!("/[y]/*"),
            InvalidPath,
            "spec.backend.path",
        ),
        (
            A,
            "/backend/path",
            json!("/x"),
            PathParameterMismatch,
            "spec.request.parameters[0].backend",
        ),
        (
            A,
            "/backend/path",
            json!("/[y]/[z]"),
            PathParameterMismatch,
            "spec.backend.path",
        ),
        (
            A,
            "/backend/path",
            Value::Null,
            PathParameterMismatch,
            "spec.backend.path",
        ),
        (
            A,
            "/backend/path",
            json!(format!("/[y]/{}", "a".repeat(1020))),
            TooLong,
            "spec.backend.path",
        ),
        (
            A,
            "/backend/timeout",
            json!("10"),
            InvalidValue,
            "spec.backend.timeout",
        ),
        (
            A,
            "/backend/timeout",
            json!("0s"),
            OutOfRange,
            "spec.backend.timeout",
        ),
        (
            A,
            "/backend/timeout",
            json!("31s"),
            OutOfRange,
            "spec.backend.timeout",
        ),
        (
            A,
            "/backend/contentType",
            json!("Custom"),
            Required,
            "spec.backend.contentTypeValue",
        ),
        (
            A,
            "/backend/contentTypeValue",
            json!("a/b"),
            Contradiction,
            "spec.backend.contentTypeValue",
        ),
        (
            A,
            "/backend/constants",
            json!([{"name": "content-type", "in": "Header", "value": "a"}]),
            InvalidValue,
            "spec.backend.constants[0].name",
        ),
        (
            A,
            "/backend/constants",
            many(
                51,
                &|at| json!({"name": format!("c{at}"), "in": "Query", "value": ""}),
            ),
            TooMany,
            "spec.backend.constants",
        ),
        (
            A,
            "/backend/constants/0/name",
            json!("a b"),
            InvalidValue,
            "spec.backend.constants[0].name",
        ),
        (
            A,
            "/backend/constants/0/name",
            json!("Host"),
            InvalidValue,
            "spec.backend.constants[0].name",
        ),
        (
            A,
            "/backend/constants/0/name",
            json!("H"),
            Duplicate,
            "spec.backend.constants[0].name",
        ),
        (
            A,
            "/backend/constants/0/in",
            json!("Path"),
            InvalidValue,
            "spec.backend.constants[0].in",
        ),
        (
            A,
            "/backend/constants/0/value",
            json!(" a"),
            InvalidValue,
            "spec.backend.constants[0].value",
        ),
        (
            A,
            "/backend/constants/0/value",
            long(2049),
            TooLong,
            "spec.backend.constants[0].value",
        ),
        (
            A,
            "/backend/constants/0/value",
            json!("#nowhere#"),
            StageVariableMissing,
            "spec.backend",
        ),
        (
            G,
            "/stageVariables/RELEASE/v",
            json!("a/../b"),
            StageVariableMissing,
            "Api demo/a spec.backend.path",
        ),
        (
            G,
            "/stageVariables/RELEASE/v",
            json!("[z]"),
            StageVariableMissing,
            "Api demo/a spec.backend.path",
        ),
        (
            A,
            "/backend/system",
            many(
                51,
                &|at| json!({"from": "CaStage", "name": format!("s{at}"), "in": "Query"}),
            ),
            TooMany,
            "spec.backend.system",
        ),
        (
            A,
            "/backend/system/0/in",
            json!("Path"),
            InvalidValue,
            "spec.backend.system[0].in",
        ),
        (
            A,
            "/backend/system/0/name",
            json!("a b"),
            InvalidValue,
            "spec.backend.system[0].name",
        ),
        (
            A,
            "/backend/system/0/name",
            json!("q"),
            Duplicate,
            "spec.backend.system[0].name",
        ),
        (
            A,
            "/response/contentType",
            json!("a\nb"),
            InvalidValue,
            "spec.response.contentType",
        ),
        (
            A,
            "/response/contentType",
            long(257),
            TooLong,
            "spec.response.contentType",
        ),
        (
            A,
            "/response/successSample",
            long(32_769),
            TooLong,
            "spec.response.successSample",
        ),
        (
            A,
            "/response/failureSample",
            long(16_385),
            TooLong,
            "spec.response.failureSample",
        ),
        (
            A,
            "/response/errorCodes",
            json!([{"code": "1"}, {"code": "1"}]),
            Duplicate,
            "spec.response.errorCodes[1].code",
        ),
        (
            A,
            "/response/errorCodes",
            many(101, &|at| json!({"code": at.to_string()})),
            TooMany,
            "spec.response.errorCodes",
        ),
        (
            A,
            "/stages",
            json!({"live": {}}),
            InvalidStage,
            "spec.stages.live",
        ),
        (
            A,
            "/stages/RELEASE",
            json!({"release": 0}),
            OutOfRange,
            "spec.stages.RELEASE.release",
        ),
        (
            A,
            "/stages/RELEASE",
            json!({"release": 2}),
            ReleaseNotFound,
            "spec.stages.RELEASE.release",
        ),
        (
            A,
            "/stages/TEST",
            json!({}),
            BackendStageMissing,
            "spec.backend.serviceRef",
        ),
        (
            A,
            "/backend/event",
            json!({"type": "com.example.order"}),
            BackendTypeMismatch,
            "spec.backend.event",
        ),
        (
            A,
            "/revisionHistoryLimit",
            json!(0),
            OutOfRange,
            "spec.revisionHistoryLimit",
        ),
        (
            INLINE,
            "/request/path",
            json!("/a/[w]"),
            PathParameterMismatch,
            "spec.request.path",
        ),
        (
            INLINE,
            "/request",
            json!({"method": "GET", "path": "/a/[w]", "parameters": [{"name": "w", "in": "Path"}]}),
            Conflicted,
            "spec.request.path",
        ),
        (
            INLINE,
            "/backend",
            json!({"http": {"address": "http://169.254.169.254"}}),
            AddressNotAllowed,
            "spec.backend.http.address",
        ),
        (
            INLINE,
            "/backend",
            json!({"mock": {}, "http": {"address": "http://a"}}),
            Contradiction,
            "spec.backend",
        ),
        (
            INLINE,
            "/backend",
            json!({"http": {"address": "https://a", "tls": {"caSecretRef": {"name": "gone"}}}}),
            SecretNotFound,
            "spec.backend.http.tls.caSecretRef",
        ),
        (
            INLINE,
            "/backend",
            json!({"vpc": {"service": {"name": "gone", "port": 1}}}),
            ServiceNotFound,
            "spec.backend.vpc.service.name",
        ),
        (
            INLINE,
            "/backend/event",
            json!({"type": "a"}),
            Contradiction,
            "spec.backend.event",
        ),
        (
            INLINE,
            "/backend",
            json!({"serviceRef": {"name": "oss"}, "event": {"type": "a"}, "function": {}}),
            Contradiction,
            "spec.backend",
        ),
        (
            INLINE,
            "/backend",
            json!({"oss": {"endpoint": "https://o", "bucket": "abc", "region": "r", "credentialsRef": {"name": "c"}}}),
            Required,
            "spec.backend.object",
        ),
        (
            INLINE,
            "/backend",
            json!({"oss": {"endpoint": "https://o", "bucket": "abc", "region": "r", "credentialsRef": {"name": "c"}}, "object": {"action": "GetObject", "key": "a"}}),
            InvalidPath,
            "spec.backend.object.key",
        ),
        (
            HTTP,
            "/stages/RELEASE/http/tls/caSecretRef/name",
            json!("gone"),
            BackendUnavailable,
            "Api demo/a spec.backend.serviceRef",
        ),
        (
            HTTP,
            "/type",
            json!("OSS"),
            BackendNotFound,
            "Api demo/a spec.backend.serviceRef",
        ),
        (A, "/request/path", json!("a"), NoRelease, "stage RELEASE"),
    ]
}

#[allow(clippy::enum_glob_use)]
fn parameters(long: &dyn Fn(usize) -> Value, many: Many<'_>) -> Vec<Row> {
    use Reason::*;
    vec![
        (
            A,
            "/request/parameters/1/name",
            json!("x"),
            Duplicate,
            "spec.request.parameters[1].name",
        ),
        (
            A,
            "/request/parameters/1/name",
            json!("a b"),
            InvalidValue,
            "spec.request.parameters[1].name",
        ),
        (
            A,
            "/request/parameters/1/name",
            json!("s"),
            Duplicate,
            "spec.backend.system[0].name",
        ),
        (
            A,
            "/request/parameters/1/type",
            json!("String"),
            Contradiction,
            "spec.request.parameters[1].minimum",
        ),
        (
            A,
            "/request/parameters/1/type",
            json!("Boolean"),
            Contradiction,
            "spec.request.parameters[1].maximum",
        ),
        (
            A,
            "/request/parameters/1/minimum",
            json!(10),
            Contradiction,
            "spec.request.parameters[1].maximum",
        ),
        (
            A,
            "/request/parameters/1/minimum",
            json!(0.5),
            InvalidValue,
            "spec.request.parameters[1].minimum",
        ),
        (
            A,
            "/request/parameters/1/default",
            json!("x"),
            InvalidValue,
            "spec.request.parameters[1].default",
        ),
        (
            A,
            "/request/parameters/1/default",
            json!("10"),
            InvalidValue,
            "spec.request.parameters[1].default",
        ),
        (
            A,
            "/request/parameters/1/default",
            long(1025),
            TooLong,
            "spec.request.parameters[1].default",
        ),
        (
            A,
            "/request/parameters/1/required",
            json!(true),
            Contradiction,
            "spec.request.parameters[1].default",
        ),
        (
            A,
            "/request/parameters/1/enum",
            json!(["a"]),
            InvalidValue,
            "spec.request.parameters[1].enum[0]",
        ),
        (
            A,
            "/request/parameters/1/pattern",
            json!("a"),
            Contradiction,
            "spec.request.parameters[1].pattern",
        ),
        (
            A,
            "/request/parameters/1/backend",
            json!({"name": "y", "in": "Path"}),
            Duplicate,
            "spec.request.parameters[1].backend.name",
        ),
        (
            A,
            "/request/parameters/2/name",
            json!("a(b"),
            InvalidValue,
            "spec.request.parameters[2].name",
        ),
        (
            A,
            "/request/parameters/2/name",
            json!("Transfer-Encoding"),
            InvalidValue,
            "spec.request.parameters[2].name",
        ),
        (
            A,
            "/request/parameters/2/backend",
            json!({"name": "Host"}),
            InvalidValue,
            "spec.request.parameters[2].backend.name",
        ),
        (
            A,
            "/request/parameters/2/minLength",
            json!(10),
            Contradiction,
            "spec.request.parameters[2].maxLength",
        ),
        (
            A,
            "/request/parameters/2/pattern",
            json!("(a"),
            InvalidPattern,
            "spec.request.parameters[2].pattern",
        ),
        (
            A,
            "/request/parameters/2/pattern",
            json!("(?=a)"),
            InvalidPattern,
            "spec.request.parameters[2].pattern",
        ),
        (
            A,
            "/request/parameters/2/pattern",
            long(1025),
            TooLong,
            "spec.request.parameters[2].pattern",
        ),
        (
            A,
            "/request/parameters/2",
            json!({"name": "h", "in": "Header", "pattern": "^a", "default": "b"}),
            InvalidValue,
            "spec.request.parameters[2].default",
        ),
        (
            A,
            "/request/parameters/2/enum",
            json!(["a", "a"]),
            Duplicate,
            "spec.request.parameters[2].enum[1]",
        ),
        (
            A,
            "/request/parameters/2/enum",
            many(101, &|at| json!(format!("a{at}"))),
            TooMany,
            "spec.request.parameters[2].enum",
        ),
        (
            A,
            "/request/parameters/2/enum/0",
            long(257),
            TooLong,
            "spec.request.parameters[2].enum[0]",
        ),
        (
            A,
            "/request/parameters/2/description",
            long(2001),
            TooLong,
            "spec.request.parameters[2].description",
        ),
        (
            A,
            "/request/parameters/2/example",
            long(1025),
            TooLong,
            "spec.request.parameters[2].example",
        ),
        (
            A,
            "/request/parameters/2",
            json!({"name": "h", "in": "Query", "backend": {"name": "z", "in": "Path"}}),
            Required,
            "spec.request.parameters[2].required",
        ),
        (
            A,
            "/request/parameters/2",
            json!({"name": "h", "in": "Query", "array": true, "required": true, "backend": {"name": "z", "in": "Path"}}),
            Contradiction,
            "spec.request.parameters[2].array",
        ),
        (
            A,
            "/request/parameters/3/jsonSchema",
            json!("{"),
            InvalidJsonSchema,
            "spec.request.parameters[3].jsonSchema",
        ),
        (
            A,
            "/request/parameters/3/jsonSchema",
            json!("{\"type\":\"nothing\"}"),
            InvalidJsonSchema,
            "spec.request.parameters[3].jsonSchema",
        ),
        (
            A,
            "/request/parameters/3",
            json!({"name": "f", "in": "Form", "jsonSchema": "{\"type\":\"object\"}", "default": "1"}),
            InvalidValue,
            "spec.request.parameters[3].default",
        ),
        (
            A,
            "/request/parameters/0/array",
            json!(true),
            Contradiction,
            "spec.request.parameters[0].array",
        ),
        (
            A,
            "/request/parameters/0/default",
            json!("a"),
            Contradiction,
            "spec.request.parameters[0].default",
        ),
        (
            A,
            "/request/parameters/0/backend",
            json!({"in": "Query"}),
            PathParameterMismatch,
            "spec.backend.path",
        ),
    ]
}

fn strict() -> Settings {
    let mut settings = settings();
    let allowed = vec!["example.com".to_owned()];
    settings.domain_suffixes.insert("demo".to_owned(), allowed);
    settings
}

#[test]
fn the_fixture_is_valid() {
    let compiled = compile(&gather(&documents(FIXTURE)), &Memory::default(), &strict());
    for (id, verdict) in &compiled.verdicts {
        assert!(verdict.is_clean(), "{id}: {:?}", verdict.problems);
    }
}

#[test]
fn every_mistake_is_caught_with_its_reason_and_field() {
    let fixture = documents(FIXTURE);
    let valid = render(&compile(&gather(&fixture), &Memory::default(), &strict()));
    let mut wrong = Vec::new();
    for (object, place, value, reason, field) in rows() {
        let mut documents = fixture.clone();
        let document = documents.iter_mut().find(|it| id(it) == object);
        set(
            &mut document.expect("the object is there")["spec"],
            place,
            value.clone(),
        );
        let compiled = compile(&gather(&documents), &Memory::default(), &strict());
        // A field of another object's verdict is written with that object in front.
        let (judged, field) = match field.strip_prefix("Api demo/a ") {
            Some(field) => (A, field),
            None => (object, field),
        };
        let verdict = verdict(&compiled, judged);
        let found = match field.strip_prefix("stage ") {
            Some(stage) => {
                let paifang_compiler::Status::Api(status) = &verdict.status else {
                    panic!("{object} is no Api");
                };
                let problem = &status.stages[&stage.parse().unwrap()].problem;
                problem.as_ref().is_some_and(|it| it.reason == reason)
            }
            None => verdict
                .problems
                .iter()
                .any(|it| it.reason == reason && it.field == field),
        };
        if !found {
            wrong.push(format!(
                "{object} {place} = {value:.60}: expected {reason} at {field}, found {:?}",
                verdict.problems
            ));
        }
        for problem in &verdict.problems {
            assert!(!problem.message.is_empty(), "{problem:?}");
        }
        // The App, Api and group that have nothing to do with it come out as before.
        let now = render(&compiled);
        let same = |pointer: &str| now.pointer(pointer) == valid.pointer(pointer);
        assert!(same("/groups/elsewhere~1closed"), "{object} {place}");
        if judged != INLINE && object != G {
            assert!(same("/verdicts/Api demo~1inline"), "{object} {place}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_reason_has_its_mistake() {
    let mut known: BTreeSet<Reason> = rows().iter().map(|row| row.3).collect();
    // Those need a sequence of edits, a limit, or a release of another version: elsewhere in these tests.
    known.extend([
        Reason::Immutable,
        Reason::StageInUse,
        Reason::GroupFull,
        Reason::ReleaseInvalid,
    ]);
    let missing: Vec<&Reason> = Reason::ALL
        .iter()
        .filter(|it| !known.contains(it))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_group_has_a_limit_of_apis() {
    let mut settings = strict();
    settings.limits.apis_per_group = 1;
    let compiled = compile(&gather(&documents(FIXTURE)), &Memory::default(), &settings);
    assert!(verdict(&compiled, A).is_clean());
    let problem = &verdict(&compiled, INLINE).problems[0];
    assert_eq!(
        (problem.reason, problem.field.as_str()),
        (Reason::GroupFull, "spec.groupRef")
    );
}

#[test]
fn a_release_that_cannot_be_read_is_not_served() {
    let objects = gather(&documents(FIXTURE));
    let mut memory = compile(&objects, &Memory::default(), &strict()).memory;
    for api in memory.apis.values_mut() {
        let api = std::sync::Arc::make_mut(api);
        let release = std::sync::Arc::make_mut(&mut api.releases[0]);
        std::sync::Arc::make_mut(&mut release.spec).request.path = "broken".to_owned();
    }
    let mut documents = documents(FIXTURE);
    let api = documents.iter_mut().find(|it| id(it) == INLINE).unwrap();
    set(
        &mut api["spec"],
        "/stages",
        json!({"RELEASE": {"release": 1}}),
    );
    let compiled = compile(&gather(&documents), &memory, &strict());
    let problem = &verdict(&compiled, INLINE).problems[0];
    assert_eq!(
        (problem.reason, problem.field.as_str()),
        (Reason::ReleaseInvalid, "spec.stages.RELEASE.release")
    );
}

/// Sets what is at `place`, with what leads there; null removes it.
fn set(spec: &mut Value, place: &str, value: Value) {
    if place.is_empty() {
        *spec = value;
        return;
    }
    let (parent, key) = place.rsplit_once('/').unwrap();
    let mut at = spec;
    for key in parent.split('/').skip(1) {
        at = match at {
            Value::Array(list) => &mut list[key.parse::<usize>().unwrap()],
            other => &mut other[key],
        };
    }
    match at {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        Value::Object(map) if value.is_null() => drop(map.remove(key)),
        other => other[key] = value,
    }
}
