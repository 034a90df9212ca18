//! What is to be done with the Secrets, given what they hold and the time. No clock and no API server.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;
use rustls::pki_types::UnixTime;

use super::{
    CA_CRT, CA_SECRET,
    authority::{Authorities, Step},
    bytes,
    leaf::Leaf,
};

/// The Secrets as they were last seen, by name.
pub(super) type Seen = BTreeMap<String, Secret>;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const PART: &str = "paifang.dev/part";
const INSTANCE: &str = "paifang.dev/instance";
const KIND: &str = "kubernetes.io/tls";

/// Which Secrets are watched.
pub(super) const SELECTOR: &str = "app.kubernetes.io/managed-by=paifang-controller,paifang.dev/part in (ca,report-tls,controller-tls,webhook-tls)";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Action {
    /// The Secret.
    pub(super) secret: &'static str,
    pub(super) what: What,
    /// For the log.
    pub(super) why: String,
}

/// What kind of change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// A new authority, and nothing of what was there before.
    Found,
    /// The next step of the authorities.
    Step(Step),
    /// A new certificate.
    Issue(Leaf),
    /// The same certificate, with the authorities as they are now.
    Trust,
    /// The same content, with the labels that it is found by.
    Label,
}

/// What is due now. Nothing when all is well. The authorities come first: what they have signed is looked at when they are settled.
pub(super) fn decide(now: UnixTime, leaves: &[Leaf], secrets: &Seen) -> Vec<Action> {
    let authority = |what, why: &str| {
        vec![Action {
            secret: CA_SECRET,
            what,
            why: why.to_owned(),
        }]
    };
    let Some(secret) = secrets.get(CA_SECRET) else {
        return authority(What::Found, "it is missing");
    };
    let authorities = match Authorities::read(secret, now) {
        Ok(authorities) => authorities,
        Err(why) => return authority(What::Found, &why),
    };
    if let Some((step, why)) = authorities.due(secret, now) {
        return authority(What::Step(step), why);
    }
    let mut actions = Vec::new();
    if !has_labels(secret, &labels(None)) {
        actions = authority(What::Label, "its labels were changed");
    }
    let due = |leaf: &Leaf| {
        let (what, why) = look_at(leaf, secrets.get(leaf.secret), &authorities, now)?;
        Some(Action {
            secret: leaf.secret,
            what,
            why,
        })
    };
    actions.extend(leaves.iter().filter_map(due));
    actions
}

fn look_at(
    leaf: &Leaf,
    secret: Option<&Secret>,
    authorities: &Authorities,
    now: UnixTime,
) -> Option<(What, String)> {
    let issue = |why| Some((What::Issue(leaf.clone()), why));
    let Some(secret) = secret else {
        return issue("it is missing".to_owned());
    };
    if let Some(why) = leaf.due(secret, authorities, now) {
        return issue(why);
    }
    if bytes(secret, CA_CRT) != Some(authorities.bundle().as_bytes()) {
        return Some((What::Trust, "the authorities have changed".to_owned()));
    }
    (!has_labels(secret, &labels(Some(leaf))))
        .then(|| (What::Label, "its labels were changed".to_owned()))
}

/// The Secret as it is to be written. It carries the version of the one it replaces, so that nobody else's change is lost.
///
/// # Errors
/// When keys or certificates cannot be made.
pub(super) fn carry_out(
    now: UnixTime,
    action: &Action,
    leaves: &[Leaf],
    secrets: &Seen,
) -> Result<Secret, String> {
    let authorities = || {
        let secret = secrets.get(CA_SECRET).ok_or("there is no authority")?;
        Authorities::read(secret, now)
    };
    let before = secrets.get(action.secret);
    let data = || {
        before
            .and_then(|secret| secret.data.clone())
            .unwrap_or_default()
    };
    let data = match &action.what {
        What::Found => Authorities::make(now)?.data(),
        What::Step(step) => authorities()?.take(*step, now)?.data(),
        What::Issue(leaf) => leaf.issue(&authorities()?, now)?,
        What::Trust => {
            let mut data = data();
            let bundle = authorities()?.bundle().into_bytes();
            data.insert(CA_CRT.to_owned(), ByteString(bundle));
            data
        }
        What::Label => data(),
    };
    let leaf = leaves.iter().find(|leaf| leaf.secret == action.secret);
    let mut metadata = before.map_or_else(
        || ObjectMeta {
            name: Some(action.secret.to_owned()),
            ..ObjectMeta::default()
        },
        |secret| secret.metadata.clone(),
    );
    metadata.managed_fields = None;
    metadata.labels.get_or_insert_default().extend(
        labels(leaf)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    Ok(Secret {
        metadata,
        type_: Some(KIND.to_owned()),
        data: Some(data),
        immutable: None,
        string_data: None,
    })
}

/// Whether the API server takes `after` in place of `before`. Else the old one has to go first.
pub(super) fn replaceable(before: &Secret) -> bool {
    before.immutable != Some(true) && before.type_.as_deref() == Some(KIND)
}

fn labels(leaf: Option<&Leaf>) -> BTreeMap<&'static str, &'static str> {
    let mut labels = BTreeMap::from([
        (MANAGED_BY, "paifang-controller"),
        (PART, leaf.map_or("ca", |leaf| leaf.part)),
    ]);
    if leaf.is_some_and(|leaf| leaf.for_gateways) {
        labels.insert(INSTANCE, "ALL");
    }
    labels
}

fn has_labels(secret: &Secret, wanted: &BTreeMap<&str, &str>) -> bool {
    let has = |(key, value): (&&str, &&str)| {
        let labels = secret.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(*key))
            .map(String::as_str)
            == Some(*value)
    };
    wanted.iter().all(has)
}
