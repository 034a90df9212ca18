//! Forms of text that several fields share.

/// Chinese or Latin letter first, then those, digits and `_` (Ref §10).
pub(crate) fn is_display_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || is_han(c);
    let mut chars = name.chars();
    chars.next().is_some_and(letter) && chars.all(|c| letter(c) || c.is_ascii_digit() || c == '_')
}

/// `\p{Han}` of Unicode 16, with unassigned code points inside its blocks.
fn is_han(c: char) -> bool {
    matches!(u32::from(c),
        0x2E80..=0x2FD5 | 0x3005 | 0x3007 | 0x3021..=0x3029 | 0x3038..=0x303B | 0x3400..=0x4DBF
        | 0x4E00..=0x9FFF | 0xF900..=0xFAD9 | 0x16FE2..=0x16FF1 | 0x20000..=0x323AF)
}

/// A DNS subdomain (RFC 1123), as Kubernetes wants names of objects.
pub(crate) fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A token (RFC 9110 §5.6.2), at most 128 characters.
pub(crate) fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A field value (RFC 9110 §5.5), UTF-8 allowed.
pub(crate) fn is_field_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t') && text.trim_matches([' ', '\t']) == text
}

/// A name of a parameter: no spaces and no control characters, 1 to 64 characters.
pub(crate) fn is_parameter_name(text: &str) -> bool {
    (1..=64).contains(&text.chars().count())
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// A duration as Go writes it, in whole milliseconds: numbers, each with `ms`, `s`, `m` or `h`. `None` when it is none, has a finer
/// part, or is beyond what fits.
pub(crate) fn duration_ms(text: &str) -> Option<u32> {
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() || text.len() > 32 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, scale)?)?;
        rest = after;
    }
    u32::try_from(total).ok()
}

/// `number × scale` when that is whole.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.ends_with('.') || fraction.contains('.') {
        return None;
    }
    let mut value = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if !fraction.is_empty() {
        let divisor = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
        if part % divisor != 0 {
            return None;
        }
        value = value.checked_add(part / divisor)?;
    }
    Some(value)
}

/// The beginning of a text, to quote it.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_milliseconds() {
        let rows = [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1_500)),
            ("0.001s", Some(1)),
            ("2h", Some(7_200_000)),
            ("0s", Some(0)),
            ("0.0001s", None),
            ("", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.s", None),
            (".5s", None),
            ("1..5s", None),
            ("1us", None),
            ("1 s", None),
            ("99999999999999999999s", None),
            ("5000h", None),
        ];
        for (text, expected) in rows {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn display_names_begin_with_a_letter() {
        for good in ["weatherGroup", "天气", "a_1", "天气_1"] {
            assert!(is_display_name(good), "{good}");
        }
        for bad in ["", "1a", "_a", "a-b", "a b", "é", "かな"] {
            assert!(!is_display_name(bad), "{bad}");
        }
    }

    #[test]
    fn names_headers_and_values() {
        for good in ["a", "a-b", "a.b-c.1"] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", "天"] {
            assert!(!is_object_name(bad), "{bad}");
        }
        assert!(is_token("X-A") && !is_token("X A") && !is_token("") && !is_token("天"));
        assert!(is_field_value("a b\tc天") && is_field_value(""));
        for bad in [" a", "a ", "a\r\nb", "a\0"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }
}
