//! Trailers pass by an allow-list, in both directions and both versions of HTTP.
//!
//! A field that arrives behind a body was seen by no phase: nothing that frames, routes, authenticates or describes a message may come
//! that way (RFC 9110 §6.5.1), whatever the list says.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::clean::head;

/// What passes when nothing else is said: how gRPC ends a call, and digests of a body that was made while it was sent (RFC 9530).
const DEFAULT: [&str; 6] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "content-digest",
    "repr-digest",
    "server-timing",
];

/// Names of trailers that pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers(Vec<Name>);

/// A name in lower case, or the beginning of some.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Whole(String),
    Prefix(String),
}

/// A name that is no field's, or that may not stand in trailers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTrailer(&'static str);

// === impl Trailers ===

impl Default for Trailers {
    fn default() -> Self {
        Self(
            DEFAULT
                .iter()
                .map(|name| Name::Whole((*name).to_owned()))
                .collect(),
        )
    }
}

impl Trailers {
    /// Lets another name pass; one that ends in `*` stands for all that begin so.
    ///
    /// # Errors
    /// For what is not a field name, and for a name that may not stand in trailers.
    pub fn allow(&mut self, name: &str) -> Result<(), InvalidTrailer> {
        let lower = name.to_ascii_lowercase();
        let whole = lower.trim_end_matches('*');
        if whole.is_empty() || whole.parse::<HeaderName>().is_err() {
            return Err(InvalidTrailer(
                "is not the name of a field, such as x-checksum or x-checksum-*",
            ));
        }
        if is_forbidden(whole) {
            return Err(InvalidTrailer(
                "may not stand behind a body (RFC 9110 §6.5.1)",
            ));
        }
        self.0.push(if whole.len() == lower.len() {
            Name::Whole(lower)
        } else {
            Name::Prefix(whole.to_owned())
        });
        Ok(())
    }

    fn allows(&self, name: &str) -> bool {
        let listed = self.0.iter().any(|it| match it {
            Name::Whole(whole) => whole == name,
            Name::Prefix(prefix) => name.starts_with(&**prefix),
        });
        listed && !is_forbidden(name)
    }

    /// What passes of `trailers`; `None` when nothing does.
    pub(crate) fn filter(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        while let Some(name) = trailers
            .keys()
            .find(|name| !self.allows(name.as_str()))
            .cloned()
        {
            trailers.remove(name);
        }
        (!trailers.is_empty()).then_some(trailers)
    }

    /// The `Trailer` field of a message that had this one: the names that pass.
    pub(crate) fn announced(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !headers.contains_key(header::TRAILER) {
            return None;
        }
        let names: Vec<String> = headers
            .get_all(header::TRAILER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| self.allows(name))
            .collect();
        if names.is_empty() {
            return None;
        }
        HeaderValue::try_from(names.join(", ")).ok()
    }
}

/// Whether a message says that its sender takes trailers (RFC 9110 §10.1.4).
pub(crate) fn are_taken(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|coding| {
            let name = coding.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("trailers")
        })
}

/// Framing, routing, modifiers, authentication, control of answers, and what says how to read the content; and what is the gateway's.
fn is_forbidden(name: &str) -> bool {
    head::is_hop_by_hop(name)
        || head::is_managed(name)
        || name.starts_with("if-")
        || name.starts_with("sec-")
        || name.starts_with("access-control-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "content-type"
                | "content-encoding"
                | "content-range"
                | "content-location"
                | "content-disposition"
                | "cache-control"
                | "expect"
                | "max-forwards"
                | "pragma"
                | "range"
                | "authorization"
                | "www-authenticate"
                | "authentication-info"
                | "cookie"
                | "set-cookie"
                | "age"
                | "date"
                | "expires"
                | "location"
                | "retry-after"
                | "vary"
                | "warning"
                | "strict-transport-security"
        )
}

impl fmt::Display for InvalidTrailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidTrailer {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> HeaderMap {
        let pairs = names.iter().map(|name| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_static("v"))
        });
        pairs.collect()
    }

    #[test]
    fn what_is_listed_passes_and_nothing_else() {
        let trailers = Trailers::default();
        let found = trailers.filter(map(&["grpc-status", "x-other", "content-digest"]));
        assert_eq!(found, Some(map(&["grpc-status", "content-digest"])));
        assert_eq!(trailers.filter(map(&["x-other"])), None);
    }

    #[test]
    fn what_may_not_stand_there_never_passes() {
        let mut trailers = Trailers::default();
        for name in [
            "Host",
            "content-length",
            "Set-Cookie",
            "if-match",
            "x-ca-key",
            "transfer-encoding",
            "via",
            "*",
            "",
            "a b",
            "x-ca-*",
        ] {
            assert!(trailers.allow(name).is_err(), "{name}");
        }
        trailers.allow("X-Checksum-*").unwrap();
        trailers.allow("s*").unwrap();
        let found = trailers.filter(map(&["x-checksum-sha256", "set-cookie", "s-maxage"]));
        assert_eq!(found, Some(map(&["x-checksum-sha256", "s-maxage"])));
    }

    #[test]
    fn only_what_passes_is_announced() {
        let trailers = Trailers::default();
        let mut headers = HeaderMap::new();
        assert_eq!(trailers.announced(&headers), None);
        headers.append(
            header::TRAILER,
            HeaderValue::from_static("Grpc-Status, X-Other"),
        );
        headers.append(header::TRAILER, HeaderValue::from_static("grpc-message"));
        let told = trailers.announced(&headers).unwrap();
        assert_eq!(told, "grpc-status, grpc-message");
        headers.insert(header::TE, HeaderValue::from_static("gzip;q=0.5, Trailers"));
        assert!(are_taken(&headers));
    }
}
