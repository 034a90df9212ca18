//! What of a request reaches the store: the query and the headers that belong to each action.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use paifang_snapshot::wire::{ObjectAction as Action, ObjectDialect as Dialect};

use super::{Pair, copied};
use crate::{encode, refusal::Refusal};

/// What of the query an Api may say for its callers. They cannot say it themselves: another version is another right in a store, and the
/// others decide as what a browser takes bytes that somebody has uploaded.
const WRITTEN: [&str; 7] = [
    "versionId",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
];

/// Headers of whoever reads. `If-Range` is not among them, and takes `Range` with it: neither dialect documents it, and a store that
/// kept the range alone would make its caller join two versions.
const READING: [HeaderName; 6] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::ACCEPT_ENCODING,
];

/// Headers of whoever writes.
const WRITING: [HeaderName; 9] = [
    header::CONTENT_TYPE,
    CONTENT_MD5,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CACHE_CONTROL,
    header::EXPIRES,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
];
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// OSS's `If-None-Match: *`. It only ever makes a write fail.
const FORBID_OVERWRITE: &str = "x-oss-forbid-overwrite";

/// The query of an action, sorted by name. `written` tells whether the Api itself writes what has this name.
///
/// # Errors
/// The refusal that the caller gets: an append that says no position.
pub(super) fn query<'q>(
    action: Action,
    dialect: Dialect,
    sent: &'q str,
    written: impl Fn(&str) -> bool,
) -> Result<Vec<Pair<'q>>, Refusal> {
    let mut query: Vec<Pair<'q>> = Vec::new();
    let mut add = |name: Cow<'q, str>, value: Cow<'q, str>| {
        if query.iter().all(|(known, _)| *known != name) {
            query.push((name, value));
        }
    };
    for pair in sent.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = encode::decode_component(name) else {
            continue;
        };
        let is_read = match action {
            Action::GetObject => WRITTEN.contains(&&*name),
            Action::HeadObject | Action::GetObjectMeta | Action::DeleteObject => {
                *name == *WRITTEN[0]
            }
            Action::PutObject | Action::PostObject | Action::AppendObject => false,
        };
        let is_position = action == Action::AppendObject && name == "position";
        if is_position || (is_read && written(&name)) {
            let value = encode::decode_component(value)
                .ok_or_else(|| Refusal::parameter(&name, "is not percent-encoded UTF-8"))?;
            add(name, value);
        }
    }
    match action {
        Action::AppendObject => {
            add("append".into(), "".into());
            check_position(&query)?;
        }
        Action::GetObjectMeta if dialect != Dialect::S3 => add("objectMeta".into(), "".into()),
        _ => {}
    }
    query.sort_unstable();
    Ok(query)
}

fn check_position(query: &[Pair<'_>]) -> Result<(), Refusal> {
    let position = query.iter().find(|(name, _)| name == "position");
    let (_, position) = position.ok_or_else(|| Refusal::missing_parameter("position"))?;
    let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || position.len() > 19 {
        return Err(Refusal::parameter("position", "is not a number of bytes"));
    }
    Ok(())
}

/// The headers of an action, each with one value.
pub(super) fn headers(action: Action, dialect: Dialect, sent: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let with_if_range = sent.contains_key(header::IF_RANGE);
    for name in sent.keys() {
        let passes = match action {
            _ if copied(name) => true,
            _ if *name == header::RANGE && with_if_range => false,
            Action::GetObject => READING.contains(name),
            Action::HeadObject | Action::GetObjectMeta => {
                READING.contains(name) && *name != header::ACCEPT_ENCODING
            }
            Action::PutObject | Action::AppendObject => writes(dialect, name),
            Action::PostObject => *name == header::CONTENT_TYPE,
            Action::DeleteObject => *name == header::IF_MATCH,
        };
        if passes && let Some(value) = joined(sent, name) {
            headers.insert(name, value);
        }
    }
    headers
}

fn writes(dialect: Dialect, name: &HeaderName) -> bool {
    let text = name.as_str();
    WRITING.contains(name)
        || match dialect {
            Dialect::S3 => text.starts_with("x-amz-meta-"),
            Dialect::OssV4 | Dialect::OssV1 => {
                text.starts_with("x-oss-meta-") || text == FORBID_OVERWRITE
            }
        }
}

/// All values under a name, as one (RFC 9110 §5.3).
fn joined(sent: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = sent.get_all(name).iter();
    let first = values.next()?;
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(first.clone());
    }
    let mut all = first.as_bytes().to_vec();
    for value in rest {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Action; 7] = [
        Action::GetObject,
        Action::PutObject,
        Action::PostObject,
        Action::AppendObject,
        Action::HeadObject,
        Action::GetObjectMeta,
        Action::DeleteObject,
    ];

    fn asked(action: Action, dialect: Dialect, sent: &str, written: &[&str]) -> Vec<String> {
        let query = query(action, dialect, sent, |name| written.contains(&name)).unwrap();
        query.iter().map(|(n, v)| format!("{n}={v}")).collect()
    }

    #[test]
    fn no_other_operation_is_reached_by_the_query() {
        let sent = "acl&delete=&uploads&uploadId=1&partNumber=1&policy&tagging&restore&symlink&cors&\
                    x-oss-process=image%2Fresize&versionId=1&response-content-type=text%2Fhtml&list-type=2&\
                    X-Amz-Signature=1&security-token=t&append&position=0&objectMeta&torrent&retention&%61cl=&=x&x";
        for dialect in [Dialect::OssV4, Dialect::OssV1, Dialect::S3] {
            for action in ALL {
                let expected: &[&str] = match (action, dialect) {
                    (Action::AppendObject, _) => &["append=", "position=0"],
                    (Action::GetObjectMeta, Dialect::OssV4 | Dialect::OssV1) => &["objectMeta="],
                    _ => &[],
                };
                assert_eq!(asked(action, dialect, sent, &[]), expected, "{action:?}");
            }
        }
    }

    #[test]
    fn an_api_may_say_which_version_and_how_it_is_answered() {
        let sent = "response-content-type=text%2Fplain&versionId=a%2Bb&acl=";
        let written = ["versionId", "response-content-type", "acl"];
        assert_eq!(
            asked(Action::GetObject, Dialect::S3, sent, &written),
            ["response-content-type=text/plain", "versionId=a+b"]
        );
        for action in [Action::HeadObject, Action::DeleteObject] {
            assert_eq!(
                asked(action, Dialect::S3, sent, &written),
                ["versionId=a+b"]
            );
        }
        assert!(asked(Action::PutObject, Dialect::S3, sent, &written).is_empty());
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let sent = "position=1&position=2&positio%6E=3";
        assert_eq!(
            asked(Action::AppendObject, Dialect::OssV4, sent, &[]),
            ["append=", "position=1"]
        );
    }

    #[test]
    fn an_append_says_where() {
        let code = |sent| {
            let refused = query(Action::AppendObject, Dialect::OssV4, sent, |_| false);
            refused.unwrap_err().code.as_str()
        };
        assert_eq!(code(""), "I400MP");
        assert_eq!(code("append"), "I400MP");
        for wrong in [
            "position=",
            "position=-1",
            "position=1a",
            "position=%ff",
            "position=99999999999999999999",
        ] {
            assert_eq!(code(wrong), "I400IP", "{wrong}");
        }
    }

    fn passed(action: Action, dialect: Dialect, sent: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in sent {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let headers = headers(action, dialect, &map);
        let mut names: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn headers_that_change_rights_never_pass() {
        let sent: Vec<_> = [
            "authorization",
            "cookie",
            "x-ca-key",
            "x-ca-request-id",
            "x-forwarded-for",
            "expect",
            "referer",
            "origin",
            "user-agent",
            "x-oss-object-acl",
            "x-oss-copy-source",
            "x-oss-server-side-encryption",
            "x-oss-security-token",
            "x-oss-storage-class",
            "x-oss-tagging",
            "x-oss-callback",
            "x-oss-date",
            "x-oss-content-sha256",
            "x-oss-symlink-target",
            "x-oss-metadata-directive",
            "x-amz-acl",
            "x-amz-copy-source",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-security-token",
            "x-amz-storage-class",
            "x-amz-tagging",
            "x-amz-website-redirect-location",
            "x-amz-grant-full-control",
            "x-amz-date",
            "x-amz-content-sha256",
            "x-amz-bypass-governance-retention",
            "x-amz-write-offset-bytes",
            "transfer-encoding",
        ]
        .map(|name| (name, "x"))
        .to_vec();
        for dialect in [Dialect::OssV4, Dialect::OssV1, Dialect::S3] {
            for action in ALL {
                assert!(passed(action, dialect, &sent).is_empty(), "{action:?}");
            }
        }
    }

    #[test]
    fn what_belongs_to_an_action_passes() {
        let sent = [
            ("host", "h"),
            ("via", "1.1 paifang"),
            ("range", "bytes=0-3"),
            ("if-match", "\"a\""),
            ("if-match", "\"b\""),
            ("content-type", "text/plain"),
            ("content-md5", "m"),
            ("x-oss-meta-who", "me"),
            ("x-amz-meta-who", "me"),
            ("x-oss-forbid-overwrite", "true"),
        ];
        let both = ["host: h", "if-match: \"a\", \"b\""];
        let reads = [
            "host: h",
            "if-match: \"a\", \"b\"",
            "range: bytes=0-3",
            "via: 1.1 paifang",
        ];
        assert_eq!(passed(Action::GetObject, Dialect::S3, &sent), reads);
        assert_eq!(passed(Action::HeadObject, Dialect::OssV4, &sent), reads);
        assert_eq!(passed(Action::DeleteObject, Dialect::S3, &sent)[..2], both);
        let s3 = passed(Action::PutObject, Dialect::S3, &sent);
        assert_eq!(
            s3,
            [
                "content-md5: m",
                "content-type: text/plain",
                "host: h",
                "if-match: \"a\", \"b\"",
                "via: 1.1 paifang",
                "x-amz-meta-who: me"
            ]
        );
        let oss = passed(Action::AppendObject, Dialect::OssV1, &sent);
        assert_eq!(
            oss[4..],
            [
                "via: 1.1 paifang",
                "x-oss-forbid-overwrite: true",
                "x-oss-meta-who: me"
            ]
        );
        let form = passed(Action::PostObject, Dialect::OssV1, &sent);
        assert_eq!(
            form,
            ["content-type: text/plain", "host: h", "via: 1.1 paifang"]
        );
    }

    #[test]
    fn a_range_that_hangs_on_a_version_is_not_asked_for() {
        let sent = [("if-range", "\"a\""), ("range", "bytes=0-3"), ("host", "h")];
        assert_eq!(passed(Action::GetObject, Dialect::S3, &sent), ["host: h"]);
    }
}
