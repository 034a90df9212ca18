//! Distinguished names as text.

use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::Decode,
    name::Name,
};

/// The subject of a certificate as RFC 4514 writes it, in visible ASCII: what is not is written as hexadecimal pairs (§2.4), so that
/// the text can be the value of a header. `None` when the certificate cannot be read.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    let certificate = CertificateInner::<Raw>::from_der(certificate).ok()?;
    Some(text(certificate.tbs_certificate().subject()))
}

/// A name as RFC 4514 writes it.
pub(super) fn text(name: &Name) -> String {
    let plain = name.to_string();
    let mut out = String::with_capacity(plain.len());
    for b in plain.bytes() {
        if (0x20..0x7f).contains(&b) {
            out.push(char::from(b));
        } else {
            let hex = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit & 15)]);
            out.extend(['\\', hex(b >> 4), hex(b)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn names_are_visible_ascii_and_cannot_be_forged_by_their_values() {
        for (common_name, expected) in [
            ("device 7", "CN=device 7"),
            ("a,O=admin", "CN=a\\,O=admin"),
            ("é", "CN=\\c3\\a9"),
            ("a\r\nX-Evil: 1", "CN=a\\0d\\0aX-Evil: 1"),
        ] {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
            let key = KeyPair::generate().unwrap();
            let made = params.self_signed(&key).unwrap();
            assert_eq!(subject(made.der()).as_deref(), Some(expected));
        }
        assert_eq!(subject(b"garbage"), None);
    }
}
