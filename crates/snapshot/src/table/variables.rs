//! Stage variables: `#Name#` in a text, replaced by the stage's value (Ref §5.2).

use std::{borrow::Cow, collections::BTreeMap};

/// Longest text that substitution may make, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// `text` with every `#Name#` replaced whose name is in `variables`. Values are not looked at again; anything else between two `#`
/// stays as it is. `None` when the result would be too long.
pub(super) fn substitute<'t>(
    text: &'t str,
    variables: &BTreeMap<String, String>,
) -> Option<Cow<'t, str>> {
    if variables.is_empty() || !text.contains('#') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('#') {
        out.push_str(before);
        let named = after
            .split_once('#')
            .and_then(|(name, after)| Some((variables.get(name)?, after)));
        rest = match named {
            Some((value, after)) => {
                out.push_str(value);
                after
            }
            None => {
                out.push('#');
                after
            }
        };
        if out.len() > MAX_BYTES {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= MAX_BYTES).then_some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_replaced_once() {
        let variables: BTreeMap<String, String> = [("A", "1"), ("B", "#A#"), ("E", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let rows = [
            ("", ""),
            ("#A#", "1"),
            ("x#A##A#y", "x11y"),
            ("#B#", "#A#"),
            ("#C#A#", "#C1"),
            ("#A", "#A"),
            ("##A##", "#1#"),
            ("a#E#b", "ab"),
            ("#a#", "#a#"),
        ];
        for (text, expected) in rows {
            assert_eq!(substitute(text, &variables).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn results_are_bounded() {
        let variables = [("A".to_owned(), "x".repeat(1000))].into();
        assert!(substitute(&"#A#".repeat(60), &variables).is_some());
        assert!(substitute(&"#A#".repeat(70), &variables).is_none());
    }
}
