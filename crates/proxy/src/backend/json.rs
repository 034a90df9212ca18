//! A request told in JSON, for backends that get it as data: the event of a function and the event of a bus.
//!
//! A name that was sent several times has one value there, all of them joined: of a query with `,`, of headers with `, ` (RFC 9110 §5.3).
//! What the cloud product does is not documented (Ref §6.3, unverified); this is the place to change.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING},
};

use crate::{body::Outgoing, encode, refusal::Refusal};

/// A JSON object being written.
pub(super) struct Object(Vec<u8>);

impl Object {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Self(text)
    }

    /// A string.
    pub(super) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        string(value, &mut self.0);
        self
    }

    /// A truth value.
    pub(super) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name, if value { b"true" } else { b"false" })
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &[u8]) -> &mut Self {
        self.name(name);
        self.0.extend_from_slice(json);
        self
    }

    /// An object of strings.
    pub(super) fn texts<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        name: &str,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Self {
        self.name(name);
        self.0.push(b'{');
        for (name, value) in pairs {
            self.name(name.as_ref());
            string(value.as_ref(), &mut self.0);
        }
        self.0.push(b'}');
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    fn name(&mut self, name: &str) {
        if !self.0.ends_with(b"{") {
            self.0.push(b',');
        }
        string(name, &mut self.0);
        self.0.push(b':');
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("any text can be written into memory");
}

/// Headers as an event tells them: each name once. Left out are those that concern the hop to the backend, its address among them.
pub(super) fn headers(
    headers: &HeaderMap,
    keep: impl Fn(&HeaderName) -> bool,
) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    const OF_THE_HOP: [HeaderName; 4] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];
    let names = headers.keys();
    names
        .filter(move |name| !OF_THE_HOP.contains(name) && keep(name))
        .map(|name| {
            let mut values = headers.get_all(name).iter().map(lossy);
            let mut joined = values.next().unwrap_or_default();
            for value in values {
                joined.to_mut().push_str(", ");
                joined.to_mut().push_str(&value);
            }
            (name.as_str(), joined)
        })
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// A query, decoded; what does not decode stays as it came. A pair without a name is nothing, as everywhere (Ref §4.3).
pub(super) fn query(text: &str) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
    let mut all: BTreeMap<_, Cow<'_, str>> = BTreeMap::new();
    for (name, value) in pairs(text) {
        match all.entry(name) {
            Entry::Vacant(slot) => {
                slot.insert(value);
            }
            Entry::Occupied(mut joined) => {
                let joined = joined.get_mut().to_mut();
                joined.push(',');
                joined.push_str(&value);
            }
        }
    }
    all
}

/// The pairs of a query, decoded in the same way.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let decode = |text| encode::decode_component(text).unwrap_or(Cow::Borrowed(text));
    text.split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| !name.is_empty())
        .map(move |(name, value)| (decode(name), decode(value)))
}

/// The body of a request whose kind needs the whole of it.
pub(super) fn whole(body: Outgoing) -> Result<Bytes, Refusal> {
    match body {
        Outgoing::Empty => Ok(Bytes::new()),
        Outgoing::Whole(bytes) => Ok(bytes),
        Outgoing::Stream(_) => Err(Refusal::internal("a body that was to be read was not")),
    }
}

/// A body as a JSON string can hold it, and whether that is Base64: anything but UTF-8 of a textual type is.
pub(super) fn body<'b>(headers: &HeaderMap, bytes: &'b [u8]) -> (Cow<'b, str>, bool) {
    let text = is_textual(headers).then(|| std::str::from_utf8(bytes));
    match text {
        Some(Ok(text)) => (Cow::Borrowed(text), false),
        _ if bytes.is_empty() => (Cow::Borrowed(""), false),
        _ => (Cow::Owned(STANDARD.encode(bytes)), true),
    }
}

/// Whether people could read a body with these headers.
fn is_textual(headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let encoding = value(CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        return false;
    }
    let whole = value(CONTENT_TYPE).unwrap_or_default();
    let kind = whole.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            &*kind,
            "application/json"
                | "application/xml"
                | "application/x-www-form-urlencoded"
                | "application/javascript"
                | "application/ecmascript"
                | "application/graphql"
                | "application/x-ndjson"
                | "application/yaml"
                | "application/sql"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn objects_are_json() {
        let mut inner = Object::with_capacity(0);
        inner.text("a\"", "b\n\u{1f600}").flag("c", true);
        let mut outer = Object::with_capacity(0);
        outer
            .texts("none", [("", ""); 0])
            .raw("inner", &inner.finish())
            .texts("some", [("x", "1"), ("y", "{")])
            .text("z", "");
        let text = String::from_utf8(outer.finish()).unwrap();
        assert_eq!(
            text,
            "{\"none\":{},\"inner\":{\"a\\\"\":\"b\\n\u{1f600}\",\"c\":true},\"some\":{\"x\":\"1\",\"y\":\"{\"},\"z\":\"\"}"
        );
    }

    #[test]
    fn what_was_sent_several_times_is_joined() {
        let sent = map(&[
            ("accept", b"a"),
            ("x-b", b"1"),
            ("accept", b"b"),
            ("host", b"fn"),
            ("content-length", b"3"),
            ("x-raw", b"\xff"),
            ("authorization", b"Bearer x"),
        ]);
        let told: Vec<_> = headers(&sent, |name| name != "authorization").collect();
        let mut told: Vec<_> = told.iter().map(|(name, value)| (*name, &**value)).collect();
        told.sort_unstable();
        assert_eq!(
            told,
            [("accept", "a, b"), ("x-b", "1"), ("x-raw", "\u{fffd}")]
        );
        let told: Vec<_> = query("b=2&a=%E5%BC%A0+x&b=3&=no&c&d=%zz&&b=")
            .into_iter()
            .collect();
        let told: Vec<_> = told
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            told,
            [("a", "张 x"), ("b", "2,3,"), ("c", ""), ("d", "%zz")]
        );
    }

    #[test]
    fn only_text_is_told_as_text() {
        let told = |kind: &'static str, bytes: &'static [u8]| {
            let (text, encoded) = body(&map(&[("content-type", kind.as_bytes())]), bytes);
            (text.into_owned(), encoded)
        };
        let text = |text: &str| (text.to_owned(), false);
        let base64 = |text: &str| (text.to_owned(), true);
        for kind in [
            "text/plain",
            "Application/JSON; charset=UTF-8",
            "application/problem+json",
            "image/svg+xml",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(told(kind, "{张".as_bytes()), text("{张"), "{kind}");
            assert_eq!(told(kind, b"\xff"), base64("/w=="), "{kind}");
        }
        for kind in [
            "image/png",
            "application/octet-stream",
            "multipart/form-data; boundary=x",
            "",
        ] {
            assert_eq!(told(kind, b"abc"), base64("YWJj"), "{kind}");
            assert_eq!(told(kind, b""), text(""), "{kind}");
        }
        let zipped = map(&[
            ("content-type", b"text/plain"),
            ("content-encoding", b"gzip"),
        ]);
        assert_eq!(body(&zipped, b"abc"), (Cow::Borrowed("YWJj"), true));
    }
}
