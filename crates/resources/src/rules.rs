//! CEL rules as they stand in the schema. Each says what a user did wrong and what to write instead.

use serde_json::{Value, json};

/// `x-kubernetes-validations` from pairs of rule and message.
pub(crate) fn cel(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect()
}
