//! `Api`: one path and method, how it is called, who may call it, which backend answers.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::{
    BackendConfig, Condition, Duration, FunctionComputeBackend, HttpBackend, LocalRef, MockBackend,
    NamespacedRef, OssBackend, StageMap, Time, VpcBackend, rules, schema,
};

/// What a user writes of an [`Api`].
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paifang.dev",
    version = "v1alpha1",
    kind = "Api",
    plural = "apis",
    singular = "api",
    shortname = "pfa",
    category = "paifang",
    namespaced,
    status = "ApiStatus",
    derive = "PartialEq",
    doc = "One path and method: how it is called, who may call it, which backend answers.",
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.groupRef.name"),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.request.method"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.request.path"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Test",
        type_ = "integer",
        json_path = ".status.stages.TEST.release",
        description = "Release that TEST serves"
    ),
    printcolumn(
        name = "Pre",
        type_ = "integer",
        json_path = ".status.stages.PRE.release",
        description = "Release that PRE serves"
    ),
    printcolumn(
        name = "Release",
        type_ = "integer",
        json_path = ".status.stages.RELEASE.release",
        description = "Release that RELEASE serves"
    ),
    printcolumn(
        name = "Latest",
        type_ = "integer",
        json_path = ".status.latestRelease",
        description = "Newest release"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.stages.RELEASE.state",
        priority = 1
    ),
    printcolumn(
        name = "Gateways",
        type_ = "string",
        json_path = ".status.stages.RELEASE.gateways",
        priority = 1
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.stages.RELEASE.address",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::API)))]
pub struct ApiSpec {
    /// The ApiGroup it belongs to; one in another namespace must allow this one.
    pub group_ref: NamespacedRef,
    /// Name shown to people: Chinese or Latin letter first, then those, digits and `_`; 4 to 50 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 50), regex(pattern = schema::DISPLAY_NAME))]
    pub display_name: Option<String>,
    /// What it does; at most 2000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// Who may call it.
    #[serde(default)]
    pub auth: ApiAuth,
    /// Answer on the internal listener only.
    #[serde(default)]
    pub internal_only: bool,
    /// How it is called.
    pub request: ApiRequest,
    /// Where the request goes. A Notify request goes to a device, so that it needs none.
    #[serde(default)]
    pub backend: ApiBackend,
    /// What callers get: documentation, and a Mock's answer when the Mock names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ApiResponse>,
    /// What each stage serves: `{}` follows the draft, a release stays until the number changes; a stage that is not here is offline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = schema::MAX_STAGES, "x-kubernetes-validations" = rules::cel(rules::STAGES)))]
    pub stages: StageMap<ApiStage>,
    /// Releases that are kept; one that a stage serves is never removed.
    #[serde(default = "default_revision_history_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: u32,
}

/// Who may call an Api.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiAuth {
    /// App: an authorized app. Anonymous: anybody.
    #[serde(default, rename = "type")]
    pub type_: AuthType,
    /// Whether an AppCode is enough instead of a signature, and where it may stand: Disabled, Header, HeaderAndQuery.
    #[serde(default)]
    pub app_code: AppCodeAuth,
    /// The signature methods that are accepted: HmacSHA256, HmacSHA1.
    #[serde(default = "default_signature_methods")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub signature_methods: Vec<SignatureMethod>,
    /// Refuse a signature without a nonce.
    #[serde(default)]
    pub require_nonce: bool,
}

/// Who may call an Api.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    /// An authorized app.
    #[default]
    App,
    /// Anybody.
    Anonymous,
}

/// Where an AppCode may stand (Ref §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AppCodeAuth {
    /// Nowhere: a signature is needed.
    #[default]
    Disabled,
    /// In the `Authorization` header.
    Header,
    /// In the `Authorization` header or the query.
    HeaderAndQuery,
}

/// A signature method (Ref §1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SignatureMethod {
    /// HMAC with SHA-256.
    HmacSHA256,
    /// HMAC with SHA-1, for old clients.
    HmacSHA1,
}

/// How an Api is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::REQUEST)))]
pub struct ApiRequest {
    /// Common: an ordinary call. Register, Unregister, Notify: the two-way channel (Ref §7).
    #[serde(default)]
    pub kind: RequestKind,
    /// The protocols it answers on: HTTP, HTTPS, WEBSOCKET.
    #[serde(default = "default_protocols")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub protocols: Vec<Protocol>,
    /// The method, or ANY.
    pub method: Method,
    /// Path below the group's base path: begins with `/`, `[name]` is a parameter, `/*` at the end takes every path below.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::cel(rules::PATH)))]
    pub path: String,
    /// Mapping: declared parameters are checked and mapped, others dropped. MappingPassthrough: others go on as they came.
    /// Passthrough: only Path parameters are mapped and checked, all else goes on as it came.
    #[serde(default)]
    pub mode: RequestMode,
    /// Form: the body is a form whose fields are parameters. Stream: the body goes on as it came.
    #[serde(default)]
    pub body_format: BodyFormat,
    /// The parameters; names are unique over all places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub parameters: Vec<Parameter>,
}

/// What an Api is for the two-way channel (Ref §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestKind {
    /// An ordinary call.
    #[default]
    Common,
    /// A device says that it is there.
    Register,
    /// A device says that it leaves.
    Unregister,
    /// The backend speaks to a device.
    Notify,
}

/// A protocol that an Api answers on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Protocol {
    /// Plain HTTP.
    HTTP,
    /// HTTP over TLS.
    HTTPS,
    /// The two-way channel, plain or over TLS.
    WEBSOCKET,
}

/// A method.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Method {
    /// GET
    GET,
    /// HEAD
    HEAD,
    /// POST
    POST,
    /// PUT
    PUT,
    /// PATCH
    PATCH,
    /// DELETE
    DELETE,
    /// OPTIONS
    OPTIONS,
    /// TRACE
    TRACE,
    /// Every method; of a backend: the caller's.
    ANY,
}

/// What happens to parameters (Ref §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestMode {
    /// Declared ones are checked and mapped, others dropped.
    #[default]
    Mapping,
    /// Declared ones are checked and mapped, others go on.
    MappingPassthrough,
    /// Only Path parameters are mapped and checked.
    Passthrough,
}

/// What the body is (Ref §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BodyFormat {
    /// A form whose fields are parameters.
    #[default]
    Form,
    /// Bytes that go on as they came.
    Stream,
}

/// A parameter (Ref §4.4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::PARAMETER)))]
pub struct Parameter {
    /// Its name, unique over all places of this Api.
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::PARAMETER_NAME))]
    pub name: String,
    /// Where the caller puts it: Path, Query, Header, Form.
    #[serde(rename = "in")]
    pub in_: Location,
    /// String, Int, Long, Float, Double, Boolean; of an array, the type of its elements.
    #[serde(default, rename = "type")]
    pub type_: ParameterType,
    /// Refuse a call without it. A Path parameter is always there.
    #[serde(default)]
    pub required: bool,
    /// Value when an optional parameter is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub default: Option<String>,
    /// Smallest value; Int, Long, Float, Double.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Number>,
    /// Largest value; Int, Long, Float, Double.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Number>,
    /// Fewest characters; String.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_048_576))]
    pub min_length: Option<u32>,
    /// Most characters; String.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_048_576))]
    pub max_length: Option<u32>,
    /// Regular expression (RE2 syntax) that the value must match; String.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,
    /// The values that are allowed, as text; not for Boolean.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub enum_: Vec<String>,
    /// Several values: a repeated query parameter, header or form field. Not in Path.
    #[serde(default)]
    pub array: bool,
    /// JSON Schema (as text) for a value that is JSON; String.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub json_schema: Option<String>,
    /// What it means; documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// A value to show; documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub example: Option<String>,
    /// Where it goes; by default the same name in the same place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<ParameterTarget>,
}

/// A place in a request.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Location {
    /// `[name]` of the path.
    Path,
    /// The query.
    Query,
    /// A header.
    Header,
    /// A field of the form in the body.
    Form,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ParameterType {
    /// Text.
    #[default]
    String,
    /// Integer, 32 bit.
    Int,
    /// Integer, 64 bit.
    Long,
    /// Number, 32 bit.
    Float,
    /// Number, 64 bit.
    Double,
    /// `true` or `false`.
    Boolean,
}

/// Where a parameter goes in the backend's request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterTarget {
    /// Its name there; by default the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::PARAMETER_NAME))]
    pub name: Option<String>,
    /// Its place there: Path, Query, Header, Form; by default the same.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub in_: Option<Location>,
}

/// Where a request goes: `serviceRef`, or one configuration inline (the same address in every stage; EventBridge only by `serviceRef`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::API_BACKEND)))]
pub struct ApiBackend {
    /// The BackendService, in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<LocalRef>,
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
    /// A fixed answer, no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mock: Option<MockBackend>,
    /// Method towards the backend; by default the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Path towards the backend with `[name]` parameters; `/*` at the end appends what the request's `/*` matched. By default the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::cel(rules::BACKEND_PATH)))]
    pub path: Option<String>,
    /// How long the backend may take to answer, `500ms` or `10s`; then the caller gets 504.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// Content-Type towards the backend. Default: the gateway's. Client: the caller's. Custom: `contentTypeValue`.
    #[serde(default)]
    pub content_type: ContentTypePolicy,
    /// The Content-Type, with `contentType: Custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = schema::HEADER_VALUE))]
    pub content_type_value: Option<String>,
    /// Values that every request to the backend carries; callers do not see them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["in", "name"]))]
    pub constants: Vec<Constant>,
    /// What the gateway knows about a call, for the backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["in", "name"]))]
    pub system: Vec<SystemParameter>,
    /// For FunctionCompute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionCall>,
    /// For OSS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectCall>,
    /// For EventBridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventCall>,
}

/// The Content-Type towards the backend (Ref §4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ContentTypePolicy {
    /// The gateway's: for a form, `application/x-www-form-urlencoded; charset=UTF-8`.
    #[default]
    Default,
    /// The caller's.
    Client,
    /// A fixed one.
    Custom,
}

/// A value that every request to the backend carries (Ref §4.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::CONSTANT)))]
pub struct Constant {
    /// Its name.
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::PARAMETER_NAME))]
    pub name: String,
    /// Its place: Query, Header or Form.
    #[serde(rename = "in")]
    pub in_: Location,
    /// Its value.
    #[schemars(length(max = 2048))]
    pub value: String,
}

/// Something the gateway knows about a call, for the backend (Ref §4.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::SYSTEM_PARAMETER)))]
pub struct SystemParameter {
    /// What: CaClientIp, CaDomain, CaRequestHandleTime, CaAppId, CaAppKey, CaRequestId, CaApiName, CaHttpSchema, CaProxy, CaClientUa, CaStage.
    pub from: SystemValue,
    /// Its name in the backend's request.
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::PARAMETER_NAME))]
    pub name: String,
    /// Its place there: Path, Query, Header or Form.
    #[serde(rename = "in")]
    pub in_: Location,
}

/// What the gateway knows about a call (Ref §4.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum SystemValue {
    /// The caller's address.
    CaClientIp,
    /// The host that was called.
    CaDomain,
    /// When the request came, GMT.
    CaRequestHandleTime,
    /// The number of the calling app.
    CaAppId,
    /// The AppKey of the call.
    CaAppKey,
    /// The request's id.
    CaRequestId,
    /// The Api's name.
    CaApiName,
    /// `HTTP` or `HTTPS`, as the caller used.
    CaHttpSchema,
    /// The mark of the gateway, `AliCloudApiGateway`.
    CaProxy,
    /// The caller's User-Agent.
    CaClientUa,
    /// The stage.
    CaStage,
}

/// How a function is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionCall {
    /// The function sees the business path only, without the trigger's prefix.
    #[serde(default)]
    pub only_business_path: bool,
}

/// What is done to which object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectCall {
    /// GetObject, PutObject, PostObject, AppendObject, HeadObject, GetObjectMeta, DeleteObject (Ref §6.5).
    pub action: ObjectAction,
    /// The object's key with `[name]` parameters; begins with `/`.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::cel(rules::OBJECT_KEY)))]
    pub key: String,
}

/// What is done to an object (Ref §6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ObjectAction {
    /// GET
    GetObject,
    /// PUT
    PutObject,
    /// POST, a form upload
    PostObject,
    /// POST, at the end of an object
    AppendObject,
    /// HEAD
    HeadObject,
    /// HEAD, fewer headers
    GetObjectMeta,
    /// DELETE
    DeleteObject,
}

/// The event that a call becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventCall {
    /// The CloudEvents `type`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 256))]
    pub type_: String,
    /// The CloudEvents `subject`, with `[name]` parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Option<String>,
}

/// What callers get: documentation, and a Mock's answer when the Mock names none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiResponse {
    /// Content-Type of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = schema::HEADER_VALUE))]
    pub content_type: Option<String>,
    /// A good answer; at most 32 KB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub success_sample: Option<String>,
    /// A bad answer; at most 16 KB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub failure_sample: Option<String>,
    /// The backend's error codes; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["code"]))]
    pub error_codes: Vec<ErrorCode>,
}

/// An error code of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorCode {
    /// The code.
    #[schemars(length(min = 1, max = 64))]
    pub code: String,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
}

/// What a stage serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiStage {
    /// The release to stay at; absent: every valid edit of the draft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub release: Option<u64>,
}

/// What is true of an [`Api`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::pending()))]
pub struct ApiStatus {
    /// The newest release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub latest_release: Option<u64>,
    /// What each stage really serves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = schema::MAX_STAGES))]
    pub stages: StageMap<ApiStageStatus>,
    /// Accepted, ResolvedRefs, Programmed, Ready; and what is wrong, while it is (Conflicted, PartiallyInvalid).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What a stage really serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiStageStatus {
    /// Pending: not yet on every gateway. Serving: on all ready gateways. Offline: on none, `reason` says why.
    pub state: StageState,
    /// Why it is not serving: a stable CamelCase word, `BackendStageMissing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// The release that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub release: Option<u64>,
    /// Hash of the release's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub hash: Option<String>,
    /// When the stage began to serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<Time>,
    /// Gateway pods that serve it, of those that are ready: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub gateways: Option<String>,
    /// The backend's address in this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub address: Option<String>,
}

/// Whether a stage serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StageState {
    /// Not yet on every gateway.
    Pending,
    /// On all ready gateways.
    Serving,
    /// On none.
    Offline,
}

// === impl ApiAuth ===

impl Default for ApiAuth {
    fn default() -> Self {
        Self {
            type_: AuthType::default(),
            app_code: AppCodeAuth::default(),
            signature_methods: default_signature_methods(),
            require_nonce: false,
        }
    }
}

// === impl Parameter ===

impl Parameter {
    /// An optional text parameter without any check.
    pub fn new(name: impl Into<String>, in_: Location) -> Self {
        Self {
            name: name.into(),
            in_,
            type_: ParameterType::default(),
            required: false,
            default: None,
            minimum: None,
            maximum: None,
            min_length: None,
            max_length: None,
            pattern: None,
            enum_: Vec::new(),
            array: false,
            json_schema: None,
            description: None,
            example: None,
            backend: None,
        }
    }
}

// === impl ApiBackend ===

impl ApiBackend {
    /// The configuration that is written inline, if any; a valid backend has either that, with exactly one type, or `serviceRef`.
    pub fn inline(&self) -> Option<BackendConfig> {
        let config = BackendConfig {
            http: self.http.clone(),
            vpc: self.vpc.clone(),
            function_compute: self.function_compute.clone(),
            oss: self.oss.clone(),
            event_bridge: None,
            mock: self.mock.clone(),
        };
        (config != BackendConfig::default()).then_some(config)
    }
}

impl Default for ApiBackend {
    fn default() -> Self {
        Self {
            service_ref: None,
            http: None,
            vpc: None,
            function_compute: None,
            oss: None,
            mock: None,
            method: None,
            path: None,
            timeout: default_timeout(),
            content_type: ContentTypePolicy::default(),
            content_type_value: None,
            constants: Vec::new(),
            system: Vec::new(),
            function: None,
            object: None,
            event: None,
        }
    }
}

fn default_signature_methods() -> Vec<SignatureMethod> {
    vec![SignatureMethod::HmacSHA256]
}

fn default_protocols() -> Vec<Protocol> {
    vec![Protocol::HTTP, Protocol::HTTPS]
}

fn default_timeout() -> Duration {
    Duration::from("10s")
}

fn default_revision_history_limit() -> u32 {
    10
}
