//! Content of Secrets for credentials that name none. Where random bytes come from is the caller's matter.

use std::collections::BTreeMap;

use paifang_model::Redacted;

use crate::{Secret, SecretKind};

/// AppKeys are decimal, as those of the cloud product.
const APP_KEY_DIGITS: usize = 12;

impl SecretKind {
    /// A Secret with random content: 128 bits for an AppCode, as in the cloud product, 192 for an AppSecret. `fill` fills a slice with
    /// random bytes from the system.
    ///
    /// # Errors
    /// That of `fill`.
    pub fn make<E>(self, mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Secret, E> {
        let data: Vec<(&str, String)> = match self {
            Self::KeyPair => vec![
                ("appKey", digits(APP_KEY_DIGITS, &mut fill)?),
                ("appSecret", hex(24, &mut fill)?),
            ],
            Self::AppCode => vec![("appCode", hex(16, &mut fill)?)],
        };
        let redact =
            |(key, value): (&str, String)| (key.to_owned(), Redacted::new(value.into_bytes()));
        Ok(Secret {
            kind: "Opaque".to_owned(),
            data: data.into_iter().map(redact).collect::<BTreeMap<_, _>>(),
        })
    }
}

fn bytes<E>(count: usize, fill: &mut impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let mut bytes = vec![0; count];
    fill(&mut bytes)?;
    Ok(bytes)
}

fn hex<E>(count: usize, fill: &mut impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<String, E> {
    let bytes = bytes(count, fill)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Begins with 2. It is public, so a slight preference for some digits does no harm.
fn digits<E>(count: usize, fill: &mut impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<String, E> {
    let random = bytes(count - 1, fill)?;
    let rest = random.iter().map(|byte| char::from(b'0' + byte % 10));
    Ok(std::iter::once('2').chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_has_the_keys_that_are_read_and_differs_with_the_randomness() {
        let with = |byte: u8| {
            move |slice: &mut [u8]| {
                slice.fill(byte);
                Ok::<(), ()>(())
            }
        };
        let pair = SecretKind::KeyPair.make(with(1)).unwrap();
        assert_eq!(
            pair.data.keys().collect::<Vec<_>>(),
            ["appKey", "appSecret"]
        );
        assert_eq!(pair.data["appKey"].expose().len(), 12);
        assert_eq!(pair.data["appSecret"].expose().len(), 48);
        assert_ne!(pair, SecretKind::KeyPair.make(with(2)).unwrap());
        let code = SecretKind::AppCode.make(with(1)).unwrap();
        assert_eq!(code.data["appCode"].expose().len(), 32);
        assert_eq!(SecretKind::AppCode.make(|_| Err("none")), Err("none"));
    }
}
