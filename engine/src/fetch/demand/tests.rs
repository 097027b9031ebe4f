//! Cases of the demand, and what holds whatever the server does.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn demand() -> (Demand, Instant) {
    let now = Instant::now();
    (Demand::new(now, SECOND * 30, usize::MAX), now)
}

fn status(id: u64, code: u16, description: &str) -> Status<'_> {
    Status { id: Some(id), code, description, unfilled: None }
}

#[test]
fn never_asks_for_more_than_the_free_places() {
    let (mut demand, now) = demand();
    assert_eq!(demand.ask(now, 10, 4), Some(Ask { id: 1, batch: 10 }));
    assert_eq!(demand.ask(now, 10, 4), None);
    demand.delivered(now, 3);
    assert_eq!(demand.ask(now, 7, 4), None, "the three that arrived hold their places");
    assert_eq!(demand.ask(now, 11, 4), Some(Ask { id: 2, batch: 4 }));
}

#[test]
fn asks_again_at_once_when_a_request_ran_out() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 4);
    demand.delivered(now, 4);
    let ended = Status { unfilled: Some(6), ..status(1, 408, "Request Timeout") };
    demand.status(now, ended).unwrap();
    assert_eq!(demand.ask(now, 6, 4), Some(Ask { id: 2, batch: 6 }));
}

#[test]
fn a_request_that_was_filled_is_no_reason_to_pause() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 1);
    demand.delivered(now, 9);
    demand.status(now, Status { unfilled: Some(1), ..status(1, 409, "Batch Completed") }).unwrap();
    assert_eq!(demand.ask(now, 10, 1), Some(Ask { id: 2, batch: 10 }));
}

#[test]
fn a_request_full_in_bytes_is_no_reason_to_pause_but_a_message_that_fits_into_none_is() {
    let (mut demand, now) = demand();
    let full = |id| status(id, 409, "Message Size Exceeds MaxBytes");
    demand.ask(now, 10, 1);
    demand.delivered(now, 4);
    demand.status(now, full(1)).unwrap();
    assert_eq!((demand.is_paused(now), demand.take_repairs()), (false, 0));
    for id in 2..=9 {
        assert!(!demand.is_paused(now));
        demand.ask(now, 10, 1);
        demand.status(now, full(id)).unwrap();
    }
    assert_eq!((demand.is_paused(now), demand.take_repairs()), (true, 1));
}

#[test]
fn a_missed_heartbeat_is_mended_by_asking_again_and_a_second_one_is_a_problem() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 1);
    let later = demand.wake_at(now);
    assert_eq!(demand.tick(later), Ok(()));
    assert_eq!(demand.take_repairs(), 1);
    assert!(demand.ask(later, 10, 1).is_some());
    assert_eq!(demand.tick(demand.wake_at(later)), Err(Problem::Silent));
}

#[test]
fn heartbeats_keep_an_idle_request_alive() {
    let (mut demand, mut now) = demand();
    demand.ask(now, 10, 1);
    for _ in 0..10 {
        now += demand.heartbeat();
        demand.status(now, status(1, 100, "Idle Heartbeat")).unwrap();
        assert_eq!(demand.tick(now), Ok(()));
    }
    assert_eq!(demand.take_repairs(), 0);
}

#[test]
fn a_deleted_durable_is_gone_but_a_new_leader_is_not() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 1);
    assert_eq!(demand.status(now, status(1, 409, "Consumer Deleted")), Err(Problem::Gone));
    let exceeded = demand.status(now, status(1, 409, "Exceeded MaxRequestBatch of 5"));
    assert!(matches!(exceeded, Err(Problem::Refused(_))), "{exceeded:?}");
    assert_eq!(demand.status(now, status(1, 409, "Leadership Change")), Ok(()));
    assert_eq!(demand.ask(now, 10, 1), None, "not at once, lest it be a hot loop");
    assert!(demand.ask(now + SHORTEST_ERROR_PAUSE, 10, 1).is_some());
}

#[test]
fn nobody_answering_is_tried_with_growing_pauses_and_then_a_problem() {
    let (mut demand, mut now) = demand();
    for _ in 1..UNANSWERED_LIMIT {
        let ask = demand.ask(now, 10, 1).unwrap();
        assert_eq!(demand.status(now, status(ask.id, 503, "No Responders")), Ok(()));
        now = demand.wake_at(now);
    }
    let ask = demand.ask(now, 10, 1).unwrap();
    assert_eq!(demand.status(now, status(ask.id, 503, "")), Err(Problem::Gone));
}

#[test]
fn a_reconnect_forgets_what_was_asked() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 1);
    demand.reconnected(now);
    assert_eq!(demand.ask(now, 10, 1), Some(Ask { id: 2, batch: 10 }));
}

#[test]
fn a_late_word_about_a_forgotten_request_frees_no_place_of_the_next_one() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 1);
    demand.reconnected(now);
    demand.ask(now, 10, 1);
    let late = Status { unfilled: Some(10), ..status(1, 408, "Request Timeout") };
    demand.status(now, late).unwrap();
    assert_eq!(demand.outstanding(), 10);
}

#[test]
fn a_second_word_about_the_same_end_frees_no_place_again() {
    let (mut demand, now) = demand();
    demand.ask(now, 10, 1);
    demand.ask(now, 20, 1);
    let ended = Status { unfilled: Some(10), ..status(1, 408, "Request Timeout") };
    for _ in 0..2 {
        demand.status(now, ended).unwrap();
        assert_eq!(demand.outstanding(), 10);
    }
}

#[test]
fn a_request_that_is_open_counts_although_a_later_one_was_filled_before_it() {
    let (mut demand, now) = demand();
    demand.ask(now, 13, 1);
    demand.ask(now, 27, 1);
    // All of them came for the second request, and then it ended.
    demand.delivered(now, 13);
    let ended = Status { unfilled: Some(1), ..status(2, 404, "No Messages") };
    demand.status(now, ended).unwrap();
    assert_eq!(demand.outstanding(), 13);
    let ended = Status { unfilled: Some(13), ..status(1, 408, "Request Timeout") };
    demand.status(now, ended).unwrap();
    assert_eq!(demand.outstanding(), 0);
}

/// A server that keeps to the protocol, on the other end of a link that does not always.
struct Server {
    demand: Demand,
    now: Instant,
    size: usize,
    /// Deliveries that are not settled.
    held: usize,
    open: Vec<Open>,
    /// Statuses of requests that ended, to be repeated.
    said: Vec<(u64, u16, &'static str, Option<usize>)>,
    problem: Option<Problem>,
}

/// A request that may still bring messages.
#[derive(Clone, Copy)]
struct Open {
    id: u64,
    left: usize,
    until: Instant,
}

#[derive(Clone, Debug)]
enum Step {
    /// Delivers a number of messages for one of the requests.
    Deliver(usize, usize),
    Settle(usize),
    /// One of the requests ends: by its time, its bytes, or a trouble of the server that says what is left.
    End(usize, usize),
    /// Nobody takes any of the requests.
    NoResponders,
    /// Something that was said before is said again.
    Repeat(usize),
    Heartbeat,
    Wait(u64),
    Reconnect,
    /// The server forgets what it was asked for, without a word.
    Lose,
}

const ENDS: [(u16, &str); 6] = [
    (404, "No Messages"),
    (408, "Request Timeout"),
    (409, "Batch Completed"),
    (409, "Leadership Change"),
    (409, "Server Shutdown"),
    (409, "Message Size Exceeds MaxBytes"),
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<usize>(), 1..30_usize).prop_map(|(which, count)| Step::Deliver(which, count)),
        4 => (1..50_usize).prop_map(Step::Settle),
        2 => (any::<usize>(), 0..ENDS.len()).prop_map(|(which, how)| Step::End(which, how)),
        1 => Just(Step::NoResponders),
        2 => any::<usize>().prop_map(Step::Repeat),
        1 => Just(Step::Heartbeat),
        2 => (1..9000_u64).prop_map(Step::Wait),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Lose),
    ]
}

impl Server {
    fn new(size: usize) -> Self {
        let (demand, now) = demand();
        Self { demand, now, size, held: 0, open: Vec::new(), said: Vec::new(), problem: None }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Deliver(which, count) => self.deliver(which, count),
            Step::Settle(count) => self.held -= count.min(self.held),
            Step::End(which, how) => self.end(which, ENDS[how]),
            Step::NoResponders => {
                while let Some(open) = self.open.pop() {
                    self.say(open.id, 503, "No Responders", None);
                }
            }
            Step::Repeat(which) => {
                let said = self.said.get(which % self.said.len().max(1)).copied();
                if let Some((id, code, words, unfilled)) = said {
                    self.say(id, code, words, unfilled);
                }
            }
            Step::Heartbeat => self.say(self.demand.next_id, 100, "Idle Heartbeat", None),
            Step::Wait(millis) => self.wait(Duration::from_millis(millis)),
            Step::Reconnect => {
                self.demand.reconnected(self.now);
                self.open.clear();
            }
            Step::Lose => self.open.clear(),
        }
    }

    /// Asks for what fits, as the fetch loop does.
    fn is_asked(&mut self, least: usize) -> Option<Ask> {
        let ask = self.demand.ask(self.now, self.size.saturating_sub(self.held), least)?;
        self.open.push(Open { id: ask.id, left: ask.batch, until: self.now + self.demand.expires() });
        Some(ask)
    }

    fn deliver(&mut self, which: usize, count: usize) {
        let index = which % self.open.len().max(1);
        let Some(open) = self.open.get_mut(index) else { return };
        let count = count.min(open.left);
        open.left -= count;
        if open.left == 0 {
            self.open.remove(index);
        }
        self.held += count;
        self.demand.delivered(self.now, count);
    }

    fn end(&mut self, which: usize, (code, words): (u16, &'static str)) {
        if !self.open.is_empty() {
            let Open { id, left, .. } = self.open.remove(which % self.open.len());
            self.said.push((id, code, words, Some(left)));
            self.say(id, code, words, Some(left));
        }
    }

    fn say(&mut self, id: u64, code: u16, description: &str, unfilled: Option<usize>) {
        let status = Status { id: Some(id), code, description, unfilled };
        self.problem = self.problem.take().or(self.demand.status(self.now, status).err());
    }

    /// Time passes, with a heartbeat each interval while anything is open, as the server sends them.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + self.demand.heartbeat());
            while let Some(late) = self.open.iter().position(|open| open.until <= self.now) {
                self.end(late, ENDS[1]);
            }
            if !self.open.is_empty() {
                self.say(self.open[0].id, 100, "Idle Heartbeat", None);
            }
            if self.demand.wake_at(self.now) <= self.now {
                self.problem = self.problem.take().or(self.demand.tick(self.now).err());
            }
        }
    }
}

proptest! {
    /// The number of messages on their way is never underestimated, so that no more is asked
    /// for than there are places, in any order of events, and if they are repeated.
    #[test]
    fn never_is_more_on_its_way_than_there_are_places(
        size in 1..200_usize,
        least in 1..40_usize,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut server = Server::new(size);
        for step in steps {
            if let Some(ask) = server.is_asked(least) {
                prop_assert!(ask.batch >= 1);
            }
            let on_its_way: usize = server.open.iter().map(|open| open.left).sum();
            prop_assert!(on_its_way <= server.demand.outstanding());
            prop_assert!(server.held + on_its_way <= size);
            server.take(&step);
            if server.problem.is_some() {
                return Ok(());
            }
        }
    }

    /// From any state, with free places and a healthy server, the server has a request or the repairer a problem:
    /// within twice the heartbeat for a request that was lost, and once more for a mended one.
    #[test]
    fn it_is_never_stuck(
        size in 1..200_usize,
        least in 1..40_usize,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut server = Server::new(size);
        for step in &steps {
            server.is_asked(least);
            server.take(step);
        }
        server.held = 0;
        let began = server.now;
        while server.problem.is_none() {
            server.is_asked(least);
            if !server.open.is_empty() {
                break;
            }
            let wake = server.demand.wake_at(server.now);
            prop_assert!(wake > server.now, "it would look again without end");
            server.now = wake;
            server.problem = server.demand.tick(server.now).err();
            prop_assert!(server.now - began <= server.demand.heartbeat() * 4 + LONGEST_ERROR_PAUSE);
        }
    }

    /// No answer makes a hot loop: after a trouble, the next request waits.
    #[test]
    fn after_a_trouble_it_pauses_longer_each_time(troubles in 1..30_usize, code in prop::sample::select(vec![409_u16, 503])) {
        let (mut demand, mut now) = demand();
        let mut longest = Duration::ZERO;
        for _ in 0..troubles {
            let Some(ask) = demand.ask(now, 10, 1) else { panic!("it waits longer than it said") };
            if demand.status(now, status(ask.id, code, "Server Shutdown")).is_err() {
                return Ok(());
            }
            prop_assert_eq!(demand.ask(now, 10, 1), None);
            let pause = demand.wake_at(now) - now;
            // Each is between half and all of twice the one before.
            let least = longest.max(SHORTEST_ERROR_PAUSE / 2).min(LONGEST_ERROR_PAUSE / 2);
            prop_assert!((least..=LONGEST_ERROR_PAUSE).contains(&pause));
            longest = pause;
            now += pause;
        }
    }

    /// No input panics, also none that no server sends, and a time to look again is always set.
    #[test]
    fn nothing_that_may_be_said_panics_or_leaves_no_time_to_look_again(
        said in prop::collection::vec(
            (
                prop::option::of(any::<u64>()),
                any::<u16>(),
                "(Consumer Deleted|Exceeded MaxRequest|\\PC){0,9}",
                prop::option::of(any::<usize>()),
                any::<usize>(),
            ),
            0..40,
        ),
        free in any::<usize>(),
    ) {
        let (mut demand, now) = demand();
        for (id, code, words, unfilled, delivered) in said {
            demand.ask(now, free, 1);
            prop_assert!(demand.outstanding() <= free);
            let _ = demand.status(now, Status { id, code, description: &words, unfilled });
            demand.delivered(now, delivered);
            let wake = demand.wake_at(now);
            prop_assert!(wake > now && wake <= now + demand.heartbeat() * 2);
        }
    }
}
