//! Small things about text.

/// Text for a message: at most 60 characters, control characters made visible.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let mut short: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| {
            let visible = !c.is_control();
            let escaped = (!visible).then(|| c.escape_default());
            visible
                .then_some(c)
                .into_iter()
                .chain(escaped.into_iter().flatten())
        })
        .collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_text_is_cut_and_control_characters_are_visible() {
        assert_eq!(super::shortened("a\nb"), "a\\nb");
        assert_eq!(super::shortened(&"x".repeat(61)), "x".repeat(60) + "…");
        assert_eq!(super::shortened("天气"), "天气");
    }
}
