//! Functions: the request as a JSON event (Ref §6.3), or the request itself (Ref §6.4).
//!
//! An event tells method and path as the caller sent them, and everything else as it was mapped. Of its answer nothing is taken over
//! that is not in the JSON.

mod alibaba;

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
    response,
    uri::PathAndQuery,
};
use paifang_model::ObjectName;
use paifang_snapshot::{
    table::{self, Api},
    wire::{FunctionKind, FunctionTarget},
};
use serde_json::value::RawValue;

use super::{Call, Kind, head, json};
use crate::{body::Outgoing, refusal::Refusal, settings::Limits};

/// Most bytes of a body, to the function and back: 6 MB, as Function Compute has it.
const MOST: usize = 6 << 20;
/// Most bytes of an answer's JSON: a body of that size in Base64, and headers.
const MOST_JSON: usize = 9 << 20;
/// Most characters of a function's error in the log.
const TOLD: usize = 512;

/// Says that the function itself failed, although the call did not.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fc-error-type");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A function.
pub(super) struct Function {
    kind: FunctionKind,
    /// In front of the Api's path, or where events are posted: empty, or `/…` without a `/` at its end.
    path: Box<str>,
    /// Of Alibaba Function Compute; then `path` is empty.
    alibaba: Option<alibaba::Alibaba>,
}

/// What a function made of an event.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

// === impl Function ===

impl Function {
    /// The function that `target` describes; why it cannot be called otherwise.
    pub(super) fn load(target: &FunctionTarget) -> Result<Self, String> {
        let path = &*target.path;
        if !path.is_empty() {
            path.parse::<PathAndQuery>()
                .map_err(|error| format!("its path: {error}"))?;
        }
        Ok(Self {
            kind: target.kind,
            path: path.into(),
            alibaba: target.alibaba.as_ref().map(alibaba::Alibaba::new),
        })
    }

    /// The request, told in JSON.
    fn event(
        &self,
        call: &Call<'_>,
        request: Request<Outgoing>,
    ) -> Result<Request<Outgoing>, Refusal> {
        let (parts, body) = request.into_parts();
        let body = json::whole(body)?;
        let (text, encoded) = json::body(&parts.headers, &body);
        let mut event = json::Object::with_capacity(text.len() + 1024);
        event
            .text("path", &call.path)
            .text("httpMethod", call.method.as_str())
            .texts("headers", json::headers(&parts.headers, |_| true))
            .texts(
                "queryParameters",
                json::query(parts.uri.query().unwrap_or_default()),
            )
            .texts("pathParameters", call.path_parameters())
            .text("body", &text)
            .flag("isBase64Encoded", encoded);
        let mut request = Request::new(Outgoing::Whole(event.finish().into()));
        *request.method_mut() = Method::POST;
        let path = match &self.alibaba {
            Some(alibaba) => &*alibaba.invocation,
            None if self.path.is_empty() => "/",
            None => &*self.path,
        };
        *request.uri_mut() = uri(path)?;
        // Nothing of the caller's stands beside the event.
        head::keep_own(&parts.headers, request.headers_mut());
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        request.headers_mut().insert(ACCEPT, JSON);
        if let Some(alibaba) = &self.alibaba {
            alibaba.sign_event(call, &mut request)?;
        }
        Ok(request)
    }

    /// The request itself.
    fn raw(
        &self,
        call: &Call<'_>,
        mut request: Request<Outgoing>,
    ) -> Result<Request<Outgoing>, Refusal> {
        drop_reserved(request.headers_mut());
        let own = matches!(
            call.api().call,
            table::Call::Function {
                only_business_path: true
            }
        );
        // Without its prefix no function of Alibaba's would be reached, so there the choice has no effect.
        let prefix = match &self.alibaba {
            Some(alibaba) => &*alibaba.prefix,
            None if own => "",
            None => &*self.path,
        };
        if !prefix.is_empty() {
            let below = request.uri().path_and_query();
            let below = below.map_or("/", PathAndQuery::as_str);
            *request.uri_mut() = uri(&format!("{prefix}{below}"))?;
        }
        if let Some(alibaba) = &self.alibaba {
            alibaba.sign_request(call, &mut request)?;
        }
        Ok(request)
    }
}

impl Kind for Function {
    fn credentials(&self) -> Option<&ObjectName> {
        self.alibaba.as_ref().map(|alibaba| &alibaba.credentials)
    }

    fn body_limit(&self, _api: &Api, limits: &Limits) -> u64 {
        match self.kind {
            FunctionKind::Event => limits.body_bytes.min(MOST as u64),
            FunctionKind::Http => limits.body_bytes,
        }
    }

    fn needs_whole_body(&self, _api: &Api) -> bool {
        self.kind == FunctionKind::Event
    }

    fn prepare(
        &self,
        call: &Call<'_>,
        request: Request<Outgoing>,
    ) -> Result<Request<Outgoing>, Refusal> {
        match self.kind {
            FunctionKind::Event => self.event(call, request),
            FunctionKind::Http => self.raw(call, request),
        }
    }

    fn reads(&self, _call: &Call<'_>, _answer: &response::Parts) -> Option<usize> {
        (self.kind == FunctionKind::Event).then_some(MOST_JSON)
    }

    fn finish(
        &self,
        _call: &Call<'_>,
        answer: response::Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refusal> {
        check_succeeded(&answer, &body)?;
        let Answer {
            status,
            headers,
            body,
        } = read(&body)?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn unreadable(&self, reason: &'static str) -> Refusal {
        Refusal::function(reason)
    }
}

fn uri(path: &str) -> Result<Uri, Refusal> {
    path.parse()
        .map_err(|error| Refusal::uri_characters().detail(error))
}

/// Removes headers that Function Compute gives a meaning, which only the gateway may use.
fn drop_reserved(headers: &mut HeaderMap) {
    let reserved = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-fc-") || name.starts_with("x-acs-")
    };
    let reserved: Vec<_> = headers.keys().filter(reserved).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

// === the answer to an event ===

/// Whether there is an answer of the function's, rather than an error of it or of what runs it. The error's words are for the log.
fn check_succeeded(answer: &response::Parts, body: &[u8]) -> Result<(), Refusal> {
    let error = answer.headers.get(ERROR_TYPE);
    if error.is_none() && answer.status.is_success() {
        return Ok(());
    }
    let reason = match answer.status {
        StatusCode::NOT_FOUND => "there is no such function",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "the gateway may not call the function",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "the function is busy",
        _ => "the function failed",
    };
    let error = error.map_or("", |value| value.to_str().unwrap_or_default());
    let said: String = String::from_utf8_lossy(body).chars().take(TOLD).collect();
    Err(Refusal::function(reason).detail(format_args!("{} {error} {said}", answer.status)))
}

/// Reads the answer of Ref §6.3, with the leniencies that are listed there: the status as text, the flag as text, the body as JSON.
fn read(json: &[u8]) -> Result<Answer, Refusal> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(json)
        .map_err(|error| Refusal::function("it is no JSON object").detail(error))?;
    let field = |name: &str| {
        let value = fields.get(name).map(|value| value.get());
        value.filter(|value| *value != "null")
    };
    let status = field("statusCode").ok_or_else(|| Refusal::function("it has no statusCode"))?;
    let status = read_status(status)
        .ok_or_else(|| Refusal::function("its statusCode is not a number from 200 to 599"))?;
    let encoded = field("isBase64Encoded").map_or(Some(false), read_flag);
    let encoded = encoded.ok_or_else(|| Refusal::function("its isBase64Encoded is no boolean"))?;
    let mut body = field("body").map_or(Ok(Bytes::new()), |body| read_body(body, encoded))?;
    if body.len() > MOST {
        return Err(Refusal::function("its body is too large"));
    }
    // Neither has a body (RFC 9110 §6.4.1).
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        body.clear();
    }
    Ok(Answer {
        status,
        headers: field("headers").map_or(Ok(HeaderMap::new()), read_headers)?,
        body,
    })
}

fn read_status(json: &str) -> Option<StatusCode> {
    let number = match text(json) {
        Some(text) => text.trim().parse().ok()?,
        None => json.parse::<u16>().ok()?,
    };
    StatusCode::from_u16(number)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
}

fn read_flag(json: &str) -> Option<bool> {
    let flag = text(json).unwrap_or_else(|| json.to_owned());
    match &*flag {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn read_body(json: &str, encoded: bool) -> Result<Bytes, Refusal> {
    if json.starts_with(['{', '[']) && !encoded {
        return Ok(Bytes::copy_from_slice(json.as_bytes()));
    }
    let text = text(json).ok_or_else(|| Refusal::function("its body is no text"))?;
    if !encoded {
        return Ok(text.into());
    }
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| Refusal::function("its body is no Base64").detail(error))?;
    Ok(bytes.into())
}

/// The headers. Their names lose their case on the way: HTTP has none (RFC 9110 §5.1), and the library writes them in small letters.
fn read_headers(json: &str) -> Result<HeaderMap, Refusal> {
    let pairs: BTreeMap<String, String> = serde_json::from_str(json)
        .map_err(|error| Refusal::function("its headers are no object of texts").detail(error))?;
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let bad = |error: &dyn std::fmt::Display| {
            Refusal::function("it has a header that is not allowed").detail(error)
        };
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|error| bad(&error))?;
        let value = HeaderValue::from_maybe_shared(Bytes::from(value))
            .map_err(|error| bad(&format_args!("{parsed}: {error}")))?;
        // Its length is the one of the body that is sent, whatever the function counted.
        if parsed != http::header::CONTENT_LENGTH {
            headers.append(parsed, value);
        }
    }
    Ok(headers)
}

/// A JSON string, decoded; `None` for any other JSON.
fn text(json: &str) -> Option<String> {
    json.starts_with('"')
        .then(|| serde_json::from_str(json).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(json: &str) -> (u16, String, Vec<(String, String)>) {
        let answer = read(json.as_bytes()).unwrap();
        let headers = answer.headers.iter().map(|(name, value)| {
            let value = String::from_utf8(value.as_bytes().to_vec()).unwrap();
            (name.to_string(), value)
        });
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        (answer.status.as_u16(), body, headers.collect())
    }

    #[test]
    fn the_documented_answer_and_its_leniencies_are_read() {
        let json = |body: &str| (200, body.to_owned(), vec![]);
        for (answer, expected) in [
            (
                r#"{"isBase64Encoded":false,"statusCode":200,"body":"a"}"#,
                json("a"),
            ),
            (
                r#"{"isBase64Encoded":true,"statusCode":200,"body":"5byg"}"#,
                json("张"),
            ),
            (
                r#"{"isBase64Encoded":"true","statusCode":"200","body":"5byg"}"#,
                json("张"),
            ),
            (
                r#"{"isBase64Encoded":"false","statusCode":"200","body":"a"}"#,
                json("a"),
            ),
            (
                r#" {"statusCode":200,"body":{"b": 1.50, "a":[]}} "#,
                json(r#"{"b": 1.50, "a":[]}"#),
            ),
            (r#"{"statusCode":200,"body":[1]}"#, json("[1]")),
            (r#"{"statusCode":200}"#, json("")),
            (
                r#"{"statusCode":200,"body":null,"headers":null,"isBase64Encoded":null}"#,
                json(""),
            ),
            (
                r#"{"statusCode":204,"body":"a"}"#,
                (204, String::new(), vec![]),
            ),
            (
                r#"{"statusCode":"404","headers":{"Content-type":"application/json","Content-Length":"99","X-A":"张"},"body":"{}","more":1}"#,
                (
                    404,
                    "{}".to_owned(),
                    vec![
                        ("content-type".to_owned(), "application/json".to_owned()),
                        ("x-a".to_owned(), "张".to_owned()),
                    ],
                ),
            ),
        ] {
            assert_eq!(accepted(answer), expected, "{answer}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        let large = format!(r#"{{"statusCode":200,"body":"{}"}}"#, "a".repeat(MOST + 1));
        for (answer, reason) in [
            ("", "it is no JSON object"),
            ("hello", "it is no JSON object"),
            ("[]", "it is no JSON object"),
            ("\"a\"", "it is no JSON object"),
            (r#"{"statusCode":200} x"#, "it is no JSON object"),
            (
                "{\"statusCode\":200,\"body\":\"\u{0}\"}",
                "it is no JSON object",
            ),
            ("{}", "it has no statusCode"),
            (r#"{"statuscode":200}"#, "it has no statusCode"),
            (r#"{"statusCode":null}"#, "it has no statusCode"),
            (
                r#"{"statusCode":199}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":101}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":600}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":200.5}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":-200}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":"ok"}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":true}"#,
                "its statusCode is not a number from 200 to 599",
            ),
            (
                r#"{"statusCode":200,"isBase64Encoded":1}"#,
                "its isBase64Encoded is no boolean",
            ),
            (
                r#"{"statusCode":200,"isBase64Encoded":"yes"}"#,
                "its isBase64Encoded is no boolean",
            ),
            (r#"{"statusCode":200,"body":7}"#, "its body is no text"),
            (
                r#"{"statusCode":200,"body":{},"isBase64Encoded":true}"#,
                "its body is no text",
            ),
            (
                r#"{"statusCode":200,"body":"*","isBase64Encoded":true}"#,
                "its body is no Base64",
            ),
            (
                r#"{"statusCode":200,"body":"5by","isBase64Encoded":true}"#,
                "its body is no Base64",
            ),
            (
                r#"{"statusCode":200,"headers":[]}"#,
                "its headers are no object of texts",
            ),
            (
                r#"{"statusCode":200,"headers":{"a":1}}"#,
                "its headers are no object of texts",
            ),
            (
                r#"{"statusCode":200,"headers":{"a":"b\r\nc: d"}}"#,
                "it has a header that is not allowed",
            ),
            (
                r#"{"statusCode":200,"headers":{"a\r\nb":"c"}}"#,
                "it has a header that is not allowed",
            ),
            (
                r#"{"statusCode":200,"headers":{"":"c"}}"#,
                "it has a header that is not allowed",
            ),
            (&large, "its body is too large"),
        ] {
            let refusal = read(answer.as_bytes()).err().unwrap();
            let shown: String = answer.chars().take(80).collect();
            assert_eq!(
                refusal.message,
                format!("Function Compute response invalid: {reason}"),
                "{shown}"
            );
            assert_eq!(refusal.code.as_str(), "D502FC");
        }
    }

    #[test]
    fn a_functions_error_is_for_the_log() {
        let answer = |status: u16, error: Option<&'static str>| {
            let mut answer = Response::builder().status(status);
            if let Some(error) = error {
                answer = answer.header(ERROR_TYPE, error);
            }
            let (parts, ()) = answer.body(()).unwrap().into_parts();
            check_succeeded(&parts, br#"{"errorMessage":"secret"}"#)
        };
        assert_eq!(answer(200, None), Ok(()));
        for (status, error, reason) in [
            (200, Some("UnhandledInvocationError"), "the function failed"),
            (500, None, "the function failed"),
            (302, None, "the function failed"),
            (404, None, "there is no such function"),
            (403, None, "the gateway may not call the function"),
            (429, None, "the function is busy"),
        ] {
            let refusal = answer(status, error).unwrap_err();
            assert!(refusal.message.ends_with(reason), "{status} {refusal}");
            assert!(!refusal.message.contains("secret"));
            assert!(
                refusal.detail.contains("secret")
                    && refusal.detail.contains(error.unwrap_or_default())
            );
        }
    }

    #[test]
    fn callers_cannot_speak_to_function_compute() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-fc-invocation-type",
            "x-acs-action",
            "x-fcx",
            "authorization",
        ] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        drop_reserved(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-fcx"]);
    }
}
