//! Mock: a fixed answer, no network (Ref §6.7).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use paifang_snapshot::wire::MockTarget;

/// The answer, made when its configuration is loaded.
pub(crate) struct Mock {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Mock {
    /// The answer that `target` describes; why it cannot be sent otherwise.
    pub(super) fn load(target: &MockTarget) -> Result<Self, String> {
        let status = StatusCode::from_u16(target.status).map_err(|error| error.to_string())?;
        // Neither has a body (RFC 9110 §6.4.1).
        let body = match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => "",
            _ => &target.body,
        };
        let mut headers = HeaderMap::with_capacity(target.headers.len());
        for (name, value) in &target.headers {
            let bad = |error: &dyn std::fmt::Display| format!("its header `{name}`: {error}");
            let value: HeaderValue = value.parse().map_err(|error| bad(&error))?;
            let name: HeaderName = name.parse().map_err(|error| bad(&error))?;
            headers.append(name, value);
        }
        Ok(Self {
            status,
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    pub(crate) fn answer(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }
}
