//! The threads of a process, and the lanes that wait for one of them.
//!
//! A [`Lane`] is a consumer's way to the threads. Lanes that have something to start stand in a row. A free thread takes
//! from the first, which then goes to the end of the row: no lane waits for more than one turn of each other. The pool
//! grows by one thread whenever none is idle, so one of them always watches the others.
//!
//! Handlers that are fast, and that more threads would not make faster, because they hold the GIL, are left to the thread
//! that has them. Whatever waits behind a slow one is taken by the others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nats_consumer::Delivery;

use crate::host::lock::lock;
use crate::host::used::{Used, used};
use crate::threads::lane::{Lane, Queue};

/// How long one handler may run before other threads take what waits behind it.
pub(super) const SLOW_HANDLER: Duration = Duration::from_millis(5);

/// A thread may take several deliveries at once if handlers are this fast.
pub(super) const FAST_HANDLER: Duration = Duration::from_micros(200);
pub(super) const MOST_AT_ONCE: usize = 16;

/// A thread without deliveries rests after this time. Longer than most pauses under load, shorter than a database
/// misses a connection.
const REST: Duration = Duration::from_secs(1);

/// A thread that has rested for this long ends, unless it is the only idle one.
const END: Duration = Duration::from_secs(10);

/// All threads of a process that run blocking handlers.
#[derive(Debug)]
pub(crate) struct Pool<W> {
    state: Mutex<State<W>>,
    /// How many deliveries threads have taken and not started.
    held: AtomicUsize,
}

#[derive(Debug)]
struct State<W> {
    /// The number of threads at most, and of those that have not ended.
    most: usize,
    threads: usize,
    /// How many of them have not come yet.
    starting: usize,
    /// After one could not be started: when that is tried again.
    grows_again: Option<Instant>,
    /// How many have a turn.
    busy: usize,
    /// Counts the turns that have ended.
    ended: u64,
    seats: Vec<Arc<Seat<W>>>,
    /// The one that became idle last is called first.
    idle: Vec<Arc<Seat<W>>>,
    /// How many were called and have not come yet.
    called: usize,
    /// Whether an idle thread watches what others have not started.
    is_watched: bool,
    /// The lanes with something to start.
    row: VecDeque<Arc<Lane<W>>>,
    /// How many deliveries may run at once in all lanes that are open, and the number of these.
    places: usize,
    lanes: usize,
    /// Lanes with work to do although all threads may be busy, and the thread that does nothing else.
    errands: VecDeque<Arc<Lane<W>>>,
    runner: Option<Arc<Seat<W>>>,
    is_runner_idle: bool,
}

/// A thread of the pool.
#[derive(Debug)]
pub(crate) struct Seat<W> {
    /// Whether it only runs errands.
    pub(crate) is_runner: bool,
    thread: Mutex<Option<Thread>>,
    hand: Mutex<Hand<W>>,
}

/// The deliveries that a thread has taken and not started.
#[derive(Debug)]
struct Hand<W> {
    /// The lane whose turn the thread has.
    lane: Option<Arc<Lane<W>>>,
    is_on_errand: bool,
    deliveries: VecDeque<Delivery>,
    taken: u32,
    /// When the thread started its turn, and what it had used by then.
    turn_began: Instant,
    used: Option<Used>,
    /// When it started its current delivery.
    began: Instant,
}

/// A thread's next action.
#[derive(Debug)]
pub(crate) enum Turn<W> {
    /// Handle what is in the hand.
    Hand(Arc<Lane<W>>),
    /// Handle a batch.
    Batch(Arc<Lane<W>>, Vec<Delivery>),
    /// Run an errand of the lane.
    Errand(Arc<Lane<W>>),
    /// Nothing came for a while.
    Rest,
    /// The thread is not needed any more.
    End,
}

impl<W> Hand<W> {
    /// Whether deliveries wait behind one that is slow.
    fn is_stuck(&self) -> bool {
        !self.deliveries.is_empty() && self.began.elapsed() >= SLOW_HANDLER
    }
}

impl<W> Seat<W> {
    fn new(is_runner: bool) -> Arc<Self> {
        let now = Instant::now();
        let hand = Hand {
            lane: None,
            is_on_errand: false,
            deliveries: VecDeque::new(),
            taken: 0,
            turn_began: now,
            used: None,
            began: now,
        };
        Arc::new(Self { is_runner, thread: Mutex::default(), hand: Mutex::new(hand) })
    }

    /// The calling thread takes the seat.
    pub(crate) fn sit(&self) {
        *lock(&self.thread) = Some(thread::current());
    }

    /// The thread begins with its turn.
    pub(crate) fn begin(&self) {
        let mut hand = lock(&self.hand);
        (hand.turn_began, hand.used) = (Instant::now(), used());
    }

    fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    fn has(&self, lane: &Arc<Lane<W>>) -> bool {
        lock(&self.hand).lane.as_ref().is_some_and(|it| Arc::ptr_eq(it, lane))
    }
}

impl<W> Pool<W> {
    /// Without threads.
    pub(crate) fn new() -> Self {
        let state = State {
            most: 1,
            threads: 0,
            starting: 0,
            grows_again: None,
            busy: 0,
            ended: 0,
            seats: Vec::new(),
            idle: Vec::new(),
            called: 0,
            is_watched: false,
            row: VecDeque::new(),
            places: 0,
            lanes: 0,
            errands: VecDeque::new(),
            runner: None,
            is_runner_idle: false,
        };
        Self { state: Mutex::new(state), held: AtomicUsize::new(0) }
    }

    /// Has at most this number of threads from now on, apart from the one that runs errands.
    pub(crate) fn limit(&self, most: usize) {
        lock(&self.state).most = most;
    }

    /// A seat for one more thread, if one is to be started now.
    pub(crate) fn new_seat(&self) -> Option<Arc<Seat<W>>> {
        let mut state = lock(&self.state);
        let is_needed = state.idle.is_empty() && state.called == 0 && state.starting == 0;
        if !is_needed || state.threads >= state.most.min(state.places) {
            return None;
        }
        // The operating system had none left.
        if state.threads > 0 && state.grows_again.is_some_and(|then| Instant::now() < then) {
            return None;
        }
        let seat = Seat::new(false);
        state.threads += 1;
        state.starting += 1;
        state.seats.push(seat.clone());
        Some(seat)
    }

    /// A seat for the thread that runs errands, if there is none.
    pub(crate) fn new_runner(&self) -> Option<Arc<Seat<W>>> {
        let mut state = lock(&self.state);
        if state.runner.is_some() {
            return None;
        }
        let seat = Seat::new(true);
        state.runner = Some(seat.clone());
        Some(seat)
    }

    /// The thread of the seat has come.
    pub(crate) fn came(&self, seat: &Arc<Seat<W>>) {
        seat.sit();
        if !seat.is_runner {
            lock(&self.state).starting -= 1;
        }
    }

    /// The thread of the seat could not be started.
    pub(crate) fn never_came(&self, seat: &Arc<Seat<W>>) {
        let mut state = lock(&self.state);
        if !seat.is_runner {
            state.starting -= 1;
        }
        state.remove(seat);
        state.grows_again = Some(Instant::now() + END);
    }

    /// The next turn, if there is one: the last one has ended.
    pub(crate) fn next(&self, seat: &Arc<Seat<W>>) -> Option<Turn<W>> {
        let mut state = lock(&self.state);
        self.finish_turn(&mut state, seat);
        // If another thread is enough, this one gives it the GIL.
        let turn = self.take(&mut state, seat, false);
        let idle = state.call(self.has_held());
        drop(state);
        wake(idle);
        turn
    }

    /// The last turn has ended before all of the hand was handled: the rest is for other turns.
    pub(crate) fn break_off(&self, seat: &Arc<Seat<W>>) {
        let mut state = lock(&self.state);
        self.finish_turn(&mut state, seat);
        let idle = state.call(self.has_held());
        drop(state);
        wake(idle);
    }

    /// Waits for the next turn. Must be called without the GIL. A thread that has rested may end.
    pub(crate) fn wait(&self, seat: &Arc<Seat<W>>, has_rested: bool) -> Turn<W> {
        let deadline = Instant::now() + if has_rested { END } else { REST };
        let mut is_listed = false;
        loop {
            let mut state = lock(&self.state);
            let was_called = is_listed && state.unlist(seat);
            if let Some(turn) = self.take(&mut state, seat, was_called) {
                let idle = state.call(self.has_held());
                drop(state);
                wake(idle);
                return turn;
            }
            let is_over = Instant::now() >= deadline;
            if state.may_end(seat, has_rested && is_over) {
                state.remove(seat);
                return Turn::End;
            }
            if is_over && !has_rested {
                return Turn::Rest;
            }
            state.list(seat);
            is_listed = true;
            let watches = state.begin_to_watch(seat, self.has_held());
            drop(state);
            park(watches, (!is_over).then_some(deadline));
            if watches {
                lock(&self.state).is_watched = false;
            }
        }
    }

    fn has_held(&self) -> bool {
        self.held.load(Acquire) > 0
    }

    fn take(&self, state: &mut State<W>, seat: &Arc<Seat<W>>, takes_any: bool) -> Option<Turn<W>> {
        if let Some(lane) = state.errands.pop_front() {
            lock(&seat.hand).is_on_errand = true;
            state.busy += usize::from(!seat.is_runner);
            return Some(Turn::Errand(lane));
        }
        if seat.is_runner {
            return None;
        }
        let turn = self.take_from_stuck(state, seat).or_else(|| self.take_from_row(state, seat, takes_any));
        state.busy += usize::from(turn.is_some());
        turn
    }

    /// The delivery that waits directly behind a slow one.
    fn take_from_stuck(&self, state: &State<W>, seat: &Arc<Seat<W>>) -> Option<Turn<W>> {
        if !self.has_held() {
            return None;
        }
        let (lane, delivery) = state.seats.iter().find_map(|other| {
            let mut hand = lock(&other.hand);
            let lane = hand.lane.clone().filter(|lane| hand.is_stuck() && lock(&lane.queue).has_place())?;
            Some((lane, hand.deliveries.pop_front()?))
        })?;
        self.held.fetch_sub(1, AcqRel);
        lock(&lane.queue).running += 1;
        self.put_into(seat, &lane, [delivery]);
        Some(Turn::Hand(lane))
    }

    fn take_from_row(&self, state: &mut State<W>, seat: &Arc<Seat<W>>, takes_any: bool) -> Option<Turn<W>> {
        let place = state.row.iter().position(|lane| takes_any || !lock(&lane.queue).is_served())?;
        let lane = state.row.remove(place)?;
        let mut queue = lock(&lane.queue);
        queue.is_in_row = false;
        queue.running += 1;
        queue.taken = Instant::now();
        let turn = match queue.batches.pop_front() {
            Some(batch) => {
                self.put_into(seat, &lane, []);
                Turn::Batch(lane.clone(), batch)
            }
            None => {
                let count = queue.at_once.min(queue.deliveries.len());
                self.put_into(seat, &lane, queue.deliveries.drain(..count));
                Turn::Hand(lane.clone())
            }
        };
        state.line_up(&lane, &mut queue);
        drop(queue);
        Some(turn)
    }

    fn put_into(
        &self,
        seat: &Seat<W>,
        lane: &Arc<Lane<W>>,
        taken: impl IntoIterator<Item = Delivery, IntoIter: ExactSizeIterator>,
    ) {
        let taken = taken.into_iter();
        self.held.fetch_add(taken.len(), AcqRel);
        let mut hand = lock(&seat.hand);
        hand.lane = Some(lane.clone());
        hand.taken = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        hand.deliveries.extend(taken);
        hand.began = Instant::now();
    }

    /// The next delivery in the thread's hand that may start.
    pub(crate) fn next_of(&self, seat: &Seat<W>) -> Option<Delivery> {
        loop {
            let mut hand = lock(&seat.hand);
            let next = hand.deliveries.pop_front()?;
            let now = Instant::now();
            hand.began = now;
            drop(hand);
            self.held.fetch_sub(1, AcqRel);
            if next.may_start_at(now) {
                return Some(next);
            }
        }
    }

    fn finish_turn(&self, state: &mut State<W>, seat: &Seat<W>) {
        let mut hand = lock(&seat.hand);
        if std::mem::take(&mut hand.is_on_errand) && !seat.is_runner {
            state.busy -= 1;
            state.ended += 1;
        }
        let Some(lane) = hand.lane.take() else { return };
        let mut queue = lock(&lane.queue);
        self.held.fetch_sub(hand.deliveries.len(), AcqRel);
        while let Some(left) = hand.deliveries.pop_back() {
            queue.deliveries.push_front(left);
        }
        let spent = hand.used.zip(used()).map(|(before, now)| now - before);
        queue.learn(hand.turn_began.elapsed(), spent, hand.taken);
        queue.running -= 1;
        queue.ended += 1;
        state.busy -= 1;
        state.ended += 1;
        state.line_up(&lane, &mut queue);
        drop(queue);
        lane.room.notify_one();
    }

    /// The lane has something more to start.
    pub(crate) fn arrived(&self, lane: &Arc<Lane<W>>, put: impl FnOnce(&mut Queue)) {
        let mut state = lock(&self.state);
        let mut queue = lock(&lane.queue);
        put(&mut queue);
        state.line_up(lane, &mut queue);
        drop(queue);
        let idle = state.call(self.has_held());
        drop(state);
        wake(idle);
    }

    /// From now on threads take from the lane, unless it is closed already.
    pub(crate) fn open(&self, lane: &Arc<Lane<W>>) {
        let mut state = lock(&self.state);
        if lane.is_closed() {
            return;
        }
        state.places += lane.concurrency;
        state.lanes += 1;
        lock(&lane.queue).is_open = true;
        drop(state);
        self.arrived(lane, |_| ());
    }

    /// Threads take nothing from the lane any more.
    pub(crate) fn close(&self, lane: &Arc<Lane<W>>) {
        let mut state = lock(&self.state);
        let mut queue = lock(&lane.queue);
        if !std::mem::take(&mut queue.is_open) {
            return;
        }
        state.take_out(lane, &mut queue);
        drop(queue);
        state.places -= lane.concurrency;
        state.lanes -= 1;
        if state.lanes == 0 {
            state.idle.iter().chain(&state.runner).for_each(|seat| seat.wake());
        }
    }

    /// Has an errand of the lane run, by a free thread or else by the one that runs errands.
    pub(crate) fn send(&self, lane: &Arc<Lane<W>>) {
        let mut state = lock(&self.state);
        state.errands.push_back(lane.clone());
        let idle = state.call(self.has_held());
        drop(state);
        wake(idle);
    }

    /// Takes what threads have of the lane and have not started.
    pub(crate) fn recall(&self, lane: &Arc<Lane<W>>) -> Vec<Delivery> {
        let mut state = lock(&self.state);
        let mut queue = lock(&lane.queue);
        let mut recalled: Vec<_> = queue.deliveries.drain(..).collect();
        recalled.extend(queue.batches.drain(..).flatten());
        state.take_out(lane, &mut queue);
        drop(queue);
        for seat in state.seats.iter().filter(|seat| seat.has(lane)) {
            let mut hand = lock(&seat.hand);
            self.held.fetch_sub(hand.deliveries.len(), AcqRel);
            recalled.extend(hand.deliveries.drain(..));
        }
        recalled
    }

    /// How many deliveries threads have of the lane and have not started.
    pub(crate) fn held_of(&self, lane: &Arc<Lane<W>>) -> usize {
        if !self.has_held() {
            return 0;
        }
        let state = lock(&self.state);
        state.seats.iter().filter(|seat| seat.has(lane)).map(|seat| lock(&seat.hand).deliveries.len()).sum()
    }

    /// Whether no thread is free, and how many turns have ended so far.
    pub(crate) fn is_exhausted(&self) -> (bool, u64) {
        let state = lock(&self.state);
        (state.busy >= state.threads, state.ended)
    }
}

impl<W> State<W> {
    /// The lane waits for a thread, if it has something that may start.
    fn line_up(&mut self, lane: &Arc<Lane<W>>, queue: &mut Queue) {
        if queue.is_open && !queue.is_in_row && queue.has_place() && queue.has_more() {
            queue.is_in_row = true;
            self.row.push_back(lane.clone());
        }
    }

    /// The lane does not wait any more.
    fn take_out(&mut self, lane: &Arc<Lane<W>>, queue: &mut Queue) {
        if std::mem::take(&mut queue.is_in_row) {
            self.row.retain(|each| !Arc::ptr_eq(each, lane));
        }
    }

    /// The idle thread that has to come, if there is something for it: to take a turn, or to watch those of others.
    fn call(&mut self, has_held: bool) -> Option<Arc<Seat<W>>> {
        if !self.errands.is_empty() && self.idle.is_empty() && self.is_runner_idle {
            return self.runner.clone();
        }
        if self.idle.is_empty() || self.called > 0 {
            return None;
        }
        let has_turn = || self.row.iter().any(|lane| !lock(&lane.queue).is_served());
        if !self.errands.is_empty() || has_turn() {
            self.called += 1;
            return self.idle.pop();
        }
        let is_to_watch = !self.is_watched && (has_held || !self.row.is_empty());
        self.idle.last().filter(|_| is_to_watch).cloned()
    }

    fn remove(&mut self, seat: &Arc<Seat<W>>) {
        if seat.is_runner {
            self.runner = None;
        } else {
            self.threads -= 1;
            self.seats.retain(|each| !Arc::ptr_eq(each, seat));
        }
    }

    fn list(&mut self, seat: &Arc<Seat<W>>) {
        if seat.is_runner {
            self.is_runner_idle = true;
        } else {
            self.idle.push(seat.clone());
        }
    }

    /// A thread that was idle is here. Whether it was called.
    fn unlist(&mut self, seat: &Arc<Seat<W>>) -> bool {
        if seat.is_runner {
            self.is_runner_idle = false;
            return false;
        }
        let place = self.idle.iter().rposition(|each| Arc::ptr_eq(each, seat));
        match place {
            Some(place) => {
                self.idle.remove(place);
                false
            }
            None => {
                let was_called = self.called > 0;
                self.called = self.called.saturating_sub(1);
                was_called
            }
        }
    }

    /// Whether the idle thread watches what others have not started.
    fn begin_to_watch(&mut self, seat: &Seat<W>, has_held: bool) -> bool {
        let begins = !seat.is_runner && !self.is_watched && (has_held || !self.row.is_empty());
        self.is_watched |= begins;
        begins
    }

    /// Whether a thread without work is not needed. One stays while there are lanes.
    fn may_end(&self, seat: &Seat<W>, is_over: bool) -> bool {
        self.lanes == 0 || (!seat.is_runner && is_over && !self.idle.is_empty())
    }
}

fn wake<W>(seat: Option<Arc<Seat<W>>>) {
    if let Some(seat) = seat {
        seat.wake();
    }
}

/// Waits to be woken, up to the deadline; one that watches wakes soon.
fn park(watches: bool, deadline: Option<Instant>) {
    let limit = deadline.map(|it| it.saturating_duration_since(Instant::now()));
    let limit = if watches { Some(limit.map_or(SLOW_HANDLER, |it| it.min(SLOW_HANDLER))) } else { limit };
    match limit {
        Some(limit) => thread::park_timeout(limit),
        None => thread::park(),
    }
}
