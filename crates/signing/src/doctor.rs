//! Why a signature does not match: the server's string to sign beside ours, the first line that differs, and what
//! usually causes it (Ref §1.6).
//!
//! Older instances drop the line breaks of their hint instead of writing `#`; such a hint is not understood here.

use std::collections::BTreeMap;
use std::fmt;

use crate::percent::decode_into;

/// What comparing two strings to sign showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// Both signed the same text, so the keys differ: another AppSecret, or another algorithm than
    /// `X-Ca-Signature-Method` says.
    SameText,
    /// The first difference.
    Differs(Difference),
}

/// The first line on which two strings to sign differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which line.
    pub line: Line,
    /// What the server has there; None if it has no such header line or parameter.
    pub server: Option<String>,
    /// What we have there; None likewise.
    pub ours: Option<String>,
    /// What usually causes this, and what to do.
    pub cause: &'static str,
}

/// A line of the string to sign (Ref §1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first.
    Method,
    /// The second.
    Accept,
    /// The third.
    ContentMd5,
    /// The fourth.
    ContentType,
    /// The fifth.
    Date,
    /// The names, the order or the case of the signed headers.
    HeaderNames,
    /// The value of the signed header of this name.
    Header(String),
    /// The path.
    Path,
    /// The query or form parameter of this name.
    Parameter(String),
    /// The order of the parameters.
    ParameterOrder,
}

/// Compares the server's string, as it stands in `X-Ca-Error-Message` or bare, with the string that we signed.
///
/// In a hint a `#` may be a line break or part of a value; ours tells them apart as far as the two agree. Input of any
/// form gives an answer; a hint that the server cut short (`...`) is compared as far as it goes.
pub fn compare(server_hint: &str, ours: &str) -> Diagnosis {
    let server_text = unwrap_hint(server_hint);
    let ours = Text::parse(ours, None);
    let server = Text::parse(server_text, (!server_text.contains('\n')).then_some(&ours));
    let difference = fixed_difference(&server, &ours)
        .or_else(|| header_difference(&server, &ours))
        .or_else(|| resource_difference(&server, &ours));
    difference.map_or(Diagnosis::SameText, Diagnosis::Differs)
}

/// Takes the prefix and the backticks off.
fn unwrap_hint(hint: &str) -> &str {
    let text = match hint.split_once("Server StringToSign:") {
        Some((_, text)) => text,
        None => hint,
    };
    let text = text.trim();
    text.strip_prefix('`')
        .and_then(|text| text.strip_suffix('`'))
        .unwrap_or(text)
}

// === impl Text ===

/// A string to sign in its parts.
struct Text {
    fixed: [String; 5],
    headers: Vec<(String, String)>,
    path: String,
    parameters: Vec<(String, Option<String>)>,
    cut: bool,
}

const FIXED: [Line; 5] = [
    Line::Method,
    Line::Accept,
    Line::ContentMd5,
    Line::ContentType,
    Line::Date,
];

impl Text {
    /// Reads lines that end in `\n`; or, given our text as a guide, in `#`.
    fn parse(text: &str, guide: Option<&Self>) -> Self {
        let mut reader = Reader { rest: text, guide };
        let fixed = std::array::from_fn(|index| reader.fixed_line(index));
        let mut headers = Vec::new();
        while let Some(header) = reader.header_line() {
            headers.push(header);
        }
        let resource = if guide.is_some() {
            reader.rest.to_owned()
        } else {
            reader.rest.replace('\n', "#")
        };
        let cut = guide.is_some() && resource.ends_with("...");
        let (path, query) = match resource.split_once('?') {
            Some((path, query)) => (path.to_owned(), query),
            None => (resource.clone(), ""),
        };
        Self {
            fixed,
            headers,
            path,
            parameters: parameters(query),
            cut,
        }
    }
}

/// Names and values; None for a name that stands alone.
fn parameters(query: &str) -> Vec<(String, Option<String>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (pair.to_owned(), None),
    };
    pairs.map(split).collect()
}

struct Reader<'a> {
    rest: &'a str,
    guide: Option<&'a Text>,
}

impl Reader<'_> {
    fn separator(&self) -> char {
        if self.guide.is_some() { '#' } else { '\n' }
    }

    /// Takes `expected` if the text goes on with it and a line break; a `#` within it is then no break.
    fn take_expected(&mut self, expected: &str) -> bool {
        let after = self
            .rest
            .strip_prefix(expected)
            .and_then(|rest| rest.strip_prefix(self.separator()));
        if let Some(after) = after {
            self.rest = after;
        }
        after.is_some()
    }

    fn fixed_line(&mut self, index: usize) -> String {
        let expected = self.guide.map(|ours| ours.fixed[index].clone());
        if let Some(expected) = expected.filter(|expected| self.take_expected(expected)) {
            return expected;
        }
        let (line, rest) = self
            .rest
            .split_once(self.separator())
            .unwrap_or((self.rest, ""));
        self.rest = rest;
        line.to_owned()
    }

    /// A header line, unless the path begins here.
    fn header_line(&mut self) -> Option<(String, String)> {
        if self.rest.is_empty() || self.rest.starts_with('/') {
            return None;
        }
        if let Some(expected) = self.expected_header() {
            return Some(expected);
        }
        let end = self.line_end()?;
        let (line, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        Some((name.to_owned(), value.to_owned()))
    }

    fn expected_header(&mut self) -> Option<(String, String)> {
        let ours = self.guide?;
        ours.headers
            .iter()
            .find(|(name, value)| self.take_expected(&format!("{name}:{value}")))
            .cloned()
    }

    /// The first line break after which a header line or the path follows, so that a `#` in a value passes.
    fn line_end(&self) -> Option<usize> {
        let mut breaks = self.rest.match_indices(self.separator()).map(|(at, _)| at);
        breaks.find(|at| {
            let after = &self.rest[at + 1..];
            let name = after.split([':', '#', '\n']).next().unwrap_or_default();
            let header = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            after.starts_with('/') || (header && after[name.len()..].starts_with(':'))
        })
    }
}

// === differences ===

fn fixed_difference(server: &Text, ours: &Text) -> Option<Difference> {
    let index = (0..FIXED.len()).find(|&index| server.fixed[index] != ours.fixed[index])?;
    let (theirs, mine) = (&server.fixed[index], &ours.fixed[index]);
    let cause = match FIXED[index] {
        Line::Accept => accept_cause(theirs, mine),
        Line::ContentMd5 => content_md5_cause(theirs, mine),
        Line::ContentType => content_type_cause(theirs, mine),
        Line::Date => date_cause(theirs, mine),
        _ => {
            "The method arrived as another one: sign the method in upper case, and look for a redirect on the way."
        }
    };
    Some(Difference {
        line: FIXED[index].clone(),
        server: Some(theirs.clone()),
        ours: Some(mine.clone()),
        cause,
    })
}

fn accept_cause(theirs: &str, ours: &str) -> &'static str {
    match (theirs, ours) {
        ("*/*", "") => {
            "The HTTP library added `Accept: */*` after signing: set Accept yourself before you sign."
        }
        (_, "") => {
            "The HTTP library added an Accept header after signing: set Accept yourself before you sign."
        }
        ("", _) => "Accept was signed but not sent: send the header that you sign.",
        _ => "Accept was changed after signing: sign the value that is really sent.",
    }
}

fn content_md5_cause(theirs: &str, ours: &str) -> &'static str {
    match (theirs, ours) {
        ("", _) => "Content-MD5 was signed but not sent: send the header that you sign.",
        (_, "") => "Content-MD5 was sent but not signed: its value is the third line.",
        _ => {
            "Content-MD5 was computed twice: it is Base64 of the 16 raw MD5 bytes of the body as sent, not of their hex."
        }
    }
}

fn content_type_cause(theirs: &str, ours: &str) -> &'static str {
    let essence = |value: &str| {
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    };
    if theirs.is_empty() {
        return "Content-Type was signed but not sent, as HTTP libraries do when there is no body (GET, DELETE): sign an \
                empty line, or make the library send it.";
    }
    if ours.is_empty() {
        return "The HTTP library added a Content-Type after signing: set Content-Type yourself before you sign.";
    }
    if essence(theirs) == essence(ours) {
        return "Only the parameters differ: the HTTP library added or changed `charset` (or `boundary`). Sign the value \
                byte for byte as sent.";
    }
    "Content-Type was changed after signing: sign the value that is really sent."
}

fn date_cause(theirs: &str, ours: &str) -> &'static str {
    match (theirs, ours) {
        ("", _) => "Date was signed but not sent; browsers refuse to set it: leave it out of both.",
        (_, "") => {
            "The HTTP library or a proxy added a Date header after signing: sign it, or keep it from being sent."
        }
        _ => "Date was changed on the way: sign the value that is really sent, or leave it out.",
    }
}

fn header_difference(server: &Text, ours: &Text) -> Option<Difference> {
    if server.headers == ours.headers || (server.cut && server.path.is_empty()) {
        return None;
    }
    let names = |text: &Text| {
        text.headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    let (theirs, mine) = (names(server), names(ours));
    if theirs != mine {
        let cause = header_names_cause(&theirs, &mine);
        return Some(difference(
            Line::HeaderNames,
            Some(theirs.join(",")),
            Some(mine.join(",")),
            cause,
        ));
    }
    let pairs = server.headers.iter().zip(&ours.headers);
    let ((name, theirs), (_, mine)) = pairs.into_iter().find(|(theirs, mine)| theirs != mine)?;
    let cause = match (theirs.as_str(), mine.as_str()) {
        ("", _) => {
            "The header is in X-Ca-Signature-Headers but did not arrive: send it, and look for a proxy that drops it."
        }
        (theirs, mine) if theirs.trim() == mine.trim() => {
            "Only spaces around the value differ: HTTP drops them, so sign the value without."
        }
        _ => {
            "The value was changed after signing, or the header was sent twice (the first one counts)."
        }
    };
    Some(difference(
        Line::Header(name.clone()),
        Some(theirs.clone()),
        Some(mine.clone()),
        cause,
    ))
}

fn header_names_cause(theirs: &[String], ours: &[String]) -> &'static str {
    let lower = |names: &[String]| {
        let mut names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort();
        names
    };
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    if theirs.is_empty() {
        return "The server saw no signed headers: send X-Ca-Signature-Headers with their names.";
    }
    if sorted(theirs) == sorted(ours) {
        return "The same header lines in another order: sort them by name, byte by byte, capitals before small letters.";
    }
    if lower(theirs) == lower(ours) {
        return "Only the case of names differs: write each name in X-Ca-Signature-Headers exactly as in the line you sign.";
    }
    "X-Ca-Signature-Headers lists other names than were signed: list each signed header once, separated by `,` (not `:`), \
     without Accept, Content-MD5, Content-Type, Date and X-Ca-Signature."
}

fn resource_difference(server: &Text, ours: &Text) -> Option<Difference> {
    if server.path != ours.path && !server.cut {
        let cause = path_cause(&server.path, &ours.path);
        return Some(difference(
            Line::Path,
            Some(server.path.clone()),
            Some(ours.path.clone()),
            cause,
        ));
    }
    if server.parameters == ours.parameters {
        return None;
    }
    match server.cut {
        true => cut_parameter_difference(server, ours),
        false => parameter_difference(server, ours),
    }
}

fn path_cause(theirs: &str, ours: &str) -> &'static str {
    if decoded(ours) == theirs || decoded(theirs) == ours {
        return "Percent-encoded on one side and decoded on the other: sign the path decoded, or as it stands in the URL.";
    }
    if theirs.trim_end_matches('/') == ours.trim_end_matches('/') {
        return "Only the slash at the end differs: sign the path that is really requested.";
    }
    "Another path arrived than was signed: sign the path the gateway sees, base path included, without scheme and host, and \
     look for a proxy that rewrites it."
}

fn parameter_difference(server: &Text, ours: &Text) -> Option<Difference> {
    let theirs: BTreeMap<_, _> = server.parameters.iter().cloned().collect();
    let mine: BTreeMap<_, _> = ours.parameters.iter().cloned().collect();
    let names = theirs.keys().chain(mine.keys());
    let first = names
        .filter(|name| theirs.get(*name) != mine.get(*name))
        .min();
    let Some(name) = first else {
        let text = |text: &Text| {
            text.parameters
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join("&")
        };
        let cause = "The same parameters in another order, or one twice: sort by name, byte by byte; only the first value of a \
                     repeated name is signed.";
        return Some(difference(
            Line::ParameterOrder,
            Some(text(server)),
            Some(text(ours)),
            cause,
        ));
    };
    let cause = match (theirs.get(name), mine.get(name)) {
        (Some(theirs), Some(mine)) => {
            value_cause(theirs.as_deref(), mine.as_deref(), &ours.parameters, name)
        }
        (None, _) => missing_at_server_cause(name, &theirs),
        (_, None) => missing_at_ours_cause(name, &mine),
    };
    let shown = |side: &BTreeMap<String, Option<String>>| {
        side.get(name)
            .map(|value| value.clone().unwrap_or_default())
    };
    Some(difference(
        Line::Parameter(name.clone()),
        shown(&theirs),
        shown(&mine),
        cause,
    ))
}

/// The hint ends in `...`: only what comes before its last parameter can be compared.
fn cut_parameter_difference(server: &Text, ours: &Text) -> Option<Difference> {
    let whole = server.parameters.len().saturating_sub(1);
    let mut pairs = server.parameters[..whole].iter().zip(&ours.parameters);
    let ((name, theirs), (_, mine)) = pairs.find(|(theirs, mine)| theirs != mine)?;
    let cause =
        "Parameters differ here; the server's hint is cut short, so compare the rest by hand.";
    Some(difference(
        Line::Parameter(name.clone()),
        theirs.clone(),
        mine.clone(),
        cause,
    ))
}

fn value_cause(
    theirs: Option<&str>,
    ours: Option<&str>,
    all: &[(String, Option<String>)],
    name: &str,
) -> &'static str {
    let (Some(theirs), Some(mine)) = (theirs, ours) else {
        return "An empty value: sign the name alone, without `=`.";
    };
    if all.iter().filter(|(known, _)| known == name).count() > 1 {
        return "A repeated name: only its first value is signed.";
    }
    if decoded(mine) == theirs {
        return "Percent-encoded when signed: sign parameter values decoded (`+` and `%20` are a space).";
    }
    if decoded(theirs) == mine {
        return "Encoded twice on the way, or signed after decoding twice: encode each value once.";
    }
    if mine.split(',').next() == Some(theirs) {
        return "A repeated name whose values were joined with a comma (the Node SDK does): sign the first value only.";
    }
    if theirs.split('=').next() == Some(mine) {
        return "The value was cut at its `=` (the Python demo does): sign the whole value, or send `=` as %3D.";
    }
    "Another value arrived than was signed; of a name in both query and form, the query's value counts first."
}

fn missing_at_server_cause(name: &str, theirs: &BTreeMap<String, Option<String>>) -> &'static str {
    if theirs.contains_key(&decoded(name)) {
        return "Percent-encoded when signed: sign parameter names decoded.";
    }
    "The parameter was signed but did not arrive as a parameter. Form parameters count only if Content-Type is \
     application/x-www-form-urlencoded; those of a JSON or multipart body are not signed."
}

fn missing_at_ours_cause(name: &str, ours: &BTreeMap<String, Option<String>>) -> &'static str {
    if ours.keys().any(|mine| decoded(mine) == name) {
        return "Percent-encoded when signed: sign parameter names decoded.";
    }
    "The parameter arrived but was not signed: sign query and form parameters together, also those added after signing."
}

fn difference(
    line: Line,
    server: Option<String>,
    ours: Option<String>,
    cause: &'static str,
) -> Difference {
    Difference {
        line,
        server,
        ours,
        cause,
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    decode_into(text.as_bytes(), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

// === what people read ===

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("method"),
            Self::Accept => f.write_str("Accept"),
            Self::ContentMd5 => f.write_str("Content-MD5"),
            Self::ContentType => f.write_str("Content-Type"),
            Self::Date => f.write_str("Date"),
            Self::HeaderNames => f.write_str("names of the signed headers"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Path => f.write_str("path"),
            Self::Parameter(name) => write!(f, "parameter {name}"),
            Self::ParameterOrder => f.write_str("order of the parameters"),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Differs(Difference {
            line,
            server,
            ours,
            cause,
        }) = self
        else {
            return f.write_str(
                "Both sides signed the same text, so the keys differ: check the AppSecret (its text as it is, neither \
                 hex- nor Base64-decoded) and that X-Ca-Signature-Method names the algorithm used.",
            );
        };
        let shown = |value: &Option<String>| {
            value
                .as_ref()
                .map_or("(absent)".to_owned(), |value| format!("{value:?}"))
        };
        writeln!(f, "First difference: {line}")?;
        writeln!(f, "  server: {}", shown(server))?;
        writeln!(f, "  ours:   {}", shown(ours))?;
        f.write_str(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "POST\napplication/json\n\napplication/json\n\nX-Ca-Key:1\nX-Ca-Stage:PRE\n/a b?a=1&b=x y&e";
    const MESSAGE: &str = "Invalid Signature, Server StringToSign:`POST#application/json##application/json##X-Ca-Key:1#X-Ca-Stage:PRE#/a b?a=1&b=x y&e`";

    /// Our string after one replacement, against the server's: what is found, and a word of the cause.
    #[track_caller]
    fn check(change: (&str, &str), line: &str, word: &str) {
        assert!(OURS.contains(change.0), "{change:?}");
        let ours = OURS.replacen(change.0, change.1, 1);
        let Diagnosis::Differs(found) = compare(MESSAGE, &ours) else {
            panic!("{change:?} went unseen")
        };
        assert_eq!(found.line.to_string(), line, "{change:?}");
        assert!(found.cause.contains(word), "{change:?}: {}", found.cause);
    }

    #[test]
    fn equal_texts_point_to_the_key() {
        assert_eq!(compare(MESSAGE, OURS), Diagnosis::SameText);
        assert_eq!(compare(OURS, OURS), Diagnosis::SameText);
        assert_eq!(
            compare(MESSAGE.split_once(':').unwrap().1, OURS),
            Diagnosis::SameText
        );
    }

    #[test]
    fn each_trap_is_named() {
        check(("POST", "post"), "method", "upper case");
        check(("\napplication/json\n\n", "\n\n\n"), "Accept", "added");
        check(
            (
                "\n\napplication/json",
                "\nAulw/A6cvXyhaQxbZTIGCQ==\napplication/json",
            ),
            "Content-MD5",
            "not sent",
        );
        check(
            (
                "\napplication/json\n\nX",
                "\napplication/json; charset=utf-8\n\nX",
            ),
            "Content-Type",
            "charset",
        );
        check(
            ("\napplication/json\n\nX", "\n\n\nX"),
            "Content-Type",
            "added",
        );
        check(("\n\nX-Ca-Key", "\nTue\nX-Ca-Key"), "Date", "browsers");
        check(
            ("X-Ca-Key:1", "x-ca-key:1"),
            "names of the signed headers",
            "case",
        );
        check(
            ("X-Ca-Key:1\nX-Ca-Stage:PRE", "X-Ca-Stage:PRE\nX-Ca-Key:1"),
            "names of the signed headers",
            "order",
        );
        check(
            ("X-Ca-Stage:PRE\n", ""),
            "names of the signed headers",
            "lists other names",
        );
        check(
            (":PRE", ":TEST"),
            "header X-Ca-Stage",
            "changed after signing",
        );
        check(("/a b", "/a%20b"), "path", "Percent-encoded");
        check(("/a b", "/a b/"), "path", "slash");
        check(("b=x y", "b=x+y"), "parameter b", "decoded");
        check(("b=x y", "b=x%20y"), "parameter b", "decoded");
        check(("&e", "&e="), "parameter e", "empty value");
        check(("a=1&", ""), "parameter a", "not signed");
        check(("a=1", "a=1,2"), "parameter a", "comma");
        check(("?a=1", "?a=1&a=2"), "parameter a", "first value");
        check(("&e", "&e&form=1"), "parameter form", "urlencoded");
        check(
            ("a=1&b=x y", "b=x y&a=1"),
            "order of the parameters",
            "sort",
        );
    }

    #[test]
    fn a_server_that_saw_a_default_accept_is_recognised() {
        let found = compare("`GET#*/*####/p`", "GET\n\n\n\n\n/p");
        assert!(found.to_string().contains("`Accept: */*`"), "{found}");
        let found = compare("`GET#####/p`", "GET\n\n\napplication/json\n\n/p");
        assert!(found.to_string().contains("GET, DELETE"), "{found}");
    }

    #[test]
    fn a_hash_in_a_value_is_no_line_break() {
        let ours = "GET\na#b\n\n\n\nX-A:1#2\nX-B:3\n/p?c=#FFF&d=1";
        let hint = ours.replace('\n', "#");
        assert_eq!(compare(&hint, ours), Diagnosis::SameText);
        let Diagnosis::Differs(found) = compare(&hint.replace("d=1", "d=2"), ours) else {
            panic!()
        };
        assert_eq!(found.line, Line::Parameter("d".into()));
        let Diagnosis::Differs(found) = compare(&hint.replace("1#2", "1#9"), ours) else {
            panic!()
        };
        assert_eq!(
            (found.line, found.server.as_deref()),
            (Line::Header("X-A".into()), Some("1#9"))
        );
    }

    #[test]
    fn a_line_break_in_a_parameter_is_no_difference() {
        assert_eq!(
            compare("`GET#####/p?a=1#2`", "GET\n\n\n\n\n/p?a=1\n2"),
            Diagnosis::SameText
        );
    }

    #[test]
    fn a_hint_that_was_cut_is_compared_as_far_as_it_goes() {
        assert_eq!(
            compare("`GET#####/p?a=1&b=22...`", "GET\n\n\n\n\n/p?a=1&b=2222&c=3"),
            Diagnosis::SameText
        );
        let Diagnosis::Differs(found) =
            compare("`GET#####/p?a=1&b=22...`", "GET\n\n\n\n\n/p?a=2&b=2222")
        else {
            panic!()
        };
        assert_eq!(found.line, Line::Parameter("a".into()));
    }

    #[test]
    fn nonsense_gets_an_answer() {
        for hint in [
            "",
            "`",
            "``",
            "Server StringToSign:",
            "#",
            "####",
            "#########",
            "a:b",
            "GET#:#/",
            "/?",
            "\n\n",
            "...",
            "张#三",
        ] {
            for ours in ["", OURS, hint] {
                assert!(!compare(hint, ours).to_string().is_empty(), "{hint:?}");
            }
        }
    }
}
