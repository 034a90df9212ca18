//! Names of objects.

use std::{fmt, str::FromStr};

/// Namespace and name of an object, ordered by namespace first. Written `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Box<str>,
    /// The name inside its namespace.
    pub name: Box<str>,
}

// === impl ObjectName ===

impl ObjectName {
    /// Both parts as the API server accepted them; nothing is checked again.
    pub fn new(namespace: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if !name.contains('/') && !namespace.is_empty() && !name.is_empty() =>
            {
                Ok(Self::new(namespace, name))
            }
            _ => Err(format!("`{text}` is not namespace/name")),
        }
    }
}

impl TryFrom<String> for ObjectName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.to_string()
    }
}
