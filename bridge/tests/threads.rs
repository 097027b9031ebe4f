//! Turns of consumers, and the number of threads, without the Python part.

#![allow(missing_docs)]
#![allow(dead_code, reason = "files of the extension module, which does not link without an interpreter")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nats_consumer::testing::Arrivals;
use nats_consumer::{Batching, Gatherer, Inbox};
use tokio::runtime::Runtime;

use threads::lane::{Held, Lane};
use threads::pool::{Pool, Seat, Turn};

#[path = "../src/host"]
mod host {
    pub(crate) mod lock;
    pub(crate) mod used;
}
#[path = "../src/threads"]
mod threads {
    pub(crate) mod lane;
    pub(crate) mod pool;
}

/// A name for each lane.
type Name = &'static str;

struct Stage {
    runtime: Runtime,
    arrivals: Arrivals,
    pool: Arc<Pool<Name>>,
}

impl Stage {
    fn new(most: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let arrivals = runtime.block_on(Arrivals::new()).unwrap();
        let pool = Arc::new(Pool::new());
        pool.limit(most);
        Self { runtime, arrivals, pool }
    }

    fn lane(&self, name: Name, concurrency: usize) -> Arc<Lane<Name>> {
        let lane = Lane::new(self.pool.clone(), concurrency, name);
        self.pool.open(&lane);
        lane
    }

    fn seat(&self) -> Arc<Seat<Name>> {
        let seat = self.pool.new_seat().expect("one more thread is allowed");
        self.pool.came(&seat);
        seat
    }

    fn put(&self, lane: &Arc<Lane<Name>>, count: usize) {
        lane.put(&mut self.arrivals.arrive(count));
    }

    /// Has a thread handle everything fast, until it takes several deliveries at once.
    fn warm_up(&self, lane: &Arc<Lane<Name>>, seat: &Arc<Seat<Name>>) {
        for _ in 0..4 {
            self.put(lane, 8);
            while turn(&self.pool, seat).is_some() {}
        }
    }
}

/// Handles all of the next turn. The lane that had it.
fn turn(pool: &Pool<Name>, seat: &Arc<Seat<Name>>) -> Option<Name> {
    let Turn::Hand(lane) = pool.next(seat)? else { return None };
    seat.begin();
    while let Some(delivery) = pool.next_of(seat) {
        delivery.succeed();
    }
    Some(lane.work)
}

fn next_or_wait(pool: &Pool<Name>, seat: &Arc<Seat<Name>>) -> Turn<Name> {
    pool.next(seat).unwrap_or_else(|| pool.wait(seat, false))
}

#[test]
fn a_busy_consumer_lets_others_have_their_turn() {
    let stage = Stage::new(4);
    let (busy, other) = (stage.lane("busy", 4), stage.lane("other", 4));
    let seat = stage.seat();
    stage.put(&busy, 100);
    stage.put(&other, 2);
    let turns: Vec<_> = (0..4).filter_map(|_| turn(&stage.pool, &seat)).collect();
    assert_eq!(turns, ["busy", "other", "busy", "other"]);
}

#[test]
fn no_more_handlers_of_a_consumer_run_at_once_than_its_concurrency() {
    let stage = Stage::new(3);
    let (lane, _more) = (stage.lane("orders", 2), stage.lane("more", 1));
    let mut seats = vec![stage.seat()];
    stage.put(&lane, 3);
    assert!(stage.pool.next(&seats[0]).is_some());
    seats.push(stage.seat());
    assert!(stage.pool.next(&seats[1]).is_some());
    seats.push(stage.seat());
    assert!(stage.pool.next(&seats[2]).is_none());
    assert_eq!(lane.is_held(), (true, Held::ByOwn(0)));
    stage.pool.break_off(&seats[0]);
    assert!(stage.pool.next(&seats[2]).is_some());
}

#[test]
fn one_thread_is_started_whenever_none_is_idle_up_to_the_limits() {
    let stage = Stage::new(2);
    assert!(stage.pool.new_seat().is_none(), "nobody needs one");
    let lane = stage.lane("orders", 1);
    let first = stage.seat();
    assert!(stage.pool.new_seat().is_none(), "no more may run at once");
    let _more = stage.lane("more", 5);
    let coming = stage.pool.new_seat().unwrap();
    assert!(stage.pool.new_seat().is_none(), "one is on its way");
    stage.pool.came(&coming);
    assert!(stage.pool.new_seat().is_none(), "the process may not have more");
    stage.put(&lane, 1);
    assert!(stage.pool.next(&first).is_some());
}

#[test]
fn a_thread_that_could_not_be_started_is_not_counted() {
    let stage = Stage::new(1);
    let _lane = stage.lane("orders", 1);
    let seat = stage.pool.new_seat().unwrap();
    stage.pool.never_came(&seat);
    assert!(stage.pool.new_seat().is_some(), "there is none, so it is tried again at once");
}

#[test]
fn what_waits_behind_a_slow_handler_is_taken_by_an_idle_thread() {
    let stage = Stage::new(2);
    let lane = stage.lane("orders", 2);
    let slow = stage.seat();
    stage.warm_up(&lane, &slow);
    stage.put(&lane, 8);
    assert!(matches!(stage.pool.next(&slow), Some(Turn::Hand(_))));
    assert!(stage.pool.next_of(&slow).is_some(), "the slow one");
    let waiting = lane.waiting();
    assert!(waiting > 0, "some wait behind it");
    let idle = stage.seat();
    while lane.waiting() > 0 {
        assert!(matches!(next_or_wait(&stage.pool, &idle), Turn::Hand(_)));
        assert!(stage.pool.next_of(&idle).is_some());
    }
}

#[test]
fn a_thread_leaves_fast_handlers_to_another_one_that_runs_them() {
    let stage = Stage::new(2);
    let _open = stage.lane("idle", 2);
    let (first, other) = (stage.seat(), stage.seat());
    let leaves = |_| {
        let lane = stage.lane("orders", 2);
        stage.put(&lane, 3);
        assert!(stage.pool.next(&other).is_some());
        assert_eq!(turn(&stage.pool, &first), Some("orders"), "nothing is known about the handlers");
        let leaves = stage.pool.next(&first).is_none();
        stage.pool.break_off(&first);
        stage.pool.break_off(&other);
        lane.close();
        leaves
    };
    // Not while the machine holds up the test for five milliseconds.
    assert!((0..100).any(leaves));
}

#[test]
fn a_recall_gives_back_what_waits_in_the_queue_in_hands_and_in_batches() {
    let stage = Stage::new(2);
    let lane = stage.lane("orders", 2);
    let seat = stage.seat();
    stage.warm_up(&lane, &seat);
    stage.put(&lane, 5);
    assert!(stage.pool.next(&seat).is_some() && stage.pool.next_of(&seat).is_some());
    stage.pool.arrived(&lane, |queue| queue.add_batch(stage.arrivals.arrive(3)));
    assert_eq!(lane.waiting(), 4 + 3);
    assert_eq!(lane.recall().len(), 4 + 3);
    assert!(lane.is_recalled() && !lane.has_unstarted());
    assert!(stage.pool.next(&seat).is_none());
}

#[test]
fn a_turn_that_breaks_off_leaves_the_rest_of_the_hand_to_others() {
    let stage = Stage::new(2);
    let lane = stage.lane("orders", 2);
    let seat = stage.seat();
    stage.put(&lane, 2);
    assert!(matches!(stage.pool.next(&seat), Some(Turn::Hand(_))));
    stage.pool.break_off(&seat);
    assert_eq!(lane.waiting(), 2);
    assert!(stage.pool.next(&stage.seat()).is_some());
}

#[test]
fn errands_are_run_although_handlers_hold_every_thread() {
    let stage = Stage::new(1);
    let lane = stage.lane("orders", 1);
    let seat = stage.seat();
    stage.put(&lane, 1);
    assert!(stage.pool.next(&seat).is_some());
    let runner = stage.pool.new_runner().unwrap();
    assert!(stage.pool.new_runner().is_none());
    let pool = stage.pool.clone();
    let running = thread::spawn(move || {
        pool.came(&runner);
        matches!(pool.wait(&runner, false), Turn::Errand(_))
    });
    stage.pool.send(&lane);
    assert!(running.join().unwrap());
}

#[test]
fn a_consumer_whose_threads_others_hold_is_held_until_one_is_free() {
    let stage = Stage::new(1);
    let (busy, other) = (stage.lane("busy", 2), stage.lane("other", 2));
    let seat = stage.seat();
    assert!(!other.is_held().0);
    stage.put(&busy, 1);
    assert!(stage.pool.next(&seat).is_some());
    assert_eq!(other.is_held(), (true, Held::ByAll(0)));
    stage.pool.break_off(&seat);
    assert_eq!(other.is_held(), (false, Held::ByAll(1)));
}

#[test]
fn batches_are_taken_when_they_can_start_and_gather_until_then() {
    let stage = Stage::new(2);
    let lane = stage.lane("orders", 1);
    let seat = stage.seat();
    let gatherer = Arc::new(Gatherer::new(Batching::of(2)));
    let filling = stage.runtime.spawn(lane.clone().fill_from(gatherer.clone()));
    gatherer.put(&mut stage.arrivals.arrive(6));
    assert!(matches!(stage.pool.wait(&seat, false), Turn::Batch(_, batch) if batch.len() == 2));
    assert_eq!((lane.waiting(), gatherer.waiting()), (0, 4));
    assert!(matches!(next_or_wait(&stage.pool, &seat), Turn::Batch(_, batch) if batch.len() == 2));
    gatherer.close();
    lane.close();
    stage
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), filling).await.unwrap().unwrap() });
}

#[test]
fn threads_end_when_no_consumer_is_open_any_more() {
    let stage = Stage::new(2);
    let lane = stage.lane("orders", 2);
    let threads = [stage.seat(), stage.pool.new_runner().unwrap()].map(|seat| {
        let pool = stage.pool.clone();
        thread::spawn(move || {
            seat.sit();
            while !matches!(pool.wait(&seat, false), Turn::End) {}
        })
    });
    lane.close();
    for thread in threads {
        thread.join().unwrap();
    }
    let _again = stage.lane("again", 1);
    assert!(stage.pool.new_seat().is_some() && stage.pool.new_runner().is_some());
}

#[test]
fn an_idle_thread_ends_after_its_rest_unless_it_is_the_only_one() {
    let stage = Stage::new(3);
    let lane = stage.lane("orders", 3);
    let mut seats = vec![stage.seat()];
    stage.put(&lane, 2);
    assert!(stage.pool.next(&seats[0]).is_some());
    seats.push(stage.seat());
    assert!(stage.pool.next(&seats[1]).is_some());
    seats.iter().for_each(|seat| stage.pool.break_off(seat));
    assert_eq!(lane.recall().len(), 2);
    let ends: Vec<_> = seats
        .into_iter()
        .map(|seat| {
            let pool = stage.pool.clone();
            thread::spawn(move || {
                seat.sit();
                matches!(pool.wait(&seat, true), Turn::End)
            })
        })
        .collect();
    let began = Instant::now();
    while !ends.iter().any(JoinHandle::is_finished) {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(began.elapsed() > Duration::from_secs(9));
    assert_eq!(ends.iter().filter(|end| end.is_finished()).count(), 1);
    lane.close();
    assert!(ends.into_iter().all(|end| end.join().unwrap()));
}

/// State that the threads of the next test share.
struct Work {
    pool: Arc<Pool<Name>>,
    running: BTreeMap<Name, AtomicUsize>,
    most: Mutex<BTreeMap<Name, usize>>,
    handled: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Work {
    fn grow(self: &Arc<Self>) {
        let Some(seat) = self.pool.new_seat() else { return };
        let work = self.clone();
        let thread = thread::spawn(move || work.serve(&seat));
        self.threads.lock().unwrap().push(thread);
    }

    fn serve(self: &Arc<Self>, seat: &Arc<Seat<Name>>) {
        self.pool.came(seat);
        loop {
            let lane = match next_or_wait(&self.pool, seat) {
                Turn::Hand(lane) => lane,
                Turn::End => return,
                _ => continue,
            };
            self.grow();
            seat.begin();
            self.note_running(lane.work);
            while let Some(delivery) = self.pool.next_of(seat) {
                if self.handled.fetch_add(1, SeqCst).is_multiple_of(97) {
                    thread::sleep(Duration::from_millis(7));
                }
                delivery.succeed();
            }
            self.running[lane.work].fetch_sub(1, SeqCst);
        }
    }

    fn note_running(&self, name: Name) {
        let now = self.running[name].fetch_add(1, SeqCst) + 1;
        let mut most = self.most.lock().unwrap();
        let seen = most.entry(name).or_default();
        *seen = now.max(*seen);
    }
}

#[test]
fn everything_is_handled_once_by_threads_that_come_and_go() {
    const ROUNDS: usize = 30;
    const EACH: usize = 10;
    let stage = Stage::new(4);
    let lanes =
        [("one", 1), ("two", 2), ("many", 9)].map(|(name, concurrency)| stage.lane(name, concurrency));
    let work = Arc::new(Work {
        pool: stage.pool.clone(),
        running: lanes.iter().map(|lane| (lane.work, AtomicUsize::new(0))).collect(),
        most: Mutex::default(),
        handled: AtomicUsize::new(0),
        threads: Mutex::default(),
    });
    work.grow();
    let began = Instant::now();
    for round in 1..=ROUNDS {
        // Those of an earlier arrival are too old to start.
        let mut arrived = stage.arrivals.arrive(lanes.len() * EACH);
        lanes.iter().for_each(|lane| lane.put(&mut arrived.split_off(arrived.len() - EACH)));
        while work.handled.load(SeqCst) < lanes.len() * EACH * round {
            assert!(began.elapsed() < Duration::from_secs(60), "{} are handled", work.handled.load(SeqCst));
            thread::sleep(Duration::from_millis(1));
        }
    }
    for lane in &lanes {
        lane.close();
        assert!(work.most.lock().unwrap()[lane.work] <= lane.concurrency);
    }
    let threads = std::mem::take(&mut *work.threads.lock().unwrap());
    assert!(threads.len() <= 4);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(work.handled.load(SeqCst), lanes.len() * EACH * ROUNDS);
}
