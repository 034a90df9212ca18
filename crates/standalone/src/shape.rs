//! Shapes of objects, and what a tree has that its shape does not: unknown fields, wrong types, missing fields, unknown words.
//!
//! The shapes of the six kinds are read from their generated definitions, so that they cannot drift from the Rust types. Rules beyond the
//! type of each field (lengths, patterns, what fits together) belong to the compiler.

use std::{collections::BTreeMap, sync::OnceLock};

use paifang_compiler::{Problem, Reason};
use paifang_resources::{Kind, Time, definitions};
use serde_json::Value;

use crate::{
    suggest,
    yaml::{Data, Node},
};

/// What may stand somewhere.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Anything: nobody here reads it.
    Any,
    /// A map of these fields.
    Object {
        fields: BTreeMap<String, Shape>,
        required: Vec<String>,
    },
    /// A map of any keys.
    Map(Box<Shape>),
    /// A list.
    List(Box<Shape>),
    /// Text, one of these words unless there are none.
    Text(Vec<String>),
    /// RFC 3339.
    Time,
    /// A whole number between these, inclusive.
    Integer(i64, i64),
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// A port: a number or a name.
    IntegerOrText,
}

/// The shape of the spec of one of the six kinds.
pub(crate) fn of_spec(kind: Kind) -> &'static Shape {
    static SHAPES: OnceLock<BTreeMap<Kind, Shape>> = OnceLock::new();
    let shapes = SHAPES.get_or_init(|| {
        let all = definitions().map(|definition| {
            let json = serde_json::to_value(&definition).unwrap_or_default();
            let spec = json
                .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
                .map_or(Shape::Any, of_schema);
            (
                json["spec"]["names"]["kind"].as_str().map(str::to_owned),
                spec,
            )
        });
        let named = all
            .into_iter()
            .filter_map(|(name, shape)| Some((name?.parse().ok()?, shape)));
        named.collect()
    });
    shapes.get(&kind).unwrap_or(&Shape::Any)
}

/// From the part of OpenAPI that Kubernetes' structural schemas use.
fn of_schema(schema: &Value) -> Shape {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return Shape::IntegerOrText;
    }
    match schema["type"].as_str() {
        Some("object") => match schema.get("properties") {
            Some(Value::Object(fields)) => Shape::Object {
                fields: fields
                    .iter()
                    .map(|(name, field)| (name.clone(), of_schema(field)))
                    .collect(),
                required: words(&schema["required"]),
            },
            _ => Shape::Map(Box::new(
                schema
                    .get("additionalProperties")
                    .map_or(Shape::Any, of_schema),
            )),
        },
        Some("array") => Shape::List(Box::new(of_schema(&schema["items"]))),
        Some("string") if schema["format"] == "date-time" => Shape::Time,
        Some("string") => Shape::Text(words(&schema["enum"])),
        Some("integer") => Shape::Integer(
            bound(&schema["minimum"], 0),
            // Of the types, u32 is the narrowest; those that take more say so.
            bound(&schema["maximum"], i64::from(u32::MAX)),
        ),
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Bool,
        _ => Shape::Any,
    }
}

fn bound(value: &Value, otherwise: i64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounds are whole numbers below 2^53"
    )]
    let whole = |number: f64| number as i64;
    value
        .as_i64()
        .or_else(|| value.as_f64().map(whole))
        .unwrap_or(otherwise)
}

fn words(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    texts
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

// === impl Shape ===

impl Shape {
    /// A map of these fields, all optional.
    pub(crate) fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object {
            fields: fields
                .into_iter()
                .map(|(name, shape)| (name.to_owned(), shape))
                .collect(),
            required: Vec::new(),
        }
    }

    /// The same with fields that must be there.
    pub(crate) fn requiring<const N: usize>(self, names: [&str; N]) -> Self {
        match self {
            Self::Object { fields, .. } => Self::Object {
                fields,
                required: names.map(str::to_owned).into(),
            },
            other => other,
        }
    }

    /// Any text.
    pub(crate) const fn text() -> Self {
        Self::Text(Vec::new())
    }

    /// A map from any key to text.
    pub(crate) fn texts() -> Self {
        Self::Map(Box::new(Self::text()))
    }

    /// A list.
    pub(crate) fn list(items: Self) -> Self {
        Self::List(Box::new(items))
    }

    /// Every mistake in `node`, which is called `field`.
    pub(crate) fn check(&self, node: &Node, field: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.walk(node, field, &mut problems);
        problems
    }

    fn walk(&self, node: &Node, field: &str, problems: &mut Vec<Problem>) {
        match (self, &node.data) {
            (Self::Any, _) | (Self::Number, Data::Number(_)) | (Self::Bool, Data::Bool(_)) => {}
            (Self::Object { fields, required }, Data::Map(_)) => {
                object(fields, required, node, field, problems);
            }
            (Self::Map(values), Data::Map(entries)) => {
                for (key, value) in present(entries) {
                    values.walk(value, &join(field, &key.name), problems);
                }
            }
            (Self::List(shape), Data::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    shape.walk(item, &format!("{field}[{index}]"), problems);
                }
            }
            (Self::Text(words), Data::Text(text)) => one_of(words, text, field, problems),
            (Self::Time, Data::Text(text)) => time(text, field, problems),
            (Self::Integer(low, high), Data::Number(number)) => {
                integer(*low, *high, number, field, problems);
            }
            (Self::IntegerOrText, Data::Text(_)) => {}
            (Self::IntegerOrText, Data::Number(number)) if number.as_i64().is_some() => {}
            _ => problems.push(self.mistyped(node, field)),
        }
    }

    fn mistyped(&self, node: &Node, field: &str) -> Problem {
        let (wanted, fix) = match (self, &node.data) {
            (Self::Text(_) | Self::Time, Data::Number(_) | Data::Bool(_)) => {
                ("text", format!("put it in quotes: \"{}\"", plain(node)))
            }
            (Self::Text(_), _) => ("text", String::new()),
            (Self::Time, _) => ("a time", "as in 2027-01-31T00:00:00Z".to_owned()),
            (Self::Integer(..) | Self::Number, Data::Text(_)) => {
                ("a number", "write it without quotes".to_owned())
            }
            (Self::Integer(..), _) => ("a whole number", String::new()),
            (Self::Number, _) => ("a number", String::new()),
            (Self::Bool, Data::Text(_)) => (
                "true or false",
                "write true or false, without quotes".to_owned(),
            ),
            (Self::Bool, _) => ("true or false", String::new()),
            (Self::IntegerOrText, _) => ("a number or a name", String::new()),
            (Self::List(_), _) => ("a list", "begin each entry with `- `".to_owned()),
            _ => ("a map", "write `key: value` below it".to_owned()),
        };
        Problem::new(
            field,
            Reason::Malformed,
            format!("takes {wanted}, not {}", node.what()),
            fix,
        )
    }
}

fn object(
    fields: &BTreeMap<String, Shape>,
    required: &[String],
    node: &Node,
    field: &str,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in node.entries() {
        let here = join(field, &key.name);
        match fields.get(&key.name) {
            Some(_) if value.data == Data::Null => {}
            Some(shape) => shape.walk(value, &here, problems),
            None => problems.push(unknown(here, &key.name, fields)),
        }
    }
    for name in required {
        if node.get(name).is_none() {
            problems.push(Problem::new(
                join(field, name),
                Reason::Required,
                "is missing",
                "add it",
            ));
        }
    }
}

fn unknown(field: String, name: &str, fields: &BTreeMap<String, Shape>) -> Problem {
    let fix = match suggest::nearest(name, fields.keys().map(String::as_str)) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("remove it, or use one of {}", listed(fields.keys())),
    };
    Problem::new(field, Reason::Malformed, "unknown field", fix)
}

fn one_of(words: &[String], text: &str, field: &str, problems: &mut Vec<Problem>) {
    if words.is_empty() || words.iter().any(|word| word == text) {
        return;
    }
    let fix = match suggest::nearest(text, words.iter().map(String::as_str)) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("use one of {}", listed(words.iter())),
    };
    problems.push(Problem::new(
        field,
        Reason::InvalidValue,
        format!("`{}` is not a value it takes", crate::text::shortened(text)),
        fix,
    ));
}

fn time(text: &str, field: &str, problems: &mut Vec<Problem>) {
    if serde_json::from_value::<Time>(Value::String(text.to_owned())).is_err() {
        problems.push(Problem::new(
            field,
            Reason::InvalidValue,
            format!("`{}` is not a time", crate::text::shortened(text)),
            "write it as in 2027-01-31T00:00:00Z",
        ));
    }
}

fn integer(
    low: i64,
    high: i64,
    number: &serde_json::Number,
    field: &str,
    problems: &mut Vec<Problem>,
) {
    let problem = match number.as_i64() {
        Some(value) if (low..=high).contains(&value) => return,
        None if number.is_f64() => Problem::new(
            field,
            Reason::InvalidValue,
            format!("{number} is not a whole number"),
            "",
        ),
        _ => Problem::new(
            field,
            Reason::OutOfRange,
            format!("{number} is out of range"),
            format!("use {low} to {high}"),
        ),
    };
    problems.push(problem);
}

fn present(
    entries: &[(crate::yaml::Key, Node)],
) -> impl Iterator<Item = &(crate::yaml::Key, Node)> {
    entries.iter().filter(|(_, value)| value.data != Data::Null)
}

fn plain(node: &Node) -> String {
    match &node.data {
        Data::Number(number) => number.to_string(),
        Data::Bool(value) => value.to_string(),
        _ => String::new(),
    }
}

fn join(field: &str, name: &str) -> String {
    if field.is_empty() {
        name.to_owned()
    } else {
        format!("{field}.{name}")
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(kind: Kind, spec: &str) -> Vec<String> {
        let node = crate::yaml::parse(spec).unwrap().remove(0);
        of_spec(kind)
            .check(&node, "spec")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn every_kind_has_a_shape_with_fields() {
        for kind in Kind::ALL {
            assert!(
                matches!(of_spec(kind), Shape::Object { fields, .. } if fields.len() > 3),
                "{kind}"
            );
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_field_and_a_fix() {
        for (kind, spec, expected) in [
            (
                Kind::ApiGroup,
                "{displayNme: x}",
                "spec.displayNme: unknown field; did you mean `displayName`?",
            ),
            (
                Kind::ApiGroup,
                "{qpsLimit: many}",
                "spec.qpsLimit: takes a number, not text; write it without quotes",
            ),
            (
                Kind::ApiGroup,
                "{qpsLimit: 1.5}",
                "spec.qpsLimit: 1.5 is not a whole number",
            ),
            (
                Kind::ApiGroup,
                "{qpsLimit: -1}",
                "spec.qpsLimit: -1 is out of range; use 1 to 1000000",
            ),
            (
                Kind::ApiGroup,
                "{filterAppCodeForBackend: yes}",
                "spec.filterAppCodeForBackend: takes true or false, not text; write true or false, without quotes",
            ),
            (
                Kind::ApiGroup,
                "{httpsPolicy: HTTPS2_TLS1_1}",
                "spec.httpsPolicy: `HTTPS2_TLS1_1` is not a value it takes; did you mean",
            ),
            (
                Kind::ApiGroup,
                "{stageVariables: {TEST: {n: 1}}}",
                "spec.stageVariables.TEST.n: takes text, not a number; put it in quotes: \"1\"",
            ),
            (
                Kind::BackendService,
                "{stages: {}}",
                "spec.type: is missing; add it",
            ),
            (
                Kind::BackendService,
                "[x]",
                "spec: takes a map, not a list; write `key: value` below it",
            ),
            (
                Kind::Authorization,
                "{apps: web, stage: RELEASE, expiresAt: tomorrow}",
                "spec.apps: takes a list, not text; begin each entry with `- `",
            ),
            (
                Kind::Authorization,
                "{apps: [], stage: RELEASE, expiresAt: tomorrow}",
                "spec.expiresAt: `tomorrow` is not a time; write it as in 2027-01-31T00:00:00Z",
            ),
        ] {
            let problems = problems(kind, spec);
            assert!(
                problems.iter().any(|said| said.starts_with(expected)),
                "{spec}: {problems:?}"
            );
        }
    }

    #[test]
    fn nulls_count_as_absent() {
        assert_eq!(
            problems(
                Kind::ApiGroup,
                "{displayName: null, stageVariables: {TEST: }}"
            ),
            [""; 0]
        );
        assert_eq!(
            problems(Kind::BackendService, "{type: }"),
            ["spec.type: is missing; add it"]
        );
    }
}
