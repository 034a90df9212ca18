//! The string to sign, written the way the gateway writes it (Ref §1.3, §1.4), into buffers that are used again.
//!
//! A request has more than one reading: official clients disagree about the path and about a parameter that is in
//! both the query and the form. Each reading is a [`Reading`]; which of them are worth trying is `verify`'s to decide.
//! Nothing here knows a key.

use crate::parameters::{Parameters, QueryAs, Winner};
use crate::percent::{decode_path_into, is_encoded};

/// Where the signature code reads header values.
///
/// `http::HeaderMap` fits behind a newtype: `self.0.get(name).map(|value| value.as_bytes())`. A slice of pairs
/// implements it too.
pub trait Headers {
    /// The first value of a header, the name compared without regard to case; the bytes as they arrived.
    fn first(&self, name: &str) -> Option<&[u8]>;
}

/// The parts of a request that a signature covers, as they arrived, before anything was decoded or rewritten.
#[derive(Debug)]
pub struct Parts<'a, H: ?Sized> {
    /// The method as sent.
    pub method: &'a str,
    /// The path as sent, percent-encoded, without the query.
    pub raw_path: &'a str,
    /// The query as sent, without `?`.
    pub query: Option<&'a str>,
    /// The body as sent if it is an urlencoded form ([`is_form`]); None for every other body, which only Content-MD5
    /// covers.
    pub form: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a H,
}

/// Buffers for one verification at a time: keep one per thread. Once warm, ordinary requests allocate nothing; what an
/// extraordinary one made grow beyond 64 KiB is given back at the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The first reading: the string that the server tells a caller whose signature differs.
    pub(crate) first: Vec<u8>,
    /// Any later reading.
    pub(crate) other: Vec<u8>,
    parameters: Parameters,
    names: Vec<(usize, usize)>,
}

/// One way to read path and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) path: PathAs,
    pub(crate) winner: Winner,
}

/// How the path is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathAs {
    /// Decoded once; as sent if it cannot be.
    Decoded,
    /// As sent.
    Sent,
}

/// What the first reading showed about the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// Length of everything before the path, which all readings share.
    pub(crate) head: usize,
    /// The path reads differently when it is not decoded.
    pub(crate) path_differs: bool,
    /// A name has one value in the query and another in the form.
    pub(crate) collision: bool,
    /// The query reads differently when it is not decoded, and the list of signed headers is spelt by a client that
    /// signs it so.
    pub(crate) query_as_sent: bool,
}

/// Names that are never header lines, whatever the list says (Ref §1.3).
const NEVER_LISTED: [&str; 6] = [
    "X-Ca-Signature",
    "X-Ca-Signature-Headers",
    "Accept",
    "Content-MD5",
    "Content-Type",
    "Date",
];

const SIGNED_CONTENT_TYPE: &str = "X-Ca-Signed-Content-Type";

/// Present in exactly this case in every request of the Python demo client and its packagings.
const KEY_AS_DEMOS_SPELL_IT: &[u8] = b"X-Ca-Key";

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Capacity that a buffer may keep between requests, in bytes or entries.
const KEEP: usize = 64 * 1024;

/// Whether a Content-Type makes the body a form whose parameters are signed: a test without regard to case for
/// `application/x-www-form-urlencoded` anywhere in it (Ref §1.4 step 5).
pub fn is_form(content_type: &[u8]) -> bool {
    content_type
        .windows(FORM.len())
        .any(|window| window.eq_ignore_ascii_case(FORM))
}

// === impl Scratch ===

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The string to sign in its first reading: path decoded, query before form. `signed_headers` is the value of
    /// `X-Ca-Signature-Headers`.
    pub fn string_to_sign<H: Headers + ?Sized>(
        &mut self,
        parts: &Parts<'_, H>,
        signed_headers: Option<&[u8]>,
    ) -> &[u8] {
        self.write_first(parts, signed_headers);
        &self.first
    }

    pub(crate) fn write_first<H: Headers + ?Sized>(
        &mut self,
        parts: &Parts<'_, H>,
        signed_headers: Option<&[u8]>,
    ) -> Outlook {
        self.recycle();
        let list = signed_headers.unwrap_or_default();
        self.collect_names(list);
        self.write_head(parts, list);
        let head = self.first.len();
        write_path(parts.raw_path, PathAs::Decoded, &mut self.first);
        let path_differs = self.first[head..] != *parts.raw_path.as_bytes();
        self.parameters
            .collect(parts.query, QueryAs::Decoded, parts.form);
        let collision = self.parameters.write(Winner::Query, &mut self.first);
        let query = parts.query.unwrap_or_default().as_bytes();
        let query_as_sent = is_encoded(query) && self.lists(list, KEY_AS_DEMOS_SPELL_IT);
        Outlook {
            head,
            path_differs,
            collision,
            query_as_sent,
        }
    }

    /// Another reading of what [`Self::write_first`] was given.
    pub(crate) fn write_other(
        &mut self,
        raw_path: &str,
        outlook: Outlook,
        reading: Reading,
    ) -> &[u8] {
        self.other.clear();
        self.other.extend_from_slice(&self.first[..outlook.head]);
        write_path(raw_path, reading.path, &mut self.other);
        self.parameters.write(reading.winner, &mut self.other);
        &self.other
    }

    /// The reading of the Python demo client: path and query as they stand in the URL, form before query. The
    /// parameters of the other readings are gone after it.
    pub(crate) fn write_as_sent<H: ?Sized>(
        &mut self,
        parts: &Parts<'_, H>,
        outlook: Outlook,
    ) -> &[u8] {
        self.parameters
            .collect(parts.query, QueryAs::Sent, parts.form);
        self.write_other(
            parts.raw_path,
            outlook,
            Reading {
                path: PathAs::Sent,
                winner: Winner::Form,
            },
        )
    }

    fn recycle(&mut self) {
        fn emptied<T>(buffer: &mut Vec<T>) {
            buffer.clear();
            buffer.shrink_to(KEEP);
        }
        emptied(&mut self.first);
        emptied(&mut self.other);
        emptied(&mut self.names);
        self.parameters.recycle(KEEP);
    }

    /// Finds the listed names and sorts them by their bytes, case included (Ref §1.4 steps 1 to 3).
    fn collect_names(&mut self, list: &[u8]) {
        let mut offset = 0;
        for item in list.split(|byte| *byte == b',') {
            let from_start = item.trim_ascii_start();
            let start = offset + item.len() - from_start.len();
            let name = from_start.trim_ascii_end();
            let excluded = NEVER_LISTED
                .iter()
                .any(|never| name.eq_ignore_ascii_case(never.as_bytes()));
            if !name.is_empty() && !excluded {
                self.names.push((start, start + name.len()));
            }
            offset += item.len() + 1;
        }
        self.names
            .sort_unstable_by(|a, b| list[a.0..a.1].cmp(&list[b.0..b.1]));
    }

    fn lists(&self, list: &[u8], name: &[u8]) -> bool {
        self.names
            .iter()
            .any(|&(start, end)| list[start..end] == *name)
    }

    /// Method, the four fixed lines, the header lines.
    fn write_head<H: Headers + ?Sized>(&mut self, parts: &Parts<'_, H>, list: &[u8]) {
        let header = |name: &str| parts.headers.first(name).unwrap_or_default();
        let content_type = self.content_type(parts.headers, list);
        let fixed = [
            parts.method.as_bytes(),
            header("Accept"),
            header("Content-MD5"),
            content_type,
            header("Date"),
        ];
        for line in fixed {
            self.first.extend_from_slice(line);
            self.first.push(b'\n');
        }
        for &(start, end) in &self.names {
            let name = &list[start..end];
            self.first.extend_from_slice(name);
            self.first.push(b':');
            self.first
                .extend_from_slice(str::from_utf8(name).map(header).unwrap_or_default());
            self.first.push(b'\n');
        }
    }

    /// The fourth line: Content-Type, or `X-Ca-Signed-Content-Type` in its place (Ref §1.2).
    ///
    /// Clients that send a multipart body sign the type before its boundary is known and name it in that header, often
    /// without signing the header itself. So an unsigned one counts only if it is the same media type with other
    /// parameters; else whoever carries the request could give a signed body a new type.
    fn content_type<'h, H: Headers + ?Sized>(&self, headers: &'h H, list: &[u8]) -> &'h [u8] {
        let sent = headers.first("Content-Type").unwrap_or_default();
        let Some(signed) = headers.first(SIGNED_CONTENT_TYPE) else {
            return sent;
        };
        let listed = self.names.iter().any(|&(start, end)| {
            list[start..end].eq_ignore_ascii_case(SIGNED_CONTENT_TYPE.as_bytes())
        });
        match listed || media_type(signed).eq_ignore_ascii_case(media_type(sent)) {
            true => signed,
            false => sent,
        }
    }
}

/// A Content-Type without its parameters.
fn media_type(content_type: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii()
}

fn write_path(raw_path: &str, path: PathAs, out: &mut Vec<u8>) {
    if path == PathAs::Sent || !decode_path_into(raw_path.as_bytes(), out) {
        out.extend_from_slice(raw_path.as_bytes());
    }
}

// === impl Headers ===

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .iter()
            .filter(|(known, _)| known.as_ref().eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(list: &str, headers: &[(&str, &str)], query: &str, form: &str) -> String {
        let parts = Parts {
            method: "GET",
            raw_path: "/p",
            query: Some(query),
            form: Some(form.as_bytes()),
            headers,
        };
        let mut scratch = Scratch::new();
        String::from_utf8(
            scratch
                .string_to_sign(&parts, Some(list.as_bytes()))
                .to_vec(),
        )
        .unwrap()
    }

    #[test]
    fn header_lines_are_sorted_with_their_listed_case() {
        let headers = [
            ("x-ca-key", "1"),
            ("X-BIZ", "2"),
            ("Date", "d"),
            ("x-ca-key", "3"),
        ];
        let list = " x-ca-key ,X-Biz,, accept,DATE,X-Ca-Signature,x-ca-signature-headers,X-None";
        assert_eq!(
            string(list, &headers, "", ""),
            "GET\n\n\n\nd\nX-Biz:2\nX-None:\nx-ca-key:1\n/p"
        );
    }

    #[test]
    fn a_signed_content_type_takes_the_place_of_the_real_one() {
        let multipart = ("Content-Type", "multipart/form-data; boundary=x");
        let signed = ("X-Ca-Signed-Content-Type", "multipart/form-data");
        let line = |headers: &[(&str, &str)], list| {
            string(list, headers, "", "")
                .split('\n')
                .nth(3)
                .unwrap()
                .to_owned()
        };
        assert_eq!(line(&[multipart, signed], ""), "multipart/form-data");
        assert_eq!(
            line(
                &[("Content-Type", "text/plain"), signed],
                "x-ca-signed-content-type"
            ),
            "multipart/form-data"
        );
        // Unsigned and of another type: whoever added it must not get away with it.
        assert_eq!(
            line(&[("Content-Type", "text/html"), signed], ""),
            "text/html"
        );
    }

    #[test]
    fn forms_are_found_by_their_type() {
        assert!(is_form(b"application/x-www-form-urlencoded; charset=UTF-8"));
        assert!(is_form(b"Application/X-WWW-Form-Urlencoded"));
        assert!(!is_form(b"application/json") && !is_form(b"") && !is_form(b"multipart/form-data"));
    }

    #[test]
    fn what_grew_out_of_hand_is_given_back() {
        let mut scratch = Scratch::new();
        let headers: &[(&str, &str)] = &[];
        let form = vec![b'a'; 4 * KEEP];
        let parts = Parts {
            method: "POST",
            raw_path: "/",
            query: None,
            form: Some(&form),
            headers,
        };
        assert!(scratch.string_to_sign(&parts, None).len() > 4 * KEEP);
        scratch.string_to_sign(
            &Parts {
                form: None,
                ..parts
            },
            None,
        );
        assert!(scratch.first.capacity() <= KEEP && scratch.parameters.capacity() <= KEEP);
    }
}
