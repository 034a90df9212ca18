//! What is counted for each backend: a BackendService in one stage, or all inline backends of a stage. Mocks are no backends here, as
//! nothing is asked.
//!
//! The number of series is bounded: what is beyond [`MOST_BACKENDS`] is counted as `other`. Durations have buckets by type alone, and
//! a sum by backend.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::fast::RandomState;
use paifang_proxy::{
    Record,
    refusal::{Code, Fault},
};
use paifang_snapshot::{table::Route, wire::Target};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
};

use super::{CLASSES, Count, Durations, PerCode, class_of, histogram};

/// Backends with series of their own.
const MOST_BACKENDS: usize = 1_000;
/// Types that ask something of somebody, as users write them.
const TYPES: [&str; 5] = ["HTTP", "VPC", "FunctionCompute", "OSS", "EventBridge"];

/// One backend's counts; each worker has a cache line of its own.
#[derive(Debug)]
struct Series {
    backend: Box<str>,
    stage: Box<str>,
    kind: usize,
    workers: Box<[Counts]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    attempts: Count,
    connections: Count,
    waited_ns: Count,
    answers: [Count; CLASSES.len()],
    cut: Count,
    errors: PerCode,
}

/// Backend, stage and type.
type Key = (Box<str>, Box<str>, usize);

/// All backends.
#[derive(Debug, Default)]
pub(super) struct Backends {
    series: Mutex<BTreeMap<Key, Arc<Series>>>,
}

/// A worker's hand on [`Backends`].
#[derive(Default)]
pub(super) struct Known(RefCell<HashMap<Box<str>, Vec<Arc<Series>>, RandomState>>);

/// Durations of one worker, by type.
pub(super) type ByType = [Durations; TYPES.len()];

fn kind(target: &Target) -> Option<usize> {
    Some(match target {
        Target::Http(_) => 0,
        Target::Vpc(_) => 1,
        Target::Function(_) => 2,
        Target::Object(_) => 3,
        Target::Event(_) => 4,
        Target::Mock(_) | Target::Unavailable { .. } => return None,
    })
}

// === impl Series ===

impl Series {
    fn is_of(&self, route: &Route, kind: usize) -> bool {
        self.kind == kind && *self.stage == *route.stage.as_str()
    }

    fn labels<'s>(&'s self, more: Option<(&'static str, &'s str)>) -> Vec<(&'static str, &'s str)> {
        let own = [
            ("backend", &*self.backend),
            ("stage", &*self.stage),
            ("type", TYPES[self.kind]),
        ];
        own.into_iter().chain(more).collect()
    }

    fn sum(&self, which: impl Fn(&Counts) -> &Count) -> u64 {
        self.workers.iter().map(|worker| which(worker).read()).sum()
    }
}

// === impl Backends ===

impl Backends {
    /// A lock, taken once for each backend, stage and worker.
    fn series(&self, route: &Route, kind: usize, workers: usize) -> Arc<Series> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |backend: &str, stage: &str| (Box::from(backend), Box::from(stage), kind);
        let mut wanted = key(&route.backend.label, route.stage.as_str());
        if all.len() >= MOST_BACKENDS && !all.contains_key(&wanted) {
            wanted = key("other", "");
        }
        let series = all.entry(wanted.clone()).or_insert_with(|| {
            Arc::new(Series {
                backend: wanted.0,
                stage: wanted.1,
                kind,
                workers: (0..workers).map(|_| Counts::default()).collect(),
            })
        });
        Arc::clone(series)
    }

    fn all(&self) -> Vec<Arc<Series>> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// Writes all series.
    pub(super) fn encode<'d>(
        &self,
        durations: impl Fn(usize) -> Vec<&'d Durations>,
        out: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let all = self.all();
        encode_classes(&all, out)?;
        encode_errors(&all, out)?;
        let attempts = |series: &Series| series.sum(|it| &it.attempts);
        let help = "Times that a backend was asked, repetitions included";
        encode(&all, "backend_attempts", help, out, attempts)?;
        let connections = |series: &Series| series.sum(|it| &it.connections);
        let help = "Connections opened to a backend; the other attempts used one again";
        encode(&all, "backend_connections", help, out, connections)?;
        let cut = |series: &Series| series.sum(|it| &it.cut);
        let help = "Answers that a backend cut in their body, or took too long for";
        encode(&all, "backend_cut", help, out, cut)?;
        encode_waited(&all, out)?;
        let mut metric = out.encode_descriptor(
            "backend_duration_seconds",
            "From asking a backend to its answer's head, by type",
            None,
            MetricType::Histogram,
        )?;
        for (at, kind) in TYPES.iter().enumerate() {
            let (sum, count, buckets) = histogram(&durations(at));
            if count > 0 {
                metric
                    .encode_family(&[("type", *kind)])?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

// === impl Known ===

impl Known {
    /// Counts what `record` asked of a backend, on behalf of one of `workers`.
    pub(super) fn count(
        &self,
        record: &Record,
        (worker, workers): (usize, usize),
        backends: &Backends,
        durations: &ByType,
    ) {
        let (Some(route), Some(dispatched)) = (&record.route, record.dispatched) else {
            return;
        };
        let Some(kind) = kind(&route.backend.target) else {
            return;
        };
        let series = self.series(route, kind, workers, backends);
        let counts = &series.workers[worker];
        counts.attempts.add(record.attempts.into());
        counts.connections.add(record.connections.into());
        if let Some(answered) = record.answered {
            let waited = answered.saturating_duration_since(dispatched);
            durations[kind].record(waited);
            counts
                .waited_ns
                .add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
        }
        if record.cut_by_backend {
            counts.cut.add(1);
        }
        match &record.refusal {
            // What the backend does not like about the gateway counts too.
            Some(refusal) if refusal.code.fault() != Fault::Client => {
                counts.errors.0[refusal.code as usize].add(1);
            }
            Some(_) => {}
            None => counts.answers[class_of(record.status)].add(1),
        }
    }

    fn series(&self, route: &Route, kind: usize, workers: usize, all: &Backends) -> Arc<Series> {
        let mut known = self.0.borrow_mut();
        let label = &*route.backend.label;
        let stages = known.get(label);
        let found = stages.and_then(|it| it.iter().find(|series| series.is_of(route, kind)));
        if let Some(found) = found {
            return Arc::clone(found);
        }
        let series = all.series(route, kind, workers);
        // What is counted as `other` is not kept: it would be a list without end.
        if *series.backend == *label {
            known
                .entry(label.into())
                .or_default()
                .push(Arc::clone(&series));
        }
        series
    }
}

fn encode_classes(all: &[Arc<Series>], out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = out.encode_descriptor(
        "backend_requests",
        "Requests that a backend answered, by status",
        None,
        MetricType::Counter,
    )?;
    for series in all {
        for (at, class) in CLASSES.iter().enumerate() {
            let count = series.sum(|it| &it.answers[at]);
            if count > 0 {
                metric
                    .encode_family(&series.labels(Some(("class", class))))?
                    .encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)?;
            }
        }
    }
    Ok(())
}

fn encode_errors(all: &[Arc<Series>], out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = out.encode_descriptor(
        "backend_errors",
        "Requests that a backend failed, by X-Ca-Error-Code",
        None,
        MetricType::Counter,
    )?;
    for series in all {
        for code in Code::ALL {
            let count = series.sum(|it| &it.errors.0[*code as usize]);
            if count > 0 {
                metric
                    .encode_family(&series.labels(Some(("code", code.as_str()))))?
                    .encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)?;
            }
        }
    }
    Ok(())
}

fn encode_waited(all: &[Arc<Series>], out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = out.encode_descriptor(
        "backend_wait_seconds",
        "Time waited for the heads of a backend's answers",
        None,
        MetricType::Counter,
    )?;
    for series in all {
        let seconds = Duration::from_nanos(series.sum(|it| &it.waited_ns)).as_secs_f64();
        metric
            .encode_family(&series.labels(None))?
            .encode_counter(&seconds, None::<&Exemplar<NoLabelSet, f64>>)?;
    }
    Ok(())
}

fn encode(
    all: &[Arc<Series>],
    name: &str,
    help: &str,
    out: &mut DescriptorEncoder<'_>,
    value: impl Fn(&Series) -> u64,
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for series in all {
        metric
            .encode_family(&series.labels(None))?
            .encode_counter(&value(series), None::<&Exemplar<NoLabelSet, u64>>)?;
    }
    Ok(())
}
