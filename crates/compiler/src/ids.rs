//! Ids and hashes that stay the same wherever they are computed.

use paifang_model::ObjectName;
use paifang_resources::ApiSpec;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// 32 hexadecimal digits: the uid's own, or, of an object without one, from namespace and name.
pub(crate) fn group_id(name: &ObjectName, uid: Option<&str>) -> String {
    let digits: String = uid
        .unwrap_or_default()
        .replace('-', "")
        .to_ascii_lowercase();
    if digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return digits;
    }
    let mut hex = hex(&seed("ApiGroup", name, uid));
    hex.truncate(32);
    hex
}

/// A number of at most 15 digits, never 0; exact as a double, as many clients read it.
pub(crate) fn app_id(name: &ObjectName, uid: Option<&str>) -> u64 {
    let digest = seed("App", name, uid);
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(head) % 999_999_999_999_999 + 1
}

fn seed(kind: &str, name: &ObjectName, uid: Option<&str>) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update("\n");
    match uid {
        Some(uid) => hash.update(uid),
        None => hash.update(name.to_string()),
    }
    hash.finalize().to_vec()
}

/// SHA-256 of the content as canonical JSON: keys in order, no white space. Hexadecimal.
pub(crate) fn content_hash(content: &ApiSpec) -> String {
    let mut text = String::new();
    // Specs are maps with string keys and finite numbers, which always serialise.
    let value = serde_json::to_value(content).unwrap_or_default();
    write_canonical(&value, &mut text);
    hex(&Sha256::digest(text))
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_canonical(value, out);
            }
            out.push(']');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: u8| char::from(DIGITS[usize::from(at)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_short() {
        let name = ObjectName::new("demo", "weather");
        let id = group_id(&name, None);
        assert_eq!(id.len(), 32);
        assert_eq!(id, group_id(&name, None));
        assert_ne!(id, group_id(&ObjectName::new("demo", "other"), None));
        let uid = "3F2A9C00-0000-4000-8000-000000000001";
        assert_eq!(
            group_id(&name, Some(uid)),
            "3f2a9c00000040008000000000000001"
        );
        for at in 0..1000 {
            let id = app_id(&ObjectName::new("demo", format!("a{at}")), None);
            assert!((1..=999_999_999_999_999).contains(&id));
        }
    }

    #[test]
    fn canonical_json_orders_keys() {
        let mut out = String::new();
        let value = serde_json::json!({"b": [1, {"d": null, "c": "x\"y"}], "a": true});
        write_canonical(&value, &mut out);
        assert_eq!(out, r#"{"a":true,"b":[1,{"c":"x\"y","d":null}]}"#);
    }
}
