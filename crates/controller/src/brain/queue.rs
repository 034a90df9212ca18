//! Whose status is to be looked at next.
//!
//! What somebody has just edited comes before what only follows from pods and neighbours, so that who waits for one object does not
//! wait for twenty thousand; but some of the turns go to the rest, so that nothing waits for ever. Within each, the oldest first: by
//! then most of what an object's status tells has happened, and one write says what would take two.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use paifang_compiler::ObjectId;

/// A status is written when its object has waited so long, so that one write says what would take two.
const SETTLED: Duration = Duration::from_millis(80);
/// One in so many turns goes to what was not edited.
const SHARE: u32 = 4;

/// Why a status is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// The object, or what was decided about it, has changed.
    Edited,
    /// Gateways, its neighbours or the time have.
    Followed,
}

/// Objects that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<ObjectId, (Why, Instant)>,
    edited: BTreeSet<(Instant, ObjectId)>,
    followed: BTreeSet<(Instant, ObjectId)>,
    turns: u32,
}

// === impl Queue ===

impl Queue {
    /// Adds an object. One that waits keeps its place, or gets a better one.
    pub(super) fn add(&mut self, id: ObjectId, why: Why, since: Instant) {
        let mut place = (why, since);
        if let Some(&(then, at)) = self.waiting.get(&id) {
            place = (why.min(then), since.min(at));
            if place == (then, at) {
                return;
            }
            self.order(then).remove(&(at, id.clone()));
        }
        self.order(place.0).insert((place.1, id.clone()));
        self.waiting.insert(id, place);
    }

    /// Adds one that need not settle any more.
    pub(super) fn add_settled(&mut self, id: ObjectId, now: Instant) {
        self.add(id, Why::Followed, now.checked_sub(SETTLED).unwrap_or(now));
    }

    /// Takes the next that has settled and is not among `busy`.
    pub(super) fn take(&mut self, now: Instant, busy: &BTreeSet<ObjectId>) -> Option<ObjectId> {
        let first = if self.turns.is_multiple_of(SHARE) {
            [Why::Followed, Why::Edited]
        } else {
            [Why::Edited, Why::Followed]
        };
        let id = first
            .into_iter()
            .find_map(|why| self.take_of(why, now, busy))?;
        self.turns = self.turns.wrapping_add(1);
        self.waiting.remove(&id);
        Some(id)
    }

    fn take_of(&mut self, why: Why, now: Instant, busy: &BTreeSet<ObjectId>) -> Option<ObjectId> {
        let order = self.order(why);
        let settled = |at: &Instant| now.duration_since(*at) >= SETTLED;
        let mut due = order.iter().take_while(|(at, _)| settled(at));
        let found = due.find(|(_, id)| !busy.contains(id)).cloned()?;
        order.remove(&found);
        Some(found.1)
    }

    fn order(&mut self, why: Why) -> &mut BTreeSet<(Instant, ObjectId)> {
        match why {
            Why::Edited => &mut self.edited,
            Why::Followed => &mut self.followed,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        let turns = self.turns;
        *self = Self {
            turns,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use paifang_compiler::Kind;
    use paifang_model::ObjectName;

    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId::new(Kind::Api, &ObjectName::new("demo", name))
    }

    fn all(queue: &mut Queue, now: Instant) -> Vec<String> {
        let none = BTreeSet::new();
        std::iter::from_fn(|| queue.take(now, &none))
            .map(|id| id.name.name.to_string())
            .collect()
    }

    #[test]
    fn the_oldest_first_and_none_that_has_not_settled() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        queue.add(id("a"), Why::Edited, at(10));
        queue.add(id("b"), Why::Edited, at(0));
        queue.add(id("c"), Why::Edited, at(20));
        // Seen again: it keeps its place.
        queue.add(id("b"), Why::Edited, at(30));
        assert_eq!(queue.len(), 3);
        assert_eq!(all(&mut queue, at(79)), [""; 0]);
        assert_eq!(all(&mut queue, at(95)), ["b", "a"]);
        assert_eq!(all(&mut queue, at(100)), ["c"]);
        queue.add_settled(id("d"), at(100));
        assert_eq!(all(&mut queue, at(100)), ["d"]);
    }

    #[test]
    fn an_edit_passes_what_only_follows_and_the_rest_has_its_share() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        for number in 0..3 {
            queue.add(id(&format!("f{number}")), Why::Followed, start);
        }
        for number in 0..6 {
            queue.add(id(&format!("e{number}")), Why::Edited, start + SETTLED / 2);
        }
        // One that waited for its pods and is edited.
        queue.add(id("f2"), Why::Edited, start + SETTLED);
        let order = all(&mut queue, start + 2 * SETTLED);
        assert_eq!(
            order,
            ["f0", "f2", "e0", "e1", "f1", "e2", "e3", "e4", "e5"]
        );
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_is_being_written_waits_and_holds_up_nobody() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.add(id("a"), Why::Edited, start);
        queue.add(id("b"), Why::Edited, start);
        let busy = BTreeSet::from([id("a")]);
        let later = start + SETTLED;
        assert_eq!(queue.take(later, &busy), Some(id("b")));
        assert_eq!(queue.take(later, &busy), None);
        assert_eq!(queue.take(later, &BTreeSet::new()), Some(id("a")));
    }
}
