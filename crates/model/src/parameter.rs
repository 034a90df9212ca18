//! What a parameter is: where it stands, what type it has, which system value it carries (Ref §4.4–§4.6).

/// Where a caller puts a parameter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Location {
    /// A `[name]` segment of the path.
    Path,
    /// The query string.
    Query,
    /// A header.
    Header,
    /// A URL-encoded form body.
    Form,
}

/// Where a parameter goes at the backend. The same four places.
pub type BackendLocation = Location;

/// The type of a parameter's text (Ref §4.4).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum ParameterType {
    /// Any text.
    String,
    /// A signed 32-bit integer in decimal.
    Int,
    /// A signed 64-bit integer in decimal.
    Long,
    /// A finite decimal number that fits an IEEE 754 single.
    Float,
    /// A finite decimal number that fits an IEEE 754 double.
    Double,
    /// `true` or `false`, in any case.
    Boolean,
}

/// A value the gateway knows and may hand to the backend (Ref §4.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum SystemParameter {
    /// The client's address.
    CaClientIp,
    /// The host the request came in on.
    CaDomain,
    /// When the request arrived, as an HTTP date (GMT).
    CaRequestHandleTime,
    /// The calling app's numeric id.
    CaAppId,
    /// The calling app's AppKey.
    CaAppKey,
    /// The request id, as in `X-Ca-Request-Id`.
    CaRequestId,
    /// The API's display name, or its object name.
    CaApiName,
    /// `HTTP` or `HTTPS`, as the client used.
    CaHttpSchema,
    /// The constant proxy mark `AliCloudApiGateway`.
    CaProxy,
    /// The client's `User-Agent`.
    CaClientUa,
    /// The stage that answers.
    CaStage,
}

// === impl Location ===

impl Location {
    /// As written in an Api's parameters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "Path",
            Self::Query => "Query",
            Self::Header => "Header",
            Self::Form => "Form",
        }
    }
}
