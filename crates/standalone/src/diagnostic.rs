//! What is said about a folder: where, about which object and field, what is wrong, what to write instead.

use std::{fmt, path::PathBuf};

use serde::{Serialize, Serializer};

use crate::Position;

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The file, relative to the folder; empty when it is about no file.
    pub file: PathBuf,
    /// The place in the file; none when it is about the whole of it.
    #[serde(flatten, serialize_with = "place")]
    pub at: Option<Position>,
    /// Whether something is refused, or only noteworthy.
    pub severity: Severity,
    /// The object, `Api demo/get-forecast`; empty when it is about none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field, `spec.request.path`; empty when it is about none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// One stable word.
    pub reason: &'static str,
    /// What is wrong. Never a secret.
    pub message: String,
    /// What to do; may be empty when the message says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is refused.
    Error,
    /// Something is ignored, or offline on purpose.
    Warning,
}

// === impl Diagnostic ===

impl Diagnostic {
    /// An error about a whole file.
    pub(crate) fn of_file(
        file: impl Into<PathBuf>,
        reason: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            at: None,
            severity: Severity::Error,
            object: String::new(),
            field: String::new(),
            reason,
            message: message.into(),
            fix: fix.into(),
        }
    }

    /// The same at a place.
    pub(crate) fn at(mut self, at: Position) -> Self {
        self.at = Some(at);
        self
    }

    /// The same as a warning.
    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same about an object.
    pub(crate) fn about(mut self, object: impl fmt::Display) -> Self {
        self.object = object.to_string();
        self
    }

    /// The same about a field.
    pub(crate) fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Object, field, message and fix, without the place.
    pub fn sentence(&self) -> String {
        let mut said = String::new();
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                said.push_str(part);
                said.push_str(": ");
            }
        }
        said.push_str(&self.message);
        if !self.fix.is_empty() {
            said.push_str("; ");
            said.push_str(&self.fix);
        }
        said
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", self.file.display())?;
            if let Some(at) = self.at {
                write!(f, ":{at}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.sentence())
    }
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

fn place<S: Serializer>(at: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(None)?;
    if let Some(at) = at {
        map.serialize_entry("line", &at.line)?;
        map.serialize_entry("column", &at.column)?;
    }
    map.end()
}
