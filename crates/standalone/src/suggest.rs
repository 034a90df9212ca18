//! What somebody may have meant.

/// The known word nearest to `word`, when it is near enough to be a slip: the same but for case, or a third of it mistyped.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distances = known.into_iter().map(|candidate| {
        let near = distance(&lower, &candidate.to_lowercase());
        (near, candidate)
    });
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    distances
        .filter(|(near, _)| *near <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Changes, insertions, deletions and swaps of neighbours from one word to the other; words are short.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let other: Vec<char> = other.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut cost = (row[j] + usize::from(a != b))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["path", "method", "parameters", "displayName", "in"];
        for (word, expected) in [
            ("pathh", Some("path")),
            ("Path", Some("path")),
            ("mehtod", Some("method")),
            ("paramters", Some("parameters")),
            ("displayname", Some("displayName")),
            ("im", Some("in")),
            ("timeout", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
