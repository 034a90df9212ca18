//! Query and form parameters as one sorted map, in buffers that are used again (Ref §1.3).

use crate::percent::decode_into;

/// Query and form parameters, decoded and sorted.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    /// Names and values, one after the other.
    text: Vec<u8>,
    /// By name; equal names in order of appearance, the query's before the form's.
    sorted: Vec<Parameter>,
}

/// A name and its value as places in [`Parameters::text`].
#[derive(Clone, Copy, Debug)]
struct Parameter {
    start: usize,
    middle: usize,
    end: usize,
    form: bool,
}

/// Whose value counts when a name is in the query and in the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Winner {
    /// The classic gateway's choice.
    Query,
    /// The official clients' choice.
    Form,
}

/// How the query is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryAs {
    /// Names and values decoded: nearly every client.
    Decoded,
    /// As it stands in the URL: the Python demo client.
    Sent,
}

/// What is decoded: `name=value`, and a name without `=`.
#[derive(Clone, Copy)]
struct Decode {
    pair: bool,
    bare: bool,
}

// === impl Parameters ===

impl Parameters {
    /// Empties the buffers and gives back what they hold beyond `keep`.
    pub(crate) fn recycle(&mut self, keep: usize) {
        self.text.clear();
        self.text.shrink_to(keep);
        self.sorted.clear();
        self.sorted.shrink_to(keep);
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.text.capacity().max(self.sorted.capacity())
    }

    /// Reads both sources again and sorts by name, by byte. Java and JavaScript sort by UTF-16 unit, which differs for
    /// a name with a character beyond U+FFFF beside one with U+E000 to U+FFFF at the same place; such a request of
    /// theirs does not verify.
    pub(crate) fn collect(&mut self, query: Option<&str>, query_as: QueryAs, form: Option<&[u8]>) {
        self.text.clear();
        self.sorted.clear();
        let decoded = query_as == QueryAs::Decoded;
        for pair in pairs(query.unwrap_or_default().as_bytes()) {
            self.push(
                pair,
                Decode {
                    pair: decoded,
                    bare: decoded,
                },
                false,
            );
        }
        // A name without `=` is decoded in a query and taken as it stands in a form (Ref §1.3).
        for pair in pairs(form.unwrap_or_default()) {
            self.push(
                pair,
                Decode {
                    pair: true,
                    bare: false,
                },
                true,
            );
        }
        let text = &self.text;
        self.sorted.sort_unstable_by(|a, b| {
            text[a.start..a.middle]
                .cmp(&text[b.start..b.middle])
                // `=` alone leaves nothing in the text, so what follows it begins at the same place.
                .then((a.start, a.end).cmp(&(b.start, b.end)))
        });
    }

    fn push(&mut self, pair: &[u8], decode: Decode, form: bool) {
        let start = self.text.len();
        let equals = memchr::memchr(b'=', pair);
        let (name, value) = match equals {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        let decoded = if equals.is_some() {
            decode.pair
        } else {
            decode.bare
        };
        self.append(name, decoded);
        let middle = self.text.len();
        self.append(value, decoded);
        self.sorted.push(Parameter {
            start,
            middle,
            end: self.text.len(),
            form,
        });
    }

    fn append(&mut self, text: &[u8], decoded: bool) {
        match decoded {
            true => decode_into(text, &mut self.text),
            false => self.text.extend_from_slice(text),
        }
    }

    /// Appends `?name=value&…`, one value per name, the name alone if its value is empty, nothing at all without
    /// parameters. Returns whether some name's value depends on who wins.
    pub(crate) fn write(&self, winner: Winner, out: &mut Vec<u8>) -> bool {
        let mut collision = false;
        let mut separator = b'?';
        for same_name in self.sorted.chunk_by(|a, b| self.name(a) == self.name(b)) {
            let query = &same_name[0];
            let form = same_name
                .iter()
                .find(|parameter| parameter.form)
                .unwrap_or(query);
            collision |= self.value(query) != self.value(form);
            let chosen = if winner == Winner::Query { query } else { form };
            out.push(separator);
            separator = b'&';
            out.extend_from_slice(self.name(chosen));
            if !self.value(chosen).is_empty() {
                out.push(b'=');
                out.extend_from_slice(self.value(chosen));
            }
        }
        collision
    }

    fn name(&self, parameter: &Parameter) -> &[u8] {
        &self.text[parameter.start..parameter.middle]
    }

    fn value(&self, parameter: &Parameter) -> &[u8] {
        &self.text[parameter.middle..parameter.end]
    }
}

/// The pieces between `&`, without the empty ones.
fn pairs(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(query: &str, form: &str) -> String {
        let (mut parameters, mut out) = (Parameters::default(), b"/p".to_vec());
        parameters.collect(Some(query), QueryAs::Decoded, Some(form.as_bytes()));
        parameters.write(Winner::Query, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parameters_are_merged_sorted_and_first_values() {
        assert_eq!(resource("", ""), "/p");
        assert_eq!(resource("&&", "&"), "/p");
        assert_eq!(resource("b=2&a=1", "c=3"), "/p?a=1&b=2&c=3");
        assert_eq!(resource("a=1&a=2", "a=3"), "/p?a=1");
        assert_eq!(resource("B=1&a=2&_=3", ""), "/p?B=1&_=3&a=2");
        assert_eq!(resource("a=&b", "c=&d"), "/p?a&b&c&d");
        assert_eq!(resource("a=b=c", ""), "/p?a=b=c");
        let many = format!("{}=&=x", "b=1&".repeat(40));
        assert_eq!(resource(&many, "=y"), "/p?&b=1");
        assert_eq!(resource("a=1+2%2B3", "b=%E5%BC%A0"), "/p?a=1 2+3&b=张");
    }

    #[test]
    fn a_bare_name_is_decoded_in_the_query_only() {
        assert_eq!(resource("%61+b", ""), "/p?a b");
        assert_eq!(resource("", "%61+b"), "/p?%61+b");
    }

    #[test]
    fn a_collision_is_a_name_with_two_values_one_in_each_source() {
        let collides = |query, form: &str| {
            let mut parameters = Parameters::default();
            parameters.collect(Some(query), QueryAs::Decoded, Some(form.as_bytes()));
            parameters.write(Winner::Form, &mut Vec::new())
        };
        assert!(collides("a=1", "a=2") && collides("a", "b=1&a=2"));
        assert!(!collides("a=1&a=2", "b=1") && !collides("a=1", "a=1&a=2") && !collides("", ""));
    }
}
