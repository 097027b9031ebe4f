//! Messages that this process handed back at or beyond their last attempt.

use std::collections::{BTreeMap, HashMap};

/// Messages that are remembered; each that is forgotten may run as a suspect.
const MOST: usize = 10_000;

/// The messages by their sequences.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    messages: HashMap<u64, Noted>,
    /// The sequences in the order in which they were noted.
    order: BTreeMap<u64, u64>,
    noted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    attempt: u64,
    place: u64,
}

impl Returned {
    /// Notes that the message is handed back at this attempt. Of too many messages, the oldest is forgotten.
    pub(crate) fn note(&mut self, sequence: u64, attempt: u64) {
        self.take(sequence);
        if self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.messages.remove(&oldest);
        }
        self.noted += 1;
        self.order.insert(self.noted, sequence);
        self.messages.insert(sequence, Noted { attempt, place: self.noted });
    }

    /// Whether the attempt before this one was handed back here. Ask once for each delivery.
    pub(crate) fn forget(&mut self, sequence: u64, attempt: u64) -> bool {
        self.take(sequence).is_some_and(|noted| noted.attempt + 1 == attempt)
    }

    fn take(&mut self, sequence: u64) -> Option<Noted> {
        let noted = self.messages.remove(&sequence)?;
        self.order.remove(&noted.place);
        Some(noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_attempt_after_the_one_that_was_handed_back_is_known() {
        let mut returned = Returned::default();
        returned.note(1, 4);
        assert!(returned.forget(1, 5));
        assert!(!returned.forget(1, 5), "it was asked for");
        returned.note(1, 5);
        assert!(!returned.forget(1, 7), "another process had the sixth");
    }

    #[test]
    fn of_too_many_messages_that_were_handed_back_the_oldest_are_forgotten() {
        let (mut returned, most) = (Returned::default(), MOST as u64);
        (1..=most).for_each(|sequence| returned.note(sequence, 4));
        returned.note(1, 4);
        (most + 1..=most + 3).for_each(|sequence| returned.note(sequence, 4));
        assert_eq!((returned.messages.len(), returned.order.len()), (MOST, MOST));
        let forgotten: Vec<_> = (1..=most + 3).filter(|sequence| !returned.forget(*sequence, 5)).collect();
        assert_eq!(forgotten, [2, 3, 4]);
    }
}
