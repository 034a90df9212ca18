//! What is kept once: across groups, and across loads for as long as some group uses it.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use paifang_model::ParameterType;

use super::{
    api::{Backend, Constant, System},
    pattern::{Pattern, compile_pattern},
    rules::{Check, Range},
    schema::{Schema, compile_schema},
};
use crate::wire;

/// What a table hands to the next one, besides groups.
#[derive(Default)]
pub(super) struct Lineage {
    patterns: HashMap<Box<str>, Weak<Pattern>, RandomState>,
    schemas: HashMap<Box<str>, Weak<Schema>, RandomState>,
    targets: HashTable<Target>,
    hasher: RandomState,
    /// How many keys there may be before it is looked which of them are used.
    room: usize,
}

/// Keys that are kept without a look in any case.
const ROOM: usize = 1_024;

struct Target {
    hash: u64,
    id: u64,
    target: Weak<wire::Target>,
}

/// [`Lineage`], and what only matters during one load.
pub(super) struct Interner<'l> {
    lineage: &'l mut Lineage,
    texts: HashSet<Arc<str>, RandomState>,
    checks: HashTable<Arc<Check>>,
    constants: HashSet<Arc<[Constant]>, RandomState>,
    systems: HashSet<Arc<[System]>, RandomState>,
    /// Compiling something too large takes long; once is enough.
    bad_patterns: HashMap<Box<str>, String, RandomState>,
    bad_schemas: HashMap<Box<str>, String, RandomState>,
}

/// The next [`Backend::id`].
static NEXT_BACKEND: AtomicU64 = AtomicU64::new(1);

// === impl Lineage ===

impl Lineage {
    /// Drops the keys of what no table uses any more, once there may be as many of these as of others: a look at all of them costs more
    /// than most changes do.
    pub(super) fn forget_unused(&mut self) {
        let count = |all: &Self| all.patterns.len() + all.schemas.len() + all.targets.len();
        if count(self) <= self.room {
            return;
        }
        self.patterns
            .retain(|_, pattern| pattern.strong_count() > 0);
        self.schemas.retain(|_, schema| schema.strong_count() > 0);
        self.targets.retain(|it| it.target.strong_count() > 0);
        self.room = count(self) * 2 + ROOM;
    }

    /// Id and shared form of a target.
    fn target(&mut self, target: &wire::Target) -> (u64, Arc<wire::Target>) {
        let hash = self.hasher.hash_one(target);
        let known = self.targets.iter_hash(hash).find_map(|it| {
            let shared = it.target.upgrade()?;
            (*shared == *target).then_some((it.id, shared))
        });
        known.unwrap_or_else(|| {
            let shared = Arc::new(target.clone());
            let id = NEXT_BACKEND.fetch_add(1, Ordering::Relaxed);
            let entry = Target {
                hash,
                id,
                target: Arc::downgrade(&shared),
            };
            self.targets.insert_unique(hash, entry, |it| it.hash);
            (id, shared)
        })
    }
}

// === impl Interner ===

impl<'l> Interner<'l> {
    pub(super) fn new(lineage: &'l mut Lineage) -> Self {
        Self {
            lineage,
            texts: HashSet::default(),
            checks: HashTable::new(),
            constants: HashSet::default(),
            systems: HashSet::default(),
            bad_patterns: HashMap::default(),
            bad_schemas: HashMap::default(),
        }
    }

    pub(super) fn text(&mut self, text: &str) -> Arc<str> {
        shared(&mut self.texts, text)
    }

    pub(super) fn constants(&mut self, constants: &[Constant]) -> Arc<[Constant]> {
        shared(&mut self.constants, constants)
    }

    pub(super) fn systems(&mut self, systems: &[System]) -> Arc<[System]> {
        shared(&mut self.systems, systems)
    }

    pub(super) fn backend(&mut self, label: &str, target: &wire::Target) -> Arc<Backend> {
        let (id, target) = self.lineage.target(target);
        let label = self.text(label);
        Arc::new(Backend { id, label, target })
    }

    /// The rules beyond the type; `None` when there are none.
    pub(super) fn check(
        &mut self,
        kind: ParameterType,
        rules: &wire::Rules,
    ) -> Result<Option<Arc<Check>>, String> {
        if *rules == wire::Rules::default() {
            return Ok(None);
        }
        let check = Check {
            one_of: rules.one_of.iter().map(|one| one.as_str().into()).collect(),
            range: Range::new(kind, rules)?,
            min_length: rules.min_length.unwrap_or(0),
            max_length: rules.max_length.unwrap_or(u32::MAX),
            pattern: rules
                .pattern
                .as_deref()
                .map(|it| self.pattern(it))
                .transpose()?,
            schema: rules
                .json_schema
                .as_deref()
                .map(|it| self.schema(it))
                .transpose()?,
        };
        Ok(Some(self.shared_check(check)))
    }

    fn shared_check(&mut self, check: Check) -> Arc<Check> {
        let hasher = &self.lineage.hasher;
        let hash = hash(hasher, &check);
        let entry = self.checks.entry(
            hash,
            |known| same(known, &check),
            |known| self::hash(hasher, known),
        );
        Arc::clone(entry.or_insert_with(|| Arc::new(check)).get())
    }

    fn pattern(&mut self, text: &str) -> Result<Arc<Pattern>, String> {
        remembered(
            &mut self.lineage.patterns,
            &mut self.bad_patterns,
            text,
            || compile_pattern(text).map_err(|error| error.to_string()),
        )
    }

    fn schema(&mut self, text: &str) -> Result<Arc<Schema>, String> {
        remembered(
            &mut self.lineage.schemas,
            &mut self.bad_schemas,
            text,
            || compile_schema(text).map_err(|error| error.to_string()),
        )
    }
}

/// The one copy of `value`.
fn shared<T>(known: &mut HashSet<Arc<T>, RandomState>, value: &T) -> Arc<T>
where
    T: ?Sized + Eq + Hash,
    Arc<T>: for<'v> From<&'v T>,
{
    if let Some(known) = known.get(value) {
        return Arc::clone(known);
    }
    let new: Arc<T> = value.into();
    known.insert(Arc::clone(&new));
    new
}

/// What `text` compiles to, compiled once.
fn remembered<T>(
    good: &mut HashMap<Box<str>, Weak<T>, RandomState>,
    bad: &mut HashMap<Box<str>, String, RandomState>,
    text: &str,
    compile: impl FnOnce() -> Result<T, String>,
) -> Result<Arc<T>, String> {
    if let Some(known) = good.get(text).and_then(Weak::upgrade) {
        return Ok(known);
    }
    if let Some(reason) = bad.get(text) {
        return Err(reason.clone());
    }
    match compile() {
        Ok(compiled) => {
            let compiled = Arc::new(compiled);
            good.insert(text.into(), Arc::downgrade(&compiled));
            Ok(compiled)
        }
        Err(reason) => {
            bad.insert(text.into(), reason.clone());
            Err(reason)
        }
    }
}

/// Patterns and schemas are interned, so that their addresses stand for them.
fn hash(hasher: &RandomState, check: &Check) -> u64 {
    let mut state = hasher.build_hasher();
    check.one_of.hash(&mut state);
    match check.range {
        Range::Any => {}
        Range::Integer(minimum, maximum) => (minimum, maximum).hash(&mut state),
        Range::Real(minimum, maximum) => (minimum.to_bits(), maximum.to_bits()).hash(&mut state),
    }
    (check.min_length, check.max_length).hash(&mut state);
    check.pattern.as_ref().map(Arc::as_ptr).hash(&mut state);
    check.schema.as_ref().map(Arc::as_ptr).hash(&mut state);
    std::hash::Hasher::finish(&state)
}

fn same(left: &Check, right: &Check) -> bool {
    fn address<T>(shared: Option<&Arc<T>>) -> Option<*const T> {
        shared.map(Arc::as_ptr)
    }
    left.one_of == right.one_of
        && left.range == right.range
        && (left.min_length, left.max_length) == (right.min_length, right.max_length)
        && address(left.pattern.as_ref()) == address(right.pattern.as_ref())
        && address(left.schema.as_ref()) == address(right.schema.as_ref())
}
