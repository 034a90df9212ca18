//! The authorities that sign what the programs show each other: the one that signs, the one to come, the one before.
//!
//! All three stand in one Secret. Whoever checks certificates is given every one of them as `ca.crt`, so that nothing is cut off while
//! the signature moves from one to the next.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use paifang_model::Redacted;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    sign::CertifiedKey,
};

use super::{BACKDATED, CA_CRT, TLS_CRT, TLS_KEY, bytes, pem, provider};

/// How long an authority is good for.
pub(super) const LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long before the end of one the next is made.
pub(super) const OVERLAP: Duration = Duration::from_secs(365 * 86_400);
/// How long the next one is only told about before it signs: every reader has it by then.
pub(super) const ANNOUNCED: Duration = Duration::from_secs(86_400);

const NEXT_CRT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const PREVIOUS_CRT: &str = "previous.crt";
const COMMON_NAME: &str = "CN=";

/// One authority with its key.
pub(super) struct Authority {
    text: String,
    key: Redacted<String>,
    certificate: CertificateDer<'static>,
    common_name: String,
    not_before: u64,
    not_after: u64,
}

/// All of them.
pub(super) struct Authorities {
    pub(super) signing: Authority,
    pub(super) next: Option<Authority>,
    /// Its certificate alone; nobody signs with it any more.
    pub(super) previous: Option<String>,
}

/// What is to be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the next one and tell about it.
    Prepare,
    /// Sign with the next one.
    Promote,
    /// Write again what follows from the rest.
    Tidy,
}

// === impl Authority ===

impl Authority {
    /// A new one.
    pub(super) fn make(now: UnixTime) -> Result<Self, String> {
        let failed = |error: rcgen::Error| format!("no authority can be made: {error}");
        let mut id = [0; 4];
        getrandom::fill(&mut id).map_err(|error| format!("no random numbers: {error}"))?;
        let common_name = format!("paifang-ca-{:08x}", u32::from_be_bytes(id));
        let mut params = params(&common_name);
        let start = Duration::from_secs(now.as_secs()).saturating_sub(BACKDATED);
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + start;
        params.not_after = epoch + start + LIFE;
        let key = KeyPair::generate().map_err(failed)?;
        let made = params.self_signed(&key).map_err(failed)?;
        Self::read(made.pem(), key.serialize_pem(), "tls")
    }

    fn read(text: String, key: String, part: &str) -> Result<Self, String> {
        let certificate = pem::certificates(&format!("{part}.crt"), text.as_bytes())?.remove(0);
        let facts = pem::facts(&certificate).map_err(|error| format!("{part}.crt {error}"))?;
        let common_name = facts
            .subject
            .strip_prefix(COMMON_NAME)
            .filter(|name| !name.is_empty() && !name.contains(['=', ',', '+', '\\', '#']))
            .ok_or_else(|| format!("{part}.crt has a subject that was not made here"))?;
        if !facts.authority {
            return Err(format!("{part}.crt may not sign others"));
        }
        let pair = pem::private_key(&format!("{part}.key"), key.as_bytes())?;
        CertifiedKey::from_der(vec![certificate.clone()], pair, &provider())
            .map_err(|_| format!("{part}.key does not belong to {part}.crt"))?;
        Ok(Self {
            common_name: common_name.to_owned(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            text,
            key: key.into(),
            certificate,
        })
    }

    /// Signs with it.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<rcgen::Certificate, String> {
        let own = KeyPair::from_pem(self.key.expose())
            .map_err(|_| "the authority's key cannot be used".to_owned())?;
        let issuer = Issuer::new(self::params(&self.common_name), own);
        params
            .signed_by(key, &issuer)
            .map_err(|error| format!("the authority cannot sign: {error}"))
    }

    /// Trust in this one alone.
    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(|error| format!("the authority cannot be used: {error}"))?;
        Ok(roots)
    }

    fn is_valid(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_secs())
    }
}

/// What makes an authority of a name: the same for its own certificate as for what it signs.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

// === impl Authorities ===

impl Authorities {
    /// One that signs, and no other.
    pub(super) fn make(now: UnixTime) -> Result<Self, String> {
        Ok(Self {
            signing: Authority::make(now)?,
            next: None,
            previous: None,
        })
    }

    /// Reads the Secret. A next one that cannot be used counts as none.
    ///
    /// # Errors
    /// When there is none that can sign now, with the reason.
    pub(super) fn read(secret: &Secret, now: UnixTime) -> Result<Self, String> {
        let text = |part: &str| {
            let text = bytes(secret, part).ok_or_else(|| format!("{part} is missing"))?;
            String::from_utf8(text.to_vec()).map_err(|_| format!("{part} is not text"))
        };
        let next = match (text(NEXT_CRT), text(NEXT_KEY)) {
            (Ok(certificate), Ok(key)) => Authority::read(certificate, key, "next").ok(),
            _ => None,
        };
        let next = next.filter(|next| next.is_valid(now));
        let signing = Authority::read(text(TLS_CRT)?, text(TLS_KEY)?, "tls")?;
        if !signing.is_valid(now) && next.is_none() {
            return Err("tls.crt has expired, or is not valid yet".to_owned());
        }
        Ok(Self {
            signing,
            next,
            previous: text(PREVIOUS_CRT).ok(),
        })
    }

    /// What goes into the Secret.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |part: &str, text: &str| {
            data.insert(part.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        put(TLS_CRT, &self.signing.text);
        put(TLS_KEY, self.signing.key.expose());
        put(CA_CRT, &self.bundle());
        if let Some(next) = &self.next {
            put(NEXT_CRT, &next.text);
            put(NEXT_KEY, next.key.expose());
        }
        if let Some(previous) = &self.previous {
            put(PREVIOUS_CRT, previous);
        }
        data
    }

    /// The certificates of all of them, for whoever checks.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.text.as_str());
        let all = [
            Some(self.signing.text.as_str()),
            next,
            self.previous.as_deref(),
        ];
        let mut bundle = String::new();
        for text in all.into_iter().flatten() {
            bundle.push_str(text);
            if !text.ends_with('\n') {
                bundle.push('\n');
            }
        }
        bundle
    }

    /// What is due, and why.
    pub(super) fn due(&self, secret: &Secret, now: UnixTime) -> Option<(Step, &'static str)> {
        if !self.signing.is_valid(now) {
            return Some((Step::Promote, "the one that signs has expired"));
        }
        let seconds = now.as_secs();
        match &self.next {
            Some(next) if seconds >= next.not_before + (BACKDATED + ANNOUNCED).as_secs() => {
                return Some((Step::Promote, "it has been announced for long enough"));
            }
            None if seconds + OVERLAP.as_secs() >= self.signing.not_after => {
                return Some((Step::Prepare, "the one that signs ends within a year"));
            }
            _ => {}
        }
        if self.previous_is_over(now) {
            return Some((Step::Tidy, "the one before has expired"));
        }
        (bytes(secret, CA_CRT) != Some(self.bundle().as_bytes()))
            .then_some((Step::Tidy, "ca.crt does not hold all of them"))
    }

    /// Takes a step.
    pub(super) fn take(mut self, step: Step, now: UnixTime) -> Result<Self, String> {
        if self.previous_is_over(now) {
            self.previous = None;
        }
        match (step, self.next.take()) {
            (Step::Prepare, _) => self.next = Some(Authority::make(now)?),
            (Step::Promote, Some(next)) => {
                let before = std::mem::replace(&mut self.signing, next);
                self.previous = before.is_valid(now).then_some(before.text);
            }
            (Step::Promote, None) => return Err("there is no next authority".to_owned()),
            (Step::Tidy, next) => self.next = next,
        }
        Ok(self)
    }

    /// Text that is no certificate is over as well.
    fn previous_is_over(&self, now: UnixTime) -> bool {
        self.previous.as_ref().is_some_and(|text| {
            let read = pem::certificates("previous.crt", text.as_bytes())
                .and_then(|all| pem::facts(&all[0]));
            read.map_or(true, |facts| facts.not_after < now.as_secs())
        })
    }
}
