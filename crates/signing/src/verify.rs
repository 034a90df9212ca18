//! Whether a signature is that of a request (Ref §1.4).

use std::fmt;

use crate::canonical::{Headers, Parts, PathAs, Reading, Scratch};
use crate::key::{Algorithm, Claimed, Key};
use crate::parameters::Winner;

/// How much of a string to sign [`Mismatch::hint`] shows, in bytes: it travels in a response header.
pub const HINT_MAX_BYTES: usize = 4096;

/// A signature that is not the request's, with the server's string to sign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mismatch<'s> {
    text: &'s [u8],
}

/// Checks `signature_b64` (`X-Ca-Signature`) against the request, with `signed_headers` (`X-Ca-Signature-Headers`),
/// `algorithm` ([`Algorithm::from_header`]) and the AppSecret's key.
///
/// Malformed Base64 is a mismatch like any other. For an unknown AppKey pass [`Key::dummy`]: same work, never `Ok`.
///
/// The readings that are tried, in this order; the first is what nearly every request needs, and a later one costs its
/// HMAC only after a mismatch and only if it is a different string:
///
/// | | path | query | name in query and form | tried if |
/// | --- | --- | --- | --- | --- |
/// | 1 | decoded | decoded | query's value | always |
/// | 2 | as sent | decoded | query's value | the path holds an escape |
/// | 3 | decoded | decoded | form's value | the values differ |
/// | 4 | as sent | decoded | form's value | both |
/// | 5 | as sent | as sent | form's value | the query holds `%` or `+`, and the signed headers list `X-Ca-Key` in this case |
///
/// The fifth is the Python demo client's, which signs its URL without decoding it. It is kept to clients that spell
/// their headers so, because under it a carrier may turn `%2B` into `+`: the SDKs that decode list `x-ca-key`, and the
/// list's spelling is itself signed.
///
/// Not imitated, because part of a value would go unsigned: the Python demo's cutting of a value at its second `=`, and
/// the Node SDK's `a=1,2` for `a=1&a=2` (Ref §1.6).
///
/// # Errors
///
/// [`Mismatch`]: the signature belongs to no reading of the request. It borrows the server's string to sign.
pub fn verify<'s, H: Headers + ?Sized>(
    parts: &Parts<'_, H>,
    signature_b64: &[u8],
    signed_headers: Option<&[u8]>,
    algorithm: Algorithm,
    key: &Key,
    scratch: &'s mut Scratch,
) -> Result<(), Mismatch<'s>> {
    let claimed = Claimed::parse(signature_b64, algorithm);
    let outlook = scratch.write_first(parts, signed_headers);
    if key.signed(&scratch.first, &claimed) {
        return Ok(());
    }
    let others = [
        (outlook.path_differs, PathAs::Sent, Winner::Query),
        (outlook.collision, PathAs::Decoded, Winner::Form),
        (
            outlook.path_differs && outlook.collision,
            PathAs::Sent,
            Winner::Form,
        ),
    ];
    for (differs, path, winner) in others {
        if differs
            && key.signed(
                scratch.write_other(parts.raw_path, outlook, Reading { path, winner }),
                &claimed,
            )
        {
            return Ok(());
        }
    }
    if outlook.query_as_sent && key.signed(scratch.write_as_sent(parts, outlook), &claimed) {
        return Ok(());
    }
    Err(Mismatch {
        text: &scratch.first,
    })
}

// === impl Mismatch ===

impl<'s> Mismatch<'s> {
    /// The server's string to sign in its first reading. It holds what the request held, and no secret.
    pub fn string_to_sign(&self) -> &'s [u8] {
        self.text
    }

    /// The string in the form that the SDKs expect in `X-Ca-Error-Message` (Ref §3.2): line feeds as `#`, in
    /// backticks. Fit for a header: other control characters are `%XX`, invalid UTF-8 is U+FFFD, and what is longer
    /// than [`HINT_MAX_BYTES`] ends in `...`.
    pub fn hint(&self) -> String {
        hint(self.text)
    }
}

/// See [`Mismatch::hint`].
fn hint(text: &[u8]) -> String {
    let shown = &text[..text.len().min(HINT_MAX_BYTES)];
    let cut = shown.len() < text.len();
    // Backs off to the start of a character that the limit would halve.
    let shown = match str::from_utf8(shown) {
        Err(error) if cut && error.error_len().is_none() => &shown[..error.valid_up_to()],
        _ => shown,
    };
    let mut hint = String::with_capacity(shown.len() + 8);
    hint.push('`');
    for char in String::from_utf8_lossy(shown).chars() {
        match char {
            '\n' => hint.push('#'),
            control if control.is_ascii_control() => {
                hint.push_str(&format!("%{:02X}", u32::from(control)))
            }
            other => hint.push(other),
        }
    }
    hint.push_str(if cut { "...`" } else { "`" });
    hint
}

impl fmt::Debug for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mismatch")
            .field(&String::from_utf8_lossy(self.text))
            .finish()
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature is not that of the request")
    }
}

impl std::error::Error for Mismatch<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_joins_lines_and_stands_in_backticks() {
        assert_eq!(hint(b"GET\n\n\n\n\n/p?a=1"), "`GET#####/p?a=1`");
        assert_eq!(hint("GET\n/张 三".as_bytes()), "`GET#/张 三`");
    }

    #[test]
    fn a_hint_fits_a_header_whatever_the_request_held() {
        assert_eq!(hint(b"a\r\nb\0\x7f\xff"), "`a%0D#b%00%7F\u{fffd}`");
        let long = hint("张".repeat(HINT_MAX_BYTES).as_bytes());
        assert!(
            long.len() <= HINT_MAX_BYTES + 5 && long.ends_with("张...`"),
            "{}",
            long.len()
        );
    }
}
