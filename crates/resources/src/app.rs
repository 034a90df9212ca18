//! `App`: a caller's identity, AppKey/AppSecret pairs and AppCodes.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, SecretRef, Time, rules, schema};

/// What a user writes of an [`App`].
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paifang.dev",
    version = "v1alpha1",
    kind = "App",
    plural = "apps",
    singular = "app",
    shortname = "pfapp",
    category = "paifang",
    namespaced,
    status = "AppStatus",
    derive = "PartialEq",
    doc = "A caller's identity: AppKey/AppSecret pairs and AppCodes.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "AppId", type_ = "integer", json_path = ".status.appId"),
    printcolumn(name = "Disabled", type_ = "boolean", json_path = ".spec.disabled"),
    printcolumn(
        name = "DisplayName",
        type_ = "string",
        json_path = ".spec.displayName",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AppSpec {
    /// Name shown to people: Chinese or Latin letter first, then those, digits and `_`; 4 to 26 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 26), regex(pattern = schema::DISPLAY_NAME))]
    pub display_name: Option<String>,
    /// Who the caller is; at most 180 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 180))]
    pub description: Option<String>,
    /// Refuse the app's calls.
    #[serde(default)]
    pub disabled: bool,
    /// The app's keys and codes; several of each are live at once, which is how a secret is rotated without an outage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<Credential>,
}

/// One key pair or AppCode of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::CREDENTIAL)))]
pub struct Credential {
    /// Name inside the app.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL_NAME))]
    pub name: String,
    /// KeyPair: AppKey and AppSecret. AppCode: one shared word.
    #[serde(rename = "type")]
    pub type_: CredentialType,
    /// Secret with the keys `appKey` and `appSecret`, or `appCode`. Absent: the controller makes one, named `<app>-<credential>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Refused before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub not_before: Option<Time>,
    /// Refused from this instant on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub expires_at: Option<Time>,
}

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialType {
    /// AppKey and AppSecret, for signatures.
    KeyPair,
    /// One shared word.
    AppCode,
}

/// What is true of an [`App`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::pending()))]
pub struct AppStatus {
    /// The app's stable number, as backends get it in `CaAppId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub app_id: Option<i64>,
    /// The state of each credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<CredentialStatus>,
    /// Accepted, ResolvedRefs, Programmed, Ready; and what is wrong, while it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The state of one credential. An AppSecret and an AppCode never stand here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Name inside the app.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether callers can use it now.
    pub state: CredentialState,
    /// The AppKey of a key pair; public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub app_key: Option<String>,
    /// Why it is not active: the field and the fix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Whether callers can use a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialState {
    /// In use.
    Active,
    /// Its `notBefore` has not come.
    NotYetActive,
    /// Its `expiresAt` has passed.
    Expired,
    /// Its Secret is missing or lacks a key.
    Invalid,
    /// An older App has the same AppKey or AppCode.
    Conflicted,
}
