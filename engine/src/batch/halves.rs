//! The guilty messages of a batch that failed: each half is handled separately, and so on, until a message fails alone.

use std::ops::Range;

/// The parts of a batch that are still to be handled. It has no I/O and no clock.
///
/// Handle each part that [`next`](Iterator::next) gives, and say how that ended before you ask for another one.
#[derive(Clone, Debug)]
pub struct Halves {
    current: Range<usize>,
    /// The parts that follow, the next one last.
    rest: Vec<Range<usize>>,
    /// Whether also an error of the surroundings is split.
    probes: bool,
    has_succeeded: bool,
    /// Messages that failed alone by an error of the surroundings before anything succeeded.
    unproven: usize,
}

/// The consequence for a part that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody's yet: its halves follow.
    Halves,
    /// The message failed alone: it has failed its attempt.
    Proven,
    /// The surroundings failed: all of them come again, and nothing is said about any of them.
    Nobody,
}

/// Messages that have to fail alone by an error of the surroundings, with nothing that succeeds, until it is believed.
const ENOUGH: usize = 2;

impl Halves {
    /// A batch of `count` messages. If it `probes`, an error of the surroundings is split too, as long as nothing says
    /// that the surroundings have failed: for messages that have had all their attempts in company.
    #[must_use]
    pub fn new(count: usize, probes: bool) -> Self {
        let rest = (count > 0).then_some(0..count).into_iter().collect();
        Self { current: 0..0, rest, probes, has_succeeded: false, unproven: 0 }
    }

    /// The current part is handled.
    pub fn succeeded(&mut self) {
        self.has_succeeded = true;
    }

    /// The current part failed by an error of its own.
    pub fn failed(&mut self) -> Blame {
        if self.current.len() <= 1 {
            return Blame::Proven;
        }
        let Range { start, end } = self.current;
        let middle = start + (end - start).div_ceil(2);
        self.rest.push(middle..end);
        self.rest.push(start..middle);
        Blame::Halves
    }

    /// The current part failed by an error of the surroundings, such as a database that is away.
    pub fn failed_in_common(&mut self) -> Blame {
        if !self.probes || self.unproven >= ENOUGH {
            return Blame::Nobody;
        }
        if self.current.len() > 1 || self.has_succeeded {
            return self.failed();
        }
        self.unproven += 1;
        Blame::Nobody
    }

    /// Whether the surroundings have certainly failed: no further part need be handled.
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.unproven >= ENOUGH && !self.has_succeeded
    }
}

impl Iterator for Halves {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        self.current = self.rest.pop()?;
        Some(self.current.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The guilty ones that are found, and how many calls that took.
    fn find(count: usize, guilty: &BTreeSet<usize>) -> (BTreeSet<usize>, usize) {
        let (mut halves, mut found, mut calls) = (Halves::new(count, false), BTreeSet::new(), 0);
        let mut handled = Vec::new();
        while let Some(part) = halves.next() {
            calls += 1;
            if !part.clone().any(|index| guilty.contains(&index)) {
                halves.succeeded();
                handled.extend(part);
            } else if halves.failed() == Blame::Proven {
                found.extend(part);
            }
        }
        let expected: Vec<_> = (0..count).filter(|index| !guilty.contains(index)).collect();
        assert_eq!(handled, expected, "the others are handled once, in their order");
        (found, calls)
    }

    proptest! {
        #[test]
        fn exactly_the_guilty_ones_are_found(
            (count, guilty) in (0..300_usize).prop_flat_map(|count| {
                (Just(count), prop::collection::btree_set(0..count.max(1), 0..=count.min(20)))
            })
        ) {
            let guilty: BTreeSet<_> = guilty.into_iter().filter(|index| *index < count).collect();
            let (found, calls) = find(count, &guilty);
            prop_assert_eq!(found, guilty);
            prop_assert!(calls <= (2 * count).saturating_sub(1));
        }
    }

    #[test]
    fn one_guilty_message_of_a_hundred_is_found_in_at_most_sixteen_calls() {
        for index in 0..100 {
            assert!(find(100, &BTreeSet::from([index])).1 <= 16);
        }
    }

    #[test]
    fn an_error_of_the_surroundings_takes_one_call_and_blames_nobody() {
        let mut halves = Halves::new(100, false);
        assert_eq!(halves.next(), Some(0..100));
        assert_eq!(halves.failed_in_common(), Blame::Nobody);
        assert_eq!(halves.next(), None);
    }

    /// The messages that are blamed where these fail by an error of the surroundings, and the calls.
    fn probe(count: usize, failing: impl Fn(usize) -> bool) -> (Vec<usize>, usize) {
        let (mut halves, mut blamed, mut calls) = (Halves::new(count, true), Vec::new(), 0);
        while let Some(part) = halves.next() {
            if halves.should_stop() {
                break;
            }
            calls += 1;
            if !part.clone().any(&failing) {
                halves.succeeded();
            } else if halves.failed_in_common() == Blame::Proven {
                blamed.extend(part);
            }
        }
        (blamed, calls)
    }

    #[test]
    fn a_message_that_fails_where_others_succeed_is_blamed_although_its_error_looks_common() {
        let (blamed, calls) = probe(100, |index| index == 99);
        assert_eq!(blamed, [99]);
        assert!(calls <= 16);
    }

    #[test]
    fn while_nothing_succeeds_a_probe_blames_nobody_and_ends_soon() {
        let (blamed, calls) = probe(100, |_| true);
        assert_eq!(blamed, Vec::<usize>::new());
        assert!(calls <= 10, "{calls}");
    }
}
