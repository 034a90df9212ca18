//! CEL rules as they stand in the schema. Each message says what a user did wrong and what to write instead.
//!
//! A rule belongs here when one object alone can tell; whatever needs a second object, a parsed regular expression
//! or a parsed JSON Schema is the compiler's. Every text, list and map that a rule visits has a bound in the schema,
//! because the API server refuses rules whose worst case is too expensive.
//!
//! CEL escapes the fields `in` and `function` as `__in__` and `__function__`.

use serde_json::{Value, json};

/// Pairs of rule and message.
pub(crate) type Rules = &'static [(&'static str, &'static str)];

/// `x-kubernetes-validations` from pairs of rule and message.
pub(crate) fn cel(rules: Rules) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}

/// 1 to 65535.
macro_rules! port {
    () => {
        "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

/// A host name, an IPv4 address or a bracketed IPv6 address.
macro_rules! host {
    () => {
        "([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\\\\[[0-9A-Fa-f:.]+\\\\])"
    };
}

/// A token of RFC 9110 §5.6.2.
macro_rules! token {
    () => {
        "^[!#$%&\\'*+.^_`|~0-9A-Za-z-]+$"
    };
}

/// A Go duration without sign, down to milliseconds.
macro_rules! duration {
    () => {
        "^([0-9]+([.][0-9]+)?(ms|s|m|h))+$"
    };
}

/// A label of a host name (RFC 1123 §2.1).
macro_rules! label {
    () => {
        "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    };
}

/// "Each stage has this key, and no other, when the type is this."
macro_rules! of_type {
    ($type:literal, $key:literal) => {
        (
            concat!(
                "!has(self.stages) || self.type != '",
                $type,
                "' || self.stages.all(stage, has(self.stages[stage].",
                $key,
                "))"
            ),
            concat!("type: ", $type, " needs ", $key, " in each stage"),
        )
    };
}

// === stages ===

/// On a map keyed by stage (Ref §5.1).
pub(crate) const STAGES: Rules = &[(
    "self.all(stage, stage.matches('^[A-Z0-9]{2,10}$'))",
    "a stage has 2 to 10 upper-case letters or digits, as in TEST, PRE, RELEASE",
)];

/// On the variables of one stage (Ref §5.2).
pub(crate) const VARIABLES: Rules = &[(
    "self.all(variable, variable.matches('^[A-Za-z_][A-Za-z0-9_-]{0,49}$'))",
    "a stage variable begins with a letter or _, then letters, digits, _ or -; at most 50 characters",
)];

// === paths ===

/// On a path with `[name]` parameters, perhaps ending in `/*` (Ref §4.1).
pub(crate) const PATH: Rules = &[
    PATH_START,
    PATH_TAIL,
    PATH_PARAMETERS,
    PATH_EMPTY,
    PATH_DOTS,
    PATH_CHARACTERS,
];

/// On a path towards a backend: as [`PATH`], and it may mention stage variables, `#Name#` (Ref §5.2).
pub(crate) const BACKEND_PATH: Rules = &[
    PATH_START,
    PATH_TAIL,
    PATH_PARAMETERS,
    PATH_EMPTY,
    PATH_DOTS,
    BACKEND_PATH_CHARACTERS,
];

/// On a path in front of others: neither parameters nor `*`.
pub(crate) const BASE_PATH: Rules = &[
    PATH_START,
    (
        "self.matches('^[^*\\\\[\\\\]]*$')",
        "a base path has neither [parameters] nor *",
    ),
    PATH_EMPTY,
    PATH_DOTS,
    PATH_CHARACTERS,
];

const PATH_START: (&str, &str) = ("self.startsWith('/')", "must begin with /");

const PATH_TAIL: (&str, &str) = (
    "self.matches('^[^*]*(/[*])?$')",
    "* may only be the whole last segment, as in /files/*",
);

const PATH_PARAMETERS: (&str, &str) = (
    "!self.startsWith('/') || self.matches('^(/([^/\\\\[\\\\]]*|\\\\[[A-Za-z_][A-Za-z0-9_-]{0,63}\\\\]))*$')",
    "a parameter [name] fills a whole segment; its name has letters, digits, _ or -, and begins with a letter or _",
);

const PATH_EMPTY: (&str, &str) = (
    "!self.contains('//')",
    "must not have an empty segment (//)",
);

const PATH_DOTS: (&str, &str) = (
    "!self.matches('/[.][.]?(/|$)')",
    "must not have a segment . or ..",
);

const PATH_CHARACTERS: (&str, &str) = (
    "self.matches('^([^%?#\\\\x00-\\\\x20\\\\x7F\\\\\\\\]|%[0-9A-Fa-f]{2})*$')",
    "must not have spaces, control characters, ?, #, \\ or an incomplete percent escape",
);

const BACKEND_PATH_CHARACTERS: (&str, &str) = (
    "self.matches('^([^%?#\\\\x00-\\\\x20\\\\x7F\\\\\\\\]|%[0-9A-Fa-f]{2}|#[A-Za-z0-9_-]+#)*$')",
    "must not have spaces, control characters, ?, \\, an incomplete percent escape, or a # that begins no #StageVariable#",
);

/// On the key of an object.
pub(crate) const OBJECT_KEY: Rules = &[
    PATH_START,
    (
        "self.matches('^([^\\\\[\\\\]]|\\\\[[A-Za-z_][A-Za-z0-9_-]{0,63}\\\\])*$')",
        "a parameter in the key is written [name]; its name has letters, digits, _ or -, and begins with a letter or _",
    ),
];

// === addresses ===

/// On scheme, host and port without a path (Ref §6.1).
pub(crate) const ADDRESS: Rules = &[
    URL_START,
    (
        "!self.matches('^https?://') || self.matches('^https?://[^/?#]*$')",
        "must end after host and port: the path belongs to the Api's backend.path",
    ),
    URL_USER,
    (
        concat!(
            "!self.matches('^https?://[^/?#@]*$') || self.matches('^https?://",
            host!(),
            "(:",
            port!(),
            ")?$')"
        ),
        "must be a host name or IP address after the scheme, then perhaps a port between 1 and 65535",
    ),
];

/// On a URL that may have a path.
pub(crate) const URL: Rules = &[
    URL_START,
    URL_USER,
    (
        concat!(
            "!self.matches('^https?://[^@]*$') || self.matches('^https?://",
            host!(),
            "(:",
            port!(),
            ")?([/?][^#\\\\x00-\\\\x20\\\\x7F]*)?$')"
        ),
        "must have a host name or IP address after the scheme, perhaps a port between 1 and 65535 and a path",
    ),
];

const URL_START: (&str, &str) = (
    "self.matches('^https?://')",
    "must begin with http:// or https://",
);

const URL_USER: (&str, &str) = (
    "!self.matches('^https?://[^/?#]*@')",
    "must not carry a user or password",
);

/// On `host:port`.
pub(crate) const HOST_PORT: Rules = &[(
    concat!("self.matches('^", host!(), ":", port!(), "$')"),
    "must be host:port without a scheme, the port between 1 and 65535",
)];

/// On a port's number or name.
pub(crate) const PORT: Rules = &[(
    "type(self) == int ? self >= 1 && self <= 65535 : self.matches('^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$')",
    "must be a number between 1 and 65535, or the name of the Service's port",
)];

// === backends ===

/// On the union of backends.
pub(crate) const ONE_BACKEND: Rules = &[(
    "[has(self.http), has(self.vpc), has(self.functionCompute), has(self.oss), has(self.eventBridge), has(self.mock)].filter(present, present).size() == 1",
    "exactly one of http, vpc, functionCompute, oss, eventBridge, mock",
)];

/// On an HTTP backend.
pub(crate) const HTTP_BACKEND: Rules = &[(
    "!has(self.tls) || self.address.startsWith('https://')",
    "tls is for an address that begins with https://",
)];

/// On a VPC backend.
pub(crate) const VPC_BACKEND: Rules = &[
    (
        "has(self.service) != has(self.addresses)",
        "exactly one of service, addresses",
    ),
    (
        "!has(self.tls) || self.scheme == 'HTTPS'",
        "tls is for scheme: HTTPS",
    ),
];

/// On a function.
pub(crate) const FUNCTION_BACKEND: Rules = &[
    (
        "has(self.url) != has(self.alibaba)",
        "exactly one of url, alibaba",
    ),
    (
        "has(self.alibaba) == has(self.credentialsRef)",
        "credentialsRef goes with alibaba: give both or neither",
    ),
    (
        "!has(self.tls) || !has(self.url) || self.url.startsWith('https://')",
        "tls is for an https:// url",
    ),
    (
        "self.kind != 'HTTP' || !has(self.alibaba) || self.alibaba.version != '3.0' || has(self.alibaba.endpoint)",
        "an HTTP function of version 3.0 needs alibaba.endpoint: the address of its HTTP trigger, which nothing else tells",
    ),
];

/// On an object store.
pub(crate) const OSS_BACKEND: Rules = &[
    (
        "self.dialect == 'OSS' || self.signatureVersion == 'V4'",
        "signatureVersion V1 is for dialect: OSS",
    ),
    (
        "!has(self.tls) || self.endpoint.startsWith('https://')",
        "tls is for an https:// endpoint",
    ),
];

/// On a function of Alibaba Function Compute.
pub(crate) const ALIBABA_FUNCTION: Rules = &[
    (
        "self.version != '2.0' || has(self.service)",
        "version 2.0 needs service: its functions belong to services",
    ),
    ACCOUNT_OR_ENDPOINT,
];

/// On an event bus of Alibaba EventBridge.
pub(crate) const ALIBABA_EVENT_BUS: Rules = &[(
    "has(self.accountId) || has(self.endpoint) || (has(self.api) && self.api == 'Control')",
    ACCOUNT_OR_ENDPOINT.1,
)];

const ACCOUNT_OR_ENDPOINT: (&str, &str) = (
    "has(self.accountId) || has(self.endpoint)",
    "accountId or endpoint is needed: the endpoint is made from the account and the region",
);

/// On an event backend.
pub(crate) const EVENT_BACKEND: Rules = &[
    (
        "has(self.sink) != has(self.alibaba)",
        "exactly one of sink, alibaba",
    ),
    (
        "has(self.alibaba) == has(self.credentialsRef)",
        "credentialsRef goes with alibaba: give both or neither",
    ),
    (
        "!has(self.source) || has(self.sink)",
        "source goes with sink; for Alibaba it is alibaba.source",
    ),
    ("!has(self.mode) || has(self.sink)", "mode goes with sink"),
    (
        "!has(self.tls) || !has(self.sink) || self.sink.startsWith('https://')",
        "tls is for an https:// sink",
    ),
];

/// On the type of a backend service (Ref §5.4).
pub(crate) const IMMUTABLE: Rules = &[(
    "self == oldSelf",
    "cannot be changed: make another BackendService and point the Apis at it",
)];

/// On a backend service: each stage has the configuration of the type.
pub(crate) const BACKEND_OF_TYPE: Rules = &[
    of_type!("HTTP", "http"),
    of_type!("VPC", "vpc"),
    of_type!("FunctionCompute", "functionCompute"),
    of_type!("OSS", "oss"),
    of_type!("EventBridge", "eventBridge"),
    of_type!("Mock", "mock"),
];

// === Api ===

/// On a request: parameters and path agree, and its parameters suit mode, body and kind (Ref §4, §7).
pub(crate) const REQUEST: Rules = &[
    (
        "!has(self.parameters) || self.parameters.all(parameter, parameter.__in__ != 'Path' || self.path.contains('[' + parameter.name + ']'))",
        "each parameter with in: Path must stand in the path as [name]",
    ),
    (
        "self.path.findAll('\\\\[[^\\\\]]*\\\\]').size() <= (has(self.parameters) ? self.parameters.filter(parameter, parameter.__in__ == 'Path').size() : 0)",
        "each [name] of the path needs a parameter with in: Path, and may stand there once",
    ),
    (
        "self.mode != 'Passthrough' || !has(self.parameters) || self.parameters.all(parameter, parameter.__in__ == 'Path')",
        "mode: Passthrough checks Path parameters only; use MappingPassthrough to check others too",
    ),
    (
        "self.bodyFormat == 'Form' || !has(self.parameters) || self.parameters.all(parameter, parameter.__in__ != 'Form')",
        "a parameter with in: Form needs bodyFormat: Form",
    ),
    (
        "!(self.kind in ['Register', 'Unregister']) || 'WEBSOCKET' in self.protocols",
        "Register and Unregister are called over the channel: protocols must list WEBSOCKET",
    ),
];

/// On a parameter (Ref §4.4).
pub(crate) const PARAMETER: Rules = &[
    (
        "!has(self.default) || !self.required",
        "default is for an optional parameter: drop default, or required: true",
    ),
    (
        "!has(self.default) || self.__in__ != 'Path'",
        "a Path parameter is always there: drop default",
    ),
    (
        "!self.array || self.__in__ != 'Path'",
        "a Path parameter cannot be an array",
    ),
    (
        "!self.array || (has(self.backend) && has(self.backend.__in__) ? self.backend.__in__ : self.__in__) != 'Path'",
        "an array cannot go to the backend's path",
    ),
    (
        "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
        "minimum must not be greater than maximum",
    ),
    (
        "!has(self.minLength) || !has(self.maxLength) || self.minLength <= self.maxLength",
        "minLength must not be greater than maxLength",
    ),
    (
        "self.type in ['Int', 'Long', 'Float', 'Double'] || (!has(self.minimum) && !has(self.maximum))",
        "minimum and maximum are for Int, Long, Float and Double",
    ),
    (
        "self.type == 'String' || (!has(self.minLength) && !has(self.maxLength))",
        "minLength and maxLength are for String",
    ),
    (
        "self.type == 'String' || !has(self.pattern)",
        "pattern is for String",
    ),
    (
        "self.type == 'String' || !has(self.jsonSchema)",
        "jsonSchema is for String",
    ),
    (
        "self.type != 'Boolean' || !has(self.enum)",
        "enum is not for Boolean",
    ),
    (
        "!has(self.enum) || !(self.type in ['Int', 'Long']) || self.enum.all(value, value.matches('^[+-]?[0-9]+$'))",
        "each value of enum must be an integer, as type says",
    ),
    (
        "!has(self.enum) || !(self.type in ['Float', 'Double']) || self.enum.all(value, value.matches('^[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?$'))",
        "each value of enum must be a number, as type says",
    ),
    (
        "!has(self.default) || self.array || !(self.type in ['Int', 'Long']) || self.default.matches('^[+-]?[0-9]+$')",
        "default must be an integer, as type says",
    ),
    (
        "!has(self.default) || self.array || !(self.type in ['Float', 'Double']) || self.default.matches('^[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?$')",
        "default must be a number, as type says",
    ),
    (
        "!has(self.default) || self.array || self.type != 'Boolean' || self.default in ['true', 'false']",
        "default must be true or false, as type says",
    ),
    (
        "!has(self.default) || self.array || !has(self.enum) || self.default in self.enum",
        "default must be one of enum",
    ),
    (
        "!has(self.default) || self.array || !has(self.minimum) || !self.default.matches('^[+-]?[0-9]+([.][0-9]+)?$') || double(self.default) >= self.minimum",
        "default must not be smaller than minimum",
    ),
    (
        "!has(self.default) || self.array || !has(self.maximum) || !self.default.matches('^[+-]?[0-9]+([.][0-9]+)?$') || double(self.default) <= self.maximum",
        "default must not be greater than maximum",
    ),
    (
        "!has(self.default) || self.array || !has(self.minLength) || self.default.size() >= self.minLength",
        "default must not be shorter than minLength",
    ),
    (
        "!has(self.default) || self.array || !has(self.maxLength) || self.default.size() <= self.maxLength",
        "default must not be longer than maxLength",
    ),
    (
        "self.__in__ != 'Path' || self.name.matches('^[A-Za-z_][A-Za-z0-9_-]*$')",
        "the name of a Path parameter has letters, digits, _ or -, and begins with a letter or _",
    ),
    HEADER_NAME,
    (
        concat!(
            "(has(self.backend) && has(self.backend.__in__) ? self.backend.__in__ : self.__in__) != 'Header' || (has(self.backend) && has(self.backend.name) ? self.backend.name : self.name).matches('",
            token!(),
            "')"
        ),
        "the name of a header towards the backend must be a token: no spaces, commas, colons or brackets",
    ),
];

const HEADER_NAME: (&str, &str) = (
    concat!(
        "self.__in__ != 'Header' || self.name.matches('",
        token!(),
        "')"
    ),
    "the name of a header must be a token: no spaces, commas, colons or brackets",
);

/// On a constant (Ref §4.5).
pub(crate) const CONSTANT: Rules = &[
    (
        "self.__in__ != 'Path'",
        "a constant goes to Query, Header or Form; write it into backend.path instead",
    ),
    HEADER_NAME,
    (
        "self.__in__ != 'Header' || self.value.matches('^[^\\\\x00-\\\\x08\\\\x0A-\\\\x1F\\\\x7F]*$')",
        "the value of a header must not have line breaks or control characters",
    ),
];

/// On a system parameter (Ref §4.6).
pub(crate) const SYSTEM_PARAMETER: Rules = &[HEADER_NAME];

/// On the backend of an Api.
pub(crate) const API_BACKEND: Rules = &[
    (
        "(self.contentType == 'Custom') == has(self.contentTypeValue)",
        "contentTypeValue goes with contentType: Custom: give both or neither",
    ),
    (
        "!has(self.__function__) || has(self.serviceRef) || has(self.functionCompute)",
        "function is for a FunctionCompute backend",
    ),
    (
        "!has(self.object) || has(self.serviceRef) || has(self.oss)",
        "object is for an OSS backend",
    ),
    (
        "!has(self.oss) || has(self.object)",
        "an OSS backend needs object: action and key",
    ),
    (
        "!has(self.event) || has(self.serviceRef)",
        "event is for an EventBridge backend, which only serviceRef can name",
    ),
];

/// On an Api: what request and backend say together.
pub(crate) const API: Rules = &[
    (
        "[has(self.backend.serviceRef), has(self.backend.http), has(self.backend.vpc), has(self.backend.functionCompute), has(self.backend.oss), has(self.backend.mock)].filter(present, present).size() <= 1",
        "backend has exactly one of serviceRef, http, vpc, functionCompute, oss, mock (EventBridge only through serviceRef)",
    ),
    (
        "self.request.kind == 'Notify' || has(self.backend.serviceRef) || has(self.backend.http) || has(self.backend.vpc) || has(self.backend.functionCompute) || has(self.backend.oss) || has(self.backend.mock)",
        "backend needs one of serviceRef, http, vpc, functionCompute, oss, mock (EventBridge only through serviceRef)",
    ),
    (
        "!has(self.backend.path) || !self.backend.path.endsWith('/*') || self.request.path.endsWith('/*')",
        "backend.path can end in /* only when request.path does",
    ),
    (
        "!has(self.backend.object) || {'GetObject': 'GET', 'PutObject': 'PUT', 'PostObject': 'POST', 'AppendObject': 'POST', 'HeadObject': 'HEAD', 'GetObjectMeta': 'HEAD', 'DeleteObject': 'DELETE'}[self.backend.object.action] == self.request.method",
        "request.method and backend.object.action must agree: GET GetObject, PUT PutObject, POST PostObject or AppendObject, HEAD HeadObject or GetObjectMeta, DELETE DeleteObject",
    ),
];

/// On a duration.
pub(crate) const DURATION: Rules = &[
    (
        concat!("self.matches('", duration!(), "')"),
        "must be a number with ms, s, m or h behind it, as in 500ms, 10s or 1m30s",
    ),
    (
        concat!(
            "!self.matches('",
            duration!(),
            "') || duration(self) > duration('0s')"
        ),
        "must be longer than nothing, as in 500ms or 10s",
    ),
];

// === ApiGroup, App, Authorization, DomainBinding ===

/// On the namespaces that may join a group.
pub(crate) const ALLOWED_NAMESPACES: Rules = &[(
    "(self.from == 'Selector') == has(self.selector)",
    "selector goes with from: Selector: give both or neither",
)];

/// On a credential.
pub(crate) const CREDENTIAL: Rules = &[(
    "!has(self.notBefore) || !has(self.expiresAt) || self.notBefore < self.expiresAt",
    "notBefore must be before expiresAt",
)];

/// On an authorization.
pub(crate) const AUTHORIZATION: Rules = &[(
    "(has(self.apis) && self.apis.size() > 0) != has(self.group)",
    "exactly one of apis, group",
)];

/// On a domain.
pub(crate) const DOMAIN: Rules = &[
    (
        "self.matches('^([*][.])?[^*]*$')",
        "* may only be the whole first label, as in *.api.example.com",
    ),
    (
        "!self.startsWith('*.') || self.matches('^[*][.][^.]+[.]')",
        "a wildcard needs at least two labels behind it, as in *.example.com",
    ),
    (
        concat!(
            "self.contains('*') && !self.startsWith('*.') || self.matches('^([*][.])?",
            label!(),
            "([.]",
            label!(),
            ")*$')"
        ),
        "must be a host name without scheme, port or path: labels of 1 to 63 letters, digits or -, which neither begin nor end with -",
    ),
];

/// On a domain's certificate.
pub(crate) const DOMAIN_TLS: Rules = &[(
    "!self.passClientSubject || has(self.clientCaSecretRef)",
    "passClientSubject needs clientCaSecretRef: without it no client shows a certificate",
)];
