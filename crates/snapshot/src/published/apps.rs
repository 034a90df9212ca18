//! Callers with their credentials: the same for every gateway, and secret as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    cut,
    group::supported,
    part::{Hash, InvalidPart, Part, Piece, cut_piece, json, read_piece},
};
use crate::wire;

/// Names the pieces that hold all callers. Secret like them: it holds the salt.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppsManifest {
    /// [`wire::FORMAT`] of the writer.
    pub format: u32,
    /// Random text that is part of every piece: without it, the hash of a piece would let anyone who sees the name of an object try
    /// out weak AppCodes.
    pub salt: String,
    /// Runs of Apps, in order.
    #[serde(default)]
    pub apps: Vec<Piece>,
}

/// Callers, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedApps {
    /// The manifest.
    pub manifest: AppsManifest,
    /// The parts that it names. Secret.
    pub parts: BTreeMap<Hash, Part>,
}

#[derive(Serialize, Deserialize)]
struct Run {
    salt: String,
    apps: Vec<Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    app: wire::App,
    credentials: Vec<wire::Credential>,
}

// === impl AppsManifest ===

impl AppsManifest {
    /// The manifest as text. Equal manifests have equal texts.
    pub fn text(&self) -> String {
        String::from_utf8(json(self)).unwrap_or_default()
    }

    /// Names the content; says nothing about it.
    pub fn hash(&self) -> Hash {
        Hash::of(&json(self))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is no manifest, or of a format that this version does not read.
    pub fn read(text: &str) -> Result<Self, InvalidPart> {
        let manifest: Self = serde_json::from_str(text).map_err(InvalidPart::Manifest)?;
        supported(manifest.format)?;
        Ok(manifest)
    }

    /// Every part that it names.
    pub fn parts(&self) -> impl Iterator<Item = &Hash> {
        self.apps.iter().flatten()
    }
}

impl std::fmt::Debug for AppsManifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppsManifest")
            .field("format", &self.format)
            .field("apps", &self.apps)
            .finish_non_exhaustive()
    }
}

/// Cuts all callers into parts. `credentials` are ordered by App, as compile gives them.
pub fn publish_apps(
    apps: &wire::Apps,
    credentials: &[wire::Credential],
    salt: &str,
) -> PublishedApps {
    let mut entries: Vec<Entry> = apps
        .apps
        .iter()
        .map(|app| Entry {
            app: app.clone(),
            credentials: Vec::new(),
        })
        .collect();
    for credential in credentials {
        let at = entries.binary_search_by(|entry| entry.app.name.cmp(&credential.app));
        if let Some(entry) = at.ok().and_then(|at| entries.get_mut(at)) {
            entry.credentials.push(credential.clone());
        }
    }
    let mut parts = BTreeMap::new();
    let mut runs = Vec::new();
    cut::runs(
        &entries,
        |entry| &entry.app.name.name,
        |range| {
            let run = Run {
                salt: salt.to_owned(),
                apps: entries[range].to_vec(),
            };
            runs.push(cut_piece(&json(&run), &mut |part: Part| {
                parts.insert(part.hash.clone(), part);
            }));
        },
    );
    PublishedApps {
        manifest: AppsManifest {
            format: wire::FORMAT,
            salt: salt.to_owned(),
            apps: runs,
        },
        parts,
    }
}

/// All callers put together from the parts that `find` has.
///
/// # Errors
/// When a part is missing or altered, or cannot be read; what was known before stays in force then.
pub fn assemble_apps<'p>(
    manifest: &AppsManifest,
    find: impl Fn(&Hash) -> Option<&'p [u8]>,
) -> Result<(wire::Apps, Vec<wire::Credential>), InvalidPart> {
    let mut apps = wire::Apps {
        format: manifest.format,
        apps: Vec::new(),
    };
    let mut credentials = Vec::new();
    for piece in &manifest.apps {
        for entry in read_piece::<Run>(piece, &find)?.apps {
            apps.apps.push(entry.app);
            credentials.extend(entry.credentials);
        }
    }
    credentials.sort();
    Ok((apps, credentials))
}
