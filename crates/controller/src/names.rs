//! How published values are objects: names, labels, annotations, and back.
//!
//! | object | holds |
//! | --- | --- |
//! | ConfigMap `paifang-part-<hash>` | a part of a group's routing, compressed; immutable |
//! | ConfigMap `paifang-group-<group id>` | the group's manifest |
//! | Secret `paifang-cert-<hash>` | a certificate, compressed; immutable |
//! | Secret `paifang-cred-<hash>` | Apps and their credentials, compressed; immutable |
//! | Secret `paifang-apps` | the manifest of all Apps |

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::core::ObjectMeta;
use paifang_snapshot::published::{self, Hash, Part};

/// Label of everything the controller makes.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value, also the controller's name as a field manager.
pub(crate) const MANAGER: &str = "paifang-controller";
/// Label selector of everything the controller publishes.
pub(crate) const MANAGED: &str = "app.kubernetes.io/managed-by=paifang-controller";
/// Label selector of gateway pods.
pub(crate) const GATEWAY_PODS: &str =
    "app.kubernetes.io/name=paifang,app.kubernetes.io/component=gateway";
/// Label that says which instance an object is for, of pods and of published objects.
pub(crate) const INSTANCE: &str = "paifang.dev/instance";
/// Value of [`INSTANCE`] for every instance; names of instances are lower case.
pub(crate) const EVERY_INSTANCE: &str = "ALL";
/// Name of the manifest of all Apps.
pub(crate) const APPS: &str = "paifang-apps";

const PART: &str = "paifang.dev/part";
const MANIFEST: &str = "paifang.dev/manifest";
const GROUP: &str = "paifang.dev/group";
const DATA: &str = "part";
const TEXT: &str = "manifest";

/// Type of a published object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    ConfigMap,
    Secret,
}

/// A published object, as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) type_: Type,
    pub(crate) name: String,
    /// `metadata.resourceVersion`.
    pub(crate) version: String,
    pub(crate) content: Content,
}

/// What it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A part whose content is what its name says.
    Sound,
    /// A part that was altered.
    Altered,
    /// A manifest: the hash of its text, and the instance it is labelled for.
    Manifest { text: Hash, instance: String },
}

/// What kind of part it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartKind {
    Routing,
    Certificate,
    Credential,
}

/// An object that may be one of ours.
pub(crate) trait Publishable {
    /// What it is; none for an object of another's.
    fn published(self) -> Option<Published>;
}

// === impl PartKind ===

impl PartKind {
    /// Type of the object that holds it.
    pub(crate) fn type_(self) -> Type {
        match self {
            Self::Routing => Type::ConfigMap,
            Self::Certificate | Self::Credential => Type::Secret,
        }
    }

    /// Name of the object that holds the part.
    pub(crate) fn name(self, hash: &Hash) -> String {
        format!("{}{hash}", self.prefix())
    }

    /// The object that holds the part.
    pub(crate) fn object(self, hash: &Hash) -> (Type, String) {
        (self.type_(), self.name(hash))
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Routing => "paifang-part-",
            Self::Certificate => "paifang-cert-",
            Self::Credential => "paifang-cred-",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Certificate => "certificate",
            Self::Credential => "credential",
        }
    }

    fn of(name: &str) -> Option<(Self, Hash)> {
        [Self::Routing, Self::Certificate, Self::Credential]
            .into_iter()
            .find_map(|kind| Some((kind, name.strip_prefix(kind.prefix())?.parse().ok()?)))
    }
}

/// Name of a group's manifest.
pub(crate) fn manifest_name(group_id: &str) -> String {
    format!("paifang-group-{group_id}")
}

/// Whether a name is that of an object that this module makes.
pub(crate) fn is_part(name: &str) -> bool {
    PartKind::of(name).is_some()
}

/// Whether a name is that of a group's manifest.
pub(crate) fn is_group_manifest(name: &str) -> bool {
    name.starts_with("paifang-group-")
}

fn metadata(name: String, instance: &str, key: &str, value: &str) -> ObjectMeta {
    let labels = [
        (MANAGED_BY, MANAGER),
        ("app.kubernetes.io/part-of", "paifang"),
        (INSTANCE, instance),
        (key, value),
    ];
    let owned = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta {
        name: Some(name),
        labels: Some(BTreeMap::from(owned)),
        ..ObjectMeta::default()
    }
}

/// A part of routing as an object.
pub(crate) fn config_map_part(part: &Part, instance: &str) -> ConfigMap {
    let name = PartKind::Routing.name(&part.hash);
    let stored = ByteString(published::pack(&part.raw));
    ConfigMap {
        metadata: metadata(name, instance, PART, PartKind::Routing.label()),
        binary_data: Some(BTreeMap::from([(DATA.to_owned(), stored)])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// A secret part as an object.
pub(crate) fn secret_part(kind: PartKind, part: &Part, instance: &str) -> Secret {
    let stored = ByteString(published::pack(&part.raw));
    Secret {
        metadata: metadata(kind.name(&part.hash), instance, PART, kind.label()),
        data: Some(BTreeMap::from([(DATA.to_owned(), stored)])),
        immutable: Some(true),
        ..Secret::default()
    }
}

/// A group's manifest as an object.
pub(crate) fn group_manifest(name: String, group: &str, instance: &str, text: String) -> ConfigMap {
    let mut metadata = metadata(name, instance, MANIFEST, "group");
    metadata.annotations = Some(BTreeMap::from([(GROUP.to_owned(), group.to_owned())]));
    ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(TEXT.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// The manifest of all Apps as an object.
pub(crate) fn apps_manifest(text: String) -> Secret {
    Secret {
        metadata: metadata(APPS.to_owned(), EVERY_INSTANCE, MANIFEST, "apps"),
        data: Some(BTreeMap::from([(
            TEXT.to_owned(),
            ByteString(text.into_bytes()),
        )])),
        ..Secret::default()
    }
}

/// The manifest in the Secret of all Apps.
pub(crate) fn apps_manifest_text(secret: &Secret) -> Option<String> {
    let text = secret.data.as_ref()?.get(TEXT)?;
    String::from_utf8(text.0.clone()).ok()
}

/// The part in a Secret, when it is sound.
pub(crate) fn certificate_part(secret: &Secret) -> Option<(Hash, Vec<u8>)> {
    let (kind, hash) = PartKind::of(secret.metadata.name.as_deref()?)?;
    let stored = secret.data.as_ref()?.get(DATA)?;
    let raw = published::unpack(&hash, &stored.0).ok()?;
    (kind == PartKind::Certificate).then_some((hash, raw))
}

/// The text of a group's manifest.
pub(crate) fn group_manifest_text(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get(TEXT).map(String::as_str)
}

fn find(
    type_: Type,
    metadata: ObjectMeta,
    text: Option<&[u8]>,
    stored: Option<&ByteString>,
) -> Option<Published> {
    let name = metadata.name?;
    let labels = metadata.labels.unwrap_or_default();
    let content = if let Some((_, hash)) = PartKind::of(&name) {
        match stored.map(|stored| published::unpack(&hash, &stored.0)) {
            Some(Ok(_)) => Content::Sound,
            _ => Content::Altered,
        }
    } else if labels.contains_key(MANIFEST) || name == APPS || is_group_manifest(&name) {
        Content::Manifest {
            text: Hash::of(text.unwrap_or_default()),
            instance: labels.get(INSTANCE).cloned().unwrap_or_default(),
        }
    } else {
        return None;
    };
    Some(Published {
        type_,
        name,
        version: metadata.resource_version.unwrap_or_default(),
        content,
    })
}

impl Publishable for ConfigMap {
    fn published(self) -> Option<Published> {
        let map = self;
        let text = map.data.as_ref().and_then(|data| data.get(TEXT));
        let stored = map.binary_data.as_ref().and_then(|data| data.get(DATA));
        find(
            Type::ConfigMap,
            map.metadata,
            text.map(String::as_bytes),
            stored,
        )
    }
}

impl Publishable for Secret {
    fn published(self) -> Option<Published> {
        let secret = self;
        let data = secret.data.as_ref();
        let text = data.and_then(|data| data.get(TEXT));
        let stored = data.and_then(|data| data.get(DATA));
        find(
            Type::Secret,
            secret.metadata,
            text.map(|text| text.0.as_slice()),
            stored,
        )
    }
}
