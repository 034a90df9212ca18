//! How a snapshot travels in a cluster: bounded parts named by their content, and one small manifest for each group.
//!
//! A group is cut into pieces: its head, runs of Apis with their routes and backends, runs of grants. Where a run ends depends on the
//! names in it alone, so that a change of one Api changes one piece. A piece longer than [`PART_BYTES`] travels as several parts;
//! nothing is too large to be published. What a manifest names is found and checked by hash: a part that was altered is refused, and
//! the gateway keeps what it has. Equal content gives equal parts and equal manifests.
//!
//! Deliberately absent: Kubernetes objects, which the controller makes of these values and a gateway turns back into them.

mod apps;
mod cut;
mod group;
mod part;

pub use self::{
    apps::{AppsManifest, PublishedApps, assemble_apps, publish_apps},
    group::{GroupManifest, PublishedGroup, assemble_group, certificates_of, publish_group},
    part::{Hash, InvalidHash, InvalidPart, PART_BYTES, Part, Piece, pack, unpack},
};
use crate::wire;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Material<'c> {
    /// Makes the part one instance's: its object is labelled for that one.
    instance: std::borrow::Cow<'c, str>,
    certificate: std::borrow::Cow<'c, wire::Certificate>,
}

/// The material of one Secret, from the part that `hash` names.
///
/// # Errors
/// When the bytes are not such material, or not those that `hash` names.
pub fn certificate(hash: &Hash, raw: &[u8]) -> Result<wire::Certificate, InvalidPart> {
    part::check(hash, raw)?;
    serde_json::from_slice::<Material<'_>>(raw)
        .map(|material| material.certificate.into_owned())
        .map_err(|error| InvalidPart::Unreadable {
            hash: hash.clone(),
            error,
        })
}

/// A certificate as a part for the gateways of `instance`. It is one part whatever its length: PEM sizes are bounded by the compiler.
/// Secret.
pub fn publish_certificate(instance: &str, certificate: &wire::Certificate) -> Part {
    Part::new(part::json(&Material {
        instance: instance.into(),
        certificate: std::borrow::Cow::Borrowed(certificate),
    }))
}
