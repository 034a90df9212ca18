//! `DomainBinding`: a host name, or a wildcard, for a group, with its certificate.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, LocalRef, SecretRef, rules, schema};

/// What a user writes of a [`DomainBinding`].
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paifang.dev",
    version = "v1alpha1",
    kind = "DomainBinding",
    plural = "domainbindings",
    singular = "domainbinding",
    shortname = "pfd",
    category = "paifang",
    namespaced,
    status = "DomainBindingStatus",
    derive = "PartialEq",
    doc = "A host name, or a wildcard, for a group, with its certificate.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.groupRef.name"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".spec.stage"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Network",
        type_ = "string",
        json_path = ".spec.network",
        priority = 1
    ),
    printcolumn(
        name = "Certificate",
        type_ = "string",
        json_path = ".spec.tls.secretRef.name",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DomainBindingSpec {
    /// The ApiGroup that answers, in this namespace.
    pub group_ref: LocalRef,
    /// A host name, `api.example.com`, or a wildcard for one label, `*.api.example.com`; no port.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::cel(rules::DOMAIN)))]
    pub domain: String,
    /// The stage that answers; absent: the caller's `X-Ca-Stage` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::stage")]
    pub stage: Option<String>,
    /// Internet: the public listeners. Intranet: the internal one.
    #[serde(default)]
    pub network: Network,
    /// The domain's certificate; absent: plain HTTP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DomainTls>,
    /// Open the two-way WebSocket channel on this domain (Ref §7).
    #[serde(default)]
    pub web_socket: bool,
}

/// The listeners that answer for a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Network {
    /// The public listeners.
    #[default]
    Internet,
    /// The internal listener.
    Intranet,
}

/// A domain's certificate and what goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::DOMAIN_TLS)))]
pub struct DomainTls {
    /// Secret of type `kubernetes.io/tls`; certificate and key at most 20 KB each.
    pub secret_ref: SecretRef,
    /// Secret whose `ca.crt` signs the clients' certificates; turns mutual TLS on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_secret_ref: Option<SecretRef>,
    /// Send the client certificate's subject to the backend as `X-Client-S-Dn`; with `clientCaSecretRef`.
    #[serde(default)]
    pub pass_client_subject: bool,
    /// Answer plain HTTP with a redirect to HTTPS.
    #[serde(default)]
    pub redirect_http: bool,
}

/// What is true of a [`DomainBinding`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::pending()))]
pub struct DomainBindingStatus {
    /// Accepted, ResolvedRefs, Programmed, Ready; and what is wrong, while it is (Conflicted, CertificateExpiring).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
