//! Stage variables: `#Name#` in constants and backend paths (Ref §5.2).

use std::collections::{BTreeMap, BTreeSet};

/// A variable's name: a letter, then letters, digits, `_`, `-` and `.`; 1 to 64.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// Adds the variables that `text` mentions to `names`.
pub(crate) fn mentioned(text: &str, names: &mut BTreeSet<String>) {
    for name in split(text).filter_map(Piece::name) {
        names.insert(name.to_owned());
    }
}

/// `text` with each variable replaced by what `value` gives; `Err` names one without a value.
pub(crate) fn substitute<'v>(
    text: &str,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for piece in split(text) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => out.push_str(value(name).ok_or_else(|| name.to_owned())?),
        }
    }
    Ok(out)
}

/// The values of `names` among `values`; `Err` names one without a value.
pub(crate) fn values(
    names: &BTreeSet<String>,
    values: Option<&BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, String> {
    names
        .iter()
        .map(|name| {
            let value = values.and_then(|values| values.get(name));
            value
                .map(|value| (name.clone(), value.clone()))
                .ok_or_else(|| name.clone())
        })
        .collect()
}

enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

impl<'t> Piece<'t> {
    fn name(self) -> Option<&'t str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Text(_) => None,
        }
    }
}

/// A `#` that begins no variable is text.
fn split(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix('#')
            && let Some((name, after)) = after.split_once('#')
            && is_name(name)
        {
            rest = after;
            return Some(Piece::Name(name));
        }
        let skip = usize::from(rest.starts_with('#'));
        let end = rest[skip..].find('#').map_or(rest.len(), |at| at + skip);
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_and_filled_in() {
        let rows: [(&str, &[&str], Result<&str, &str>); 9] = [
            ("", &[], Ok("")),
            ("plain", &[], Ok("plain")),
            ("#a#", &["a"], Ok("1")),
            ("x#a#y#b#", &["a", "b"], Ok("x1y2")),
            ("#a##b#", &["a", "b"], Ok("12")),
            ("##a#", &["a"], Ok("#1")),
            ("# a#b#", &["b"], Ok("# a2")),
            ("#", &[], Ok("#")),
            ("#c#", &["c"], Err("c")),
        ];
        for (text, names, filled) in rows {
            let mut found = BTreeSet::new();
            mentioned(text, &mut found);
            assert_eq!(found.iter().collect::<Vec<_>>(), names, "{text}");
            let value = |name: &str| match name {
                "a" => Some("1"),
                "b" => Some("2"),
                _ => None,
            };
            let expected = filled.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(substitute(text, value), expected, "{text}");
        }
    }
}
