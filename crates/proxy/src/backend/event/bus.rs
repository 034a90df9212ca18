//! A bus of Alibaba EventBridge: one event a call, by PutEvents of the data API (`POST /openapi/putEvents`).
//!
//! The request is the official client's, the signature compared with it; the live service was not asked. A request is signed once and
//! never sent again: what the bus makes of a nonce that it has seen is not documented.

use http::{
    HeaderValue, Request, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use paifang_model::ObjectName;
use paifang_signing::sign_eventbridge;
use paifang_snapshot::wire::AlibabaBus;
use serde_json::Value;

use crate::{
    backend::{
        Call,
        head::{authorize, set},
        json,
    },
    body::Outgoing,
    record::RequestId,
    refusal::Refusal,
};

const PATH: &str = "/openapi/putEvents";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
/// Most characters of the bus's words in the log.
const TOLD: usize = 512;

/// A bus.
pub(super) struct Bus {
    name: Box<str>,
    pub(super) credentials: ObjectName,
}

impl Bus {
    pub(super) fn new(bus: &AlibabaBus) -> Self {
        Self {
            name: bus.bus.as_str().into(),
            credentials: bus.credentials.clone(),
        }
    }

    /// The extension that says which bus an event is for.
    pub(super) fn name_in(&self, event: &mut json::Object) {
        event.text("aliyuneventbusname", &self.name);
    }

    /// One event as a batch of one, signed but for its `Host`, which the signature does not cover.
    pub(super) fn put(&self, call: &Call<'_>, event: &[u8]) -> Result<Request<Outgoing>, Refusal> {
        let body = [b"[", event, b"]"].concat();
        let mut request = Request::new(Outgoing::Whole(body.into()));
        *request.uri_mut() = Uri::from_static(PATH);
        let access = call.credentials()?;
        let nonce = RequestId::random();
        let mut signed = vec![
            ("x-acs-signature-method", "HMAC-SHA1"),
            ("x-acs-signature-nonce", nonce.as_str()),
            ("x-acs-signature-version", "1.0"),
        ];
        if let Some(token) = &access.security_token {
            signed.push(("x-acs-accesskey-id", &access.id));
            signed.push(("x-acs-security-token", token.expose()));
        }
        let date = httpdate::fmt_http_date(call.now);
        let authorization = sign_eventbridge(PATH, BATCH, &date, &signed, &access.id, &access.key);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(BATCH));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        set(headers, "date", &date)?;
        set(headers, "x-eventbridge-version", "2015-06-06")?;
        for (name, value) in signed {
            set(headers, name, value)?;
        }
        authorize(headers, &authorization)?;
        Ok(request)
    }

    /// The id under which the bus took the event; `sent` is the one it was sent with.
    pub(super) fn read(body: &[u8], sent: &str) -> Result<String, Refusal> {
        let said = || -> String { String::from_utf8_lossy(body).chars().take(TOLD).collect() };
        let answer: Value = serde_json::from_slice(body)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| Refusal::event("the bus's answer cannot be read").detail(said()))?;
        let entry = &answer["EntryList"][0];
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        let failed = answer["FailedEntryCount"].as_u64().unwrap_or(0);
        let code = text("ErrorCode");
        if failed > 0 || code.is_some() {
            let message: String = text("ErrorMessage")
                .unwrap_or_default()
                .chars()
                .take(TOLD)
                .collect();
            let code = code.unwrap_or("no code");
            return Err(
                Refusal::event("the bus refused it").detail(format_args!("{code} {message}"))
            );
        }
        Ok(text("EventId").unwrap_or(sent).to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_not_taken_is_not_called_taken() {
        let read = |body: &str| Bus::read(body.as_bytes(), "sent");
        let taken =
            r#"{"RequestId":"r","FailedEntryCount":0,"EntryList":[{"EventId":"e","TraceId":"t"}]}"#;
        assert_eq!(read(taken).unwrap(), "e");
        assert_eq!(read(r#"{"RequestId":"r"}"#).unwrap(), "sent");
        assert_eq!(read(r#"{"EntryList":[{"EventId":""}]}"#).unwrap(), "sent");
        for (refused, detail) in [
            (
                r#"{"FailedEntryCount":1,"EntryList":[{"EventId":"e","ErrorCode":"EventBusNotExist","ErrorMessage":"no bus"}]}"#,
                "EventBusNotExist no bus",
            ),
            (
                r#"{"FailedEntryCount":0,"EntryList":[{"ErrorCode":"InvalidEvent"}]}"#,
                "InvalidEvent ",
            ),
            (r#"{"FailedEntryCount":1}"#, "no code "),
            ("<html>", "<html>"),
        ] {
            let refusal = read(refused).unwrap_err();
            assert_eq!(refusal.code.as_str(), "D502EV", "{refused}");
            assert_eq!(refusal.detail, detail);
            assert!(!refusal.message.contains(detail), "that is for the log");
        }
    }
}
