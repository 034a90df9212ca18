//! `ApiGroup`: owns domains and a base path; the unit in which configuration is compiled and published.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, LabelSelector, StageMap, rules, schema};

/// What a user writes of an [`ApiGroup`].
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paifang.dev",
    version = "v1alpha1",
    kind = "ApiGroup",
    plural = "apigroups",
    singular = "apigroup",
    shortname = "pfg",
    category = "paifang",
    namespaced,
    status = "ApiGroupStatus",
    derive = "PartialEq",
    doc = "Owns domains and a base path; the unit in which configuration is compiled and published.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "BasePath", type_ = "string", json_path = ".spec.basePath"),
    printcolumn(
        name = "SubDomain",
        type_ = "string",
        json_path = ".status.subDomains.public"
    ),
    printcolumn(
        name = "Test",
        type_ = "integer",
        json_path = ".status.apis.TEST",
        description = "Apis published in TEST"
    ),
    printcolumn(
        name = "Pre",
        type_ = "integer",
        json_path = ".status.apis.PRE",
        description = "Apis published in PRE"
    ),
    printcolumn(
        name = "Release",
        type_ = "integer",
        json_path = ".status.apis.RELEASE",
        description = "Apis published in RELEASE"
    ),
    printcolumn(
        name = "Instance",
        type_ = "string",
        json_path = ".spec.instance",
        priority = 1
    ),
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".spec.httpsPolicy",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ApiGroupSpec {
    /// Name shown to people: Chinese or Latin letter first, then those, digits and `_`; 4 to 50 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 50), regex(pattern = schema::DISPLAY_NAME))]
    pub display_name: Option<String>,
    /// What the group is for; at most 180 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 180))]
    pub description: Option<String>,
    /// Stands in front of every path of the group.
    #[serde(default = "default_base_path")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = rules::cel(rules::BASE_PATH)))]
    pub base_path: String,
    /// The fleet of gateway pods that serves the group.
    #[serde(default = "default_instance")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL_NAME))]
    pub instance: String,
    /// Requests per second that the group takes; all that arrive count, refused ones too.
    #[serde(default = "default_qps_limit")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub qps_limit: u32,
    /// The host names that the group has by itself.
    #[serde(default)]
    pub sub_domain: SubDomain,
    /// HTTP version and TLS versions on the group's domains (Ref §8.3): HTTPS1_1_TLS1_0, HTTPS2_TLS1_0, HTTPS2_TLS1_2
    /// (1.2 only) or HTTPS2_TLS1_3 (1.2 and 1.3). The TLS 1.0 names are served with TLS 1.2 as the floor.
    #[serde(default)]
    pub https_policy: HttpsPolicy,
    /// Values of `#Name#` in the group's Apis, per stage; at most 50 per stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::stage_variables")]
    pub stage_variables: StageMap<BTreeMap<String, String>>,
    /// The namespaces whose Apis may join the group.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// Takes the caller's AppCode out of the request before it goes to the backend.
    #[serde(default)]
    pub filter_app_code_for_backend: bool,
}

/// The host names that a group has by itself, for trying out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubDomain {
    /// Answer on the public sub-domain.
    #[serde(default = "default_true")]
    pub public: bool,
    /// Answer on the internal sub-domain.
    #[serde(default)]
    pub internal: bool,
    /// Calls a day that the public sub-domain takes.
    #[serde(default = "default_daily_quota")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub daily_quota: u32,
}

/// HTTP version and TLS versions of a group's domains (Ref §8.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum HttpsPolicy {
    /// HTTP/1.1; TLS 1.0 and up in the cloud product, TLS 1.2 here.
    #[serde(rename = "HTTPS1_1_TLS1_0")]
    Https11Tls10,
    /// HTTP/2; TLS 1.0 and up in the cloud product, TLS 1.2 here.
    #[serde(rename = "HTTPS2_TLS1_0")]
    Https2Tls10,
    /// HTTP/2; TLS 1.2 only.
    #[serde(rename = "HTTPS2_TLS1_2")]
    Https2Tls12,
    /// HTTP/2; TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "HTTPS2_TLS1_3")]
    Https2Tls13,
}

/// The namespaces whose Apis may join a group (as `allowedRoutes.namespaces` of Gateway API).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::ALLOWED_NAMESPACES)))]
pub struct AllowedNamespaces {
    /// Same: the group's own namespace. All: every namespace. Selector: those that `selector` picks.
    #[serde(default)]
    pub from: NamespacesFrom,
    /// Labels of the namespaces, with `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// How [`AllowedNamespaces`] picks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    /// The group's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Namespaces whose labels match.
    Selector,
}

/// What is true of an [`ApiGroup`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::pending()))]
pub struct ApiGroupStatus {
    /// The group's stable id, 32 hexadecimal digits: from the object's uid, or in standalone from namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub group_id: Option<String>,
    /// The host names that the group has by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_domains: Option<SubDomainNames>,
    /// Apis published per stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = schema::MAX_STAGES))]
    pub apis: StageMap<u32>,
    /// Host names bound to the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub domains: Vec<String>,
    /// Accepted, ResolvedRefs, Programmed, Ready; and what is wrong, while it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The sub-domains of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubDomainNames {
    /// On the public listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub public: Option<String>,
    /// On the internal listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub internal: Option<String>,
}

// === impl ApiGroupSpec ===

impl Default for ApiGroupSpec {
    fn default() -> Self {
        Self {
            display_name: None,
            description: None,
            base_path: default_base_path(),
            instance: default_instance(),
            qps_limit: default_qps_limit(),
            sub_domain: SubDomain::default(),
            https_policy: HttpsPolicy::default(),
            stage_variables: BTreeMap::new(),
            allowed_namespaces: AllowedNamespaces::default(),
            filter_app_code_for_backend: false,
        }
    }
}

// === impl SubDomain ===

impl Default for SubDomain {
    fn default() -> Self {
        Self {
            public: true,
            internal: false,
            daily_quota: default_daily_quota(),
        }
    }
}

fn default_base_path() -> String {
    "/".to_owned()
}

fn default_instance() -> String {
    "default".to_owned()
}

fn default_qps_limit() -> u32 {
    500
}

fn default_daily_quota() -> u32 {
    1000
}

fn default_true() -> bool {
    true
}
