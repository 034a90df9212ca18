//! Requests of one HTTP/2 connection that are under way, so that a connection without any ends in time, and one whose client takes no
//! answer too. HTTP/1.1 needs none of this: its guard sees each byte.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use paifang_proxy::Body;

/// Requests under way.
#[derive(Debug)]
pub(crate) struct Flights {
    active: Cell<u32>,
    /// Of those, how many wait for their client to take what is there, and not for a backend.
    held_up: Cell<u32>,
    /// Raised by everything that moves.
    moves: Cell<u64>,
}

/// One of them, until it is dropped.
pub(crate) struct Flight {
    flights: Rc<Flights>,
    held_up: Cell<bool>,
}

/// An answer's body that knows when it is over.
pub(crate) struct Counted {
    body: Body,
    flight: Flight,
}

// === impl Flights ===

impl Flights {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            active: Cell::new(0),
            held_up: Cell::new(0),
            moves: Cell::new(0),
        })
    }

    pub(crate) fn begin(self: &Rc<Self>) -> Flight {
        self.active.set(self.active.get() + 1);
        self.moved();
        Flight {
            flights: Rc::clone(self),
            held_up: Cell::new(false),
        }
    }

    fn moved(&self) {
        self.moves.set(self.moves.get().wrapping_add(1));
    }

    /// Watches the connection. Sets `idle` once nothing has been under way for `idle_patience`. Returns once the connection is of no
    /// more use: for `stall_patience`, all that is under way are answers of which nothing could be sent, or it is idle and does not
    /// end. The last piece of an answer is the library's, and under way no more, before the client has it.
    pub(crate) async fn watch(
        &self,
        idle_patience: Duration,
        stall_patience: Duration,
        idle: &Cell<bool>,
    ) {
        // Looks four times in that time rather than set a timer at each move.
        let pause = (idle_patience.min(stall_patience) / 4).max(Duration::from_millis(10));
        let (mut moves, mut since) = (self.moves.get(), Instant::now());
        loop {
            tokio::time::sleep(pause).await;
            if self.moves.get() != moves {
                (moves, since) = (self.moves.get(), Instant::now());
                continue;
            }
            let unmoved = since.elapsed();
            let active = self.active.get();
            if active == 0 && unmoved >= idle_patience {
                idle.set(true);
            }
            let stuck = active > 0 && active == self.held_up.get() && unmoved >= stall_patience;
            if stuck || (idle.get() && unmoved >= idle_patience + stall_patience) {
                return;
            }
        }
    }
}

// === impl Flight ===

impl Flight {
    /// The answer's head is there, for the client to take.
    pub(crate) fn answered(&self) {
        self.hold_up(true);
    }

    fn hold_up(&self, held_up: bool) {
        let flights = &self.flights;
        flights.moved();
        match (self.held_up.replace(held_up), held_up) {
            (false, true) => flights.held_up.set(flights.held_up.get() + 1),
            (true, false) => flights.held_up.set(flights.held_up.get() - 1),
            _ => {}
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.hold_up(false);
        self.flights.active.set(self.flights.active.get() - 1);
    }
}

// === impl Counted ===

impl Counted {
    pub(crate) fn new(body: Body, flight: Flight) -> Self {
        Self { body, flight }
    }
}

impl HttpBody for Counted {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        // That the body is asked for at all says that the client took what was before.
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        this.flight.hold_up(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    /// Whether a connection is found to be idle, and whether of no more use, in a time that is long for its patience.
    async fn watched(flights: &Flights) -> (bool, bool) {
        let idle = Cell::new(false);
        let patience = Duration::from_millis(20);
        let watch = flights.watch(patience, patience, &idle);
        let useless = tokio::time::timeout(patience * 10, watch).await.is_ok();
        (idle.get(), useless)
    }

    #[test]
    fn a_connection_is_idle_without_flights_and_stuck_with_answers_that_do_not_move() {
        wait(async {
            let flights = Flights::new();
            assert_eq!(watched(&flights).await, (true, true));
            let (first, second) = (flights.begin(), flights.begin());
            assert_eq!(
                watched(&flights).await,
                (false, false),
                "backends are waited for"
            );
            first.answered();
            assert_eq!(
                watched(&flights).await,
                (false, false),
                "a backend is waited for"
            );
            second.answered();
            assert_eq!(
                watched(&flights).await,
                (false, true),
                "the client is waited for"
            );
            second.hold_up(false);
            assert_eq!(
                watched(&flights).await,
                (false, false),
                "a body is waited for"
            );
            drop((first, second));
            assert_eq!(watched(&flights).await, (true, true));
        });
    }
}
