//! Phase 9, and the one place where refusals become answers.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use paifang_model::Method;

use crate::{
    body::{Body, Time},
    clean::head::{self, Cleaned},
    record::Record,
    refusal::Refusal,
    serve::{Answer, Client, Worker},
    upgrade::{self, Tunnel},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ca-request-id");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ca-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-ca-error-message");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// On every answer over the public sub-domain, so that browsers download instead of render (Ref §3.1).
const ATTACHMENT: HeaderValue =
    HeaderValue::from_static("attachment; filename=ApiResponseForInnerDomain");
const SERVER: HeaderValue = HeaderValue::from_static("Paifang");
/// Clients are told less than our own idle timeout, so that it is they who close (Ref §3.1).
const KEEP_ALIVE_VALUE: HeaderValue = HeaderValue::from_static("timeout=25");

/// Finishes an answer. `record` goes to the observer when the answer's body is over.
pub(crate) fn respond(
    answer: Result<Answer, Refusal>,
    mut record: Box<Record>,
    via_sub_domain: bool,
    worker: &Worker,
    client: &Client,
) -> Response<Body> {
    let observer = Rc::clone(&worker.observer);
    let http1 = record.version < http::Version::HTTP_2;
    let id = record.id.header();
    let mut response = match answer {
        Ok(Answer::Backend(response, lease, time)) => {
            let (mut parts, incoming) = response.into_parts();
            let announced = worker.trailers.announced(&parts.headers);
            own_headers_only(&mut parts.headers);
            if let Some(names) = announced {
                parts.headers.insert(header::TRAILER, names);
            }
            record.status = parts.status;
            // A length without a body belongs to the answers to HEAD and to 304 alone (RFC 9110 §8.6).
            if hyper::body::Body::is_end_stream(&incoming)
                && record.method != http::Method::HEAD
                && parts.status != StatusCode::NOT_MODIFIED
            {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            let time = if is_event_stream(&parts.headers) {
                Time::Silent(worker.settings().timeouts.stream_idle)
            } else {
                time
            };
            let trailers = Rc::clone(&worker.trailers);
            Response::from_parts(
                parts,
                Body::of_backend(incoming, lease, time, trailers, record, observer),
            )
        }
        Ok(Answer::Upgrade(granted)) => {
            let (mut parts, backend, lease) = *granted;
            own_headers_only(&mut parts.headers);
            upgrade::confirm(&mut parts.headers);
            record.status = parts.status;
            let idle = worker.settings().timeouts.stream_idle;
            client.upgrade_to(Tunnel::new(backend, lease, idle, record, observer));
            Response::from_parts(parts, Body::unobserved(Bytes::new()))
        }
        Ok(Answer::Own(response)) => {
            let (mut parts, bytes) = response.into_parts();
            own_headers_only(&mut parts.headers);
            record.status = parts.status;
            Response::from_parts(parts, Body::own(bytes, record, observer))
        }
        Err(refusal) => {
            record.status = refusal.code.status();
            let head = refusal_head(&refusal);
            record.refusal = Some(refusal);
            head.map(|()| Body::own(Bytes::new(), record, observer))
        }
    };
    // Ours, whatever the backend speaks (RFC 9110 §2.5). In the form of HTTP/1.0 a body would end with the connection, cut or whole.
    *response.version_mut() = http::Version::HTTP_11;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if via_sub_domain {
        headers.insert(header::CONTENT_DISPOSITION, ATTACHMENT);
    }
    if !headers.contains_key(header::SERVER) {
        headers.insert(header::SERVER, SERVER);
    }
    if http1 && !headers.contains_key(header::CONNECTION) {
        headers.insert(KEEP_ALIVE, KEEP_ALIVE_VALUE);
    }
    response
}

/// Whether an answer goes on for as long as there are events (HTML §9.2).
fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|&b| b == b';').next();
        kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(EVENTS))
    })
}

/// An answer outside of any request that reached a worker.
pub fn refuse(refusal: &Refusal) -> Response<Body> {
    refusal_head(refusal).map(|()| Body::unobserved(Bytes::new()))
}

fn refusal_head(refusal: &Refusal) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = refusal.code.status();
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(refusal.code.as_str()));
    headers.insert(ERROR_MESSAGE, message(&refusal.message));
    if refusal.code.status() == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if refusal.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A text as a header's value: UTF-8 stays, control characters become `?`.
fn message(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| {
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        HeaderValue::from_bytes(clean.as_bytes()).unwrap_or(HeaderValue::from_static("?"))
    })
}

/// Removes what concerned the hop to the backend, and what only the gateway may say.
fn own_headers_only(headers: &mut HeaderMap) {
    const OURS: [HeaderName; 3] = [REQUEST_ID, ERROR_CODE, ERROR_MESSAGE];
    head::strip_hop_by_hop(headers, &OURS);
}

/// Plain HTTP on a domain that wants HTTPS: `301` where the method survives it, else `308` (RFC 9110 §15.4).
pub(crate) fn redirect(cleaned: &Cleaned<'_>) -> Result<Answer, Refusal> {
    let status = match cleaned.method {
        Method::Get | Method::Head => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let mut location = format!("https://{}{}", cleaned.host, cleaned.path);
    if let Some(query) = cleaned.query {
        location.push('?');
        location.push_str(query);
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let location = HeaderValue::from_str(&location).map_err(|_| Refusal::uri_characters())?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(Answer::Own(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_end_its_header() {
        for text in ["a\r\nX-B: c", "a\nb", "a\0b", "Invalid `张三`"] {
            let value = message(text);
            assert!(!value.as_bytes().iter().any(|&b| b < 0x20), "{text:?}");
        }
        assert_eq!(message("张三").as_bytes(), "张三".as_bytes());
    }

    #[test]
    fn refusals_say_code_and_text_and_close_when_they_must() {
        let response = refuse(&Refusal::signature("x"));
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[ERROR_CODE], "A403IS");
        assert_eq!(
            response.headers()[ERROR_MESSAGE],
            "Invalid Signature, Server StringToSign:x"
        );
        assert!(!response.headers().contains_key(header::CONNECTION));
        let response = refuse(&Refusal::body_too_large());
        assert_eq!(response.headers()[header::CONNECTION], "close");
    }
}
