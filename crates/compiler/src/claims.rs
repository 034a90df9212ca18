//! Who gets what only one may have: a route in a stage, a host with a base path, an AppKey.
//!
//! Who has it keeps it, so that nobody's edit takes anything from anybody else; among those who come new, the older object wins. Who
//! cannot have what it asks for keeps what it had. The same for any number of claimants at once: those who move on make room first.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

/// A wish, and what its owner has now. Entries are handed over in order of seniority.
#[derive(Debug, Clone)]
pub(crate) struct Entry<K> {
    /// What it asks for; absent when that cannot be served anyway.
    pub(crate) wanted: Option<Claim<K>>,
    /// What it had last and could go on with.
    pub(crate) held: Option<Claim<K>>,
    /// Whether it still has that: what was lost for a while is not kept for anybody.
    pub(crate) holds: bool,
}

/// One thing asked for.
#[derive(Debug, Clone)]
pub(crate) struct Claim<K> {
    /// Only one may have it.
    pub(crate) key: K,
    /// Whose members are counted.
    pub(crate) group: usize,
    /// Who counts as a member.
    pub(crate) member: usize,
}

/// What an entry gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Which of the two; none of them is possible.
    pub(crate) got: Option<Got>,
    /// Why it did not get what it wanted.
    pub(crate) blocked: Option<Blocked>,
}

/// Which claim was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    Wanted,
    Held,
}

/// Why a claim was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// This entry has it.
    Taken(usize),
    /// The group has as many members as it may.
    Full,
}

/// What has been granted so far.
struct Board<K> {
    taken: HashMap<K, usize>,
    members: HashMap<usize, HashSet<usize>>,
    limit: usize,
    outcomes: Vec<Option<Outcome>>,
}

/// Grants claims; a group has at most `limit` members.
pub(crate) fn settle<K: Eq + Hash + Clone>(entries: &[Entry<K>], limit: usize) -> Vec<Outcome> {
    let mut board = Board {
        taken: HashMap::with_capacity(entries.len()),
        members: HashMap::new(),
        limit,
        outcomes: vec![None; entries.len()],
    };
    for (at, entry) in entries.iter().enumerate() {
        if let (Some(held), true) = (&entry.held, stays(entry)) {
            let got = match entry.wanted {
                Some(_) => Got::Wanted,
                None => Got::Held,
            };
            board.grant(at, held, got, None);
        }
    }
    board.settle_movers(entries);
    for (at, entry) in entries.iter().enumerate() {
        if board.outcomes[at].is_none() {
            board.settle_last(at, entry);
        }
    }
    board
        .outcomes
        .into_iter()
        .map(|outcome| {
            outcome.unwrap_or(Outcome {
                got: None,
                blocked: None,
            })
        })
        .collect()
}

/// Whether it asks for what it has, or for nothing it could get.
fn stays<K: Eq>(entry: &Entry<K>) -> bool {
    entry.holds
        && match (&entry.wanted, &entry.held) {
            (Some(wanted), Some(held)) => wanted.key == held.key,
            (None, Some(_)) => true,
            (_, None) => false,
        }
}

// === impl Board ===

impl<K: Eq + Hash + Clone> Board<K> {
    fn blocked(&self, claim: &Claim<K>) -> Option<Blocked> {
        if let Some(&owner) = self.taken.get(&claim.key) {
            return Some(Blocked::Taken(owner));
        }
        let members = self.members.get(&claim.group);
        let full = members
            .is_some_and(|members| members.len() >= self.limit && !members.contains(&claim.member));
        (full || self.limit == 0).then_some(Blocked::Full)
    }

    /// Grants it unless it is blocked.
    fn grant(&mut self, at: usize, claim: &Claim<K>, got: Got, blocked: Option<Blocked>) -> bool {
        if self.blocked(claim).is_some() {
            return false;
        }
        self.taken.insert(claim.key.clone(), at);
        self.members
            .entry(claim.group)
            .or_default()
            .insert(claim.member);
        self.outcomes[at] = Some(Outcome {
            got: Some(got),
            blocked,
        });
        true
    }

    /// Those who have something and want something else. What they have is kept for them until they have moved.
    fn settle_movers(&mut self, entries: &[Entry<K>]) {
        let moves = |at: &usize| {
            let entry = &entries[*at];
            entry.holds && entry.wanted.is_some() && entry.held.is_some() && !stays(entry)
        };
        let mut movers: Vec<usize> = (0..entries.len()).filter(moves).collect();
        loop {
            let before = movers.len();
            let kept: HashMap<K, usize> = movers
                .iter()
                .filter_map(|&at| Some((entries[at].held.as_ref()?.key.clone(), at)))
                .collect();
            movers.retain(|&at| {
                let entry = &entries[at];
                let Some(wanted) = &entry.wanted else {
                    return false;
                };
                if self.blocked(wanted).is_some() {
                    self.settle_last(at, entry);
                    return false;
                }
                let free = kept.get(&wanted.key).is_none_or(|&owner| owner == at);
                !(free && self.grant(at, wanted, Got::Wanted, None))
            });
            if movers.len() == before {
                break;
            }
        }
        // What is left exchanges places in circles.
        for at in movers {
            self.settle_last(at, &entries[at]);
        }
    }

    /// What it wants, else what it had, else nothing.
    fn settle_last(&mut self, at: usize, entry: &Entry<K>) {
        let blocked = match &entry.wanted {
            Some(wanted) if self.grant(at, wanted, Got::Wanted, None) => return,
            Some(wanted) => self.blocked(wanted),
            None => None,
        };
        if let Some(held) = &entry.held
            && self.grant(at, held, Got::Held, blocked)
        {
            return;
        }
        self.outcomes[at] = Some(Outcome { got: None, blocked });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as `wanted<held`, one member each, all of one group, `?` for one that was lost; outcomes as what each has in the end.
    fn check(entries: &[(&str, &str)], limit: usize, expected: &[&str]) {
        let claim = |key: &str, member: usize| {
            (!key.is_empty()).then(|| Claim {
                key: key.to_owned(),
                group: 0,
                member,
            })
        };
        let entries: Vec<Entry<String>> = entries
            .iter()
            .enumerate()
            .map(|(at, (wanted, held))| Entry {
                wanted: claim(wanted, at),
                held: claim(held.trim_end_matches('?'), at),
                holds: !held.ends_with('?'),
            })
            .collect();
        let has: Vec<&str> = settle(&entries, limit)
            .iter()
            .zip(&entries)
            .map(|(outcome, entry)| {
                let claim = match outcome.got {
                    Some(Got::Wanted) => &entry.wanted,
                    Some(Got::Held) => &entry.held,
                    None => &None,
                };
                claim.as_ref().map_or("", |claim| claim.key.as_str())
            })
            .collect();
        assert_eq!(has, expected, "{entries:?}");
    }

    #[test]
    fn the_older_of_two_newcomers_wins() {
        check(&[("a", ""), ("a", "")], 9, &["a", ""]);
    }

    #[test]
    fn who_has_it_keeps_it() {
        check(&[("a", ""), ("a", "a")], 9, &["", "a"]);
        check(&[("a", "b"), ("a", "a")], 9, &["b", "a"]);
        check(&[("a", "b"), ("", "a"), ("b", "")], 9, &["b", "a", ""]);
    }

    #[test]
    fn who_moves_makes_room() {
        check(&[("a", "b"), ("c", "a")], 9, &["a", "c"]);
        check(&[("b", ""), ("a", "b")], 9, &["b", "a"]);
        check(&[("a", "b"), ("b", "a")], 9, &["a", "b"]);
        check(&[("b", "a"), ("c", "b"), ("a", "c")], 9, &["b", "c", "a"]);
    }

    #[test]
    fn a_chain_behind_one_who_cannot_move_stays() {
        check(&[("b", "a"), ("c", "b"), ("c", "c")], 9, &["a", "b", "c"]);
    }

    #[test]
    fn what_was_lost_for_a_while_is_taken_from_nobody() {
        check(&[("a", "a?"), ("a", "a")], 9, &["", "a"]);
        check(&[("", "a?"), ("b", "")], 9, &["a", "b"]);
    }

    #[test]
    fn a_full_group_takes_nobody_new() {
        check(&[("a", ""), ("b", "b"), ("c", "c")], 2, &["", "b", "c"]);
        check(&[("d", "a"), ("b", "b")], 2, &["d", "b"]);
        check(&[("a", ""), ("b", "")], 1, &["a", ""]);
    }
}
