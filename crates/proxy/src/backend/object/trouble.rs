//! Errors of a store that are the gateway's fault, not its caller's: its clock, its access key, its region.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::DATE, response};
use paifang_model::ObjectName;

/// What a store holds against the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The time stamp is too far from the store's clock.
    Clock,
    /// The access key is unknown, disabled or out of date, or its secret is another.
    AccessKey(&'static str),
    /// The bucket is in another region.
    Region(&'static str),
}

/// A code, and what it means.
type Known = (&'static str, fn(&'static str) -> Trouble);

/// Codes of OSS, of S3, and of versitygw for a key it does not know.
const CODES: [Known; 15] = [
    ("RequestTimeTooSkewed", |_| Trouble::Clock),
    ("RequestExpired", |_| Trouble::Clock),
    ("SignatureDoesNotMatch", Trouble::AccessKey),
    ("InvalidAccessKeyId", Trouble::AccessKey),
    ("InvalidAccessKey", Trouble::AccessKey),
    ("XAdminUserNotFound", Trouble::AccessKey),
    ("InvalidSecurity", Trouble::AccessKey),
    ("InvalidToken", Trouble::AccessKey),
    ("InvalidSecurityToken", Trouble::AccessKey),
    ("SecurityTokenExpired", Trouble::AccessKey),
    ("SecurityTokenNotSupported", Trouble::AccessKey),
    ("ExpiredToken", Trouble::AccessKey),
    ("TokenRefreshRequired", Trouble::AccessKey),
    ("AuthorizationHeaderMalformed", Trouble::Region),
    ("InvalidRegion", Trouble::Region),
];

/// The gateway's fault in an error of the store, if it is one.
pub(super) fn of(answer: &response::Parts, body: &[u8]) -> Option<Trouble> {
    let told = told_in_header(&answer.headers);
    let code = code(body).or_else(|| code(told.as_deref()?))?;
    let (code, trouble) = CODES.iter().find(|(known, _)| *known == code)?;
    Some(trouble(code))
}

/// The error of an answer to HEAD, which has no body: OSS tells it in a header.
fn told_in_header(headers: &HeaderMap) -> Option<Vec<u8>> {
    STANDARD.decode(headers.get("x-oss-err")?).ok()
}

/// The code in an error's XML.
fn code(xml: &[u8]) -> Option<&str> {
    let after = |text: &'_ [u8], tag: &[u8]| memchr::memmem::find(text, tag);
    let start = after(xml, b"<Code>")? + b"<Code>".len();
    let length = after(&xml[start..], b"</Code>")?;
    std::str::from_utf8(&xml[start..start + length]).ok()
}

// === impl Trouble ===

impl Trouble {
    /// For the log. Names the Secret, and nothing that is in it.
    pub(super) fn explain(
        self,
        now: SystemTime,
        answer: &response::Parts,
        credentials: &ObjectName,
        region: &str,
    ) -> impl fmt::Display {
        let id = ["x-oss-request-id", "x-amz-request-id"];
        let id = id
            .iter()
            .find_map(|name| answer.headers.get(*name)?.to_str().ok());
        let id = id.map_or(String::new(), |id| {
            format!("; the store's request id is {id}")
        });
        match self {
            Self::Clock => match difference(now, &answer.headers) {
                Some(difference) => {
                    format!("the gateway's clock differs from the store's by {difference} s{id}")
                }
                None => format!("the gateway's clock differs from the store's{id}"),
            },
            Self::AccessKey(code) => {
                format!("the access key of Secret {credentials} is refused: {code}{id}")
            }
            Self::Region(code) => {
                format!("requests are signed for region {region}, which is refused: {code}{id}")
            }
        }
    }
}

/// Seconds between our clock and the store's.
fn difference(now: SystemTime, headers: &HeaderMap) -> Option<u64> {
    let theirs = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let difference = now
        .duration_since(theirs)
        .unwrap_or_else(|ahead| ahead.duration());
    Some(difference.max(Duration::ZERO).as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn parts(headers: &[(&'static str, &str)]) -> response::Parts {
        let mut response = http::Response::new(());
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        response.into_parts().0
    }

    fn trouble(body: &str) -> Option<Trouble> {
        of(&parts(&[]), body.as_bytes())
    }

    #[test]
    fn faults_of_the_gateway_are_told_from_those_of_its_callers() {
        let error = |code: &str| {
            trouble(&format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"
            ))
        };
        assert_eq!(error("RequestTimeTooSkewed"), Some(Trouble::Clock));
        assert_eq!(
            error("SignatureDoesNotMatch"),
            Some(Trouble::AccessKey("SignatureDoesNotMatch"))
        );
        assert_eq!(
            error("AuthorizationHeaderMalformed"),
            Some(Trouble::Region("AuthorizationHeaderMalformed"))
        );
        for code in [
            "AccessDenied",
            "NoSuchKey",
            "NoSuchBucket",
            "PreconditionFailed",
            "BadDigest",
            "",
            " SignatureDoesNotMatch",
        ] {
            assert_eq!(error(code), None, "{code}");
        }
        for body in [
            "",
            "<Code>",
            "<Code>SignatureDoesNotMatch",
            "</Code><Code>",
            "garbage",
            "<code>SignatureDoesNotMatch</code>",
        ] {
            assert_eq!(trouble(body), None, "{body}");
        }
    }

    #[test]
    fn an_answer_to_head_tells_it_in_a_header() {
        let error = STANDARD.encode("<Error><Code>InvalidAccessKeyId</Code></Error>");
        assert_eq!(
            of(&parts(&[("x-oss-err", &error)]), b""),
            Some(Trouble::AccessKey("InvalidAccessKeyId"))
        );
        assert_eq!(of(&parts(&[("x-oss-err", "!!")]), b""), None);
    }

    #[test]
    fn the_log_is_told_the_difference_of_clocks_and_which_secret() {
        let name: ObjectName = ObjectName {
            namespace: "team".into(),
            name: "store".into(),
        };
        let answer = parts(&[
            ("date", "Mon, 23 Nov 2026 00:00:00 GMT"),
            ("x-oss-request-id", "5F"),
        ]);
        let now = UNIX_EPOCH + Duration::from_secs(1_795_392_000 - 1200);
        let explain = |trouble: Trouble| {
            trouble
                .explain(now, &answer, &name, "cn-hangzhou")
                .to_string()
        };
        assert_eq!(
            explain(Trouble::Clock),
            "the gateway's clock differs from the store's by 1200 s; the store's request id is 5F"
        );
        assert_eq!(
            explain(Trouble::AccessKey("InvalidAccessKeyId")),
            "the access key of Secret team/store is refused: InvalidAccessKeyId; the store's request id is 5F"
        );
        assert!(explain(Trouble::Region("InvalidRegion")).contains("cn-hangzhou"));
    }
}
