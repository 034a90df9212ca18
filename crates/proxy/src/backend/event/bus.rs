//! A bus of Alibaba EventBridge: one event a call, by PutEvents of its data API (`POST /openapi/putEvents`) or of its control API
//! (`POST /`).
//!
//! Requests and signatures are those of the official clients; the live service was not asked. An event that is sent again is signed
//! again: what the bus makes of a nonce that it has seen is not documented.

use http::{
    HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use paifang_model::ObjectName;
use paifang_signing::sign_eventbridge;
use paifang_snapshot::wire::{AlibabaBus, BusApi};
use serde_json::Value;

use super::Attributes;
use crate::{
    backend::{
        Call,
        acs3::Action,
        call::is_passing,
        head::{authorize, set},
        json,
    },
    body::Outgoing,
    encode,
    record::RequestId,
    refusal::Refusal,
};

/// The data API's.
const PATH: &str = "/openapi/putEvents";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
/// The control API's.
const PUT_EVENTS: Action = Action {
    name: "PutEvents",
    version: "2020-04-01",
};
/// Most characters of the bus's words in the log.
const TOLD: usize = 512;

/// A bus.
pub(super) struct Bus {
    name: Box<str>,
    api: BusApi,
    pub(super) credentials: ObjectName,
}

impl Bus {
    pub(super) fn new(bus: &AlibabaBus) -> Self {
        Self {
            name: bus.bus.as_str().into(),
            api: bus.api,
            credentials: bus.credentials.clone(),
        }
    }

    /// One event, as a batch of one; not signed yet.
    pub(super) fn put(&self, event: &Attributes<'_>, data: &[u8]) -> Request<Outgoing> {
        let (path, content_type, body) = match self.api {
            BusApi::Data => (PATH, BATCH, self.batch(event, data)),
            BusApi::Control => (
                "/",
                "application/x-www-form-urlencoded",
                self.form(event, data),
            ),
        };
        let mut request = Request::new(Outgoing::Whole(body.into()));
        *request.uri_mut() = Uri::from_static(path);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        request
    }

    /// Of the data API: a CloudEvents batch, whose events say in an extension which bus they are for.
    fn batch(&self, event: &Attributes<'_>, data: &[u8]) -> Vec<u8> {
        let event = event.json(data, |event| {
            event.text("aliyuneventbusname", &self.name);
        });
        [b"[", &*event, b"]"].concat()
    }

    /// Of the control API: a form, in which events have its own names for their attributes.
    fn form(&self, event: &Attributes<'_>, data: &[u8]) -> Vec<u8> {
        let mut list = json::Object::with_capacity(data.len() + 512);
        list.raw("Data", data)
            .text("DataContentType", "application/json")
            .text("Id", event.id)
            .text("Source", event.source)
            .text("SpecVersion", "1.0");
        if !event.subject.is_empty() {
            list.text("Subject", &event.subject);
        }
        list.text("Time", &event.time).text("Type", event.kind);
        let list = String::from_utf8(list.finish()).expect("JSON is made of texts");
        let mut form = "EventBusName=".to_owned();
        encode::component(&self.name, &mut form);
        form.push_str("&EventList=");
        encode::component(&format!("[{list}]"), &mut form);
        // A `%20` that was written became `%2520`.
        form.replace("%20", "+").into_bytes()
    }

    /// Signs a request that stands as it will be sent, or signs it again with another nonce.
    pub(super) fn sign(
        &self,
        call: &Call<'_>,
        request: &mut Request<Outgoing>,
    ) -> Result<(), Refusal> {
        match self.api {
            BusApi::Data => sign_data(call, request),
            BusApi::Control => PUT_EVENTS.sign(call, request),
        }
    }
}

fn sign_data(call: &Call<'_>, request: &mut Request<Outgoing>) -> Result<(), Refusal> {
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
    set(headers, "date", &date)?;
    set(headers, "x-eventbridge-version", "2015-06-06")?;
    for (name, value) in signed {
        set(headers, name, value)?;
    }
    authorize(headers, &authorization)
}

/// The id under which the bus took the event; `sent` is the one it was sent with. Either API's answer: the control API's has under
/// `Data` what the data API's has at its top, and errors have a `Code`.
pub(super) fn read(status: StatusCode, body: &[u8], sent: &str) -> Result<String, Refusal> {
    let answer = serde_json::from_slice(body).ok().filter(Value::is_object);
    let Some(answer) = answer.filter(|_| status.is_success()) else {
        return Err(refused(status, body));
    };
    let result = match &answer["Data"] {
        Value::Object(_) => &answer["Data"],
        _ => &answer,
    };
    let entry = &result["EntryList"][0];
    if answer["Success"] == Value::Bool(false) {
        return Err(said(&answer["Code"], &answer["Message"]));
    }
    let failed = result["FailedEntryCount"].as_u64().unwrap_or(0);
    if failed > 0 || text(&entry["ErrorCode"]).is_some() {
        return Err(said(&entry["ErrorCode"], &entry["ErrorMessage"]));
    }
    Ok(text(&entry["EventId"]).unwrap_or(sent).to_owned())
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// The bus refused the event, in its own words.
fn said(code: &Value, message: &Value) -> Refusal {
    let code = text(code).unwrap_or("no code");
    let message = text(message).unwrap_or_default();
    let said: String = format!("{code} {message}").chars().take(TOLD).collect();
    Refusal::event("the bus refused it").detail(said)
}

/// The bus did not take the event, and `status` tells why.
fn refused(status: StatusCode, body: &[u8]) -> Refusal {
    let reason = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the gateway may not put events on the bus"
        }
        _ if status.is_success() => "the bus's answer cannot be read",
        _ if is_passing(status) => "the bus is busy",
        _ if status.is_server_error() => "the bus failed",
        _ => "the bus refused it",
    };
    let said: String = String::from_utf8_lossy(body).chars().take(TOLD).collect();
    Refusal::event(reason).detail(format_args!("{status} {said}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn bus(api: BusApi) -> Bus {
        Bus {
            name: "orders & co".into(),
            api,
            credentials: ObjectName::new("demo", "eb"),
        }
    }

    fn event() -> Attributes<'static> {
        Attributes {
            id: "id-1",
            source: "my.app",
            kind: "com.example.order",
            subject: Cow::Borrowed("a b"),
            time: "2026-11-23T00:00:00.000Z".to_owned(),
        }
    }

    fn put(api: BusApi) -> (String, String) {
        let request = bus(api).put(&event(), br#"{"a":"+"}"#);
        let Outgoing::Whole(body) = request.body() else {
            panic!("no body");
        };
        let body = String::from_utf8(body.to_vec()).unwrap();
        (request.uri().to_string(), body)
    }

    #[test]
    fn the_data_api_is_put_a_batch() {
        let (path, body) = put(BusApi::Data);
        assert_eq!(path, "/openapi/putEvents");
        let event: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(event[0]["id"], "id-1");
        assert_eq!(event[0]["aliyuneventbusname"], "orders & co");
        assert_eq!(event[0]["data"]["a"], "+");
    }

    #[test]
    fn the_control_api_is_put_a_form() {
        let (path, body) = put(BusApi::Control);
        assert_eq!(path, "/");
        let (bus, list) = body.split_once('&').unwrap();
        assert_eq!(bus, "EventBusName=orders+%26+co");
        assert!(
            list.starts_with("EventList=%5B%7B%22Data%22%3A%7B%22a%22%3A%22%2B%22%7D%2C"),
            "{list}"
        );
        let decoded = encode::decode_component(list).unwrap();
        let list: Value =
            serde_json::from_str(decoded.strip_prefix("EventList=").unwrap()).unwrap();
        assert_eq!(
            list,
            serde_json::json!([{
                "Data": {"a": "+"}, "DataContentType": "application/json", "Id": "id-1", "Source": "my.app", "SpecVersion": "1.0",
                "Subject": "a b", "Time": "2026-11-23T00:00:00.000Z", "Type": "com.example.order",
            }])
        );
    }

    /// The bytes that alibabacloud_eventbridge20200401 8.7.0 sends for the same event; `crates/signing` has their signature.
    #[test]
    fn the_form_is_that_of_the_official_client() {
        let bus = Bus {
            name: "bus1".into(),
            ..bus(BusApi::Control)
        };
        let form = String::from_utf8(bus.form(&event(), r#"{"a":"+ 中"}"#.as_bytes())).unwrap();
        assert_eq!(
            form,
            "EventBusName=bus1&EventList=%5B%7B%22Data%22%3A%7B%22a%22%3A%22%2B+%E4%B8%AD%22%7D%2C%22DataContentType%22%3A\
             %22application%2Fjson%22%2C%22Id%22%3A%22id-1%22%2C%22Source%22%3A%22my.app%22%2C%22SpecVersion%22%3A%221.0%22%2C\
             %22Subject%22%3A%22a+b%22%2C%22Time%22%3A%222026-11-23T00%3A00%3A00.000Z%22%2C%22Type%22%3A%22com.example.order%22%7D%5D"
        );
    }

    fn read_body(status: u16, body: &str) -> Result<String, Refusal> {
        read(
            StatusCode::from_u16(status).unwrap(),
            body.as_bytes(),
            "sent",
        )
    }

    #[test]
    fn an_event_that_was_taken_has_its_id() {
        for (taken, id) in [
            (
                r#"{"RequestId":"r","FailedEntryCount":0,"EntryList":[{"EventId":"e","TraceId":"t"}]}"#,
                "e",
            ),
            (r#"{"RequestId":"r"}"#, "sent"),
            (r#"{"EntryList":[{"EventId":""}]}"#, "sent"),
            (
                r#"{"Code":"200","Message":"","RequestId":"r","Success":true,"Data":{"FailedEntryCount":0,"EntryList":[{"EventId":"e"}]}}"#,
                "e",
            ),
            (r#"{"Code":"200","Success":true,"Data":null}"#, "sent"),
        ] {
            assert_eq!(read_body(200, taken).unwrap(), id, "{taken}");
        }
    }

    #[test]
    fn an_event_that_was_not_taken_is_not_called_taken() {
        const REFUSED: &str = "the bus refused it";
        for (status, refused, reason, detail) in [
            (
                200,
                r#"{"FailedEntryCount":1,"EntryList":[{"EventId":"e","ErrorCode":"EventBusNotExist","ErrorMessage":"no bus"}]}"#,
                REFUSED,
                "EventBusNotExist no bus",
            ),
            (
                200,
                r#"{"FailedEntryCount":0,"EntryList":[{"ErrorCode":"InvalidEvent"}]}"#,
                REFUSED,
                "InvalidEvent ",
            ),
            (200, r#"{"FailedEntryCount":1}"#, REFUSED, "no code "),
            (
                200,
                r#"{"Success":true,"Code":"200","Data":{"FailedEntryCount":1,"EntryList":[{"ErrorCode":"InvalidEvent","ErrorMessage":"no"}]}}"#,
                REFUSED,
                "InvalidEvent no",
            ),
            (
                200,
                r#"{"Success":false,"Code":"EventBusNotExist","Message":"no bus"}"#,
                REFUSED,
                "EventBusNotExist no bus",
            ),
            (
                200,
                "<html>",
                "the bus's answer cannot be read",
                "200 OK <html>",
            ),
            (
                403,
                r#"{"Code":"SignatureDoesNotMatch"}"#,
                "the gateway may not put events on the bus",
                r#"403 Forbidden {"Code":"SignatureDoesNotMatch"}"#,
            ),
            (503, "", "the bus is busy", "503 Service Unavailable "),
            (500, "x", "the bus failed", "500 Internal Server Error x"),
            (400, "x", REFUSED, "400 Bad Request x"),
        ] {
            let refusal = read_body(status, refused).unwrap_err();
            assert_eq!(refusal.code.as_str(), "D502EV", "{refused}");
            assert_eq!(refusal.detail, detail);
            assert!(refusal.message.ends_with(reason), "{}", refusal.message);
            assert!(!refusal.message.contains(detail), "that is for the log");
        }
    }
}
