//! A status as words of a page, for another process to read.

use std::time::Duration;

use crate::observe::families::{Kind, STATUS_CELLS};
use crate::observe::page::{Page, Reading, nanoseconds};
use crate::observe::state::{ConsumerState, Status};

/// A status with moments of the page's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: ConsumerState,
    pub(crate) reason: String,
    /// When the state began.
    since: u64,
    /// When it was ready for the last time, or 0.
    left: u64,
}

impl Report {
    pub(crate) fn of(status: &Status, page: &Page) -> Self {
        let now = page.now();
        let ago = |moment: std::time::Instant| now.saturating_sub(nanoseconds(moment.elapsed())).max(1);
        Self {
            state: status.state,
            reason: status.reason.to_string(),
            since: ago(status.since),
            left: status.left().map_or(0, ago),
        }
    }

    pub(crate) fn words(&self) -> [u64; STATUS_CELLS] {
        let mut words = [0; STATUS_CELLS];
        words[0] =
            ConsumerState::ALL.iter().position(|each| *each == self.state).map_or(0, |at| at as u64 + 1);
        (words[1], words[2]) = (self.since, self.left);
        for (word, bytes) in words[3..].iter_mut().zip(self.reason.as_bytes().chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(eight);
        }
        words
    }

    /// The status that this series has; `None` if it is none, or not known.
    pub(crate) fn read(reading: &Reading) -> Option<Self> {
        let [state, since, left, reason @ ..] = reading.cells.as_slice() else { return None };
        if reading.family.kind != Kind::State {
            return None;
        }
        let number = usize::try_from(*state).ok()?.checked_sub(1)?;
        let bytes: Vec<u8> = reason.iter().flat_map(|word| word.to_le_bytes()).collect();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self {
            state: *ConsumerState::ALL.get(number)?,
            reason: String::from_utf8_lossy(text).into_owned(),
            since: *since,
            left: *left,
        })
    }

    /// As [`Status::is_ready`], at this moment.
    pub(crate) fn is_ready(&self, now: u64, grace: Duration) -> bool {
        let was_lately = self.left > 0 && now.saturating_sub(self.left) < nanoseconds(grace);
        self.state.is_ready() || (self.state.may_pass() && was_lately)
    }

    /// When it was ready for the last time, if this moment is the last that is known of it; 0 if it never was.
    #[cfg(any(test, feature = "http"))]
    pub(crate) fn last_ready(&self, moment: u64) -> u64 {
        if self.state.is_ready() { moment } else { self.left }
    }

    #[cfg(any(test, feature = "http"))]
    /// How long it has been so.
    pub(crate) fn age(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.since))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::observe::families::STATE;
    use crate::observe::state::Machine;

    use super::*;

    fn report(facts: &[fn(&mut Machine)]) -> (Report, Page) {
        let page = Page::default();
        let mut machine = Machine::new(Instant::now());
        for fact in facts {
            fact(&mut machine);
            machine.conclude(Instant::now());
        }
        page.series(&STATE, &["Orders"]).set_all(&Report::of(machine.status(), &page).words());
        (Report::read(&page.view().readings()[0]).unwrap(), page)
    }

    #[test]
    fn another_process_reads_the_state_with_its_reason() {
        let (report, _) = report(&[Machine::starts, Machine::fetches, |it| it.links(false, false)]);
        assert_eq!(report.state, ConsumerState::Unreachable);
        assert_eq!(report.reason, "the connection is lost, reconnecting");
    }

    #[test]
    fn another_process_knows_for_how_long_it_was_ready_until_lately() {
        let (report, page) = report(&[Machine::starts, Machine::fetches, |it| it.links(false, false)]);
        let now = page.now();
        assert!(report.is_ready(now, Duration::from_secs(3600)));
        assert!(!report.is_ready(now, Duration::ZERO));
        assert!(!report.is_ready(now + nanoseconds(Duration::from_secs(3601)), Duration::from_secs(3600)));
        assert!(report.age(now) < Duration::from_secs(60));
    }

    #[test]
    fn words_that_nobody_wrote_are_no_status() {
        let page = Page::default();
        page.series(&STATE, &["Orders"]);
        assert_eq!(Report::read(&page.view().readings()[0]), None);
    }
}
