//! The Mock backend (Ref §6.7): a fixed answer, no network.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use paifang_snapshot::wire::MockTarget;

use crate::refusal::Refusal;

/// The answer.
///
/// # Errors
/// [`Refusal::unusable_api`] when status or a header cannot be sent; the compiler lets no such target through.
pub(crate) fn answer(target: &MockTarget) -> Result<Response<Bytes>, Refusal> {
    let status = StatusCode::from_u16(target.status)
        .map_err(|error| Refusal::unusable_api().detail(error))?;
    // Neither has a body (RFC 9110 §6.4.1).
    let body = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => "",
        _ => &target.body,
    };
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = status;
    for (name, value) in &target.headers {
        let name: HeaderName = name
            .parse()
            .map_err(|error| Refusal::unusable_api().detail(error))?;
        let value: HeaderValue = value
            .parse()
            .map_err(|error| Refusal::unusable_api().detail(error))?;
        response.headers_mut().append(name, value);
    }
    Ok(response)
}
