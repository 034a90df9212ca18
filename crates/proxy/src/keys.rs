//! Who a caller is: AppKeys and AppCodes with their apps, made ready once at load.

use std::{collections::HashMap, sync::Arc};

use paifang_model::ObjectName;
use paifang_signing::Key;
use paifang_snapshot::{
    table::AppId,
    wire::{Apps, Credential, Proof},
};
use sha2::{Digest, Sha256};

/// All credentials, ready to verify with.
#[derive(Default)]
pub struct Keys {
    by_app_key: HashMap<Box<str>, AppKey, foldhash::fast::RandomState>,
    /// By SHA-256 of the code, so that looking one up takes the same time whatever it shares with a real one.
    by_app_code: HashMap<[u8; 32], AppCode, foldhash::fast::RandomState>,
}

/// A caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// The App object.
    pub name: ObjectName,
    /// Stands for the App in grants.
    pub id: AppId,
    /// `CaAppId`.
    pub number: u64,
    /// Whether every call is refused.
    pub disabled: bool,
}

/// An AppKey with its prepared secret.
pub(crate) struct AppKey {
    /// Whose it is.
    pub caller: Arc<Caller>,
    /// The prepared HMAC.
    pub key: Key,
    life: Life,
}

/// An AppCode.
pub(crate) struct AppCode {
    /// Whose it is.
    pub caller: Arc<Caller>,
    life: Life,
}

/// When a credential counts, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
struct Life {
    from: i64,
    until: i64,
}

// === impl Keys ===

impl Keys {
    /// Prepares all credentials. One whose App is not listed is left out. Of two with the same AppKey or AppCode the first counts: the
    /// compiler gives only one.
    pub fn load(apps: &Apps, credentials: &[Credential]) -> Self {
        let callers: HashMap<&ObjectName, Arc<Caller>> = apps
            .apps
            .iter()
            .map(|app| {
                let caller = Caller {
                    name: app.name.clone(),
                    id: AppId::of(&app.name),
                    number: app.id,
                    disabled: app.disabled,
                };
                (&app.name, Arc::new(caller))
            })
            .collect();
        let mut keys = Self::default();
        for credential in credentials {
            let Some(caller) = callers.get(&credential.app) else {
                continue;
            };
            keys.add(Arc::clone(caller), credential);
        }
        keys
    }

    fn add(&mut self, caller: Arc<Caller>, credential: &Credential) {
        let life = Life {
            from: credential.not_before_ms.unwrap_or(i64::MIN),
            until: credential.expires_at_ms.unwrap_or(i64::MAX),
        };
        match &credential.proof {
            Proof::KeyPair {
                app_key,
                app_secret,
            } => {
                let key = Key::new(app_secret.expose());
                self.by_app_key
                    .entry(app_key.as_str().into())
                    .or_insert(AppKey { caller, key, life });
            }
            Proof::AppCode { app_code } => {
                self.by_app_code
                    .entry(Sha256::digest(app_code.expose()).into())
                    .or_insert(AppCode { caller, life });
            }
        }
    }

    /// The key behind an AppKey that counts at `now_ms`.
    pub(crate) fn app_key(&self, app_key: &str, now_ms: i64) -> Option<&AppKey> {
        self.by_app_key
            .get(app_key)
            .filter(|key| key.life.contains(now_ms))
    }

    /// The caller behind an AppCode that counts at `now_ms`.
    pub(crate) fn app_code(&self, code: &str, now_ms: i64) -> Option<&Arc<Caller>> {
        let digest: [u8; 32] = Sha256::digest(code).into();
        self.by_app_code
            .get(&digest)
            .filter(|code| code.life.contains(now_ms))
            .map(|code| &code.caller)
    }

    /// How many AppKeys and AppCodes there are.
    pub fn len(&self) -> usize {
        self.by_app_key.len() + self.by_app_code.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Life {
    fn contains(self, now_ms: i64) -> bool {
        (self.from..self.until).contains(&now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paifang_model::Redacted;
    use paifang_snapshot::wire::App;

    #[test]
    fn credentials_count_only_while_they_live() {
        let name = ObjectName::new("apps", "mobile");
        let apps = Apps {
            format: 1,
            apps: vec![App {
                name: name.clone(),
                id: 7,
                disabled: false,
            }],
        };
        let credential = |app_key: &str, from, until| Credential {
            app: name.clone(),
            name: app_key.into(),
            not_before_ms: from,
            expires_at_ms: until,
            proof: Proof::KeyPair {
                app_key: app_key.into(),
                app_secret: Redacted::new("s".into()),
            },
        };
        let code = Credential {
            proof: Proof::AppCode {
                app_code: Redacted::new("c0de".into()),
            },
            ..credential("code", None, Some(10))
        };
        let stray = Credential {
            app: ObjectName::new("apps", "nobody"),
            ..credential("stray", None, None)
        };
        let keys = Keys::load(
            &apps,
            &[
                credential("old", None, Some(10)),
                credential("next", Some(5), None),
                code,
                stray,
            ],
        );
        let known = |key: &str, now| keys.app_key(key, now).is_some();
        assert_eq!(
            [known("old", 4), known("old", 9), known("old", 10)],
            [true, true, false]
        );
        assert_eq!([known("next", 4), known("next", 5)], [false, true]);
        assert!(!known("stray", 0));
        assert_eq!(keys.app_code("c0de", 9).unwrap().number, 7);
        assert!(keys.app_code("c0de", 10).is_none());
        assert!(keys.app_code("c0d", 9).is_none());
    }
}
