//! AppCode, the simple authentication: a bearer code in `Authorization: APPCODE <code>` or in the query (Ref §2).
//!
//! Which codes exist and whether an API takes one from a header or the query is the proxy's to know.

use std::borrow::Cow;

use crate::percent::{decode_into, is_encoded};

/// The query parameter that carries a code, in exactly this case.
pub const QUERY_NAME: &str = "AppCode";

const WORD: &[u8] = b"APPCODE";

/// The code in an `Authorization` value: the word `APPCODE` in any case, at least one space or tab, the code. None if
/// the value is of another scheme, has no code, or is not UTF-8; then the request carries no AppCode.
pub fn parse(authorization: &[u8]) -> Option<&str> {
    let (word, rest) = authorization
        .trim_ascii_start()
        .split_at_checked(WORD.len())?;
    if !word.eq_ignore_ascii_case(WORD) || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let code = str::from_utf8(rest.trim_ascii()).ok()?;
    (!code.is_empty()).then_some(code)
}

/// The code in a raw query: the first parameter named [`QUERY_NAME`], percent-decoded. None if there is none, it is
/// empty, or it is not UTF-8.
pub fn in_query(query: &str) -> Option<Cow<'_, str>> {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name == QUERY_NAME);
    let (_, raw) = values.next()?;
    if raw.is_empty() {
        return None;
    }
    if !is_encoded(raw.as_bytes()) {
        return Some(Cow::Borrowed(raw));
    }
    let mut code = Vec::with_capacity(raw.len());
    decode_into(raw.as_bytes(), &mut code);
    String::from_utf8(code).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_any_case_and_any_spaces() {
        for value in [
            "APPCODE abc123",
            "appcode abc123",
            "AppCode   abc123 ",
            " APPCODE\tabc123",
        ] {
            assert_eq!(parse(value.as_bytes()), Some("abc123"), "{value:?}");
        }
    }

    #[test]
    fn anything_else_is_not_an_app_code() {
        for value in [
            "",
            "APPCODE",
            "APPCODE ",
            "APPCODEabc",
            "Bearer abc",
            "XAPPCODE abc",
            "APP CODE abc",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(parse(b"APPCODE \xff"), None);
    }

    #[test]
    fn the_first_code_of_a_query_counts() {
        assert_eq!(
            in_query("a=1&AppCode=x%2By&AppCode=z").as_deref(),
            Some("x+y")
        );
        assert_eq!(in_query("AppCode=abc").as_deref(), Some("abc"));
        for query in [
            "",
            "AppCode",
            "AppCode=",
            "appcode=abc",
            "xAppCode=abc",
            "AppCode=%ff",
        ] {
            assert_eq!(in_query(query), None, "{query:?}");
        }
    }
}
