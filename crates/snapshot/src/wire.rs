//! The published form: one [`Group`] per API group, and [`Apps`] for the callers.
//!
//! Everything in here is ordered and free of secrets, so that equal configuration gives equal bytes. A reader accepts its own
//! [`FORMAT`] and the one before.

use std::{collections::BTreeMap, sync::Arc};

use paifang_model::{
    Address, BasePath, HostPattern, HttpsPolicy, Location, Method, ObjectName, ParameterType,
    PathTemplate, Protocols, Redacted, Scheme, Stage, SystemParameter,
};
use serde::{Deserialize, Serialize};

/// Version of this form. A change that an older gateway would misread raises it.
pub const FORMAT: u32 = 1;

/// Everything about one API group but secrets.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// The ApiGroup object.
    pub name: ObjectName,
    /// The stable id that its sub-domains begin with.
    pub id: String,
    /// The fleet of gateways that serves it.
    pub instance: String,
    /// In front of every path of the group.
    pub base_path: BasePath,
    /// Requests a second, all of the group's APIs together (Ref §10).
    pub qps_limit: u32,
    /// Its automatic host names.
    pub sub_domain: SubDomain,
    /// HTTP and TLS versions on its bound domains.
    pub https_policy: HttpsPolicy,
    /// Whether the AppCode is removed before the backend sees the request (Ref §2).
    pub filter_app_code: bool,
    /// Bound domains, ordered by host.
    pub domains: Vec<Domain>,
    /// Every release that some stage serves, ordered by name, then number. Shared: most are the same in the next version of the group.
    pub apis: Vec<Arc<Api>>,
    /// Which release each stage serves through which backend, ordered by stage, then Api.
    pub routes: Vec<Route>,
    /// Backends that routes name by position.
    pub backends: Vec<Backend>,
    /// Who may call what, ordered.
    pub grants: Vec<Arc<Grant>>,
}

/// The automatic host names of a group, without port (Ref §8.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubDomain {
    /// `<group id>.<suffix>`, on the public listeners; absent when switched off.
    pub public: Option<HostPattern>,
    /// `<group id>.<internal suffix>`, on the internal listener; absent when switched off.
    pub internal: Option<HostPattern>,
    /// Calls a day (UTC) on the public sub-domain.
    pub daily_quota: u32,
}

/// A bound domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Domain {
    /// The DomainBinding object.
    pub name: ObjectName,
    /// The host or wildcard.
    pub host: HostPattern,
    /// The stage it pins; absent when `X-Ca-Stage` decides.
    pub stage: Option<Stage>,
    /// Served on the internal listener only, instead of the public ones.
    pub intranet: bool,
    /// TLS, when it has a certificate.
    pub tls: Option<DomainTls>,
    /// Whether WebSocket is open on it.
    pub web_socket: bool,
}

/// TLS of a bound domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainTls {
    /// Secret with certificate chain and key: a key of the published certificates.
    pub certificate: ObjectName,
    /// Secret with the CA that client certificates must chain to; turns mutual TLS on.
    pub client_ca: Option<ObjectName>,
    /// Whether the client certificate's subject goes to the backend as `X-Client-S-Dn`.
    pub pass_client_subject: bool,
    /// Whether plain HTTP is answered with a redirect.
    pub redirect_http: bool,
}

/// One release of an Api, as the gateway needs it.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Api {
    /// The Api object.
    pub name: ObjectName,
    /// The name shown to people; the value of `CaApiName`. Empty when the object has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// Number of the release.
    pub release: u64,
    /// Hash of the release's content, hexadecimal.
    pub hash: Arc<str>,
    /// What a call of it does.
    pub kind: ApiKind,
    /// Protocols it may be called over.
    pub protocols: Protocols,
    /// Request method.
    pub method: Method,
    /// Request path, below the group's base path.
    pub path: PathTemplate,
    /// How parameters travel.
    pub mode: Mode,
    /// How the body is read.
    pub body_format: BodyFormat,
    /// Declared parameters, in the user's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Who may call.
    pub auth: Auth,
    /// Whether only the internal listener answers.
    pub internal_only: bool,
    /// What the backend is asked.
    pub dispatch: Dispatch,
}

/// What a call of an Api does (Ref §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ApiKind {
    /// An ordinary call.
    Common,
    /// Registers a device, over the two-way channel.
    Register,
    /// Unregisters it.
    Unregister,
    /// Pushes a message to a device.
    Notify,
}

/// The three request modes (Ref §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Declared parameters are checked and mapped, others dropped.
    Mapping,
    /// Declared parameters are checked and mapped, others forwarded as they came.
    MappingPassthrough,
    /// Only path parameters are checked and mapped; the rest is forwarded as it came.
    Passthrough,
}

/// How the body is read (Ref §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BodyFormat {
    /// A URL-encoded body is a set of parameters; any other body is forwarded.
    Form,
    /// The body is forwarded byte for byte.
    Stream,
}

/// A declared parameter.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameter {
    /// The name callers use. Header names compare without case.
    pub name: String,
    /// Where callers put it.
    pub location: Location,
    /// Type of the text, or of each element.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// Whether repeated values are an array; otherwise the first is taken.
    #[serde(default, skip_serializing_if = "is_default")]
    pub array: bool,
    /// Whether it must be present.
    #[serde(default, skip_serializing_if = "is_default")]
    pub required: bool,
    /// Value when absent and optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What its value must satisfy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: Rules,
    /// Name at the backend.
    pub backend_name: String,
    /// Place at the backend.
    pub backend_location: Location,
}

/// What the value of a parameter must satisfy, each rule when present, in this order (Ref §4.4).
#[derive(Debug, Clone, PartialEq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    /// One of these; empty means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// Smallest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Number>,
    /// Largest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Number>,
    /// Fewest characters (Unicode scalar values).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// Most characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Regular expression that must match somewhere, in the syntax of the `regex` crate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// JSON Schema, as JSON text, that the value parsed as JSON must satisfy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<String>,
}

/// A bound of a numeric parameter. Integers keep their 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// Of an Int or Long.
    Integer(i64),
    /// Of a Float or Double; finite.
    Real(f64),
}

/// Who may call an Api.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Auth {
    /// Everybody.
    Anonymous,
    /// An authorized App.
    App(AppAuth),
}

/// How an App proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppAuth {
    /// Where an AppCode is accepted.
    pub app_code: AppCode,
    /// Whether HMAC-SHA1 signatures are accepted.
    pub allow_sha1: bool,
    /// Whether HMAC-SHA256 signatures are accepted.
    pub allow_sha256: bool,
    /// Whether a signed request must carry a nonce.
    pub require_nonce: bool,
}

/// Where an AppCode is accepted (Ref §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppCode {
    /// Nowhere.
    Disabled,
    /// `Authorization: APPCODE …`.
    Header,
    /// That, or the query parameter `AppCode`.
    HeaderAndQuery,
}

/// What the backend is asked.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dispatch {
    /// Method; absent when the request's is kept (also for an Api of method `ANY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Path; absent when the request's path below the base path is kept. Its parameters are backend names of parameters that go to
    /// `Path`. A tail appends what the request's tail matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathTemplate>,
    /// Whole exchange with the backend, in milliseconds: connect, send, and the answer's head and body.
    pub timeout_ms: u32,
    /// The `Content-Type` sent.
    pub content_type: ContentType,
    /// Fixed values added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constants: Vec<Constant>,
    /// Values of the gateway's added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<System>,
    /// What the type of backend needs to know beyond that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub call: Call,
}

/// What a type of backend needs to know of an Api beyond method, path and parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Call {
    /// Nothing.
    #[default]
    Plain,
    /// Of a function (Ref §6.3, §6.4).
    #[serde(rename_all = "camelCase")]
    Function {
        /// The function sees the business path only, without the trigger's prefix.
        only_business_path: bool,
    },
    /// Of an object store; the key is [`Dispatch::path`].
    Object {
        /// What is done.
        action: ObjectAction,
    },
    /// Of an event sink.
    Event {
        /// CloudEvents `type`.
        kind: String,
        /// CloudEvents `subject`; empty when it has none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subject: Vec<TextPiece>,
    },
}

/// A piece of a text with parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TextPiece {
    /// As it is.
    Text(String),
    /// The value of the declared parameter with this name, as the caller sent it; nothing when it is absent.
    Parameter(String),
}

/// What is done to an object (Ref §6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ObjectAction {
    /// Reads it, or a range of it.
    GetObject,
    /// Writes it whole.
    PutObject,
    /// Writes it by an HTML form.
    PostObject,
    /// Writes at its end.
    AppendObject,
    /// What it is, without its content.
    HeadObject,
    /// The same, fewer headers.
    GetObjectMeta,
    /// Removes it.
    DeleteObject,
}

/// The `Content-Type` sent to the backend (Ref §4.7).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContentType {
    /// `application/x-www-form-urlencoded; charset=UTF-8` for a form the gateway wrote, else the client's.
    Default,
    /// The client's.
    Client,
    /// This one.
    Custom(String),
}

/// A fixed value added for the backend, invisible to the caller (Ref §4.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Constant {
    /// Name at the backend.
    pub name: String,
    /// Header, query or form.
    pub location: Location,
    /// The value; stage variables are filled in per route, see [`Route::variables`].
    pub value: String,
}

/// A value of the gateway's added for the backend (Ref §4.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct System {
    /// Which value.
    pub from: SystemParameter,
    /// Name at the backend.
    pub name: String,
    /// Header, query or form.
    pub location: Location,
}

/// A release in service: Api × stage × backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The stage.
    pub stage: Stage,
    /// Position in [`Group::apis`].
    pub api: u32,
    /// Position in [`Group::backends`].
    pub backend: u32,
    /// The stage variables that this release mentions as `#Name#` in its constants and backend path, with their values in this stage
    /// (Ref §5.2). The gateway substitutes them at load.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// A backend with its address in one stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// What to show for it: namespace and name of the `BackendService`, or `inline`, for logs and metrics.
    pub label: String,
    /// Where and how.
    pub target: Target,
}

/// Where a backend is and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Target {
    /// An address, resolved by DNS (Ref §6.1).
    Http(HttpTarget),
    /// A Service's endpoints or fixed addresses (Ref §6.2).
    Vpc(VpcTarget),
    /// A function (Ref §6.3, §6.4).
    Function(FunctionTarget),
    /// A bucket of an object store (Ref §6.5).
    Object(ObjectTarget),
    /// An event sink or bus (Ref §6.6).
    Event(EventTarget),
    /// A fixed answer (Ref §6.7).
    Mock(MockTarget),
    /// Answers every call with the reason, fail closed: configured, but not usable by this gateway.
    Unavailable {
        /// For people; never a secret.
        reason: String,
    },
}

/// An HTTP backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpTarget {
    /// Scheme, host and port.
    pub address: Address,
    /// `Host` instead of the address's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// TLS settings, for an https address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether HTTP/2 is spoken to it: over TLS if it takes it, else by prior knowledge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
}

/// A VPC backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VpcTarget {
    /// How the endpoints are spoken to.
    pub scheme: Scheme,
    /// Where they are.
    pub endpoints: Endpoints,
    /// The `Host` sent.
    pub host: String,
    /// TLS settings, for scheme `HTTPS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether HTTP/2 is spoken to it: over TLS if it takes it, else by prior knowledge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
}

/// Where the endpoints of a VPC backend are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Endpoints {
    /// Fixed addresses.
    Fixed(Vec<Address>),
    /// A Service whose ready endpoints the gateway follows.
    Service {
        /// The Service.
        name: ObjectName,
        /// Name of the Service's port, by which its EndpointSlices are matched; empty when the port has none.
        port: String,
    },
}

/// A server that a backend is reached at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Scheme, host and port.
    pub address: Address,
    /// TLS settings, for an https address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionTarget {
    /// How it is called.
    pub kind: FunctionKind,
    /// Where.
    pub origin: Origin,
    /// What stands in front of the Api's path, of a function in the cluster: empty, or `/…` without a `/` at its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Of a function of Alibaba Function Compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alibaba: Option<AlibabaFunction>,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FunctionKind {
    /// With the request as a JSON event (Ref §6.3).
    Event,
    /// With the request itself (Ref §6.4).
    Http,
}

/// A function of Alibaba Function Compute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlibabaFunction {
    /// The service it belongs to: Function Compute 2.0; absent: 3.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its name.
    pub function: String,
    /// Version or alias.
    pub qualifier: String,
    /// Secret with the access key that calls are signed with.
    pub credentials: ObjectName,
}

/// A bucket of an object store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTarget {
    /// The store's endpoint, without the bucket.
    pub origin: Origin,
    /// How it is spoken to.
    pub dialect: ObjectDialect,
    /// Name of the bucket.
    pub bucket: String,
    /// Region that requests are signed for.
    pub region: String,
    /// Secret with the access key that calls are signed with.
    pub credentials: ObjectName,
}

/// How an object store is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectDialect {
    /// Alibaba OSS, signature V4.
    OssV4,
    /// Alibaba OSS, signature V1.
    OssV1,
    /// S3, AWS signature V4.
    S3,
}

/// An event sink or bus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventTarget {
    /// Where events are posted.
    pub origin: Origin,
    /// The path of a sink, with `/` at its beginning.
    pub path: String,
    /// CloudEvents `source`.
    pub source: String,
    /// How an event travels to a sink.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: EventMode,
    /// Of a bus of Alibaba EventBridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alibaba: Option<AlibabaBus>,
}

/// How an event travels over HTTP (CloudEvents, HTTP protocol binding §3).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub enum EventMode {
    /// Attributes in headers, data in the body.
    #[default]
    Binary,
    /// All in the body, in JSON.
    Structured,
}

/// A bus of Alibaba EventBridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlibabaBus {
    /// Name of the bus.
    pub bus: String,
    /// What takes events for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub api: BusApi,
    /// Secret with the access key that calls are signed with.
    pub credentials: ObjectName,
}

/// An API of Alibaba EventBridge with an action PutEvents.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub enum BusApi {
    /// The data API.
    #[default]
    Data,
    /// The control API.
    Control,
}

/// How TLS to a backend is verified. Without a CA the system's roots are used; verification is never skipped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// Secret whose `ca.crt` holds the roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<ObjectName>,
    /// Name sent as SNI and verified; default: the address's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// `kubernetes.io/tls` Secret shown to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ObjectName>,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MockTarget {
    /// Status code, 200–599.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// App × Api × stage, until a time (Ref §1.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The App.
    pub app: ObjectName,
    /// The stage.
    pub stage: Stage,
    /// The Api; absent means every Api of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ObjectName>,
    /// End, in milliseconds since the epoch; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// The Authorization object, for logs.
    pub authorization: ObjectName,
}

/// All callers, without their secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Apps {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Ordered by name.
    pub apps: Vec<App>,
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The App object.
    pub name: ObjectName,
    /// The stable numeric id: the value of `CaAppId`.
    pub id: u64,
    /// Whether every call is refused.
    pub disabled: bool,
}

/// A credential with its secret. Travels in Secrets, never with the routing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// Whose it is.
    pub app: ObjectName,
    /// Its name inside the App.
    pub name: String,
    /// Start, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<i64>,
    /// End, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// What the caller shows.
    pub proof: Proof,
}

/// What a caller shows to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// AppKey and AppSecret.
    KeyPair {
        /// Public; sent as `X-Ca-Key`.
        app_key: String,
        /// Never sent.
        app_secret: Redacted<String>,
    },
    /// An AppCode.
    AppCode {
        /// Sent in clear.
        app_code: Redacted<String>,
    },
}

/// Material of one Secret. Which parts are present depends on the Secret's use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// `tls.crt`: the chain, leaf first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Redacted<String>>,
    /// `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `accessKeyId`, `accessKeySecret` and `securityToken`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKey>,
}

/// What calls of a cloud's services are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKey {
    /// Public; sent with every call.
    pub id: String,
    /// Never sent.
    pub secret: Redacted<String>,
    /// Of a temporary access key; sent with every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_token: Option<Redacted<String>>,
}

/// Everything one gateway serves: what compile returns and a gateway loads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// By ApiGroup object.
    pub groups: BTreeMap<ObjectName, std::sync::Arc<Group>>,
    /// All callers.
    pub apps: std::sync::Arc<Apps>,
    /// Their credentials, ordered.
    pub credentials: std::sync::Arc<Vec<Credential>>,
    /// Certificates and CAs by Secret.
    pub certificates: std::sync::Arc<BTreeMap<ObjectName, Certificate>>,
    /// Ready endpoints of the Services that VPC backends name: (Service, name of its port) → addresses. In a cluster the gateway
    /// fills this from EndpointSlices itself.
    pub endpoints: std::sync::Arc<BTreeMap<(ObjectName, String), Vec<std::net::SocketAddr>>>,
}

impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Integer(number) => number.hash(state),
            Self::Real(number) => number.to_bits().hash(state),
        }
    }
}

// === impl Target ===

impl Target {
    /// The server it is reached at, where that is one address with TLS settings of its own.
    fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Function(function) => Some(&function.origin),
            Self::Object(object) => Some(&object.origin),
            Self::Event(event) => Some(&event.origin),
            Self::Http(_) | Self::Vpc(_) | Self::Mock(_) | Self::Unavailable { .. } => None,
        }
    }

    /// What it asks of TLS; `None` when it does not use it.
    pub fn tls(&self) -> Option<&Option<BackendTls>> {
        let (scheme, tls) = match self {
            Self::Http(http) => (http.address.scheme, &http.tls),
            Self::Vpc(vpc) => (vpc.scheme, &vpc.tls),
            other => {
                let origin = other.origin()?;
                (origin.address.scheme, &origin.tls)
            }
        };
        (scheme == Scheme::Https).then_some(tls)
    }

    /// The Secret with the access key that its calls are signed with.
    pub fn credentials(&self) -> Option<&ObjectName> {
        match self {
            Self::Function(function) => function.alibaba.as_ref().map(|it| &it.credentials),
            Self::Object(object) => Some(&object.credentials),
            Self::Event(event) => event.alibaba.as_ref().map(|it| &it.credentials),
            Self::Http(_) | Self::Vpc(_) | Self::Mock(_) | Self::Unavailable { .. } => None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
