//! Leader election by a Lease, as Kubernetes' own components do it, with one addition: every write asks first whether the lease still
//! holds, by this process's own clock. A leader that was paused and wakes up after its time writes nothing, and what it had begun
//! fails by `resourceVersion`, because its successor has written since.
//!
//! The well-kept crate for this follows an older version of the client, so that two of them would be in the program; the protocol
//! is small.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease as LeaseObject, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use tokio::sync::watch;

use crate::{Settings, names, said, settings::Lease};

/// Whether this replica leads, and until when it may write. Clones share one state.
#[derive(Debug, Clone)]
pub(crate) struct Leading(Arc<Mutex<Option<Instant>>>);

/// What was seen of the Lease, and when by our own clock: times in the object are another clock's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    holder: String,
    renewed: Option<MicroTime>,
    transitions: i32,
    at: Instant,
}

/// What to do about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is ours, or free: take or renew it.
    Take,
    /// It is another's, and still holds.
    Wait,
}

// === impl Leading ===

impl Leading {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Whether a write may be sent now.
    pub(crate) fn holds(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn until(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Takes part in the election for ever. `leads` turns true when this replica leads and false when it does not any more.
pub(crate) async fn run(
    client: Client,
    settings: Arc<Settings>,
    leading: Leading,
    leads: watch::Sender<bool>,
) {
    let api: Api<LeaseObject> = Api::namespaced(client, &settings.namespace);
    let lease = &settings.lease;
    let mut observed: Option<Observed> = None;
    loop {
        let began = Instant::now();
        let tried = tokio::time::timeout(
            lease.renew_deadline,
            attempt(&api, lease, &settings.identity, &mut observed),
        );
        let held = match tried.await {
            Ok(Ok(held)) => Some(held),
            Ok(Err(error)) => {
                tracing::warn!(lease = lease.name, error = %said(&error), "the lease cannot be read or renewed");
                None
            }
            Err(_) => None,
        };
        match held {
            // Counted from before the request: our successor's clock starts no earlier.
            Some(true) => leading.until(Some(began + lease.renew_deadline)),
            Some(false) => leading.until(None),
            None => {}
        }
        let now = leading.holds();
        leads.send_if_modified(|leads| {
            let changed = *leads != now;
            *leads = now;
            changed
        });
        let wait = if now {
            lease.retry_period
        } else {
            lease.retry_period.min(Duration::from_secs(1))
        };
        tokio::time::sleep(wait).await;
    }
}

/// Gives the lease up, so that another replica need not wait.
pub(crate) async fn release(client: &Client, settings: &Settings, leading: &Leading) {
    if !leading.holds() {
        return;
    }
    leading.until(None);
    let api: Api<LeaseObject> = Api::namespaced(client.clone(), &settings.namespace);
    let Ok(mut object) = api.get(&settings.lease.name).await else {
        return;
    };
    let spec = object.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&settings.identity) {
        return;
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    if let Err(error) = api
        .replace(&settings.lease.name, &PostParams::default(), &object)
        .await
    {
        tracing::info!(error = %said(&error), "the lease could not be given up; another replica waits until it runs out");
    }
}

/// One try: whether the lease is ours after it.
async fn attempt(
    api: &Api<LeaseObject>,
    lease: &Lease,
    identity: &str,
    observed: &mut Option<Observed>,
) -> kube::Result<bool> {
    let Some(mut object) = api.get_opt(&lease.name).await? else {
        let object = LeaseObject {
            metadata: ObjectMeta {
                name: Some(lease.name.clone()),
                labels: Some([(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(spec(lease, identity, None)),
        };
        return settle(api.create(&PostParams::default(), &object).await);
    };
    let before = object.spec.take().unwrap_or_default();
    if decide(&before, identity, lease, observed, Instant::now()) == Step::Wait {
        return Ok(false);
    }
    object.spec = Some(spec(lease, identity, Some(&before)));
    settle(
        api.replace(&lease.name, &PostParams::default(), &object)
            .await,
    )
}

/// Losing a race is no error.
fn settle(done: kube::Result<LeaseObject>) -> kube::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn decide(
    spec: &LeaseSpec,
    identity: &str,
    lease: &Lease,
    observed: &mut Option<Observed>,
    now: Instant,
) -> Step {
    let holder = spec.holder_identity.clone().unwrap_or_default();
    if holder == identity || holder.is_empty() {
        return Step::Take;
    }
    let seen = Observed {
        holder,
        renewed: spec.renew_time.clone(),
        transitions: spec.lease_transitions.unwrap_or_default(),
        at: now,
    };
    let same = |before: &Observed| {
        Observed {
            at: seen.at,
            ..before.clone()
        } == seen
    };
    let since = match observed.as_ref().filter(|before| same(before)) {
        Some(before) => before.at,
        None => {
            *observed = Some(seen);
            now
        }
    };
    let theirs = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let duration = theirs.map_or(lease.duration, Duration::from_secs);
    if now.duration_since(since) >= duration {
        Step::Take
    } else {
        Step::Wait
    }
}

fn spec(lease: &Lease, identity: &str, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let ours = before.filter(|before| before.holder_identity.as_deref() == Some(identity));
    let transitions = before
        .and_then(|before| before.lease_transitions)
        .unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(lease.duration.as_secs()).ok(),
        acquire_time: ours
            .and_then(|before| before.acquire_time.clone())
            .or(Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(match (before, ours) {
            (Some(_), None) => transitions + 1,
            _ => transitions,
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_of_another_is_taken_only_when_nothing_was_renewed_for_its_whole_duration() {
        let lease = Lease::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut observed = None;
        let mut step = |renewed, seconds| {
            decide(
                &of("other", renewed),
                "me",
                &lease,
                &mut observed,
                after(seconds),
            )
        };
        assert_eq!(step(1, 0), Step::Wait);
        assert_eq!(step(1, 14), Step::Wait);
        assert_eq!(step(2, 14), Step::Wait, "renewed");
        assert_eq!(step(2, 28), Step::Wait);
        assert_eq!(step(2, 29), Step::Take);
        assert_eq!(
            decide(&of("me", 1), "me", &lease, &mut None, start),
            Step::Take
        );
        assert_eq!(
            decide(&of("", 1), "me", &lease, &mut None, start),
            Step::Take
        );
    }

    #[test]
    fn a_renewal_keeps_the_time_it_was_taken_and_a_change_of_hands_counts() {
        let lease = Lease::default();
        let first = spec(&lease, "a", None);
        let renewed = spec(&lease, "a", Some(&first));
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!(renewed.lease_transitions, Some(0));
        let taken = spec(&lease, "b", Some(&renewed));
        assert_eq!(taken.lease_transitions, Some(1));
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
    }

    #[test]
    fn nothing_is_written_after_the_lease_has_run_out() {
        let leading = Leading::new();
        assert!(!leading.holds());
        leading.until(Some(Instant::now() + Duration::from_secs(60)));
        assert!(leading.holds());
        leading.until(Instant::now().checked_sub(Duration::from_millis(1)));
        assert!(!leading.holds());
    }
}
