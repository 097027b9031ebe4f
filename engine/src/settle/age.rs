//! How old a delivery may be when it arrives, without I/O and without a clock.
//!
//! The server does not say when it sent one. A delivery that was held up by the network or in a frozen process looks
//! like any other. An answered question tells: everything that the server sends after its answer is younger than the
//! question.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Number of questions in a row without an answer, on a link that carries other things, after which nobody is expected
/// to answer.
const MUTE: u32 = 3;

/// Bounds of the time at which deliveries were sent.
#[derive(Debug)]
pub(crate) struct Age {
    /// When the subscription or the connection began.
    began: Instant,
    answers: VecDeque<Answer>,
    unanswered: u32,
    /// The place of the last delivery among those of the consumer.
    latest: u64,
}

#[derive(Debug)]
struct Answer {
    asked: Instant,
    /// How many deliveries the consumer had made when it was given, where that was told.
    made: Option<u64>,
}

impl Age {
    /// Starts with the assumption that all deliveries are sent from now on.
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, answers: VecDeque::new(), unanswered: 0, latest: 0 }
    }

    /// Notes that a question of that time was answered, and how many deliveries had been made. Answers to questions
    /// older than `oldest` are dropped.
    pub(crate) fn answered(&mut self, asked: Instant, made: Option<u64>, oldest: Option<Instant>) {
        self.unanswered = 0;
        let counts_from_one =
            |answer: &Answer| answer.made.is_some_and(|before| made.is_some_and(|made| made < before));
        if self.answers.back().is_some_and(counts_from_one) {
            self.answers.clear();
        }
        self.answers.push_back(Answer { asked, made });
        while self.answers.front().is_some_and(|answer| oldest.is_some_and(|oldest| answer.asked < oldest)) {
            self.answers.pop_front();
        }
    }

    /// A question was not answered in time.
    pub(crate) fn unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Whether nobody answers questions.
    pub(crate) fn is_mute(&self) -> bool {
        self.unanswered >= MUTE
    }

    /// The earliest moment at which the server can have made this delivery of the consumer's, which arrived now.
    pub(crate) fn sent(&mut self, now: Instant, place: u64) -> Instant {
        // Deliveries come in their order, so the durable was moved and counts from 1 again. Nothing that is known says
        // when that was.
        if std::mem::replace(&mut self.latest, place) > place {
            *self = Self { latest: place, ..Self::new(now) };
        }
        if self.is_mute() {
            return now;
        }
        let is_before = |answer: &&Answer| answer.made.is_none_or(|made| made < place);
        self.answers.iter().rev().find(is_before).map_or(self.began, |answer| answer.asked.max(self.began))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_sent_after_an_answer_is_younger_than_the_question() {
        let began = Instant::now();
        let mut age = Age::new(began);
        age.answered(began + SECOND, Some(10), None);
        age.answered(began + SECOND * 2, Some(20), None);
        let now = began + SECOND * 9;
        assert_eq!(age.sent(now, 10), began);
        assert_eq!(age.sent(now, 20), began + SECOND, "it was on its way when the second answer was given");
        assert_eq!(age.sent(now, 21), began + SECOND * 2);
    }

    #[test]
    fn a_delivery_of_a_durable_that_counts_from_one_again_is_not_old() {
        let began = Instant::now();
        let mut age = Age::new(began);
        age.answered(began + SECOND, Some(99), None);
        let moved = began + SECOND * 60;
        assert_eq!(age.sent(moved, 100), began + SECOND);
        assert_eq!(age.sent(moved, 1), moved);
        assert_eq!(age.sent(moved + SECOND, 2), moved);
    }

    #[test]
    fn answers_from_before_a_durable_counted_from_one_again_say_nothing() {
        let began = Instant::now();
        let mut age = Age::new(began);
        age.answered(began + SECOND, Some(3), None);
        age.answered(began + SECOND * 50, Some(2), None);
        assert_eq!(age.sent(began + SECOND * 51, 5), began + SECOND * 50);
    }

    #[test]
    fn nothing_is_older_than_its_connection() {
        let began = Instant::now();
        let mut age = Age::new(began);
        age.answered(began - SECOND, Some(10), None);
        assert_eq!(age.sent(began + SECOND, 11), began);
    }

    #[test]
    fn a_refusal_is_an_answer_too() {
        let began = Instant::now();
        let mut age = Age::new(began);
        age.answered(began + SECOND, None, None);
        assert_eq!(age.sent(began + SECOND * 2, 1), began + SECOND);
    }

    #[test]
    fn where_nobody_answers_what_arrives_counts_as_sent_now() {
        let began = Instant::now();
        let mut age = Age::new(began);
        let now = began + SECOND * 60;
        for _ in 0..MUTE {
            assert_eq!(age.sent(now, 1), began);
            age.unanswered();
        }
        assert_eq!(age.sent(now, 1), now);
        age.answered(now, Some(0), None);
        assert_eq!(age.sent(now + SECOND, 1), now);
    }

    #[test]
    fn answers_that_are_of_no_use_any_more_are_forgotten() {
        let began = Instant::now();
        let mut age = Age::new(began);
        for second in 0..1000 {
            let asked = began + SECOND * second;
            age.answered(asked, Some(0), asked.checked_sub(SECOND * 30));
        }
        assert_eq!(age.answers.len(), 31);
    }
}
