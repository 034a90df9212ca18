//! Secrets for credentials that name none: random, from the system.

use std::io;

use paifang_compiler::{Secret, SecretKind};
use paifang_model::Redacted;

/// AppKeys are decimal, as those of the cloud product.
const APP_KEY_DIGITS: usize = 12;

/// A Secret with random content: 128 bits for an AppCode, as in the cloud product, 192 for an AppSecret.
pub(crate) fn random(kind: SecretKind) -> io::Result<Secret> {
    let data: Vec<(&str, String)> = match kind {
        SecretKind::KeyPair => vec![("appKey", digits(APP_KEY_DIGITS)?), ("appSecret", hex(24)?)],
        SecretKind::AppCode => vec![("appCode", hex(16)?)],
    };
    Ok(Secret {
        kind: "Opaque".to_owned(),
        data: data
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Redacted::new(value.into_bytes())))
            .collect(),
    })
}

fn bytes(count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

fn hex(count: usize) -> io::Result<String> {
    Ok(bytes(count)?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Begins with 2. It is public, so a slight preference for some digits does no harm.
fn digits(count: usize) -> io::Result<String> {
    let random = bytes(count - 1)?;
    let rest = random.iter().map(|byte| char::from(b'0' + byte % 10));
    Ok(std::iter::once('2').chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_has_the_keys_that_are_read_and_differs_each_time() {
        let pair = random(SecretKind::KeyPair).unwrap();
        assert_eq!(
            pair.data.keys().collect::<Vec<_>>(),
            ["appKey", "appSecret"]
        );
        assert_eq!(pair.data["appKey"].expose().len(), 12);
        assert_eq!(pair.data["appSecret"].expose().len(), 48);
        assert_ne!(pair, random(SecretKind::KeyPair).unwrap());
        let code = random(SecretKind::AppCode).unwrap();
        assert_eq!(code.data["appCode"].expose().len(), 32);
    }
}
