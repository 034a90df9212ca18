//! What a gateway says it serves: one line of JSON after the other, which the controller reads and compares with what it published.
//!
//! The first line of a stream is the whole state; each later one says what is different, and one that says nothing else comes at least
//! every [`HEARTBEAT`]. A reader that hears nothing for a few of these takes the gateway for silent. Deliberately absent: the
//! transport, which the gateway and the controller agree on by mutual TLS.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use paifang_model::ObjectName;
use serde::{Deserialize, Serialize};

use crate::published::Hash;

/// The longest time between two lines.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Where a gateway answers with its reports.
pub const PATH: &str = "/report";

/// The name that a gateway's certificate on its report port carries, whatever pod it is.
pub const GATEWAY_NAME: &str = "gateway.paifang.internal";

/// The name that the client certificate of a reader carries.
pub const CONTROLLER_NAME: &str = "controller.paifang.internal";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The gateway's pod.
    pub pod: String,
    /// The fleet that it belongs to.
    pub instance: String,
    /// Its zone; empty when it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Whether it takes requests: it has loaded a whole configuration and is not about to end.
    pub ready: bool,
    /// The manifest that each group is served by, by ApiGroup: all in the first line of a stream, then those that are different.
    /// A manifest that is published but not named here is not served (yet); the last good one is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<ObjectName, Hash>,
    /// The manifest of the callers with their credentials that is in force; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<Hash>,
    /// Groups that are served no more since the line before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<ObjectName>,
    /// Everything that is wrong, when that is different from the line before; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<BTreeSet<Problem>>,
}

/// Something that a gateway was sent and does not serve as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The ApiGroup that it is about; absent when it is about something that all groups share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<ObjectName>,
    /// The Api of that group that answers closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ObjectName>,
    /// The Secret whose certificate cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ObjectName>,
    /// For people: what is wrong, and what is served instead. Never a secret.
    pub message: String,
}

/// What a reader knows of a gateway, put together from the lines of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reported {
    /// Whether it takes requests.
    pub ready: bool,
    /// Its pod, fleet and zone.
    pub pod: String,
    /// The fleet.
    pub instance: String,
    /// The zone; empty when it is not known.
    pub zone: String,
    /// The manifest that each group is served by.
    pub groups: BTreeMap<ObjectName, Hash>,
    /// The manifest of the callers that is in force.
    pub apps: Option<Hash>,
    /// Everything that is wrong.
    pub problems: BTreeSet<Problem>,
}

// === impl Report ===

impl Report {
    /// The line, with its end.
    pub fn line(&self) -> String {
        // String keys and finite numbers: always JSON.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is no report.
    pub fn read(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

// === impl Reported ===

impl Reported {
    /// Adds the next line of the same stream. A new stream starts with a new value.
    pub fn add(&mut self, line: Report) {
        let Report {
            pod,
            instance,
            zone,
            ready,
            groups,
            apps,
            removed,
            problems,
        } = line;
        (self.pod, self.instance, self.zone, self.ready) = (pod, instance, zone, ready);
        for group in removed {
            self.groups.remove(&group);
        }
        self.groups.extend(groups);
        if let Some(apps) = apps {
            self.apps = Some(apps);
        }
        if let Some(problems) = problems {
            self.problems = problems;
        }
    }

    /// The first line of a stream that says all of it.
    pub fn whole(&self) -> Report {
        Report {
            pod: self.pod.clone(),
            instance: self.instance.clone(),
            zone: self.zone.clone(),
            ready: self.ready,
            groups: self.groups.clone(),
            apps: self.apps.clone(),
            removed: BTreeSet::new(),
            problems: Some(self.problems.clone()),
        }
    }

    /// The line that follows `before` in a stream. With nothing different it is a heartbeat.
    pub fn since(&self, before: &Self) -> Report {
        let different =
            |(name, hash): &(&ObjectName, &Hash)| before.groups.get(*name) != Some(hash);
        let gone = |name: &&ObjectName| !self.groups.contains_key(*name);
        Report {
            pod: self.pod.clone(),
            instance: self.instance.clone(),
            zone: self.zone.clone(),
            ready: self.ready,
            groups: self
                .groups
                .iter()
                .filter(different)
                .map(|(name, hash)| (name.clone(), hash.clone()))
                .collect(),
            apps: self.apps.clone().filter(|_| self.apps != before.apps),
            removed: before.groups.keys().filter(gone).cloned().collect(),
            problems: (self.problems != before.problems).then(|| self.problems.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(group: usize) -> Problem {
        Problem {
            group: Some(ObjectName::new("ns", format!("g{group:04}"))),
            api: None,
            certificate: None,
            message: "m".to_owned(),
        }
    }

    fn state(groups: &[(&str, &str)], problems: usize) -> Reported {
        Reported {
            ready: true,
            pod: "p".to_owned(),
            instance: "default".to_owned(),
            zone: "a".to_owned(),
            groups: groups
                .iter()
                .map(|(name, content)| (ObjectName::new("ns", *name), Hash::of(content.as_bytes())))
                .collect(),
            apps: Some(Hash::of(b"apps")),
            problems: (0..problems).map(problem).collect(),
        }
    }

    #[test]
    fn lines_put_together_are_the_state_that_they_were_taken_from() {
        let states = [
            state(&[("a", "1"), ("b", "1")], 1),
            state(&[("a", "2"), ("c", "1")], 1),
            state(&[("a", "2"), ("c", "1")], 0),
            state(&[], 7),
        ];
        let mut read = Reported::default();
        read.add(Report::read(&states[0].whole().line()).unwrap());
        assert_eq!(read, states[0]);
        for pair in states.windows(2) {
            let line = pair[1].since(&pair[0]).line();
            read.add(Report::read(&line).unwrap());
            assert_eq!(read, pair[1], "{line}");
        }
    }

    #[test]
    fn a_heartbeat_says_nothing_but_who_and_ready() {
        let state = state(&[("a", "1")], 1);
        assert_eq!(
            state.since(&state).line(),
            "{\"pod\":\"p\",\"instance\":\"default\",\"zone\":\"a\",\"ready\":true}\n"
        );
    }
}
