//! Whether a consumption is busy or at rest, without I/O: a busy one does not share its connection.

use std::time::Duration;

use tokio::time::Instant;

/// The pause between two looks.
pub(super) const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Messages between two looks that make a consumption busy.
const MANY: u64 = 10;

/// Looks in a row that have to find many messages: a short burst is over before a connection pays.
const BUSY_LOOKS: u32 = 2;

/// How long nothing may have happened until a consumption is at rest.
const REST: Duration = Duration::from_secs(300);

/// The figures of the last look.
#[derive(Debug)]
pub(super) struct Load {
    received: u64,
    generation: u64,
    busy_looks: u32,
    /// When something happened last.
    stirred: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Busy,
    Between,
    AtRest,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self { received: 0, generation: 0, busy_looks: 0, stirred: now }
    }

    /// Looks at the number of messages received, of deliveries held, and of connections made. A connection that is
    /// lost again and again keeps a consumption from being at rest.
    pub(super) fn look(&mut self, now: Instant, received: u64, held: usize, generation: u64) -> State {
        let came = received.saturating_sub(std::mem::replace(&mut self.received, received));
        let is_new = std::mem::replace(&mut self.generation, generation) != generation;
        self.busy_looks = if came >= MANY { self.busy_looks + 1 } else { 0 };
        if came > 0 || held > 0 || is_new {
            self.stirred = now;
        }
        if self.busy_looks >= BUSY_LOOKS {
            State::Busy
        } else if now - self.stirred >= REST {
            State::AtRest
        } else {
            State::Between
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states that looks find, by seconds, messages received, deliveries held and connections made.
    fn states(looks: &[(u64, u64, usize, u64)]) -> Vec<State> {
        let began = Instant::now();
        let mut load = Load::new(began);
        let mut state = |(second, received, held, generation): &(u64, u64, usize, u64)| {
            load.look(began + Duration::from_secs(*second), *received, *held, *generation)
        };
        looks.iter().map(&mut state).collect()
    }

    #[test]
    fn a_burst_of_one_look_is_not_busy_and_two_are() {
        let looks = [(1, 500, 9, 1), (2, 500, 0, 1), (3, 600, 9, 1), (4, 700, 9, 1)];
        assert_eq!(states(&looks), [State::Between, State::Between, State::Between, State::Busy]);
    }

    #[test]
    fn rest_begins_five_minutes_after_the_last_message() {
        let looks = [(1, 5, 1, 1), (200, 5, 1, 1), (499, 5, 0, 1), (500, 5, 0, 1)];
        assert_eq!(states(&looks)[2..], [State::Between, State::AtRest]);
    }

    #[test]
    fn a_connection_that_was_lost_is_no_rest() {
        let looks = [(1, 0, 0, 1), (300, 0, 0, 2), (302, 0, 0, 2), (600, 0, 0, 2)];
        assert_eq!(states(&looks)[1..], [State::Between, State::Between, State::AtRest]);
    }
}
