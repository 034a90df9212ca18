//! YAML text as a tree that knows where everything was written.
//!
//! YAML 1.2 core schema, and what Kubernetes users expect beside it: several documents in a file, anchors, merge keys. Bounded: depth,
//! nodes that aliases repeat. Keys are text and stand once. What the tree means is not known here.

use std::{collections::HashMap, fmt};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number};

/// A place in a file, both counted from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) data: Data,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) name: String,
}

/// Why a text is not YAML that we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidYaml {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Lists and maps inside each other.
const MAX_DEPTH: usize = 64;

/// Nodes that aliases may repeat in one file: a page of anchors must not become gigabytes.
const MAX_REPEATED: usize = 100_000;

/// Reads every document of `text`; empty ones are left out.
///
/// # Errors
/// The first mistake, with its place.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, InvalidYaml> {
    // Another crate of the same program may turn comments on for all of it; as events they would end a document early.
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        repeated: 0,
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(..), _) => {
                reader.anchors.clear();
                let node = reader.node(0)?;
                if node.data != Data::Null {
                    documents.push(node);
                }
            }
            _ => {}
        }
    }
}

struct Reader<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, (Node, usize)>,
    repeated: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Position), InvalidYaml> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, position(&span))),
            Some(Err(error)) => Err(InvalidYaml {
                at: Position {
                    line: error.marker().line().max(1),
                    column: error.marker().col() + 1,
                },
                message: error.info(),
            }),
            None => Ok((Event::StreamEnd, Position { line: 1, column: 1 })),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, InvalidYaml> {
        let (event, at) = self.next()?;
        self.node_of(event, at, depth)
    }

    fn node_of(
        &mut self,
        event: Event<'t>,
        at: Position,
        depth: usize,
    ) -> Result<Node, InvalidYaml> {
        if depth > MAX_DEPTH {
            return Err(invalid(
                at,
                format!("more than {MAX_DEPTH} lists and maps inside each other"),
            ));
        }
        let (data, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref(), at)?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(id) => return self.repeat(id, at),
            // An empty document.
            _ => (Data::Null, 0),
        };
        let node = Node { at, data };
        if anchor != 0 {
            let size = node.size();
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Data, InvalidYaml> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Data::List(items)),
                (event, at) => items.push(self.node_of(event, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Data, InvalidYaml> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, at) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let name = self.key(event, at)?;
            let value = self.node(depth + 1)?;
            if plain && name == "<<" {
                merged.push(value);
                continue;
            }
            if let Some(line) = seen.insert(name.clone(), at.line) {
                return Err(invalid(
                    at,
                    format!("the key `{name}` is there twice, first on line {line}: keep one"),
                ));
            }
            entries.push((Key { at, name }, value));
        }
        for value in merged {
            merge(value, &mut entries)?;
        }
        Ok(Data::Map(entries))
    }

    fn key(&mut self, event: Event<'t>, at: Position) -> Result<String, InvalidYaml> {
        match event {
            Event::Scalar(text, ..) => Ok(text.into_owned()),
            Event::Alias(id) => match self.repeat(id, at)?.data {
                Data::Text(text) => Ok(text),
                _ => Err(invalid(at, "a key must be text")),
            },
            _ => Err(invalid(at, "a key must be text, not a list or map")),
        }
    }

    /// What an alias stands for, at the place of the alias.
    fn repeat(&mut self, id: usize, at: Position) -> Result<Node, InvalidYaml> {
        let Some((node, size)) = self.anchors.get(&id) else {
            return Err(invalid(at, "an alias inside of what it stands for"));
        };
        self.repeated += size;
        if self.repeated > MAX_REPEATED {
            return Err(invalid(
                at,
                format!("aliases repeat more than {MAX_REPEATED} values: write them out"),
            ));
        }
        let mut node = node.clone();
        node.at = at;
        Ok(node)
    }
}

/// `<<`: entries that are not there yet.
fn merge(value: Node, entries: &mut Vec<(Key, Node)>) -> Result<(), InvalidYaml> {
    match value.data {
        Data::Map(more) => {
            for (key, value) in more {
                if !entries.iter().any(|(known, _)| known.name == key.name) {
                    entries.push((key, value));
                }
            }
            Ok(())
        }
        Data::List(maps) => maps.into_iter().try_for_each(|map| merge(map, entries)),
        _ => Err(invalid(
            value.at,
            "`<<` takes a map or a list of maps, as an alias",
        )),
    }
}

fn invalid(at: Position, message: impl Into<String>) -> InvalidYaml {
    InvalidYaml {
        at,
        message: message.into(),
    }
}

fn position(span: &Span) -> Position {
    Position {
        line: span.start.line().max(1),
        column: span.start.col() + 1,
    }
}

const CORE: &str = "tag:yaml.org,2002:";

fn check_tag(tag: Option<&Tag>, core: &str, at: Position) -> Result<(), InvalidYaml> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.handle() == CORE && tag.suffix() == core => Ok(()),
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> InvalidYaml {
    invalid(
        at,
        format!(
            "the tag `!{}` has no meaning here: remove it",
            tag.suffix().trim_start_matches('!')
        ),
    )
}

fn scalar(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    at: Position,
) -> Result<Data, InvalidYaml> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None => Ok(Data::Text(text.to_owned())),
        Some(tag) if tag.handle() == CORE => {
            let data = plain(text);
            match (tag.suffix(), &data) {
                ("str", _) => Ok(Data::Text(text.to_owned())),
                ("int" | "float", Data::Number(_))
                | ("bool", Data::Bool(_))
                | ("null", Data::Null) => Ok(data),
                _ => Err(unknown_tag(tag, at)),
            }
        }
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

/// YAML 1.2 §10.3.2, the core schema.
fn plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "true" | "True" | "TRUE" => Data::Bool(true),
        "false" | "False" | "FALSE" => Data::Bool(false),
        _ => number(text).map_or_else(|| Data::Text(text.to_owned()), Data::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    if !(first.is_ascii_digit() || b"+-.".contains(&first)) {
        return None;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let integer = text.strip_prefix('+').unwrap_or(text);
        return match (integer.parse::<u64>(), integer.parse::<i64>()) {
            (Ok(number), _) => Some(number.into()),
            (_, Ok(number)) => Some(number.into()),
            _ => Number::from_f64(text.parse().ok()?),
        };
    }
    real(unsigned).then(|| text.parse().ok().and_then(Number::from_f64))?
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn real(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent && digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

// === impl Node ===

impl Node {
    /// Entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[(Key, Self)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key, unless it is null.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        self.entries()
            .iter()
            .find(|(key, value)| key.name == name && value.data != Data::Null)
            .map(|(_, value)| value)
    }

    /// The text, when it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As JSON, without entries that are null, as the API server drops them.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(number) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => {
                let present = entries.iter().filter(|(_, value)| value.data != Data::Null);
                let map: Map<_, _> = present
                    .map(|(key, value)| (key.name.clone(), value.to_json()))
                    .collect();
                Value::Object(map)
            }
        }
    }

    /// Where `field` (`spec.request.parameters[2].pattern`) stands: its key, or the nearest thing around it that is there.
    pub(crate) fn locate(&self, field: &str) -> Position {
        let mut node = self;
        let mut at = self.at;
        let mut rest = field;
        while !rest.is_empty() {
            let Some((next_at, next, tail)) = node.step(rest) else {
                break;
            };
            (at, node, rest) = (next_at, next, tail);
        }
        at
    }

    /// One step along a field path: place, value, what is left.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(Position, &'n Self, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if let Some(inside) = path.strip_prefix('[') {
            let (index, tail) = inside.split_once(']')?;
            return match (&self.data, index.parse::<usize>()) {
                (Data::List(items), Ok(index)) => {
                    items.get(index).map(|item| (item.at, item, tail))
                }
                _ => {
                    let name = index.trim_matches(['"', '\'']);
                    let (key, value) = self.entries().iter().find(|(key, _)| key.name == name)?;
                    Some((key.at, value, tail))
                }
            };
        }
        // The longest key that fits: keys may contain dots.
        self.entries()
            .iter()
            .filter_map(|(key, value)| {
                let tail = path.strip_prefix(key.name.as_str())?;
                (tail.is_empty() || tail.starts_with(['.', '['])).then_some((key.at, value, tail))
            })
            .min_by_key(|(_, _, tail)| tail.len())
    }

    fn size(&self) -> usize {
        1 + match &self.data {
            Data::List(items) => items.iter().map(Self::size).sum(),
            Data::Map(entries) => entries.iter().map(|(_, value)| value.size()).sum(),
            _ => 0,
        }
    }

    /// What it is, in words.
    pub(crate) fn what(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Node {
        let mut documents = parse(text).unwrap();
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let node = one(concat!(
            "[1, -2, +3, 0x1F, 0o17, 18446744073709551615, 1.5, -.5, 1e3, true, False, yes, on, 0b1, 1_000, 1.2.3, \"4\", ",
            "2026-12-01T00:00:00Z, 1:30, .inf, 12e, null]"
        ));
        assert_eq!(
            node.to_json(),
            json!([
                1,
                -2,
                3,
                31,
                15,
                18446744073709551615u64,
                1.5,
                -0.5,
                1000.0,
                true,
                false,
                "yes",
                "on",
                "0b1",
                "1_000",
                "1.2.3",
                "4",
                "2026-12-01T00:00:00Z",
                "1:30",
                ".inf",
                "12e",
                null
            ])
        );
    }

    #[test]
    fn documents_are_separate_and_empty_ones_do_not_count() {
        let documents = parse("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].at, Position { line: 7, column: 1 });
    }

    #[test]
    fn anchors_and_merge_keys_work_within_a_document() {
        let node = one("base: &b {a: 1, b: 2}\nuse: {<<: *b, b: 3}\nagain: *b\n");
        assert_eq!(
            node.to_json(),
            json!({"base": {"a": 1, "b": 2}, "use": {"b": 3, "a": 1}, "again": {"a": 1, "b": 2}})
        );
        assert!(parse("a: &x 1\n---\nb: *x\n").is_err());
    }

    #[test]
    fn a_field_path_leads_to_its_key_or_to_what_is_nearest() {
        let node =
            one("spec:\n  list:\n  - {name: a}\n  - name: b\n    pattern: x\n  a.b:\n    c: 1\n");
        let at = |field: &str| node.locate(field).to_string();
        assert_eq!(at("spec"), "1:1");
        assert_eq!(at("spec.list[1].pattern"), "5:5");
        assert_eq!(at("spec.list[1]"), "4:5");
        assert_eq!(at("spec.list[7].pattern"), "2:3");
        assert_eq!(at("spec.a.b.c"), "7:5");
        assert_eq!(at("spec.nothing.here"), "1:1");
        assert_eq!(at("status"), "1:1");
    }

    #[test]
    fn what_is_refused_says_where_and_why() {
        let bomb = {
            let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
            for level in 1..9 {
                let before = format!("*a{}", level - 1);
                text += &format!(
                    "a{level}: &a{level} [{}]\n",
                    [before.as_str(); 9].join(", ")
                );
            }
            text
        };
        let deep = "[".repeat(70) + &"]".repeat(70);
        for (text, expected) in [
            (
                "a: 1\nb: 2\na: 3\n",
                "3:1 the key `a` is there twice, first on line 1: keep one",
            ),
            (
                "a: !thing 1\n",
                "1:11 the tag `!thing` has no meaning here: remove it",
            ),
            (
                "a: !!int x\n",
                "1:10 the tag `!int` has no meaning here: remove it",
            ),
            ("? [a]\n: 1\n", "1:3 a key must be text, not a list or map"),
            (
                &bomb,
                "aliases repeat more than 100000 values: write them out",
            ),
            (&deep, "1:66 more than 64 lists and maps inside each other"),
            (
                "<<: 1\n",
                "1:5 `<<` takes a map or a list of maps, as an alias",
            ),
            ("a: &x [*x]\n", "an alias inside of what it stands for"),
        ] {
            let error = parse(text).unwrap_err();
            let said = format!("{} {}", error.at, error.message);
            assert!(said.contains(expected), "{said:?} lacks {expected:?}");
        }
    }

    #[test]
    fn broken_text_names_its_line() {
        for (text, line) in [
            ("a: 1\n b: 2\n", 2),
            ("a: [1, 2\n", 2),
            ("a: \"x\n", 2),
            ("a:\n\t- 1\n", 2),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.at.line <= line, "{text:?}: {error:?}");
            assert!(!error.message.is_empty());
        }
    }
}
