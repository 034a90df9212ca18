//! Paths: the base path of a group and the templates of APIs.

use std::{fmt, str::FromStr};

use crate::{percent, short};

/// A base path: `/`, or `/a/b` without a trailing slash (Ref §13 row 28). Percent-encoded the way normalised requests are, however it
/// was written: unreserved characters and sub-delimiters plain, the others as upper-case escapes (RFC 3986 §6.2.2).
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct BasePath(Box<str>);

/// A path with `[name]` parameters that fill whole segments, optionally ending in `/*` (Ref §4.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate {
    segments: Box<[Segment]>,
    tail: bool,
}

/// One segment of a [`PathTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// This text, percent-decoded. May be empty: `/a/` ends in an empty segment.
    Literal(Box<str>),
    /// Exactly one segment, captured under this name.
    Parameter(Box<str>),
}

/// Why a text is not a path or a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not begin with `/`.
    #[error("`{0}` must begin with `/`")]
    Start(String),
    /// Longer than the limit, in bytes.
    #[error("a path has at most {0} bytes")]
    Length(usize),
    /// More segments than the limit.
    #[error("a path has at most {0} segments")]
    Depth(usize),
    /// A `*` elsewhere than as the last segment.
    #[error("`*` may only be the whole last segment, as in `/files/*`")]
    Star,
    /// A bracket that does not enclose a whole segment.
    #[error(
        "`{0}`: a parameter `[name]` fills a whole segment; its name has letters, digits, `_` or `-`, and begins with a letter or `_`"
    )]
    Parameter(String),
    /// The same parameter twice.
    #[error("parameter `[{0}]` appears twice")]
    Repeated(String),
    /// A character that must not stand in a path, a `.` or `..` segment, or a bad percent escape.
    #[error(
        "`{0}`: a segment may not be `.` or `..`, nor have control characters, spaces, `?`, `#`, `\\` or an incomplete percent escape"
    )]
    Segment(String),
    /// An empty segment elsewhere than at the end.
    #[error("`{0}` has an empty segment (`//`)")]
    Empty(String),
}

/// Longest path template and base path, in bytes (Ref §10 allows 8 KB for URL and headers together).
const MAX_BYTES: usize = 1024;
/// Most segments of a template; bounds the work of a match.
const MAX_SEGMENTS: usize = 64;

// === impl BasePath ===

impl BasePath {
    /// The base path `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// `/`, or the path without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the base path, beginning with `/`; `None` when `path` is not under it. `path` is normalised already.
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        if &*self.0 == "/" {
            return Some(path);
        }
        match path.strip_prefix(&*self.0)? {
            "" => Some("/"),
            rest if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }
}

impl FromStr for BasePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let template: PathTemplate = text.parse()?;
        if template.tail {
            return Err(InvalidPath::Star);
        }
        if let Some(name) = template.parameters().next() {
            return Err(InvalidPath::Parameter(format!("[{name}]")));
        }
        let mut spelt = String::with_capacity(text.len());
        for segment in template.segments() {
            if let Segment::Literal(literal) = segment {
                spelt.push('/');
                encode(literal, &mut spelt);
            }
        }
        // What is kept is what is published and read again: the limit holds for that spelling too.
        if spelt.len() > MAX_BYTES {
            return Err(InvalidPath::Length(MAX_BYTES));
        }
        let trimmed = spelt.strip_suffix('/').unwrap_or(&spelt);
        Ok(Self(if trimmed.is_empty() { "/" } else { trimmed }.into()))
    }
}

impl TryFrom<String> for BasePath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<BasePath> for String {
    fn from(path: BasePath) -> Self {
        path.0.into()
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl PathTemplate ===

impl PathTemplate {
    /// The segments, without the final `*`. `/` has one empty literal; `/*` has none.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends in `/*`, that is, matches every path below.
    pub fn has_tail(&self) -> bool {
        self.tail
    }

    /// Names of its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }
}

impl FromStr for PathTemplate {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| InvalidPath::Start(short(text)))?;
        if text.len() > MAX_BYTES {
            return Err(InvalidPath::Length(MAX_BYTES));
        }
        let mut parts: Vec<&str> = rest.split('/').collect();
        let tail = parts.last() == Some(&"*");
        if tail {
            parts.pop();
        }
        if parts.len() > MAX_SEGMENTS {
            return Err(InvalidPath::Depth(MAX_SEGMENTS));
        }
        let last = parts.len().wrapping_sub(1);
        let mut segments = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            if part.is_empty() && (at != last || tail) {
                return Err(InvalidPath::Empty(short(text)));
            }
            let segment = parse_segment(part)?;
            if let Segment::Parameter(name) = &segment
                && segments.contains(&segment)
            {
                return Err(InvalidPath::Repeated(name.to_string()));
            }
            segments.push(segment);
        }
        Ok(Self {
            segments: segments.into(),
            tail,
        })
    }
}

fn parse_segment(part: &str) -> Result<Segment, InvalidPath> {
    if part.contains('*') {
        return Err(InvalidPath::Star);
    }
    if part.contains(['[', ']']) {
        let name = part
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        return match name {
            Some(name) if is_parameter_name(name) => Ok(Segment::Parameter(name.into())),
            _ => Err(InvalidPath::Parameter(short(part))),
        };
    }
    let decoded = percent::decode(part).ok_or_else(|| InvalidPath::Segment(short(part)))?;
    let forbidden = |c: char| c.is_control() || matches!(c, '?' | '#' | '\\' | '/');
    if part.contains([' ', '?', '#'])
        || decoded == "."
        || decoded == ".."
        || decoded.contains(forbidden)
    {
        return Err(InvalidPath::Segment(short(part)));
    }
    Ok(Segment::Literal(decoded.into()))
}

fn is_parameter_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Percent-encodes what may not stand in a segment (RFC 3986 §3.3: `pchar`), and `*`, which means something in a path of ours.
fn encode(literal: &str, out: &mut String) {
    percent::escape(literal, out, |byte| {
        percent::is_unreserved(byte) || b"!$&'()+,;=:@".contains(&byte)
    });
}

impl TryFrom<String> for PathTemplate {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.to_string()
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => {
                    f.write_str("/")?;
                    write_escaped(text, f)?;
                }
                Segment::Parameter(name) => write!(f, "/[{name}]")?,
            }
        }
        if self.tail { f.write_str("/*") } else { Ok(()) }
    }
}

/// Writes a literal so that parsing it again gives the same literal.
fn write_escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in text.chars() {
        match c {
            '%' | '[' | ']' | '*' | ' ' => write!(f, "%{:02X}", u32::from(c))?,
            _ => write!(f, "{c}")?,
        }
    }
    Ok(())
}

impl fmt::Debug for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_survive_a_round_trip() {
        for text in [
            "/",
            "/a",
            "/a/",
            "/a/[b]",
            "/*",
            "/a/[b]/*",
            "/天气/[city]",
            "/a%20b",
            "/a%25b",
            "/a%5Bb%5D",
        ] {
            let template: PathTemplate = text.parse().unwrap();
            assert_eq!(template.to_string(), text);
            assert_eq!(
                template.to_string().parse::<PathTemplate>().unwrap(),
                template
            );
        }
    }

    #[test]
    fn templates_refuse_what_could_never_match_safely() {
        let rows = [
            "",
            "a",
            "/a//b",
            "//",
            "/a/*/b",
            "/a*",
            "/[a",
            "/a[b]",
            "/[]",
            "/[1a]",
            "/[a]/[a]",
            "/..",
            "/a/%2e%2e/b",
            "/.",
            "/a?b",
            "/a#b",
            "/a\\b",
            "/a%5Cb",
            "/a%2Fb",
            "/%zz",
            "/%f",
            "/a b",
            "/%ff",
        ];
        for text in rows {
            assert!(text.parse::<PathTemplate>().is_err(), "{text}");
        }
    }

    #[test]
    fn base_paths_strip_whole_segments() {
        let base: BasePath = "/v1/".parse().unwrap();
        assert_eq!(base.as_str(), "/v1");
        assert_eq!(base.strip("/v1/a"), Some("/a"));
        assert_eq!(base.strip("/v1"), Some("/"));
        assert_eq!(base.strip("/v10"), None);
        assert_eq!("/".parse::<BasePath>().unwrap().strip("/a"), Some("/a"));
        for text in ["/caf\u{e9}/a%2Db/", "/caf%c3%a9/a-b", "/caf%C3%A9/a-b"] {
            let base: BasePath = text.parse().unwrap();
            assert_eq!(base.as_str(), "/caf%C3%A9/a-b", "{text}");
            assert_eq!(base.to_string().parse::<BasePath>().unwrap(), base);
        }
        for bad in ["/[a]", "/*", "v1", "/a//b"] {
            assert!(bad.parse::<BasePath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_base_path_reads_again_as_it_is_spelt() {
        for text in [
            "/%2A",
            "/%2a/x",
            "/a%5Bb%5D",
            "/%25",
            "/a,b;c=d",
            "/天气",
            "/a%20b",
        ] {
            let base: BasePath = text.parse().unwrap();
            assert_eq!(base.as_str().parse::<BasePath>(), Ok(base), "{text}");
        }
        assert_eq!("/%2A".parse::<BasePath>().unwrap().as_str(), "/%2A");
    }

    #[test]
    fn a_base_path_that_grows_when_it_is_spelt_out_still_reads_again() {
        for count in [100, 341, 342, 600, 1000] {
            let text = format!("/{}", ">".repeat(count));
            match text.parse::<BasePath>() {
                Ok(base) => assert_eq!(base.as_str().parse::<BasePath>(), Ok(base), "{count}"),
                Err(error) => assert_eq!(error, InvalidPath::Length(1024), "{count}"),
            }
        }
    }
}
