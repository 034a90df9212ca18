//! The path sent to a backend, ready to be written.

use std::sync::Arc;

use paifang_model::{Location, PathTemplate, Segment, percent};

use crate::wire;

/// A backend's path: pieces to write one after the other, then what the request's tail matched, if `tail` says so.
#[derive(Debug, PartialEq, Eq)]
pub struct BackendPath {
    /// In order. The first begins with `/`; the last ends with `/` if a tail follows.
    pub pieces: Box<[PathPiece]>,
    /// Whether the request's tail ([`super::Captures::tail`]) is appended, encoded as it came.
    pub tail: bool,
}

/// A piece of a [`BackendPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPiece {
    /// This text, percent-encoded already, slashes included.
    Text(Arc<str>),
    /// The value of the parameter at this position of [`super::Api::parameters`], to be percent-encoded.
    Parameter(u16),
}

// === impl BackendPath ===

impl BackendPath {
    /// Fails when a `[name]` is not the backend name of a parameter that goes to the path.
    pub(super) fn new(
        template: &PathTemplate,
        parameters: &[wire::Parameter],
    ) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        for segment in template.segments() {
            text.push('/');
            match segment {
                Segment::Literal(literal) => encode_segment(literal, &mut text),
                Segment::Parameter(name) => {
                    pieces.push(PathPiece::Text(std::mem::take(&mut text).into()));
                    pieces.push(PathPiece::Parameter(position(name, parameters)?));
                }
            }
        }
        if template.has_tail() {
            text.push('/');
        }
        if !text.is_empty() {
            pieces.push(PathPiece::Text(text.into()));
        }
        Ok(Self {
            pieces: pieces.into(),
            tail: template.has_tail(),
        })
    }
}

fn position(name: &str, parameters: &[wire::Parameter]) -> Result<u16, String> {
    parameters
        .iter()
        .position(|it| it.backend_location == Location::Path && it.backend_name == name)
        .and_then(|at| u16::try_from(at).ok())
        .ok_or_else(|| {
            format!("`[{name}]` in the backend path is not the backend name of a parameter that goes to Path")
        })
}

/// Escapes what may not stand in a path segment (RFC 3986 §3.3: `pchar`).
fn encode_segment(literal: &str, out: &mut String) {
    percent::escape(literal, out, |byte| {
        percent::is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(backend_name: &str, backend_location: Location) -> wire::Parameter {
        wire::Parameter {
            name: backend_name.into(),
            location: Location::Query,
            kind: paifang_model::ParameterType::String,
            array: false,
            required: false,
            default: None,
            rules: wire::Rules::default(),
            backend_name: backend_name.into(),
            backend_location,
        }
    }

    #[test]
    fn templates_become_encoded_text_and_positions() {
        let parameters = [
            parameter("x", Location::Query),
            parameter("x", Location::Path),
            parameter("y", Location::Path),
        ];
        let text = |text: &str| PathPiece::Text(text.into());
        let rows = [
            ("/", vec![text("/")], false),
            ("/*", vec![text("/")], true),
            ("/a%20b/天", vec![text("/a%20b/%E5%A4%A9")], false),
            ("/a/*", vec![text("/a/")], true),
            (
                "/a/[x]/[y]/",
                vec![
                    text("/a/"),
                    PathPiece::Parameter(1),
                    text("/"),
                    PathPiece::Parameter(2),
                    text("/"),
                ],
                false,
            ),
            (
                "/[y]/*",
                vec![text("/"), PathPiece::Parameter(2), text("/")],
                true,
            ),
        ];
        for (template, pieces, tail) in rows {
            let path = BackendPath::new(&template.parse().unwrap(), &parameters).unwrap();
            assert_eq!((&*path.pieces, path.tail), (&*pieces, tail), "{template}");
        }
        let unknown = BackendPath::new(&"/[z]".parse().unwrap(), &parameters).unwrap_err();
        assert!(unknown.contains("[z]"));
    }
}
