//! Regular expressions of parameters: compiled at load, matched in linear time, bounded in memory.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
const MAX_BYTES: usize = 4096;
/// Largest compiled program, in bytes. `^\w{1,64}$` with its thousands of Unicode letters takes about half of it.
pub(super) const SIZE_LIMIT: usize = 4 << 20;
/// Most memory that matching one pattern may use for its cache on each thread, in bytes. A pattern that needs more is matched by a
/// slower engine, in linear time too.
pub(super) const DFA_SIZE_LIMIT: usize = 256 << 10;

/// A compiled pattern.
pub struct Pattern(Regex);

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Longer than the limit, in bytes.
    #[error("a pattern has at most {0} bytes")]
    Length(usize),
    /// Its compiled form is larger than the limit, in bytes; mostly a repetition of a large class such as `\w`.
    #[error(
        "the pattern needs more than {0} bytes when compiled: use smaller repetitions, or ASCII classes such as [0-9A-Za-z_] instead of \\w"
    )]
    Size(usize),
    /// Not in the syntax of the `regex` crate, which has no look-around and no back-references: they cannot be matched in linear
    /// time.
    #[error("not a regular expression (look-around and back-references are not supported): {0}")]
    Syntax(String),
}

/// Compiles a pattern of a parameter: the syntax of the `regex` crate, Unicode, matching anywhere in the value unless anchored. What
/// this accepts, [`super::Table::load`] loads.
///
/// # Errors
/// When it is no regular expression, or too large.
pub fn compile_pattern(text: &str) -> Result<Pattern, InvalidPattern> {
    if text.len() > MAX_BYTES {
        return Err(InvalidPattern::Length(MAX_BYTES));
    }
    RegexBuilder::new(text)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(DFA_SIZE_LIMIT)
        .build()
        .map(Pattern)
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => InvalidPattern::Size(limit),
            // The last line says what; those before it draw where.
            other => InvalidPattern::Syntax(last_line(&other.to_string())),
        })
}

fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or(text);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

// === impl Pattern ===

impl Pattern {
    /// Whether it matches somewhere in `text`. Time is linear in the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_patterns_compile_and_match_anywhere() {
        let rows = [
            ("b", "abc", true),
            ("^b", "abc", false),
            (r"^\w{1,64}$", "天气_7", true),
            (r"^[\p{Han}]{1,100}$", "天气", true),
            (r"^1[3-9]\d{9}$", "13800138000", true),
            (r"^(a+)+$", &format!("{}!", "a".repeat(10_000)), false),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(
                compile_pattern(pattern).unwrap().is_match(text),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_cannot_be_bounded_is_refused() {
        type Error = InvalidPattern;
        let refused = |text: &str| compile_pattern(text).unwrap_err();
        assert!(matches!(refused("("), Error::Syntax(_)));
        assert!(matches!(refused("(?=a)"), Error::Syntax(_)));
        assert!(matches!(refused(r"(a)\1"), Error::Syntax(_)));
        assert!(matches!(refused(&"(".repeat(1000)), Error::Syntax(_)));
        assert!(matches!(refused(r"((\w{99}){99}){99}"), Error::Size(_)));
        assert!(matches!(refused(&"a".repeat(5000)), Error::Length(_)));
    }
}
