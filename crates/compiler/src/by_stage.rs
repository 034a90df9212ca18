//! A value for each of some stages.

use std::{collections::BTreeMap, fmt, ops::Index, sync::Arc};

use paifang_model::Stage;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value for each of some stages, in their order; written as a map. An Api has a handful of stages and there are many Apis: a sorted
/// list takes a fraction of the memory of a tree, and a clone shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct ByStage<T>(Arc<[(Stage, T)]>);

/// The entries of a [`ByStage`].
pub type Stages<'s, T> =
    std::iter::Map<std::slice::Iter<'s, (Stage, T)>, fn(&'s (Stage, T)) -> (&'s Stage, &'s T)>;

// === impl ByStage ===

impl<T> ByStage<T> {
    /// The value of a stage.
    pub fn get(&self, stage: &Stage) -> Option<&T> {
        let at = self.0.binary_search_by(|(it, _)| it.cmp(stage)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there is a value for a stage.
    pub fn contains_key(&self, stage: &Stage) -> bool {
        self.get(stage).is_some()
    }

    /// Every stage with its value, in order.
    pub fn iter(&self) -> Stages<'_, T> {
        self.0.iter().map(|(stage, value)| (stage, value))
    }

    /// The stages, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Stage> {
        self.0.iter().map(|(stage, _)| stage)
    }

    /// The values, in the order of their stages.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// How many stages there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for ByStage<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for ByStage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<T> From<BTreeMap<Stage, T>> for ByStage<T> {
    fn from(map: BTreeMap<Stage, T>) -> Self {
        if map.is_empty() {
            return Self::default();
        }
        Self(map.into_iter().collect())
    }
}

/// Of two values for a stage, the later one counts.
impl<T> FromIterator<(Stage, T)> for ByStage<T> {
    fn from_iter<I: IntoIterator<Item = (Stage, T)>>(entries: I) -> Self {
        entries.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<'s, T> IntoIterator for &'s ByStage<T> {
    type Item = (&'s Stage, &'s T);
    type IntoIter = Stages<'s, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Index<&Stage> for ByStage<T> {
    type Output = T;

    /// # Panics
    /// When there is no value for the stage.
    fn index(&self, stage: &Stage) -> &T {
        self.get(stage).expect("a value for the stage")
    }
}

impl<T: Serialize> Serialize for ByStage<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByStage<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_ordered_map_in_what_it_answers_and_in_what_it_is_written_as() {
        let [release, test]: [Stage; 2] = ["RELEASE", "TEST"].map(|it| it.parse().unwrap());
        let numbers: ByStage<u64> = [(test.clone(), 1), (release.clone(), 2), (test.clone(), 3)]
            .into_iter()
            .collect();
        assert_eq!(numbers.keys().collect::<Vec<_>>(), [&release, &test]);
        assert_eq!((numbers[&release], numbers.get(&test)), (2, Some(&3)));
        assert_eq!(numbers.get(&"PRE".parse().unwrap()), None);
        let written = serde_json::to_string(&numbers).unwrap();
        assert_eq!(written, r#"{"RELEASE":2,"TEST":3}"#);
        let read: ByStage<u64> = serde_json::from_str(&written).unwrap();
        assert_eq!(read, numbers);
        assert_eq!(
            serde_json::to_string(&ByStage::<u64>::default()).unwrap(),
            "{}"
        );
    }
}
