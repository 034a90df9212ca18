//! How busy each endpoint of a Service is, for the choice of the less loaded of two.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc};

/// Exchanges under way to each endpoint, upgraded connections included.
pub(crate) type Load = Rc<RefCell<HashMap<SocketAddr, u32, foldhash::fast::RandomState>>>;

/// Counts an exchange while it exists: from its request to the end of its answer.
pub(crate) struct Busy {
    load: Load,
    endpoint: SocketAddr,
}

/// The less loaded of two that are picked at random.
pub(super) fn less_loaded(load: &Load, among: &[SocketAddr]) -> Option<SocketAddr> {
    let count = among.len();
    if count < 2 {
        return among.first().copied();
    }
    let first = fastrand::usize(..count);
    let second = (first + fastrand::usize(1..count)) % count;
    let (first, second) = (among[first], among[second]);
    let load = load.borrow();
    let of = |endpoint| load.get(&endpoint).copied().unwrap_or(0);
    Some(if of(second) < of(first) {
        second
    } else {
        first
    })
}

// === impl Busy ===

impl Busy {
    pub(super) fn new(load: &Load, endpoint: SocketAddr) -> Self {
        *load.borrow_mut().entry(endpoint).or_default() += 1;
        Self {
            load: Rc::clone(load),
            endpoint,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut load = self.load.borrow_mut();
        if let Some(count) = load.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                load.remove(&self.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn of_two_the_less_loaded_is_chosen_and_of_many_every_one_but_the_most_loaded() {
        let load = Load::default();
        let _busy = Busy::new(&load, endpoint(1));
        assert_eq!(less_loaded(&load, &[]), None);
        assert_eq!(less_loaded(&load, &[endpoint(1)]), Some(endpoint(1)));
        let two = [endpoint(1), endpoint(2)];
        let four: Vec<SocketAddr> = (1..=4).map(endpoint).collect();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            assert_eq!(less_loaded(&load, &two), Some(endpoint(2)));
            seen.extend(less_loaded(&load, &four));
        }
        assert_eq!(seen, (2..=4).map(endpoint).collect());
    }

    #[test]
    fn what_ends_is_forgotten() {
        let load = Load::default();
        let (one, two) = (Busy::new(&load, endpoint(1)), Busy::new(&load, endpoint(1)));
        assert_eq!(load.borrow().get(&endpoint(1)), Some(&2));
        drop((one, two));
        assert!(load.borrow().is_empty());
    }
}
