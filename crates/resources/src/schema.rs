//! Schemas of leaves that derive cannot say: patterns, foreign types, and maps keyed by stage.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::rules;

/// A DNS subdomain (RFC 1123), as Kubernetes wants names of objects.
pub(crate) const OBJECT_NAME: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A DNS label (RFC 1123), as Kubernetes wants names of namespaces.
pub(crate) const LABEL_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Letters (Chinese or Latin) first, then those, digits and `_` (Ref §10).
pub(crate) const DISPLAY_NAME: &str = r"^[A-Za-z\p{Han}][A-Za-z0-9_\p{Han}]*$";
/// A stage (Ref §5.1).
pub(crate) const STAGE: &str = r"^[A-Z0-9]{2,10}$";
/// A token of RFC 9110 §5.6.2.
pub(crate) const HEADER_NAME: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// A field value of RFC 9110 §5.5, UTF-8 allowed.
pub(crate) const HEADER_VALUE: &str = r"^[^\x00-\x08\x0A-\x1F\x7F]*$";
/// A parameter's name: no spaces and no control characters.
pub(crate) const PARAMETER_NAME: &str = r"^[^\x00-\x20\x7F]+$";
/// An authority: name, IPv4 address or bracketed IPv6 address, and perhaps a port.
pub(crate) const AUTHORITY: &str =
    r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$";

/// Stages that one object may speak of.
pub(crate) const MAX_STAGES: u32 = 20;

/// Name of a Kubernetes object.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": OBJECT_NAME})
}

/// Name of a Kubernetes namespace.
pub(crate) fn namespace_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL_NAME})
}

/// Name of a stage.
pub(crate) fn stage(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 2, "maxLength": 10, "pattern": STAGE})
}

/// An instant, RFC 3339.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A number or a name of a port.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 15,
        "x-kubernetes-validations": rules::cel(rules::PORT),
    })
}

/// Variables per stage (Ref §5.2).
pub(crate) fn stage_variables(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": MAX_STAGES,
        "x-kubernetes-validations": rules::cel(rules::STAGES),
        "additionalProperties": {
            "type": "object", "maxProperties": 50,
            "x-kubernetes-validations": rules::cel(rules::VARIABLES),
            "additionalProperties": {"type": "string", "maxLength": 1024},
        },
    })
}

/// Fixed addresses, `host:port` each.
pub(crate) fn addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 32, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 3, "maxLength": 262,
            "x-kubernetes-validations": rules::cel(rules::HOST_PORT),
        },
    })
}

/// Kubernetes' list of conditions, keyed by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": condition(),
    })
}

fn condition() -> Value {
    json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": {
                "type": "string", "maxLength": 316,
                "description": "What is judged, in CamelCase.",
            },
            "status": {
                "type": "string", "enum": ["True", "False", "Unknown"],
                "description": "The verdict.",
            },
            "observedGeneration": {
                "type": "integer", "format": "int64", "minimum": 0,
                "description": "The metadata.generation that was judged; smaller than the current one means out of date.",
            },
            "reason": {
                "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                "description": "A stable CamelCase word for programs.",
            },
            "message": {
                "type": "string", "maxLength": 32768,
                "description": "A sentence for people: the field and the fix.",
            },
            "lastTransitionTime": {
                "type": "string", "format": "date-time",
                "description": "When the verdict last changed.",
            },
        },
    })
}

/// Kubernetes' label selector.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object", "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "description": "Labels that must be there with these values.",
            },
            "matchExpressions": {
                "type": "array", "maxItems": 32, "x-kubernetes-list-type": "atomic",
                "description": "Requirements that must all hold.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317, "description": "The label."},
                        "operator": {
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label relates to the values.",
                        },
                        "values": {
                            "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": 63},
                            "description": "Values for In and NotIn; empty for the others.",
                        },
                    },
                },
            },
        },
    })
}

/// The status before any controller has looked: conditions unknown, reason Pending (as Gateway API does).
pub(crate) fn pending() -> Value {
    let condition = |name: &str| {
        json!({
            "type": name, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    let conditions = ["Accepted", "ResolvedRefs", "Programmed", "Ready"].map(condition);
    json!({ "conditions": conditions })
}
