//! `BackendService`: a named backend of one type, with one address per stage.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BackendConfig, BackendType, Condition, StageMap, Time, rules, schema};

/// What a user writes of a [`BackendService`].
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paifang.dev",
    version = "v1alpha1",
    kind = "BackendService",
    plural = "backendservices",
    singular = "backendservice",
    shortname = "pfb",
    category = "paifang",
    namespaced,
    status = "BackendServiceStatus",
    derive = "PartialEq",
    doc = "A named backend of one type, with one address per stage.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Test",
        type_ = "integer",
        json_path = ".status.stages.TEST.apis",
        description = "Apis published in TEST through this service"
    ),
    printcolumn(
        name = "Pre",
        type_ = "integer",
        json_path = ".status.stages.PRE.apis",
        description = "Apis published in PRE through this service"
    ),
    printcolumn(
        name = "Release",
        type_ = "integer",
        json_path = ".status.stages.RELEASE.apis",
        description = "Apis published in RELEASE through this service"
    ),
    printcolumn(
        name = "Drafts",
        type_ = "integer",
        json_path = ".status.drafts",
        description = "Apis whose draft names this service"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.stages.RELEASE.update.failed",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::BACKEND_OF_TYPE)))]
pub struct BackendServiceSpec {
    /// Name shown to people: Chinese or Latin letter first, then those, digits and `_`; 4 to 50 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 50), regex(pattern = schema::DISPLAY_NAME))]
    pub display_name: Option<String>,
    /// HTTP, VPC, FunctionCompute, OSS, EventBridge or Mock; cannot be changed.
    #[serde(rename = "type")]
    #[schemars(extend("x-kubernetes-validations" = rules::cel(rules::IMMUTABLE)))]
    pub type_: BackendType,
    /// What happens when a stage that published Apis use is removed. TakeOffline: they go offline in that stage. Block: refused.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The configuration of `type` per stage. An Api can be published only in a stage that is here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = schema::MAX_STAGES, "x-kubernetes-validations" = rules::cel(rules::STAGES)))]
    pub stages: StageMap<BackendConfig>,
}

/// What happens when a stage that published Apis use is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They go offline in that stage.
    #[default]
    TakeOffline,
    /// The removal is refused.
    Block,
}

/// What is true of a [`BackendService`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::pending()))]
pub struct BackendServiceStatus {
    /// Per stage: who uses it, and how far its last change is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = schema::MAX_STAGES))]
    pub stages: StageMap<BackendStageStatus>,
    /// Apis whose draft names this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drafts: Option<u32>,
    /// Accepted, ResolvedRefs, Programmed, Ready; and what is wrong, while it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// One stage of a backend service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendStageStatus {
    /// Apis published in the stage through this service.
    #[serde(default)]
    pub apis: u32,
    /// The last change of the stage's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<BackendUpdate>,
}

/// How far a change of a stage's configuration is: `total = succeeded + inProgress + waiting + failed`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendUpdate {
    /// The service's generation that made the change.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// Apis to move.
    #[serde(default)]
    pub total: u32,
    /// Apis that every gateway serves with the new configuration.
    #[serde(default)]
    pub succeeded: u32,
    /// Apis published, not yet served by every gateway.
    #[serde(default)]
    pub in_progress: u32,
    /// Apis not yet published.
    #[serde(default)]
    pub waiting: u32,
    /// Apis that could not be moved.
    #[serde(default)]
    pub failed: u32,
    /// A row for each that failed; the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<BackendUpdateFailure>,
    /// When the change was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// When nothing was left in progress or waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
}

/// An Api that could not be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendUpdateFailure {
    /// The Api's namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// The ApiGroup it belongs to.
    #[schemars(length(max = 253))]
    pub group: String,
    /// The Api's name.
    #[schemars(length(max = 253))]
    pub api: String,
    /// A stable CamelCase word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}
