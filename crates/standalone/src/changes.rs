//! What became different, in a line for people.

use std::{collections::BTreeMap, fmt, sync::Arc};

use paifang_compiler::{ApiStatus, ObjectId, Status, Verdict};
use serde::Serialize;

use crate::manifest::{AnyKind, Key, Payload};

/// One object that is different from before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What happened to it.
    pub what: What,
    /// `api demo/get-forecast`.
    pub object: String,
    /// `release 4 → TEST, RELEASE`; empty when there is nothing to add.
    pub detail: String,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// It is new.
    Added,
    /// It is different.
    Changed,
    /// What was written is refused; what was there before goes on.
    Refused,
    /// It is gone.
    Removed,
}

/// What was seen in one step.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    payloads: BTreeMap<Key, Payload>,
    details: BTreeMap<Key, (bool, String)>,
}

/// Compares two steps. Without an earlier one everything is new.
pub(crate) fn between(
    before: Option<Seen>,
    payloads: BTreeMap<Key, Payload>,
    verdicts: &BTreeMap<ObjectId, Arc<Verdict>>,
) -> (Seen, Vec<Change>) {
    let before = before.unwrap_or_default();
    let mut now = Seen {
        payloads,
        details: BTreeMap::new(),
    };
    for (id, verdict) in verdicts {
        let key = Key {
            kind: AnyKind::Ours(id.kind),
            name: id.name.clone(),
        };
        let accepted = verdict.condition(paifang_compiler::ConditionKind::Accepted);
        let accepted = accepted
            .is_none_or(|condition| condition.status == paifang_compiler::ConditionStatus::True);
        now.details.insert(key, (accepted, detail(&verdict.status)));
    }
    let mut changes = Vec::new();
    for (key, payload) in &now.payloads {
        let detail = now.details.get(key);
        let same_payload = before.payloads.get(key) == Some(payload);
        if same_payload && before.details.get(key) == detail {
            continue;
        }
        let what = match (before.payloads.contains_key(key), detail) {
            (_, Some((false, _))) => What::Refused,
            (true, _) => What::Changed,
            (false, _) => What::Added,
        };
        changes.push(change(what, key, detail.map_or("", |(_, detail)| detail)));
    }
    let gone = before
        .payloads
        .keys()
        .filter(|key| !now.payloads.contains_key(*key));
    changes.extend(gone.map(|key| change(What::Removed, key, "")));
    (now, changes)
}

fn change(what: What, key: &Key, detail: &str) -> Change {
    let said = key.to_string();
    let object = match said.split_once(' ') {
        Some((kind, name)) => format!("{} {name}", kind.to_lowercase()),
        None => said,
    };
    let detail = match (what, detail) {
        (What::Refused, "") => "refused".to_owned(),
        (What::Refused, detail) => format!("refused; still {detail}"),
        (_, detail) => detail.to_owned(),
    };
    Change {
        what,
        object,
        detail,
    }
}

fn detail(status: &Status) -> String {
    match status {
        Status::Api(api) => stages(api),
        Status::BackendService(service) => {
            let used = service.stages.iter().filter(|(_, status)| status.apis > 0);
            let said: Vec<String> = used
                .map(|(stage, status)| match status.apis {
                    1 => format!("1 Api in {stage}"),
                    apis => format!("{apis} Apis in {stage}"),
                })
                .collect();
            said.join(", ")
        }
        Status::ApiGroup(_) | Status::App(_) | Status::Authorization | Status::DomainBinding(_) => {
            String::new()
        }
    }
}

/// `release 4 → TEST, RELEASE; offline in PRE`
fn stages(api: &ApiStatus) -> String {
    let mut by_release: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut offline = Vec::new();
    for (stage, status) in &api.stages {
        match status.release {
            Some(release) => by_release.entry(release).or_default().push(stage.as_str()),
            None => offline.push(stage.as_str()),
        }
    }
    let mut said: Vec<String> = by_release
        .iter()
        .rev()
        .map(|(release, stages)| format!("release {release} → {}", stages.join(", ")))
        .collect();
    if !offline.is_empty() {
        said.push(format!("offline in {}", offline.join(", ")));
    }
    if said.is_empty() {
        said.push("in no stage".to_owned());
    }
    said.join("; ")
}

// === impl Change ===

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.what {
            What::Added => '+',
            What::Changed => '~',
            What::Refused => '!',
            What::Removed => '-',
        };
        write!(f, "{sign} {}", self.object)?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, "  {}", self.detail)
        }
    }
}
