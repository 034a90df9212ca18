//! What an object's status should say: a pure function of its verdict, of what gateways report, and of the time.
//!
//! `Programmed` and `Ready` follow what ready gateways say they serve. An older version of a group counts for an Api when the Api is
//! the same in it: a change of its neighbour does not make it look unserved. Times stay what they were while what they tell of stays.

mod backend;
mod reach;

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use paifang_compiler::{Compiler, ConditionKind, ObjectId, StageStatus, Status, Verdict};
use paifang_model::{ObjectName, Stage};
use paifang_resources as resources;
use serde_json::Value;

pub(crate) use self::{
    backend::Updates,
    reach::{Reach, Versions},
};
use crate::{fleet::Fleet, publish::Shelf, world::World};

/// Certificates that end within this time are announced.
const EXPIRING: i64 = 30 * 24 * 3600;
/// Bytes of a condition's message, as the schema bounds it.
const MESSAGE: usize = 32 * 1024;

/// Everything that a status is made of.
pub(crate) struct View<'v> {
    pub(crate) world: &'v World,
    pub(crate) compiler: &'v Compiler,
    pub(crate) shelf: &'v Shelf,
    pub(crate) versions: &'v Versions,
    pub(crate) fleet: &'v Fleet,
    pub(crate) updates: &'v Updates,
    pub(crate) now: Timestamp,
}

/// A status, and what changed about it that is worth an Event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stated {
    /// The whole of it.
    pub(crate) status: Value,
    /// What to tell.
    pub(crate) tell: Vec<Tell>,
}

/// An Event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tell {
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) note: String,
}

/// A status as far as this version knows it, so that what only the API server added does not count as a difference.
pub(crate) fn normal(id: &ObjectId, status: &Value) -> Value {
    use paifang_compiler::Kind;
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(status: &Value) -> Value {
        T::deserialize(status)
            .and_then(serde_json::to_value)
            .unwrap_or_default()
    }
    match id.kind {
        Kind::ApiGroup => through::<resources::ApiGroupStatus>(status),
        Kind::BackendService => through::<resources::BackendServiceStatus>(status),
        Kind::Api => through::<resources::ApiStatus>(status),
        Kind::App => through::<resources::AppStatus>(status),
        Kind::Authorization => through::<resources::AuthorizationStatus>(status),
        Kind::DomainBinding => through::<resources::DomainBindingStatus>(status),
    }
}

// === impl View ===

impl View<'_> {
    /// What the status of an object should be; none when there is no verdict on it (yet).
    pub(crate) fn state(&self, id: &ObjectId) -> Option<Stated> {
        let facts = self.world.facts.get(id)?;
        let mut verdict = Verdict::clone(self.compiler.verdict(id)?);
        let before = normal(id, &self.world.status(id));
        let reach = self.reach(id, &verdict.status);
        verdict.programmed(reach.is_complete(), reach.message());
        let mut conditions: Vec<Condition> = verdict
            .conditions
            .iter()
            .map(|condition| Condition {
                type_: condition.kind.as_str().to_owned(),
                status: condition.status.as_str().to_owned(),
                reason: condition.reason.to_owned(),
                message: bounded(&condition.message),
                observed_generation: Some(facts.generation),
                last_transition_time: Time(self.now),
            })
            .collect();
        conditions.extend(self.by_the_clock(id, &verdict, facts.generation));
        let old: Vec<Condition> = before
            .get("conditions")
            .and_then(|it| serde_json::from_value(it.clone()).ok())
            .unwrap_or_default();
        let mut tell = Vec::new();
        for condition in &mut conditions {
            let then = old.iter().find(|it| it.type_ == condition.type_);
            match then {
                Some(then) if then.status == condition.status => {
                    condition.last_transition_time = then.last_transition_time.clone();
                }
                _ => condition.last_transition_time = Time(whole_seconds(self.now)),
            }
            tell.extend(transition(condition, then));
        }
        let status = self.whole(id, &verdict.status, &before, conditions)?;
        if let (Status::Api(_), Some(stages)) = (&verdict.status, status.get("stages")) {
            tell.extend(published(stages, before.get("stages")));
        }
        Some(Stated { status, tell })
    }

    fn whole(
        &self,
        id: &ObjectId,
        status: &Status,
        before: &Value,
        conditions: Vec<Condition>,
    ) -> Option<Value> {
        let status = match status {
            Status::ApiGroup(facts) => serde_json::to_value(resources::ApiGroupStatus {
                group_id: Some(facts.group_id.clone()).filter(|it| !it.is_empty()),
                sub_domains: Some(resources::SubDomainNames {
                    public: facts.public.clone(),
                    internal: facts.internal.clone(),
                }),
                apis: counts(&facts.apis),
                domains: facts.domains.iter().take(64).cloned().collect(),
                conditions,
            }),
            Status::Api(facts) => serde_json::to_value(resources::ApiStatus {
                latest_release: facts.latest_release,
                stages: facts
                    .stages
                    .iter()
                    .map(|(stage, facts)| {
                        let old = before.pointer(&format!("/stages/{stage}"));
                        (stage.to_string(), self.stage(&id.name, stage, facts, old))
                    })
                    .collect(),
                conditions,
            }),
            Status::BackendService(facts) => {
                serde_json::to_value(resources::BackendServiceStatus {
                    stages: backend::stages(self, &id.name, facts, before),
                    drafts: Some(facts.drafts),
                    conditions,
                })
            }
            Status::App(facts) => serde_json::to_value(resources::AppStatus {
                app_id: i64::try_from(facts.app_id).ok(),
                credentials: facts
                    .credentials
                    .iter()
                    .map(|it| self.credential(it))
                    .collect(),
                conditions,
            }),
            Status::Authorization => {
                serde_json::to_value(resources::AuthorizationStatus { conditions })
            }
            Status::DomainBinding(_) => {
                serde_json::to_value(resources::DomainBindingStatus { conditions })
            }
        };
        status.ok()
    }

    /// One stage of an Api.
    fn stage(
        &self,
        api: &ObjectName,
        stage: &Stage,
        facts: &StageStatus,
        before: Option<&Value>,
    ) -> resources::ApiStageStatus {
        let reach = self.stage_reach(api, stage, facts);
        let state = match facts.release {
            Some(_) if reach.is_complete() => resources::StageState::Serving,
            Some(_) => resources::StageState::Pending,
            None if reach.serving < reach.ready => resources::StageState::Pending,
            None => resources::StageState::Offline,
        };
        let mut now = resources::ApiStageStatus {
            state,
            reason: facts.problem.as_ref().map(|it| it.reason.to_string()),
            release: facts.release,
            hash: facts.hash.as_deref().map(str::to_owned),
            since: None,
            gateways: facts
                .release
                .map(|_| format!("{}/{}", reach.serving, reach.ready)),
            address: facts.address.as_deref().map(str::to_owned),
        };
        let old = before
            .and_then(|it| serde_json::from_value::<resources::ApiStageStatus>(it.clone()).ok());
        let same = old.filter(|old| {
            old.state == now.state && old.release == now.release && old.hash == now.hash
        });
        now.since = same
            .and_then(|old| old.since)
            .or_else(|| Some(Time(whole_seconds(self.now))));
        now
    }

    fn credential(
        &self,
        facts: &paifang_compiler::CredentialStatus,
    ) -> resources::CredentialStatus {
        use paifang_compiler::Reason;
        let now = self.now.as_millisecond();
        let state = match &facts.problem {
            Some(problem) if problem.reason == Reason::Conflicted => {
                resources::CredentialState::Conflicted
            }
            Some(_) => resources::CredentialState::Invalid,
            None if facts.expires_at_ms.is_some_and(|end| end <= now) => {
                resources::CredentialState::Expired
            }
            None if facts.not_before_ms.is_some_and(|start| start > now) => {
                resources::CredentialState::NotYetActive
            }
            None => resources::CredentialState::Active,
        };
        resources::CredentialStatus {
            name: facts.name.clone(),
            state,
            app_key: facts.app_key.clone(),
            message: facts.problem.as_ref().map(|it| cut(&it.to_string(), 1024)),
        }
    }

    /// Conditions that time alone makes true.
    fn by_the_clock(&self, id: &ObjectId, verdict: &Verdict, generation: i64) -> Option<Condition> {
        let now = self.now.as_second();
        let (type_, reason, message) = match &verdict.status {
            Status::DomainBinding(facts) => {
                let end = facts.certificate.as_ref()?.not_after_ms?.div_euclid(1000);
                let when = Timestamp::from_second(end).ok()?;
                if end <= now {
                    (
                        "CertificateExpiring",
                        "CertificateExpired",
                        format!(
                            "the certificate ended at {when}; clients refuse it. Renew it in the Secret of spec.tls.secretRef"
                        ),
                    )
                } else if end - now <= EXPIRING {
                    (
                        "CertificateExpiring",
                        "CertificateExpiring",
                        format!(
                            "the certificate ends at {when}; renew it in the Secret of spec.tls.secretRef"
                        ),
                    )
                } else {
                    return None;
                }
            }
            Status::Authorization => {
                let spec = self.world.objects.authorizations.get(&id.name)?.spec()?;
                let end = spec.expires_at.as_ref()?.0;
                if end > self.now {
                    return None;
                }
                (
                    "Expired",
                    "Expired",
                    format!(
                        "expiresAt {end} has passed; calls are refused. Set a later time, or remove the object"
                    ),
                )
            }
            _ => return None,
        };
        Some(Condition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(generation),
            last_transition_time: Time(self.now),
        })
    }

    /// When a status may change by the clock alone next, in seconds since the epoch.
    pub(crate) fn next_change(&self, id: &ObjectId) -> Option<i64> {
        let now = self.now.as_second();
        let times: Vec<i64> = match &self.compiler.verdict(id)?.status {
            Status::App(facts) => facts
                .credentials
                .iter()
                .flat_map(|it| [it.not_before_ms, it.expires_at_ms])
                .flatten()
                .map(|ms| ms.div_euclid(1000))
                .collect(),
            Status::DomainBinding(facts) => {
                let end = facts.certificate.as_ref()?.not_after_ms?.div_euclid(1000);
                vec![end - EXPIRING, end]
            }
            Status::Authorization => {
                let spec = self.world.objects.authorizations.get(&id.name)?.spec()?;
                vec![spec.expires_at.as_ref()?.0.as_second()]
            }
            _ => return None,
        };
        times
            .into_iter()
            .filter(|time| *time >= now)
            .min()
            .map(|time| time + 1)
    }

    /// How far an object is on the gateways.
    fn reach(&self, id: &ObjectId, status: &Status) -> Reach {
        match status {
            Status::Api(facts) => {
                let stages = facts.stages.iter();
                stages
                    .map(|(stage, facts)| self.stage_reach(&id.name, stage, facts))
                    .reduce(Reach::worse)
                    .unwrap_or_else(|| {
                        Reach::nothing("no stage is listed in spec.stages: nothing to serve")
                    })
            }
            Status::App(_) => self.apps_reach(),
            Status::ApiGroup(_) => self.group_reach(&id.name),
            Status::BackendService(facts) => backend::reach(self, &id.name, facts),
            Status::Authorization => self.many_reach(self.groups_of_authorization(&id.name)),
            Status::DomainBinding(_) => {
                let group = self
                    .world
                    .objects
                    .domain_bindings
                    .get(&id.name)
                    .and_then(|object| {
                        let group = object.spec()?.group_ref.name.as_str();
                        Some(ObjectName::new(id.name.namespace.clone(), group))
                    });
                self.many_reach(group.into_iter().collect())
            }
        }
    }

    /// The groups that the Apis of an Authorization are in.
    fn groups_of_authorization(&self, name: &ObjectName) -> Vec<ObjectName> {
        let Some(spec) = self
            .world
            .objects
            .authorizations
            .get(name)
            .and_then(|it| it.spec())
        else {
            return Vec::new();
        };
        let reference = |group: &resources::NamespacedRef, namespace: &str| {
            let namespace = group.namespace.as_deref().unwrap_or(namespace);
            ObjectName::new(namespace, group.name.as_str())
        };
        let mut groups: Vec<ObjectName> = spec
            .group
            .iter()
            .map(|it| reference(it, &name.namespace))
            .collect();
        for api in &spec.apis {
            let api = ObjectName::new(name.namespace.clone(), api.name.as_str());
            let object = self.world.objects.apis.get(&api).and_then(|it| it.spec());
            groups.extend(object.map(|it| reference(&it.group_ref, &name.namespace)));
        }
        groups.sort();
        groups.dedup();
        groups
    }

    fn many_reach(&self, groups: Vec<ObjectName>) -> Reach {
        groups
            .iter()
            .map(|group| self.group_reach(group))
            .reduce(Reach::worse)
            .unwrap_or_else(|| Reach::nothing("nothing of it is published"))
    }
}

fn counts(apis: &BTreeMap<Stage, u32>) -> BTreeMap<String, u32> {
    apis.iter()
        .map(|(stage, count)| (stage.to_string(), *count))
        .collect()
}

/// An Event for a condition that turned.
fn transition(now: &Condition, then: Option<&Condition>) -> Option<Tell> {
    let negative = !matches!(
        now.type_.as_str(),
        "Accepted" | "ResolvedRefs" | "Programmed" | "Ready"
    );
    let bad = (now.status == "True") == negative;
    let same = then.is_some_and(|then| then.status == now.status && then.reason == now.reason);
    // Ready and Programmed follow from the others and from pods; telling them too would say everything twice.
    let follows = [
        ConditionKind::Ready.as_str(),
        ConditionKind::Programmed.as_str(),
    ];
    if same || !bad || now.status == "Unknown" || follows.contains(&now.type_.as_str()) {
        return None;
    }
    Some(Tell {
        warning: true,
        reason: now.reason.clone(),
        note: cut(&now.message, 1024),
    })
}

/// Events for stages that serve another release than before.
fn published(now: &Value, before: Option<&Value>) -> Vec<Tell> {
    let release = |stage: &Value| stage.get("release").and_then(Value::as_u64);
    let stages = now.as_object().into_iter().flatten();
    stages
        .filter_map(|(name, stage)| {
            let then = before.and_then(|it| it.get(name)).and_then(release);
            let (reason, note) = match (then, release(stage)) {
                (then, now) if then == now => return None,
                (_, Some(now)) => (
                    "Published",
                    format!("release {now} is published in stage {name}"),
                ),
                (Some(then), None) => {
                    let why = stage
                        .get("reason")
                        .and_then(Value::as_str)
                        .unwrap_or("TakenOffline");
                    (
                        "Offline",
                        format!("stage {name} went offline ({why}); it had release {then}"),
                    )
                }
                (None, None) => return None,
            };
            Some(Tell {
                warning: reason == "Offline",
                reason: reason.to_owned(),
                note,
            })
        })
        .collect()
}

fn bounded(message: &str) -> String {
    cut(message, MESSAGE)
}

/// Cut at a character, with a sign that it was.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - 3)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

/// Times in a status are to the second: finer ones would not read back as they were written.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
