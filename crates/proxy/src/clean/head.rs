//! The parsed head of a request, HTTP/1.1 and HTTP/2 alike: method, host, path, and the headers that people must not forge.
//!
//! One path value and one host value come out of here, and matching, authentication, mapping and forwarding use these and no other.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, request::Parts};
use paifang_model::{Method, normalise_host, percent};

use super::wire::is_target;
use crate::refusal::Refusal;

/// A head that means one thing only.
#[derive(Debug)]
pub struct Cleaned<'r> {
    /// The method.
    pub method: Method,
    /// The host, lower case, without port or trailing dot.
    pub host: Cow<'r, str>,
    /// The authority as the client wrote it, with its port.
    pub authority: &'r str,
    /// The path: no dot segments, unreserved characters decoded, percent escapes in upper case (RFC 3986 §6.2.2).
    pub path: Cow<'r, str>,
    /// The path as it arrived: what some clients sign.
    pub raw_path: &'r str,
    /// The query as it arrived, without `?`.
    pub query: Option<&'r str>,
    /// The headers the phases look at, found in one pass.
    pub known: Known<'r>,
}

/// Headers that some phase looks at, each with its first value.
#[derive(Debug, Default)]
pub struct Known<'r> {
    /// `X-Ca-Key`.
    pub key: Option<&'r HeaderValue>,
    /// `X-Ca-Signature`.
    pub signature: Option<&'r HeaderValue>,
    /// `X-Ca-Signature-Headers`.
    pub signature_headers: Option<&'r HeaderValue>,
    /// `X-Ca-Signature-Method`.
    pub signature_method: Option<&'r HeaderValue>,
    /// `X-Ca-Timestamp`.
    pub timestamp: Option<&'r HeaderValue>,
    /// `X-Ca-Nonce`.
    pub nonce: Option<&'r HeaderValue>,
    /// `X-Ca-Stage`.
    pub stage: Option<&'r HeaderValue>,
    /// `Content-MD5`.
    pub content_md5: Option<&'r HeaderValue>,
    /// `Content-Type`.
    pub content_type: Option<&'r HeaderValue>,
    /// `Content-Length`.
    pub content_length: Option<&'r HeaderValue>,
    /// `Authorization`.
    pub authorization: Option<&'r HeaderValue>,
    /// `Upgrade`.
    pub upgrade: Option<&'r HeaderValue>,
    /// `Via`.
    pub via: Option<&'r HeaderValue>,
    /// `X-Forwarded-For`.
    pub forwarded_for: Option<&'r HeaderValue>,
    /// `User-Agent`.
    pub user_agent: Option<&'r HeaderValue>,
    /// Whether a name that imitates one of ours is present and has to be removed.
    pub aliases: bool,
    /// Whether a header is present that only a trusted proxy may send, [`tells_origin`].
    pub tells_origin: bool,
    /// Whether `TE` or `Trailer` is present.
    pub trailers: bool,
    host: Option<&'r HeaderValue>,
    connection: bool,
}

/// Most fields of a request, both versions: as many as the HTTP library reads.
pub(super) const MAX_FIELDS: usize = 100;

/// Checks a parsed head.
///
/// # Errors
/// The refusal to answer with.
pub fn clean(parts: &Parts) -> Result<Cleaned<'_>, Refusal> {
    let method = Method::of_request(parts.method.as_str())
        .ok_or_else(|| Refusal::method(parts.method.as_str()))?;
    if parts.headers.len() > MAX_FIELDS {
        return Err(Refusal::url_too_large());
    }
    let known = survey(&parts.headers)?;
    if known.connection {
        check_connection(&parts.headers, known.signature_headers)?;
    }
    if parts.version == Version::HTTP_2 {
        check_http2(&parts.headers)?;
        // What [`super::wire`] checks for the other version; the library lets through backslashes and raw 8-bit text.
        let target = parts.uri.path_and_query().map_or("", |it| it.as_str());
        if !is_target(target.as_bytes()) {
            return Err(Refusal::uri_characters());
        }
    }
    let authority = authority(&parts.uri, known.host)?;
    let host =
        normalise_host(authority).ok_or_else(|| Refusal::header("Host", "is not a host name"))?;
    let raw_path = match parts.uri.path() {
        "*" => return Err(Refusal::path("asterisk-form is not served")),
        path if path.starts_with('/') => path,
        _ => return Err(Refusal::path("must begin with /")),
    };
    let query = parts.uri.query();
    if query.is_some_and(|query| !escapes_are_whole(query)) {
        return Err(Refusal::uri_characters());
    }
    Ok(Cleaned {
        method,
        host: lower(host),
        authority,
        path: normalise_path(raw_path)?,
        raw_path,
        query,
        known,
    })
}

/// One pass over the headers.
fn survey(headers: &HeaderMap) -> Result<Known<'_>, Refusal> {
    let mut known = Known::default();
    for (name, value) in headers {
        let name = name.as_str();
        let slot = match name {
            "x-ca-key" => &mut known.key,
            "x-ca-signature" => &mut known.signature,
            "x-ca-signature-headers" => &mut known.signature_headers,
            "x-ca-signature-method" => &mut known.signature_method,
            "x-ca-timestamp" => &mut known.timestamp,
            "x-ca-nonce" => &mut known.nonce,
            "x-ca-stage" => &mut known.stage,
            "content-md5" => &mut known.content_md5,
            "content-type" => &mut known.content_type,
            "content-length" => &mut known.content_length,
            "authorization" => &mut known.authorization,
            "upgrade" => &mut known.upgrade,
            "via" => &mut known.via,
            "x-forwarded-for" => &mut known.forwarded_for,
            "user-agent" => &mut known.user_agent,
            "host" => {
                if known.host.replace(value).is_some() {
                    return Err(Refusal::header("Host", "appears twice"));
                }
                continue;
            }
            "connection" => {
                known.connection = true;
                continue;
            }
            "te" | "trailer" => {
                known.trailers = true;
                continue;
            }
            _ => {
                known.aliases |= imitates_managed(name);
                known.tells_origin |= tells_origin(name);
                continue;
            }
        };
        if slot.is_none() {
            *slot = Some(value);
        } else if must_be_single(name) {
            return Err(Refusal::header(name, "appears twice"));
        }
    }
    Ok(known)
}

/// Headers whose second value another program might prefer to the first.
fn must_be_single(name: &str) -> bool {
    name.starts_with("x-ca-")
        || matches!(
            name,
            "content-length" | "content-type" | "content-md5" | "authorization"
        )
}

/// The `Connection` tokens name headers that die here (RFC 9110 §7.6.1). One of ours among them, or one that is signed, is an attempt
/// to strip it.
fn check_connection(headers: &HeaderMap, signed: Option<&HeaderValue>) -> Result<(), Refusal> {
    let is_signed = |token: &str| {
        let mut names = signed
            .into_iter()
            .flat_map(|list| list.as_bytes().split(|&b| b == b','));
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    for value in headers.get_all(header::CONNECTION) {
        let text = value
            .to_str()
            .map_err(|_| Refusal::header("Connection", "is not a list of tokens"))?;
        for token in text.split(',').map(str::trim) {
            let lower = token.to_ascii_lowercase();
            let unsafe_name = is_managed(&lower)
                || (!lower.is_empty() && is_signed(&lower))
                || matches!(
                    lower.as_str(),
                    "host"
                        | "content-length"
                        | "content-type"
                        | "content-md5"
                        | "authorization"
                        | "accept"
                        | "date"
                        | "cookie"
                );
            if unsafe_name {
                return Err(Refusal::header(
                    "Connection",
                    "names a header that the gateway relies on",
                ));
            }
        }
    }
    Ok(())
}

/// Connection-specific fields must not appear in HTTP/2 (RFC 9113 §8.2.2).
fn check_http2(headers: &HeaderMap) -> Result<(), Refusal> {
    const FORBIDDEN: [HeaderName; 3] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    match FORBIDDEN.iter().find(|&name| headers.contains_key(name)) {
        Some(name) => Err(Refusal::header(name.as_str(), "is not allowed in HTTP/2")),
        None => Ok(()),
    }
}

/// Joins what HTTP/2 may split (RFC 9113 §8.2.3): elsewhere there is one `Cookie` header.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Valid, as its parts are.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The authority of the target and the `Host` header must be one and the same (RFC 9112 §3.2.2, made strict).
fn authority<'r>(uri: &'r Uri, host: Option<&'r HeaderValue>) -> Result<&'r str, Refusal> {
    let host = host
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Refusal::header("Host", "is not a host name"))
        })
        .transpose()?;
    let target = uri.authority().map(http::uri::Authority::as_str);
    match (target, host) {
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
            Err(Refusal::header("Host", "differs from the request target"))
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(Refusal::missing_header("Host")),
    }
}

fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Removes dot segments, decodes escaped unreserved characters and writes the other escapes in upper case.
///
/// # Errors
/// For an incomplete escape, an escaped control character or backslash, an escaped dot segment (also behind an escaped slash), a dot
/// segment with parameters, and a path that climbs above its root.
pub fn normalise_path(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    let bytes = raw.as_bytes();
    let escaped = memchr::memchr(b'%', bytes).is_some();
    let dotted = memchr::memmem::find(bytes, b"/.").is_some();
    if !escaped && !dotted {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = if escaped {
        decode_unreserved(raw)?
    } else {
        raw.to_owned()
    };
    if memchr::memmem::find(decoded.as_bytes(), b"/.").is_none() {
        return Ok(Cow::Owned(decoded));
    }
    remove_dot_segments(&decoded).map(Cow::Owned)
}

fn decode_unreserved(raw: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(raw.len());
    for segment in raw.split('/') {
        if !std::ptr::eq(segment.as_ptr(), raw.as_ptr()) {
            out.push('/');
        }
        let from = out.len();
        let mut had_escape = false;
        let mut rest = segment;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let byte =
                percent::escaped(&rest.as_bytes()[at..]).ok_or_else(Refusal::uri_characters)?;
            had_escape = true;
            match byte {
                b'\\' | 0..=0x1f | 0x7f => {
                    return Err(Refusal::path(
                        "has an escaped backslash or control character",
                    ));
                }
                plain if percent::is_unreserved(plain) => out.push(char::from(plain)),
                _ => percent::push_escaped(byte, &mut out),
            }
            rest = &rest[at + 3..];
        }
        out.push_str(rest);
        let hides_dots = out[from..].split("%2F").any(is_dot_segment);
        if had_escape && hides_dots {
            return Err(Refusal::path("has an escaped dot segment"));
        }
    }
    Ok(out)
}

/// Whether a segment is `.` or `..`, perhaps with parameters behind a `;` (RFC 3986 §3.3).
pub(crate) fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split_once(';').map_or(segment, |(name, _)| name);
    matches!(name, "." | "..")
}

fn escapes_are_whole(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'%', bytes).all(|at| percent::escaped(&bytes[at..]).is_some())
}

/// RFC 3986 §5.2.4, refusing to climb above the root.
fn remove_dot_segments(path: &str) -> Result<String, Refusal> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                if kept.pop().is_none() {
                    return Err(Refusal::path("climbs above its root"));
                }
                if last {
                    kept.push("");
                }
            }
            // Servers that cut parameters off read `..;x` as `..`.
            _ if is_dot_segment(segment) => {
                return Err(Refusal::path("has a dot segment with parameters"));
            }
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

// === what is ours ===

/// Whether a lower-case header name is one that the gateway sets or relies on: callers may not strip it by `Connection`, nor send
/// it to a backend as their own.
pub fn is_managed(name: &str) -> bool {
    name.starts_with("x-ca-") || tells_origin(name) || matches!(name, "x-client-s-dn" | "via")
}

/// Whether a lower-case header name says where a request came from: believed of a trusted proxy, removed when anybody else sends it.
pub fn tells_origin(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "x-real-ip" | "forwarded")
}

/// Whether a name equals a managed one once `_` and `.` are read as `-`, as CGI-like backends do.
fn imitates_managed(name: &str) -> bool {
    // The cloud product's own names with an underscore (Ref §1.2, §7.4).
    if !name.contains(['_', '.']) || name == "x-ca-websocket_api_type" {
        return false;
    }
    let plain = name.replace(['_', '.'], "-");
    is_managed(&plain)
        || matches!(
            plain.as_str(),
            "host" | "connection" | "content-length" | "transfer-encoding" | "authorization"
        )
}

/// Removes the fields of one hop (RFC 9110 §7.6.1), those that `Connection` names, and those in `also`. One pass finds what is there:
/// an ordinary head has one or none of them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, also: &[HeaderName]) {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| !is_plain_connection(value.as_bytes()));
    if named {
        strip_named(headers);
    }
    while let Some(name) = headers
        .keys()
        .find(|&name| is_hop_by_hop(name.as_str()) || also.contains(name))
        .cloned()
    {
        headers.remove(name);
    }
}

/// Whether a lower-case header name belongs to one hop (RFC 9110 §7.6.1).
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn is_plain_connection(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Removes imitations of managed names; called when [`Known::aliases`] says there are some.
pub fn strip_aliases(headers: &mut HeaderMap) {
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(|name| imitates_managed(name.as_str()))
        .cloned()
        .collect();
    for name in aliases {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::refusal::Code;

    #[test]
    fn paths_normalise_to_one_spelling() {
        let rows = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/a//b", "/a//b"),
            ("/%61%2d", "/a-"),
            ("/%e5%bc%a0", "/%E5%BC%A0"),
            ("/a%2fb", "/a%2Fb"),
            ("/a/./b", "/a/b"),
            ("/x/../admin", "/admin"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a...b/.c", "/a...b/.c"),
            ("/a;b/..c;d/;", "/a;b/..c;d/;"),
        ];
        for (raw, expected) in rows {
            let once = normalise_path(raw).unwrap();
            assert_eq!(once, expected, "{raw}");
            assert_eq!(normalise_path(&once).unwrap(), expected, "again: {raw}");
        }
    }

    #[test]
    fn paths_that_hide_something_are_refused() {
        let rows = [
            ("/%2e%2e/admin", Code::I400PA),
            ("/.%2e/admin", Code::I400PA),
            ("/%2e", Code::I400PA),
            ("/a%2f..%2fb", Code::I400PA),
            ("/a%2F%2e%2e", Code::I400PA),
            ("/..", Code::I400PA),
            ("/a/../..", Code::I400PA),
            ("/a/..;/b", Code::I400PA),
            ("/a/.;x=1", Code::I400PA),
            ("/%2e%2e;/b", Code::I400PA),
            ("/a%2f..;/b", Code::I400PA),
            ("/a%5cb", Code::I400PA),
            ("/a%00", Code::I400PA),
            ("/a%0a", Code::I400PA),
            ("/a%", Code::I400PH),
            ("/a%2", Code::I400PH),
            ("/a%zz", Code::I400PH),
        ];
        for (raw, expected) in rows {
            assert_eq!(normalise_path(raw).unwrap_err().code, expected, "{raw}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_normalised_path_stays_as_it_is_and_goes_nowhere_else(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["/", "/", ".", "..", "a", ";", "%2e", "%2E", "%2f", "%2F", "%61", "%5c", "%25", "%0a", "%e5", "%", "\u{e9}"]),
                0..12,
            ),
        ) {
            let raw = format!("/{}", pieces.concat());
            if let Ok(once) = normalise_path(&raw) {
                prop_assert!(once.starts_with('/'));
                for segment in once.split(['/']).flat_map(|it| it.split("%2F")) {
                    prop_assert!(!is_dot_segment(segment), "{} -> {}", raw, once);
                }
                let again = normalise_path(&once).map(Cow::into_owned);
                prop_assert_eq!(again, Ok(once.into_owned()));
            }
        }
    }

    fn check(request: http::request::Builder) -> Result<(String, String), Code> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        clean(&parts)
            .map(|cleaned| (cleaned.host.into_owned(), cleaned.path.into_owned()))
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn target_and_host_must_agree() {
        let request = |uri: &str, host: &str| http::Request::get(uri).header("host", host);
        assert_eq!(
            check(request("/a", "API.example.com:80")),
            Ok(("api.example.com".into(), "/a".into()))
        );
        assert!(check(request("http://a.com/a", "a.com")).is_ok());
        assert_eq!(check(request("http://a.com/a", "b.com")), Err(Code::I400HD));
        assert_eq!(check(request("/a", "a@b/c")), Err(Code::I400HD));
        assert_eq!(check(request("/a", "")), Err(Code::I400HD));
        assert_eq!(check(http::Request::get("/a")), Err(Code::I400MH));
        assert_eq!(
            check(request("/a", "a.com").header("host", "a.com")),
            Err(Code::I400HD)
        );
        assert_eq!(
            check(http::Request::options("*").header("host", "a.com")),
            Err(Code::I400PA)
        );
    }

    #[test]
    fn http2_targets_and_cookies_are_those_of_http1() {
        let request = |target: &str| http::Request::get(target).version(Version::HTTP_2);
        for target in ["/a\\..\\b", "/a?\\", "/\u{5f20}", "/a\"b", "/a?`"] {
            let request = request(target).header("host", "a.com");
            assert_eq!(check(request), Err(Code::I400PH), "{target}");
        }
        assert!(check(request("https://a.com/a%20b?c={}")).is_ok());
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append("cookie", HeaderValue::from_static(crumb));
            join_cookies(&mut headers);
        }
        let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn connection_may_not_name_what_we_rely_on() {
        let request = |token: &str| {
            http::Request::get("/")
                .header("host", "a")
                .header("connection", token)
        };
        for good in ["close", "keep-alive", "keep-alive, X-Mine", "Upgrade"] {
            assert!(check(request(good)).is_ok(), "{good}");
        }
        for bad in [
            "close, X-Forwarded-For",
            "x-ca-key",
            "Authorization",
            "host",
            "X-Client-S-Dn",
        ] {
            assert_eq!(check(request(bad)), Err(Code::I400HD), "{bad}");
        }
    }

    #[test]
    fn repeated_headers_that_decide_something_are_refused() {
        for name in [
            "x-ca-key",
            "x-ca-signature",
            "x-ca-stage",
            "authorization",
            "content-type",
            "content-md5",
        ] {
            let request = http::Request::get("/")
                .header("host", "a")
                .header(name, "1")
                .header(name, "2");
            assert_eq!(check(request), Err(Code::I400HD), "{name}");
        }
    }

    #[test]
    fn every_connection_line_names_what_dies_here() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("close"));
        headers.append("connection", HeaderValue::from_static("x-mine"));
        headers.append("x-mine", HeaderValue::from_static("1"));
        strip_hop_by_hop(&mut headers, &[]);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn hop_by_hop_and_imitations_are_stripped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("keep-alive", "1"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x.ca.key", "1"),
            ("x-ca-websocket_api_type", "REGISTER"),
            ("ca_version", "1"),
            ("x-kept", "1"),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        strip_hop_by_hop(&mut headers, &[]);
        strip_aliases(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["ca_version", "x-ca-websocket_api_type", "x-kept"]);
    }
}
