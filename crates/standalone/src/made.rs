//! Secrets for credentials that name none: random, from the system.

use std::io;

use paifang_compiler::{Secret, SecretKind};

/// A Secret with random content.
pub(crate) fn random(kind: SecretKind) -> io::Result<Secret> {
    kind.make(|bytes| getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string())))
}
