//! The gateway pods, and what each says that it serves.
//!
//! Nothing is assumed: a pod that is ready and says nothing serves nothing, as far as status goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1 as core;
use paifang_model::ObjectName;
use paifang_snapshot::{
    published::Hash,
    report::{Report, Reported},
};

use crate::names::INSTANCE;

/// A gateway pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) ip: Option<IpAddr>,
    /// Whether traffic is sent to it: its Ready condition, until it is deleted.
    pub(crate) ready: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<String, Member>,
    relist: Option<BTreeSet<String>>,
}

/// A pod with its report.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pod: Pod,
    /// None while nothing is heard from it.
    pub(crate) reported: Option<Reported>,
}

/// What a report or a pod changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Groups that some pod serves otherwise than before.
    pub(crate) groups: BTreeSet<ObjectName>,
    /// Some pod has other Apps in force than before.
    pub(crate) apps: bool,
    /// Instances of which pods came, went, or turned ready or silent.
    pub(crate) instances: BTreeSet<String>,
}

// === impl Pod ===

impl Pod {
    /// What matters of a pod.
    pub(crate) fn read(pod: core::Pod) -> Option<Self> {
        let status = pod.status.unwrap_or_default();
        let labels = pod.metadata.labels.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = |condition: &core::PodCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        Some(Self {
            uid: pod.metadata.uid?,
            name: pod.metadata.name?,
            instance: labels.get(INSTANCE)?.clone(),
            ip: status.pod_ip.and_then(|ip| ip.parse().ok()),
            ready: pod.metadata.deletion_timestamp.is_none() && conditions.iter().any(ready),
        })
    }
}

// === impl News ===

impl News {
    /// Adds later news.
    pub(crate) fn extend(&mut self, later: Self) {
        self.groups.extend(later.groups);
        self.apps |= later.apps;
        self.instances.extend(later.instances);
    }
}

// === impl Fleet ===

impl Fleet {
    /// A pod is there, perhaps changed.
    pub(crate) fn there(&mut self, pod: Pod) -> News {
        let mut news = News::default();
        if let Some(relist) = &mut self.relist {
            relist.insert(pod.uid.clone());
        }
        match self.members.get_mut(&pod.uid) {
            Some(member) if member.pod == pod => {}
            Some(member) => {
                news.instances.insert(pod.instance.clone());
                news.instances.insert(member.pod.instance.clone());
                member.pod = pod;
            }
            None => {
                news.instances.insert(pod.instance.clone());
                let uid = pod.uid.clone();
                let reported = None;
                self.members.insert(uid, Member { pod, reported });
            }
        }
        news
    }

    /// A pod is gone.
    pub(crate) fn gone(&mut self, uid: &str) -> News {
        let mut news = News::default();
        let member = self.members.remove(uid);
        news.instances.extend(member.map(|it| it.pod.instance));
        news
    }

    /// All pods are about to be told.
    pub(crate) fn relist(&mut self) {
        self.relist = Some(BTreeSet::new());
    }

    /// They were.
    pub(crate) fn relisted(&mut self) -> News {
        let seen = self.relist.take().unwrap_or_default();
        let gone: Vec<String> = self
            .members
            .keys()
            .filter(|uid| !seen.contains(*uid))
            .cloned()
            .collect();
        let mut news = News::default();
        for uid in gone {
            news.extend(self.gone(&uid));
        }
        news
    }

    /// A line of a pod's report.
    pub(crate) fn report(&mut self, uid: &str, line: Report) -> News {
        let mut news = News::default();
        let Some(member) = self.members.get_mut(uid) else {
            return news;
        };
        match &mut member.reported {
            Some(reported) => {
                news.groups.extend(line.groups.keys().cloned());
                news.groups.extend(line.removed.iter().cloned());
                news.groups.extend(
                    line.problems
                        .iter()
                        .flatten()
                        .filter_map(|it| it.group.clone()),
                );
                news.groups.extend(
                    reported
                        .problems
                        .iter()
                        .filter_map(|it| it.group.clone())
                        .filter(|_| line.problems.is_some()),
                );
                news.apps = line.apps.is_some();
                reported.add(line);
            }
            None => {
                let mut reported = Reported::default();
                reported.add(line);
                member.reported = Some(reported);
                news.instances.insert(member.pod.instance.clone());
            }
        }
        news
    }

    /// A pod as Kubernetes knows it.
    pub(crate) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.members.get(uid).map(|member| &member.pod)
    }

    /// Nothing is heard from a pod any more.
    pub(crate) fn silent(&mut self, uid: &str) -> News {
        let mut news = News::default();
        if let Some(member) = self.members.get_mut(uid)
            && member.reported.take().is_some()
        {
            news.instances.insert(member.pod.instance.clone());
        }
        news
    }

    /// Every pod with an address.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.members.values().map(|member| &member.pod)
    }

    /// The ready pods of an instance.
    pub(crate) fn ready<'f>(&'f self, instance: &'f str) -> impl Iterator<Item = &'f Member> {
        self.members
            .values()
            .filter(move |member| member.pod.ready && member.pod.instance == instance)
    }

    /// The ready pods of all instances.
    pub(crate) fn all_ready(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.pod.ready)
    }

    /// Whether some pod, ready or not, serves this version of a group, or has not said what it serves: then what it may need stays.
    pub(crate) fn may_need(&self, group: &ObjectName, current: &Hash) -> bool {
        self.members.values().any(|member| match &member.reported {
            Some(reported) => reported
                .groups
                .get(group)
                .is_some_and(|hash| hash != current),
            None => false,
        })
    }
}

// === impl Member ===

impl Member {
    /// The version of a group that it serves.
    pub(crate) fn serves(&self, group: &ObjectName) -> Option<&Hash> {
        self.reported.as_ref()?.groups.get(group)
    }

    /// What it says is wrong with a group.
    pub(crate) fn problem(&self, group: &ObjectName, api: Option<&ObjectName>) -> Option<&str> {
        let problems = &self.reported.as_ref()?.problems;
        problems
            .iter()
            .find(|it| {
                it.group.as_ref() == Some(group) && (it.api.is_none() || it.api.as_ref() == api)
            })
            .map(|it| it.message.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, ready: bool) -> Pod {
        Pod {
            uid: uid.to_owned(),
            name: uid.to_owned(),
            instance: "default".to_owned(),
            ip: None,
            ready,
        }
    }

    fn line(groups: &[(&str, &str)]) -> Report {
        let groups = groups.iter();
        Report {
            instance: "default".to_owned(),
            ready: true,
            groups: groups
                .map(|(name, content)| (ObjectName::new("ns", *name), Hash::of(content.as_bytes())))
                .collect(),
            ..Report::default()
        }
    }

    #[test]
    fn a_pod_that_falls_silent_serves_nothing() {
        let mut fleet = Fleet::default();
        fleet.there(pod("a", true));
        let group = ObjectName::new("ns", "g");
        assert_eq!(fleet.ready("default").count(), 1);
        assert!(
            fleet
                .ready("default")
                .all(|member| member.serves(&group).is_none())
        );
        fleet.report("a", line(&[("g", "1")]));
        assert!(
            fleet
                .ready("default")
                .all(|member| member.serves(&group).is_some())
        );
        let news = fleet.report("a", line(&[("g", "2")]));
        assert_eq!(news.groups, BTreeSet::from([group.clone()]));
        let news = fleet.silent("a");
        assert_eq!(news.instances.len(), 1);
        assert_eq!(fleet.silent("a"), News::default(), "said once");
        assert!(
            fleet
                .ready("default")
                .all(|member| member.serves(&group).is_none())
        );
    }

    #[test]
    fn a_heartbeat_is_no_news() {
        let mut fleet = Fleet::default();
        fleet.there(pod("a", true));
        fleet.report("a", line(&[("g", "1")]));
        assert_eq!(fleet.report("a", line(&[])), News::default());
        assert_eq!(fleet.there(pod("a", true)), News::default());
        assert_eq!(fleet.there(pod("a", false)).instances.len(), 1);
    }

    #[test]
    fn a_relist_forgets_pods_that_are_gone() {
        let mut fleet = Fleet::default();
        fleet.there(pod("a", true));
        fleet.there(pod("b", true));
        fleet.relist();
        fleet.there(pod("b", true));
        assert_eq!(fleet.relisted().instances.len(), 1);
        assert_eq!(fleet.pods().count(), 1);
    }
}
