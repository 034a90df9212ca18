//! JSON Schemas of parameters: compiled at load, offline, and refused when checking a value could take more than linear time.
//!
//! Draft 4 unless `$schema` names another draft (Ref §11.13). Deliberately absent: references to other documents, recursive
//! references and identifiers below the root. What remains can be written out in full, and the size of that bounds the work for
//! each part of a value.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use super::{json, pattern};

/// Longest schema, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Most objects of a schema when every reference is replaced by what it refers to.
const MAX_EXPANDED: u32 = 2048;
/// Most objects inside each other, references written out.
const MAX_EXPANDED_DEPTH: u32 = 128;
/// Longest value that is checked against a schema, in bytes.
const MAX_VALUE_BYTES: usize = 128 * 1024;

/// A compiled JSON Schema.
pub struct Schema(Validator);

/// Why a text is not a JSON Schema that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchema {
    /// Longer than the limit, in bytes.
    #[error("a JSON Schema has at most {0} bytes")]
    Length(usize),
    /// Not JSON; nested too deep; or with a key twice.
    #[error("a JSON Schema must be JSON, with no key twice: {0}")]
    Json(String),
    /// Neither an object nor a draft's boolean.
    #[error("a JSON Schema must be an object")]
    Type,
    /// `$schema` is not a draft that is known.
    #[error("`$schema` must name draft 4, 6, 7, 2019-09 or 2020-12")]
    Draft,
    /// A `$ref` that does not lead to a place in the same schema.
    #[error(
        "`$ref` must lead to a place in the same schema, as in `#/definitions/name`, not `{0}`"
    )]
    Reference(String),
    /// A reference that leads back to itself.
    #[error("`$ref` `{0}` is recursive: write out as many levels as a value may have")]
    Recursive(String),
    /// `$dynamicRef` or `$recursiveRef`; or a `$ref` in a schema that has identifiers or anchors below its root.
    #[error("`{0}` is not supported, or not together with `$ref`")]
    Unsupported(String),
    /// More objects than the limit when references are replaced by what they refer to.
    #[error("the JSON Schema has more than {0} objects when its references are written out")]
    Size(u32),
    /// More objects inside each other than the limit when references are replaced by what they refer to.
    #[error("the JSON Schema nests more than {0} objects when its references are written out")]
    Depth(u32),
    /// Not a valid schema of its draft; also a `pattern` that is no regular expression or too large.
    #[error("not a valid JSON Schema: {0}")]
    Invalid(String),
}

/// Why a value does not satisfy a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaViolation {
    /// Not JSON; nested too deep; or with a key twice, which readers disagree about.
    #[error("must be JSON, at most 64 levels deep, with no key twice")]
    Json,
    /// Longer than is checked.
    #[error("must have at most 131072 bytes")]
    Length,
    /// JSON, but not as the schema asks.
    #[error("must satisfy its JSON Schema")]
    Unsatisfied,
}

/// Compiles a JSON Schema of a parameter. What this accepts, [`super::Table::load`] loads. `format` is checked where the draft does.
///
/// # Errors
/// When it is no JSON Schema, needs another document, or could take more than linear time.
pub fn compile_schema(text: &str) -> Result<Schema, InvalidSchema> {
    if text.len() > MAX_BYTES {
        return Err(InvalidSchema::Length(MAX_BYTES));
    }
    let mut schema = json::parse(text).map_err(|error| InvalidSchema::Json(error.to_string()))?;
    let root = schema.as_object_mut().ok_or(InvalidSchema::Type)?;
    let draft = draft(root)?;
    // References are local, so the root's own name is of no use, and cannot lead anywhere either.
    for name in ["$id", "id"] {
        if root.get(name).is_some_and(Value::is_string) {
            root.remove(name);
        }
    }
    Expansion::measure(&schema)?;
    build(&schema, draft)
}

fn draft(root: &Map<String, Value>) -> Result<Draft, InvalidSchema> {
    let Some(named) = root.get("$schema") else {
        return Ok(Draft::Draft4);
    };
    let named = named.as_str().ok_or(InvalidSchema::Draft)?;
    match Draft::from_schema_uri(named) {
        Draft::Unknown => Err(InvalidSchema::Draft),
        draft => Ok(draft),
    }
}

/// A panic in the library over a schema that nobody thought of must not stop a load.
fn build(schema: &Value, draft: Draft) -> Result<Schema, InvalidSchema> {
    let patterns = PatternOptions::regex()
        .size_limit(pattern::SIZE_LIMIT)
        .dfa_size_limit(pattern::DFA_SIZE_LIMIT);
    let built = catch_unwind(AssertUnwindSafe(|| {
        jsonschema::options()
            .with_draft(draft)
            .offline()
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| InvalidSchema::Invalid(short(&error.to_string())))
    }));
    built
        .unwrap_or_else(|_| Err(InvalidSchema::Invalid("it cannot be compiled".to_owned())))
        .map(Schema)
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

// === impl Schema ===

impl Schema {
    /// Whether `text` is JSON that satisfies the schema. Time is linear in the text.
    ///
    /// # Errors
    /// When it is not JSON, too long, or not as the schema asks.
    pub fn check(&self, text: &str) -> Result<(), SchemaViolation> {
        if text.len() > MAX_VALUE_BYTES {
            return Err(SchemaViolation::Length);
        }
        let value = json::parse(text).map_err(|_| SchemaViolation::Json)?;
        if self.0.is_valid(&value) {
            Ok(())
        } else {
            Err(SchemaViolation::Unsatisfied)
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

/// How large a schema is when every reference is replaced by what it refers to. Everything is taken for a schema here, also what
/// stands in `enum` or `default`: that counts too much, never too little.
struct Expansion<'s> {
    root: &'s Value,
    /// By address of the object; `None` while it is being measured.
    sizes: HashMap<*const Value, Option<u32>>,
    depth: u32,
    has_reference: bool,
    /// An identifier or anchor below the root: a reference could be relative to it.
    identifier: Option<&'s str>,
}

// === impl Expansion ===

impl<'s> Expansion<'s> {
    fn measure(root: &'s Value) -> Result<(), InvalidSchema> {
        let mut expansion = Self {
            root,
            sizes: HashMap::new(),
            depth: 0,
            has_reference: false,
            identifier: None,
        };
        if expansion.size(root)? > MAX_EXPANDED {
            return Err(InvalidSchema::Size(MAX_EXPANDED));
        }
        match expansion.identifier {
            Some(name) if expansion.has_reference => {
                Err(InvalidSchema::Unsupported(name.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn size(&mut self, value: &'s Value) -> Result<u32, InvalidSchema> {
        match value {
            Value::Array(items) => self.sum(items.iter()),
            Value::Object(members) => self.object(value, members),
            _ => Ok(0),
        }
    }

    fn object(
        &mut self,
        value: &'s Value,
        members: &'s Map<String, Value>,
    ) -> Result<u32, InvalidSchema> {
        let address = std::ptr::from_ref(value);
        match self.sizes.get(&address) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => return Err(InvalidSchema::Recursive(String::new())),
            None => {}
        }
        // Objects inside each other, by nesting or by reference: what a check may have on the stack.
        self.depth += 1;
        if self.depth > MAX_EXPANDED_DEPTH {
            return Err(InvalidSchema::Depth(MAX_EXPANDED_DEPTH));
        }
        self.sizes.insert(address, None);
        let referred = self.reference(members)?;
        // What the root defines is looked at where it is referred to. Elsewhere the word could be the name of a property.
        let skipped =
            |name: &str| matches!(name, "definitions" | "$defs") && std::ptr::eq(value, self.root);
        let parts: Vec<&Value> = members
            .iter()
            .filter(|(name, _)| !skipped(name))
            .map(|(_, part)| part)
            .collect();
        let size = self.sum(parts.into_iter())?.saturating_add(referred);
        let size = size.saturating_add(1);
        self.sizes.insert(address, Some(size));
        self.depth -= 1;
        Ok(size)
    }

    fn sum(&mut self, values: impl Iterator<Item = &'s Value>) -> Result<u32, InvalidSchema> {
        values.into_iter().try_fold(
            0_u32,
            |sum, value| Ok(sum.saturating_add(self.size(value)?)),
        )
    }

    /// The size of what an object refers to.
    fn reference(&mut self, members: &'s Map<String, Value>) -> Result<u32, InvalidSchema> {
        for name in ["$dynamicRef", "$recursiveRef"] {
            if members.get(name).is_some_and(Value::is_string) {
                return Err(InvalidSchema::Unsupported(name.to_owned()));
            }
        }
        for name in ["$id", "id", "$anchor", "$dynamicAnchor"] {
            if members.get(name).is_some_and(Value::is_string) {
                self.identifier = Some(name);
            }
        }
        let Some(Value::String(reference)) = members.get("$ref") else {
            return Ok(0);
        };
        self.has_reference = true;
        let target = resolve(self.root, reference)
            .ok_or_else(|| InvalidSchema::Reference(short(reference)))?;
        self.size(target).map_err(|error| match error {
            InvalidSchema::Recursive(by) if by.is_empty() => {
                InvalidSchema::Recursive(short(reference))
            }
            other => other,
        })
    }
}

/// The place that `#` or `#/a/b` leads to (RFC 6901 §6).
fn resolve<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    if pointer.contains('%') {
        return None;
    }
    root.pointer(pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_and_checked() {
        let schema = compile_schema(
            r##"{
                "type": "object", "required": ["a"], "additionalProperties": false,
                "properties": {"a": {"$ref": "#/definitions/word"}, "b": {"type": "integer", "maximum": 5}},
                "definitions": {"word": {"type": "string", "pattern": "^[a-z]+$"}}
            }"##,
        )
        .unwrap();
        let rows = [
            (r#"{"a": "x"}"#, Ok(())),
            (r#"{"a": "x", "b": 5}"#, Ok(())),
            (r#"{"a": "x", "b": 6}"#, Err(SchemaViolation::Unsatisfied)),
            (r#"{"a": "X"}"#, Err(SchemaViolation::Unsatisfied)),
            (r#"{"a": "x", "c": 1}"#, Err(SchemaViolation::Unsatisfied)),
            (r#"{"b": 1}"#, Err(SchemaViolation::Unsatisfied)),
            (r#"{"a": "X", "a": "x"}"#, Err(SchemaViolation::Json)),
            ("{", Err(SchemaViolation::Json)),
            ("", Err(SchemaViolation::Json)),
            ("[]", Err(SchemaViolation::Unsatisfied)),
        ];
        for (text, expected) in rows {
            assert_eq!(schema.check(text), expected, "{text}");
        }
        let long = format!("\"{}\"", "x".repeat(MAX_VALUE_BYTES));
        assert_eq!(schema.check(&long), Err(SchemaViolation::Length));
    }

    #[test]
    fn draft_4_unless_the_schema_says_otherwise() {
        // In draft 4 a boolean, from draft 6 on a number.
        let exclusive = r#"{"minimum": 1, "exclusiveMinimum": true}"#;
        let schema = compile_schema(exclusive).unwrap();
        assert_eq!(schema.check("1"), Err(SchemaViolation::Unsatisfied));
        assert_eq!(schema.check("2"), Ok(()));
        let newer = r#"{"$schema": "http://json-schema.org/draft-07/schema#", "const": 1}"#;
        assert_eq!(
            compile_schema(newer).unwrap().check("2"),
            Err(SchemaViolation::Unsatisfied)
        );
        assert_eq!(
            compile_schema(r#"{"const": 1}"#).unwrap().check("2"),
            Ok(())
        );
        assert_eq!(
            compile_schema(r#"{"$schema": "https://example.com/mine"}"#).unwrap_err(),
            InvalidSchema::Draft
        );
    }

    #[test]
    fn what_could_take_for_ever_is_refused() {
        type Error = InvalidSchema;
        let refused = |text: &str| compile_schema(text).unwrap_err();
        for remote in [
            "http://127.0.0.1:9/x",
            "file:///etc/passwd",
            "other.json",
            "#name",
            "#/no",
        ] {
            let text = format!(r#"{{"properties": {{"a": {{"$ref": "{remote}"}}}}}}"#);
            assert!(matches!(refused(&text), Error::Reference(_)), "{remote}");
        }
        for recursive in [
            r##"{"$ref": "#"}"##,
            r##"{"allOf": [{"$ref": "#"}]}"##,
            r##"{"properties": {"next": {"$ref": "#"}}}"##,
            r##"{"x": [{"$ref": "#/x"}]}"##,
            r##"{"$ref": "#/definitions/a", "definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"$ref": "#/definitions/a"}}}"##,
        ] {
            assert!(
                matches!(refused(recursive), Error::Recursive(_)),
                "{recursive}"
            );
        }
        assert!(matches!(
            refused(r##"{"$dynamicRef": "#a"}"##),
            Error::Unsupported(_)
        ));
        let renamed = r##"{"definitions": {"d": {}}, "properties": {"a": {"id": "x", "allOf": [{"$ref": "#/definitions/d"}]}}}"##;
        assert!(matches!(refused(renamed), Error::Unsupported(_)));
        assert!(matches!(refused(&chain(500)), Error::Depth(_)));
        assert!(matches!(
            refused(r#"{"pattern": "(?=a)"}"#),
            Error::Invalid(_)
        ));
        assert!(matches!(
            refused(r#"{"pattern": "((\\w{99}){99}){99}"}"#),
            Error::Invalid(_)
        ));
        assert!(matches!(refused(r#"{"type": "strin"}"#), Error::Invalid(_)));
        assert!(matches!(
            refused(r#"{"type": "string", "type": "object"}"#),
            Error::Json(_)
        ));
        assert!(matches!(refused("[]"), Error::Type));
        assert!(matches!(refused(&"[".repeat(1000)), Error::Json(_)));
        assert!(matches!(
            refused(&" ".repeat(MAX_BYTES + 1)),
            Error::Length(_)
        ));
    }

    /// `count` definitions, each of which is the next one.
    fn chain(count: usize) -> String {
        let definitions: Vec<String> = (0..count)
            .map(|at| format!(r##""d{at}": {{"$ref": "#/definitions/d{}"}}"##, at + 1))
            .collect();
        let definitions = definitions.join(",");
        format!(
            r##"{{"definitions": {{{definitions}, "d{count}": {{"type": "null"}}}}, "$ref": "#/definitions/d0"}}"##
        )
    }

    #[test]
    fn references_may_be_nested_so_far() {
        let schema = compile_schema(&chain(100)).unwrap();
        assert_eq!(schema.check("null"), Ok(()));
        assert_eq!(schema.check("1"), Err(SchemaViolation::Unsatisfied));
    }

    /// Each of 30 definitions refers to the next one twice: a gigabyte when written out.
    #[test]
    fn doubling_references_are_measured_not_followed() {
        let definitions: Vec<String> = (0..30)
            .map(|at| {
                let next = at + 1;
                format!(r##""d{at}": {{"allOf": [{{"$ref": "#/definitions/d{next}"}}, {{"$ref": "#/definitions/d{next}"}}]}}"##)
            })
            .collect();
        let text = format!(
            r##"{{"$ref": "#/definitions/d0", "definitions": {{{}, "d30": {{}}}}}}"##,
            definitions.join(",")
        );
        assert_eq!(
            compile_schema(&text).unwrap_err(),
            InvalidSchema::Size(MAX_EXPANDED)
        );
    }

    #[test]
    fn identifiers_are_fine_where_nothing_refers() {
        let text = r#"{"id": "http://example.com/x", "properties": {"id": {"type": "string"}, "a": {"id": "b"}}}"#;
        let schema = compile_schema(text).unwrap();
        assert_eq!(schema.check(r#"{"id": "x"}"#), Ok(()));
        assert_eq!(
            schema.check(r#"{"id": 1}"#),
            Err(SchemaViolation::Unsatisfied)
        );
    }
}
