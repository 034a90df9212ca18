//! Where a request goes: one configuration per type, used per stage by a `BackendService` and inline by an `Api`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{IntOrString, NamedValue, SecretRef, rules, schema};

/// The type of a backend.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum BackendType {
    /// An HTTP server at a fixed address.
    HTTP,
    /// A Service of the cluster, or fixed addresses in it.
    VPC,
    /// A function in the cluster or in Alibaba Function Compute.
    FunctionCompute,
    /// An object store that speaks OSS or S3.
    OSS,
    /// A CloudEvents sink, or Alibaba EventBridge.
    EventBridge,
    /// A fixed answer, no network.
    Mock,
}

/// The configuration of a backend: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::ONE_BACKEND)))]
pub struct BackendConfig {
    /// An HTTP server at a fixed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpBackend>,
    /// A Service of the cluster, or fixed addresses in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<VpcBackend>,
    /// A function in the cluster or in Alibaba Function Compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_compute: Option<FunctionComputeBackend>,
    /// An object store that speaks OSS or S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oss: Option<OssBackend>,
    /// A CloudEvents sink, or Alibaba EventBridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_bridge: Option<EventBridgeBackend>,
    /// A fixed answer, no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mock: Option<MockBackend>,
}

/// An HTTP server at a fixed address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::HTTP_BACKEND)))]
pub struct HttpBackend {
    /// Scheme, host and port, no path: `https://forecast.example.com` or `http://10.1.2.3:8080`.
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = rules::cel(rules::ADDRESS)))]
    pub address: String,
    /// Host header instead of the address's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260), regex(pattern = schema::AUTHORITY))]
    pub host: Option<String>,
    /// TLS towards the backend, for an `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// HTTP1, or HTTP2: over TLS if the server takes it, else HTTP/1.1; without TLS by prior knowledge (h2c).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_version: Option<HttpVersion>,
}

/// The version of HTTP spoken to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/1.1.
    HTTP1,
    /// HTTP/2.
    HTTP2,
}

/// TLS towards a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// Secret whose `ca.crt` holds the authorities to trust instead of the system's (PEM, at most 20 KB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Name to send (SNI) and to check in the certificate instead of the address's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::OBJECT_NAME))]
    pub server_name: Option<String>,
    /// Secret of type `kubernetes.io/tls` with the certificate to show to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretRef>,
}

/// A Service of the cluster, or fixed addresses in it: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::VPC_BACKEND)))]
pub struct VpcBackend {
    /// The Service whose ready endpoints are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServicePort>,
    /// Fixed addresses, `host:port` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::addresses")]
    pub addresses: Vec<String>,
    /// HTTP or HTTPS.
    #[serde(default)]
    pub scheme: Scheme,
    /// Host header instead of the Service's or address's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260), regex(pattern = schema::AUTHORITY))]
    pub host: Option<String>,
    /// TLS towards the backend, with `scheme: HTTPS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// HTTP1, or HTTP2: over TLS if the server takes it, else HTTP/1.1; without TLS by prior knowledge (h2c). By default HTTP2 for a
    /// Service's port with `appProtocol: kubernetes.io/h2c`, else HTTP1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_version: Option<HttpVersion>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name of the Service.
    #[schemars(schema_with = "schema::namespace_name")]
    pub name: String,
    /// Namespace of the Service; by default the object's own. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_name")]
    pub namespace: Option<String>,
    /// Number or name of the Service's port.
    #[schemars(schema_with = "schema::port")]
    pub port: IntOrString,
}

/// The scheme towards a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scheme {
    /// Plain.
    #[default]
    HTTP,
    /// TLS.
    HTTPS,
}

/// A function in the cluster (`url`) or in Alibaba Function Compute (`alibaba`): one of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::FUNCTION_BACKEND)))]
pub struct FunctionComputeBackend {
    /// Where a function served in the cluster (Knative, OpenFaaS, custom runtime) is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::cel(rules::URL)))]
    pub url: Option<String>,
    /// A function of Alibaba Function Compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alibaba: Option<AlibabaFunction>,
    /// Event: the request as a JSON event (Ref §6.3). HTTP: the request itself (Ref §6.4).
    pub kind: FunctionKind,
    /// Secret with `accessKeyId`, `accessKeySecret` and, if there is one, `securityToken`; with `alibaba`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,
    /// TLS towards the server, for an `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FunctionKind {
    /// The request as a JSON event.
    Event,
    /// The request itself.
    HTTP,
}

/// A function of Alibaba Function Compute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::ALIBABA_FUNCTION)))]
pub struct AlibabaFunction {
    /// Version of Function Compute: `2.0` or `3.0`.
    #[serde(default)]
    pub version: FunctionComputeVersion,
    /// Region, `cn-hangzhou`.
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::LABEL_NAME))]
    pub region: String,
    /// Name of the service the function belongs to: required by Function Compute 2.0, without meaning in 3.0, which has no services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub service: Option<String>,
    /// Name of the function.
    #[schemars(length(min = 1, max = 128))]
    pub function: String,
    /// Version or alias.
    #[serde(default = "default_qualifier")]
    #[schemars(length(min = 1, max = 128))]
    pub qualifier: String,
    /// Alibaba account id; needed unless `endpoint` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[0-9]+$"))]
    pub account_id: Option<String>,
    /// Endpoint instead of the region's public one, `https://…`. An HTTP function of 3.0 needs it: the address of its HTTP trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = rules::cel(rules::ADDRESS)))]
    pub endpoint: Option<String>,
}

/// Version of Alibaba Function Compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FunctionComputeVersion {
    /// Functions inside services.
    #[serde(rename = "2.0")]
    V2,
    /// Functions alone.
    #[default]
    #[serde(rename = "3.0")]
    V3,
}

/// An object store that speaks OSS or S3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::OSS_BACKEND)))]
pub struct OssBackend {
    /// Scheme, host and port of the store, without bucket and path.
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = rules::cel(rules::ADDRESS)))]
    pub endpoint: String,
    /// Name of the bucket.
    #[schemars(
        length(min = 3, max = 63),
        regex(pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$")
    )]
    pub bucket: String,
    /// Region that requests are signed for, `cn-hangzhou`.
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::LABEL_NAME))]
    pub region: String,
    /// OSS or S3.
    #[serde(default)]
    pub dialect: OssDialect,
    /// The signature of the dialect OSS: V4, or V1 for stores that know no other.
    #[serde(default)]
    pub signature_version: OssSignature,
    /// Secret with `accessKeyId`, `accessKeySecret` and, if there is one, `securityToken`.
    pub credentials_ref: SecretRef,
    /// TLS towards the store, for an `https` endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// A signature of the dialect OSS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OssSignature {
    /// `OSS4-HMAC-SHA256`.
    #[default]
    V4,
    /// `OSS`, HMAC-SHA1.
    V1,
}

/// The dialect of an object store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OssDialect {
    /// Alibaba OSS, signature V4 or V1.
    #[default]
    OSS,
    /// S3, AWS signature V4.
    S3,
}

/// A CloudEvents sink (`sink`), or Alibaba EventBridge (`alibaba`): one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::EVENT_BACKEND)))]
pub struct EventBridgeBackend {
    /// Where events are posted: a Knative broker, Argo Events and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::cel(rules::URL)))]
    pub sink: Option<String>,
    /// The events' `source`, with `sink`; `paifang` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub source: Option<String>,
    /// How events travel, with `sink`; `Binary` when absent. An addition of Paifang's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EventMode>,
    /// Alibaba EventBridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alibaba: Option<AlibabaEventBus>,
    /// Secret with `accessKeyId`, `accessKeySecret` and, if there is one, `securityToken`; with `alibaba`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,
    /// TLS towards the server, for an `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// How an event travels over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventMode {
    /// The event's attributes in headers, its data in the body.
    #[default]
    Binary,
    /// The whole event in the body, as JSON.
    Structured,
}

/// A bus of Alibaba EventBridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::ALIBABA_EVENT_BUS)))]
pub struct AlibabaEventBus {
    /// Region, `cn-hangzhou`.
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::LABEL_NAME))]
    pub region: String,
    /// Name of the bus.
    #[schemars(length(min = 1, max = 127))]
    pub bus: String,
    /// The events' `source`.
    #[schemars(length(min = 1, max = 255))]
    pub source: String,
    /// Alibaba account id; the data API needs it unless `endpoint` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[0-9]+$"))]
    pub account_id: Option<String>,
    /// Endpoint instead of the region's public one, `https://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = rules::cel(rules::ADDRESS)))]
    pub endpoint: Option<String>,
    /// The API whose PutEvents is called; `Data` when absent. An addition of Paifang's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<EventBusApi>,
}

/// An API of Alibaba EventBridge that takes events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventBusApi {
    /// The data API, at an address of the account's.
    #[default]
    Data,
    /// The control API, at an address of the region's.
    Control,
}

/// A fixed answer, no network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MockBackend {
    /// Status of the answer.
    #[serde(default = "default_status_code")]
    #[schemars(range(min = 200, max = 599))]
    pub status_code: u16,
    /// Headers of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub headers: Vec<NamedValue>,
    /// Body of the answer; by default the Api's `response.successSample`. At most 32 KB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub body: Option<String>,
}

// === impl BackendType ===

impl BackendType {
    /// All types, in the order in which the documentation shows them.
    pub const ALL: [Self; 6] = [
        Self::HTTP,
        Self::VPC,
        Self::FunctionCompute,
        Self::OSS,
        Self::EventBridge,
        Self::Mock,
    ];

    /// The key of this type's configuration in the union.
    pub const fn key(self) -> &'static str {
        match self {
            Self::HTTP => "http",
            Self::VPC => "vpc",
            Self::FunctionCompute => "functionCompute",
            Self::OSS => "oss",
            Self::EventBridge => "eventBridge",
            Self::Mock => "mock",
        }
    }

    /// The type as written in `spec.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HTTP => "HTTP",
            Self::VPC => "VPC",
            Self::FunctionCompute => "FunctionCompute",
            Self::OSS => "OSS",
            Self::EventBridge => "EventBridge",
            Self::Mock => "Mock",
        }
    }
}

// === impl BackendConfig ===

impl BackendConfig {
    /// The types that are configured; a valid union has exactly one.
    pub fn types(&self) -> Vec<BackendType> {
        BackendType::ALL
            .into_iter()
            .filter(|kind| self.has(*kind))
            .collect()
    }

    /// Whether the configuration of `kind` is there.
    pub fn has(&self, kind: BackendType) -> bool {
        match kind {
            BackendType::HTTP => self.http.is_some(),
            BackendType::VPC => self.vpc.is_some(),
            BackendType::FunctionCompute => self.function_compute.is_some(),
            BackendType::OSS => self.oss.is_some(),
            BackendType::EventBridge => self.event_bridge.is_some(),
            BackendType::Mock => self.mock.is_some(),
        }
    }
}

// === impl MockBackend ===

impl Default for MockBackend {
    fn default() -> Self {
        Self {
            status_code: default_status_code(),
            headers: Vec::new(),
            body: None,
        }
    }
}

fn default_qualifier() -> String {
    "LATEST".to_owned()
}

fn default_status_code() -> u16 {
    200
}
