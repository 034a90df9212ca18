//! Every answer the gateway makes by itself: code, status, text (Ref §3.3).
//!
//! What a caller is told ([`Refusal::message`]) and what the log is told ([`Refusal::detail`]) are two fields: the second may name
//! addresses and causes that are nobody's business outside. Where Ref marks a text as recalled, the text stands here and nowhere
//! else. `I408RT`, `I421MD`, `D502EV` and `D502OS` are ours: the cloud product documents no code for these cases.

use std::fmt;

use http::StatusCode;

/// Why a request was not answered by its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// `X-Ca-Error-Message`.
    pub message: String,
    /// For the log only; empty when the message says it all.
    pub detail: String,
    /// Whether the connection cannot be used any further (RFC 9112 §9.6), because the position of the next request is in doubt.
    pub close: bool,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's.
    Client,
    /// The backend's.
    Backend,
    /// The configuration's, or ours.
    Gateway,
}

macro_rules! codes {
    ($($code:ident $status:literal $fault:ident $doc:literal,)*) => {
        /// Codes of `X-Ca-Error-Code`, also the `code` label of the metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the macro documents each code")]
        pub enum Code {
            $(#[doc = $doc] $code,)*
        }

        impl Code {
            /// All codes, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// As in `X-Ca-Error-Code`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)* }
            }

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                let status = match self { $(Self::$code => $status,)* };
                StatusCode::from_u16(status).expect("every code is listed with a valid status")
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $doc,)* }
            }

            /// Whose fault it is.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$code => Fault::$fault,)* }
            }
        }
    };
}

codes! {
    I400HD 400 Client "An illegal request header.",
    I400MH 400 Client "A required header is missing.",
    I400BD 400 Client "An illegal body.",
    I400PA 400 Client "An illegal path.",
    I400PH 400 Client "A path or query that RFC 3986 does not allow.",
    I400RU 400 Client "An illegal request line or URL.",
    I405UM 405 Client "An unsupported method.",
    I403PT 403 Client "A protocol that the API does not list.",
    I413RL 413 Client "The body is over the limit.",
    I413UL 413 Client "URL and headers are over the limit.",
    I400CT 400 Client "An illegal Content-Type.",
    I404DO 404 Client "No group owns this host.",
    I421MD 421 Client "The connection was opened for another domain (RFC 9110 §15.5.20). Ours.",
    I400SG 400 Client "Not a stage.",
    I404NF 404 Client "No API for this path and method in this stage.",
    I408RT 408 Client "The request did not arrive in time (RFC 9110 §15.5.9). Ours.",
    A400AC 400 Client "The AppCode is unknown, or not allowed here.",
    A400IK 400 Client "The AppKey is unknown.",
    A403IS 403 Client "The signature differs.",
    A403EP 403 Client "The authorization is past its end.",
    A400MA 400 Client "No credential was sent.",
    I403AA 403 Client "The app is not authorized for this API in this stage.",
    I400I5 400 Client "Content-MD5 differs from the body.",
    I400NC 400 Client "The API requires a nonce and none was sent.",
    S403NU 403 Client "The nonce was used before.",
    S403TE 403 Client "The time stamp is outside the window.",
    I400MP 400 Client "A required parameter is missing.",
    I400IP 400 Client "A parameter is invalid.",
    T429ID 429 Client "The sub-domain's daily quota is used up.",
    T429GR 429 Client "The group's requests a second are used up.",
    T429SR 429 Gateway "The gateway protects itself.",
    A403IN 403 Client "Not reachable from the public network.",
    I508LD 508 Client "The request passed the gateway too often.",
    D504RE 504 Backend "The backend's name does not resolve.",
    D504IL 504 Backend "The backend's name resolves to an address that is not allowed.",
    D504CO 504 Backend "No connection to the backend.",
    D504CS 504 Backend "No TLS with the backend.",
    D504TO 504 Backend "The backend did not answer in time.",
    X504VE 504 Backend "The backend has no ready endpoint.",
    N502RE 502 Backend "The backend's answer was cut, or is not HTTP.",
    D502FC 502 Backend "The function failed, or its answer is not in the documented form.",
    D502EV 502 Backend "The event was not taken. Ours.",
    D502OS 502 Gateway "The object store refuses the gateway's clock, access key or region. Ours.",
    X500AM 500 Gateway "The API's definition cannot be served.",
    X500ER 500 Gateway "An error of the gateway's own.",
    X503BZ 503 Gateway "The gateway is draining or not ready.",
}

// === impl Refusal ===

impl Refusal {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: String::new(),
            close: false,
        }
    }

    /// Adds what only the log may say.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = detail.to_string();
        self
    }

    /// Marks the connection as unusable after this answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// An illegal header, by name and reason.
    pub fn header(name: &str, reason: &str) -> Self {
        Self::new(
            Code::I400HD,
            format!("Invalid Header `{}` {reason}", short(name)),
        )
    }

    /// A header that must be there.
    pub fn missing_header(name: &str) -> Self {
        Self::new(Code::I400MH, format!("Header `{name}` is Required"))
    }

    /// An illegal body.
    pub fn body(reason: &str) -> Self {
        Self::new(Code::I400BD, format!("Invalid Body: {reason}"))
    }

    /// An illegal path.
    pub fn path(reason: &str) -> Self {
        Self::new(Code::I400PA, format!("Invalid Request Path `{reason}`"))
    }

    /// A path or query outside RFC 3986.
    pub fn uri_characters() -> Self {
        Self::new(Code::I400PH, "Invalid Request Path")
    }

    /// An illegal request line.
    pub fn request_line(reason: &str) -> Self {
        Self::new(Code::I400RU, format!("Invalid Request Uri `{reason}`"))
    }

    /// An unsupported method.
    pub fn method(method: &str) -> Self {
        Self::new(
            Code::I405UM,
            format!("Unsupported Method `{}`", short(method)),
        )
    }

    /// A protocol the API does not list.
    pub fn protocol(protocol: paifang_model::Protocol) -> Self {
        Self::new(
            Code::I403PT,
            format!("Invalid protocol {protocol} unsupported"),
        )
    }

    /// The body is over the limit.
    pub fn body_too_large() -> Self {
        Self::new(Code::I413RL, "Request body too Large").closing()
    }

    /// URL and headers are over the limit.
    pub fn url_too_large() -> Self {
        Self::new(Code::I413UL, "Request URL too Large").closing()
    }

    /// An illegal Content-Type.
    pub fn content_type(reason: &str) -> Self {
        Self::new(Code::I400CT, format!("Invalid Content-Type: `{reason}`"))
    }

    /// No group owns this host.
    pub fn unknown_domain(host: &str) -> Self {
        Self::new(Code::I404DO, format!("Invalid Domain `{}`", short(host)))
    }

    /// The connection was opened for another domain.
    pub fn misdirected(host: &str) -> Self {
        Self::new(
            Code::I421MD,
            format!(
                "Misdirected Request `{}`, open a connection of its own",
                short(host)
            ),
        )
    }

    /// Not a stage.
    pub fn stage() -> Self {
        Self::new(Code::I400SG, "Invalid Stage")
    }

    /// No API here.
    pub fn no_api(reason: &str) -> Self {
        Self::new(Code::I404NF, format!("API not found {reason}"))
    }

    /// The request did not arrive in time.
    pub fn request_timeout() -> Self {
        Self::new(Code::I408RT, "Request timeout").closing()
    }

    /// An AppCode that is unknown or not allowed.
    pub fn app_code(reason: &str) -> Self {
        Self::new(Code::A400AC, format!("Invalid AppCode `{reason}`"))
    }

    /// An unknown AppKey.
    pub fn app_key() -> Self {
        Self::new(Code::A400IK, "Invalid AppKey")
    }

    /// A signature that differs, with the server's string to sign as the SDKs expect it (Ref §3.2).
    pub fn signature(hint: &str) -> Self {
        Self::new(
            Code::A403IS,
            format!("Invalid Signature, Server StringToSign:{hint}"),
        )
    }

    /// The authorization ended.
    pub fn authorization_expired() -> Self {
        Self::new(Code::A403EP, "App authorization expired")
    }

    /// No credential.
    pub fn no_credential() -> Self {
        Self::new(
            Code::A400MA,
            "Need authorization, X-Ca-Key or Authorization: APPCODE ... is required",
        )
    }

    /// Not authorized.
    pub fn unauthorized() -> Self {
        Self::new(Code::I403AA, "Unauthorized")
    }

    /// Content-MD5 differs.
    pub fn content_md5(reason: &str) -> Self {
        Self::new(Code::I400I5, format!("Invalid Content-MD5 {reason}"))
    }

    /// The nonce is missing.
    pub fn no_nonce() -> Self {
        Self::new(Code::I400NC, "X-Ca-Nonce is required")
    }

    /// The nonce was used.
    pub fn nonce_used() -> Self {
        Self::new(Code::S403NU, "Nonce Used")
    }

    /// The time stamp is outside the window.
    pub fn timestamp() -> Self {
        Self::new(Code::S403TE, "X-Ca-Timestamp is expired")
    }

    /// A required parameter is missing.
    pub fn missing_parameter(name: &str) -> Self {
        Self::new(Code::I400MP, format!("Parameter {name} is required"))
    }

    /// A parameter is invalid.
    pub fn parameter(name: &str, reason: impl fmt::Display) -> Self {
        Self::new(Code::I400IP, format!("Invalid parameter {name} {reason}"))
    }

    /// The sub-domain's daily quota is used up.
    pub fn daily_quota(host: &str, quota: u32) -> Self {
        Self::new(
            Code::T429ID,
            format!(
                "Throttled by INNER DOMAIN Flow Control, {} is a test domain, only {quota} requests per day",
                short(host)
            ),
        )
    }

    /// The group's requests a second are used up.
    pub fn group_limit() -> Self {
        Self::new(Code::T429GR, "Throttled by GROUP Flow Control")
    }

    /// The gateway protects itself.
    pub fn overload() -> Self {
        Self::new(Code::T429SR, "Throttled by SERVER Flow Control")
    }

    /// Not reachable from the public network.
    pub fn not_public(reason: &str) -> Self {
        Self::new(
            Code::A403IN,
            format!("Access from internet is disabled {reason}"),
        )
    }

    /// The request passed the gateway too often.
    pub fn loop_detected() -> Self {
        Self::new(Code::I508LD, "Loop Detected")
    }

    /// The backend's name does not resolve.
    pub fn backend_unresolved(host: &str) -> Self {
        Self::new(
            Code::D504RE,
            format!("Backend domain `{}` resolve failed", short(host)),
        )
    }

    /// The backend's name resolves to an address that is not allowed. The address itself goes to the log only.
    pub fn backend_illegal(host: &str, address: impl fmt::Display) -> Self {
        Self::new(
            Code::D504IL,
            format!(
                "Backend domain `{}` resolve to illegal address",
                short(host)
            ),
        )
        .detail(format_args!(
            "{address} is not allowed: see the gateway's setting for allowed backend networks"
        ))
    }

    /// No connection to the backend.
    pub fn backend_connect(reason: &str) -> Self {
        Self::new(
            Code::D504CO,
            format!("Backend service connect failed `{reason}`"),
        )
        .detail(reason)
    }

    /// No TLS with the backend.
    pub fn backend_tls(reason: &str) -> Self {
        Self::new(
            Code::D504CS,
            format!("Backend http ssl connect failed `{reason}`"),
        )
        .detail(reason)
    }

    /// The backend did not answer in time.
    pub fn backend_timeout() -> Self {
        Self::new(Code::D504TO, "Backend service request timeout")
    }

    /// The backend has no ready endpoint.
    pub fn no_endpoint() -> Self {
        Self::new(Code::X504VE, "Backend service vpc mapped failed")
    }

    /// The backend's answer was cut, or is not HTTP.
    pub fn backend_answer(reason: &str) -> Self {
        Self::new(
            Code::N502RE,
            format!("Backend service response invalid `{reason}`"),
        )
        .detail(reason)
    }

    /// A function failed, or its answer is not in the documented form.
    pub fn function(reason: &str) -> Self {
        Self::new(
            Code::D502FC,
            format!("Function Compute response invalid: {reason}"),
        )
        .detail(reason)
    }

    /// An event was not taken.
    pub fn event(reason: &str) -> Self {
        Self::new(Code::D502EV, format!("Event not delivered: {reason}")).detail(reason)
    }

    /// The object store takes the gateway's signature for a wrong one. Which of clock, access key and region it is goes to the log only.
    pub fn object_store() -> Self {
        Self::new(Code::D502OS, "Object store authorization failed")
    }

    /// The API's definition cannot be served.
    pub fn unusable_api() -> Self {
        Self::new(
            Code::X500AM,
            "Invalid Api Meta, try deploy again or contact us via ticket",
        )
    }

    /// An error of the gateway's own.
    pub fn internal(detail: impl fmt::Display) -> Self {
        Self::new(Code::X500ER, "Service Internal Error").detail(detail)
    }

    /// Draining, or not ready.
    pub fn busy() -> Self {
        Self::new(Code::X503BZ, "Service Busy")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.as_str(), self.message)?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.detail)
        }
    }
}

/// What a caller wrote, short enough to be told back to it.
fn short(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(128)
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_of_a_code_are_its_status() {
        for &code in Code::ALL {
            let digits: u16 = code.as_str()[1..4].parse().unwrap();
            assert_eq!(code.status().as_u16(), digits, "{}", code.as_str());
        }
    }
}
