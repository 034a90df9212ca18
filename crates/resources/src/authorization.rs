//! `Authorization`: these apps may call these Apis in this stage until then.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, LocalRef, NamespacedRef, Time, rules, schema};

/// What a user writes of an [`Authorization`].
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paifang.dev",
    version = "v1alpha1",
    kind = "Authorization",
    plural = "authorizations",
    singular = "authorization",
    shortname = "pfauth",
    category = "paifang",
    namespaced,
    status = "AuthorizationStatus",
    derive = "PartialEq",
    doc = "These apps may call these Apis in this stage until then. Lives in the namespace of the Apis it opens.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Stage", type_ = "string", json_path = ".spec.stage"),
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.group.name"),
    printcolumn(
        name = "Apis",
        type_ = "string",
        json_path = ".spec.apis",
        priority = 1
    ),
    printcolumn(
        name = "Apps",
        type_ = "string",
        json_path = ".spec.apps",
        priority = 1
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        format = "date-time",
        json_path = ".spec.expiresAt"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::AUTHORIZATION)))]
pub struct AuthorizationSpec {
    /// The Apis it opens, in this namespace; or `group`. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub apis: Vec<LocalRef>,
    /// Opens every Api of this namespace that belongs to this group; or `apis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<NamespacedRef>,
    /// The apps that may call; at most 100.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub apps: Vec<NamespacedRef>,
    /// The stage it opens.
    #[schemars(schema_with = "schema::stage")]
    pub stage: String,
    /// Refused from this instant on; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub expires_at: Option<Time>,
    /// Why; at most 180 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 180))]
    pub description: Option<String>,
}

/// What is true of an [`Authorization`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::pending()))]
pub struct AuthorizationStatus {
    /// Accepted, ResolvedRefs, Programmed, Ready; and what is wrong, while it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
