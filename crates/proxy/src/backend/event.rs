//! Events: the request as a CloudEvents 1.0 event, posted to a sink (Ref §6.6).
//!
//! Delivery is at least once: an event that may not have arrived is sent again with the same id, within the Api's timeout. What callers
//! prove themselves with is not in the event, as it goes on to whoever subscribes.

mod bus;

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION},
    request, response,
    uri::PathAndQuery,
};
use paifang_model::{ObjectName, percent};
use paifang_signing::{Utc, appcode};
use paifang_snapshot::{
    table::{self, Api},
    wire::{EventMode, EventTarget},
};

use super::{Call, Kind, call::is_passing, head, json};
use crate::{body::Outgoing, encode, refusal::Refusal};

/// The `type` of events whose Api names none.
const DEFAULT_TYPE: &str = "dev.paifang.api.called";
/// Most bytes that are read of a sink's answer; they go to the log, or nowhere.
const MOST_ANSWER: usize = 64 << 10;
/// Most characters of a sink's answer in the log.
const TOLD: usize = 512;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const STRUCTURED: HeaderValue =
    HeaderValue::from_static("application/cloudevents+json; charset=utf-8");

/// Headers that callers prove themselves with.
const PROOFS: [HeaderName; 8] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-ca-signature"),
    HeaderName::from_static("x-ca-signature-headers"),
    HeaderName::from_static("x-ca-signature-method"),
    HeaderName::from_static("x-ca-timestamp"),
    HeaderName::from_static("x-ca-nonce"),
];

/// A sink of events, or a bus.
pub(super) struct Event {
    source: Box<str>,
    target: PathAndQuery,
    mode: EventMode,
    bus: Option<bus::Bus>,
}

/// What an event says of itself. All but `subject` are never empty.
struct Attributes<'c> {
    id: &'c str,
    source: &'c str,
    kind: &'c str,
    subject: Cow<'c, str>,
    time: String,
}

// === impl Event ===

impl Event {
    /// The sink that `target` describes; why nothing can be sent to it otherwise.
    pub(super) fn load(target: &EventTarget) -> Result<Self, String> {
        Ok(Self {
            source: target.source.as_str().into(),
            target: target
                .path
                .parse()
                .map_err(|error| format!("its path: {error}"))?,
            mode: target.mode,
            bus: target.alibaba.as_ref().map(bus::Bus::new),
        })
    }

    fn attributes<'c>(&'c self, call: &'c Call<'_>) -> Attributes<'c> {
        let (kind, subject) = match &call.api().call {
            table::Call::Event { kind, subject } => (&**kind, call.fill_in(subject)),
            _ => (DEFAULT_TYPE, Cow::Borrowed("")),
        };
        Attributes {
            id: call.id.as_str(),
            source: &self.source,
            kind,
            subject,
            time: Utc::from(call.now).to_string(),
        }
    }
}

impl Kind for Event {
    fn credentials(&self) -> Option<&ObjectName> {
        self.bus.as_ref().map(|bus| &bus.credentials)
    }

    fn needs_whole_body(&self, _api: &Api) -> bool {
        true
    }

    fn prepare(
        &self,
        call: &Call<'_>,
        request: Request<Outgoing>,
    ) -> Result<Request<Outgoing>, Refusal> {
        let (parts, body) = request.into_parts();
        let data = data(call, &parts, &json::whole(body)?);
        let attributes = self.attributes(call);
        let mut request = match (&self.bus, self.mode) {
            (Some(bus), _) => bus.put(&attributes, &data),
            (None, EventMode::Binary) => attributes.binary(data)?,
            (None, EventMode::Structured) => attributes.structured(&data),
        };
        *request.method_mut() = Method::POST;
        // Nothing of the caller's stands beside the event.
        head::keep_own(&parts.headers, request.headers_mut());
        match &self.bus {
            Some(bus) => bus.sign(call, &mut request)?,
            None => *request.uri_mut() = self.target.clone().into(),
        }
        Ok(request)
    }

    fn reads(&self, _call: &Call<'_>, _answer: &response::Parts) -> Option<usize> {
        Some(MOST_ANSWER)
    }

    fn ends_with_head(&self) -> bool {
        self.bus.is_none()
    }

    fn finish(
        &self,
        call: &Call<'_>,
        answer: response::Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refusal> {
        let sent = call.id.as_str();
        match &self.bus {
            Some(_) => Ok(accepted(&bus::read(answer.status, &body, sent)?, sent)),
            None if answer.status.is_success() => Ok(accepted(sent, sent)),
            None => Err(refused(answer.status, &body)),
        }
    }

    fn unreadable(&self, reason: &'static str) -> Refusal {
        Refusal::event(reason)
    }

    fn may_repeat(&self, outcome: Option<StatusCode>) -> bool {
        outcome.is_none_or(is_passing)
    }

    /// The same event, with the same id; a signature's nonce counts once.
    fn renew(&self, call: &Call<'_>, request: &mut Request<Outgoing>) -> Result<(), Refusal> {
        self.bus
            .as_ref()
            .map_or(Ok(()), |bus| bus.sign(call, request))
    }
}

/// What the caller gets for an event that was taken.
fn accepted(event: &str, request: &str) -> Response<Bytes> {
    let mut answer = json::Object::with_capacity(128);
    answer.text("eventId", event).text("requestId", request);
    let mut response = Response::new(answer.finish().into());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn refused(status: StatusCode, body: &[u8]) -> Refusal {
    let reason = if is_passing(status) {
        "the sink is busy"
    } else if status.is_server_error() {
        "the sink failed"
    } else {
        "the sink refused it"
    };
    let said: String = String::from_utf8_lossy(body).chars().take(TOLD).collect();
    Refusal::event(reason).detail(format_args!("{status} {said}"))
}

/// The event's data: the request, told in JSON.
fn data(call: &Call<'_>, parts: &request::Parts, body: &[u8]) -> Vec<u8> {
    let (text, encoded) = json::body(&parts.headers, body);
    let query = parts.uri.query().unwrap_or_default();
    let mut data = json::Object::with_capacity(text.len() + 1024);
    data.texts(
        "headers",
        json::headers(&parts.headers, |name| !PROOFS.contains(name)),
    )
    .text("path", &call.path)
    .text("httpMethod", call.method.as_str())
    .text("queryString", &without_code(query))
    .text("body", &text)
    .flag("isBase64Encoded", encoded);
    data.finish()
}

/// The query, without an AppCode.
fn without_code(query: &str) -> Cow<'_, str> {
    let is_code = |pair: &str| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        encode::decode_component(name).is_some_and(|name| name == appcode::QUERY_NAME)
    };
    if !query.split('&').any(is_code) {
        return Cow::Borrowed(query);
    }
    let kept: Vec<_> = query.split('&').filter(|pair| !is_code(pair)).collect();
    Cow::Owned(kept.join("&"))
}

// === impl Attributes ===

impl Attributes<'_> {
    /// Attributes in headers, data in the body (HTTP protocol binding §3.1).
    fn binary(&self, data: Vec<u8>) -> Result<Request<Outgoing>, Refusal> {
        let mut request = Request::new(Outgoing::Whole(data.into()));
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
        let rest = [
            ("ce-id", self.id),
            ("ce-source", self.source),
            ("ce-type", self.kind),
            ("ce-time", &self.time),
            ("ce-subject", &self.subject),
        ];
        for (name, value) in rest.into_iter().filter(|(_, value)| !value.is_empty()) {
            let value = HeaderValue::try_from(in_header(value))
                .map_err(|error| Refusal::unusable_api().detail(error))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(request)
    }

    /// All in the body (HTTP protocol binding §3.2).
    fn structured(&self, data: &[u8]) -> Request<Outgoing> {
        let event = self.json(data, |_| ());
        let mut request = Request::new(Outgoing::Whole(event.into()));
        request.headers_mut().insert(CONTENT_TYPE, STRUCTURED);
        request
    }

    /// The event in JSON (JSON format §3), with what `extend` adds.
    fn json(&self, data: &[u8], extend: impl FnOnce(&mut json::Object)) -> Vec<u8> {
        let mut event = json::Object::with_capacity(data.len() + 512);
        event
            .text("specversion", "1.0")
            .text("id", self.id)
            .text("source", self.source)
            .text("type", self.kind);
        if !self.subject.is_empty() {
            event.text("subject", &self.subject);
        }
        event
            .text("time", &self.time)
            .text("datacontenttype", "application/json")
            .raw("data", data);
        extend(&mut event);
        event.finish()
    }
}

/// An attribute as a header has it: percent-encoded but for what is printable, save space, `"` and `%` (HTTP protocol binding §3.1.3.2).
fn in_header(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    percent::escape(text, &mut out, |byte| {
        byte.is_ascii_graphic() && byte != b'"' && byte != b'%'
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: Attributes<'_> = Attributes {
        id: "1",
        source: "paifang",
        kind: "com.example.order",
        subject: Cow::Borrowed("订单 7%\"\r\n"),
        time: String::new(),
    };

    #[test]
    fn attributes_in_headers_are_encoded() {
        assert_eq!(
            in_header("a b\"c%d~!/é\u{1f600}\n"),
            "a%20b%22c%25d~!/%C3%A9%F0%9F%98%80%0A"
        );
        let request = ATTRIBUTES.binary(b"{}".to_vec()).unwrap();
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        assert_eq!(header("ce-specversion"), Some("1.0"));
        assert_eq!(
            header("ce-subject"),
            Some("%E8%AE%A2%E5%8D%95%207%25%22%0D%0A")
        );
        assert_eq!(header("ce-time"), None, "nothing is said as empty");
        assert_eq!(header("content-type"), Some("application/json"));
    }

    #[test]
    fn structured_events_hold_their_data_as_json() {
        let request = ATTRIBUTES.structured(b"{\"a\":1}");
        let Outgoing::Whole(body) = request.body() else {
            panic!("no body");
        };
        let event: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(event["subject"], "订单 7%\"\r\n");
        assert_eq!(event["data"]["a"], 1);
        assert_eq!(event["datacontenttype"], "application/json");
    }

    #[test]
    fn codes_do_not_get_into_events() {
        for (query, left) in [
            ("a=1&b", "a=1&b"),
            ("", ""),
            ("AppCode=x", ""),
            ("a=1&AppCode=x&b=%2F&%41ppCode=y&AppCode", "a=1&b=%2F"),
            ("appcode=x", "appcode=x"),
        ] {
            assert_eq!(without_code(query), left, "{query}");
        }
    }

    #[test]
    fn only_what_may_pass_is_sent_again() {
        let event = Event {
            source: "s".into(),
            target: PathAndQuery::from_static("/"),
            mode: EventMode::Binary,
            bus: None,
        };
        let again = |status| event.may_repeat(Some(StatusCode::from_u16(status).unwrap()));
        assert!(event.may_repeat(None));
        assert!([429, 502, 503, 504].into_iter().all(again));
        assert!(![200, 202, 301, 400, 404, 500].into_iter().any(again));
    }
}
