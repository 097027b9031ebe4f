//! Numbers in memory that another process can read, and that say themselves what they mean.
//!
//! A page is a slice of 64-bit words: this process's own, or memory that it shares with its parent, which then still
//! reads the numbers of a process that was killed or stands still. One process writes: it appends *records*, each of
//! which names a series and its first *cell*, and changes cells. Any number of processes read.
//!
//! A page of this process's own that is full goes on in another one. A shared page cannot: its series are counted, and
//! shown to nobody.
//!
//! | words | |
//! |---|---|
//! | 0..8 | the head: magic, layout, process, clock of the last heartbeat and of the last look, length of the records |
//! | up to a quarter | records, append-only: family, number of labels, first cell, then each label with its length |
//! | the rest | cells |

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::lock::lock;
use crate::observe::families::{FAMILIES, Family, Kind};
use crate::observe::target::CONSUMER;

/// Begins every page.
const MAGIC: u64 = u64::from_le_bytes(*b"natscons");

/// Another layout is another number.
const LAYOUT: u64 = 2;

/// Places of the words of the head.
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 1;
const AT_PROCESS: usize = 2;
const AT_HEARTBEAT: usize = 3;
const AT_LOOK: usize = 4;
const AT_LENGTH: usize = 5;
const HEAD: usize = 8;

/// The words of the first page of this process's own: enough for one consumer.
const OWN: usize = 1 << 12;

/// How often cells are read that change while they are read.
const LOOKS: usize = 3;

/// The longest label that is kept, in bytes: names of classes, streams and exceptions are shorter.
const LONGEST_LABEL: usize = 256;

/// A reader that has not come for longer than this does not come regularly: Prometheus drops what it has not seen for
/// five minutes, and so asks twice in that time at least.
const SEEN: Duration = Duration::from_secs(150);

/// A clock in nanoseconds that all processes of the machine share, or that only this process knows; never 0.
pub type Clock = fn() -> u64;

/// The nanoseconds since this process first asked.
pub(crate) fn own_clock() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    nanoseconds(since).saturating_add(1_000_000_000)
}

#[derive(Clone)]
enum Words {
    Own(Arc<[AtomicU64]>),
    Shared(&'static [AtomicU64]),
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        match self {
            Self::Own(words) => words,
            Self::Shared(words) => words,
        }
    }
}

/// A page, to be written by this process. Clones are the same page.
#[derive(Clone)]
pub struct Page {
    words: Words,
    clock: Clock,
    index: Arc<Mutex<Index>>,
}

/// The writer's index of its page.
#[derive(Debug, Default)]
struct Index {
    series: HashMap<(usize, Vec<String>), usize>,
    next_word: usize,
    next_cell: usize,
    /// A page of this process's own goes on here when it is full.
    next_page: Option<Page>,
    has_warned: bool,
}

/// The cells of one series.
#[derive(Clone)]
pub(crate) struct Series {
    words: Words,
    first: usize,
}

impl Series {
    #[inline]
    pub(crate) fn cell(&self, number: usize) -> &AtomicU64 {
        &self.words[self.first + number]
    }

    /// Adds one to a counter.
    #[inline]
    pub(crate) fn count(&self) {
        self.add(1);
    }

    #[inline]
    pub(crate) fn add(&self, number: u64) {
        self.cell(0).fetch_add(number, Relaxed);
    }

    /// Raises a counter to a total that somebody else counts.
    pub(crate) fn raise_to(&self, total: u64) {
        self.cell(0).fetch_max(total, Relaxed);
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, value: f64) {
        self.cell(0).store(value.to_bits(), Relaxed);
    }

    /// Sets several cells that belong together. A reader takes them when two looks agree.
    pub(crate) fn set_all(&self, words: &[u64]) {
        for (number, word) in words.iter().enumerate() {
            self.cell(number).store(*word, Release);
        }
    }

    /// Sets the moment of an age or of an end.
    pub(crate) fn set_moment(&self, moment: Moment) {
        let word = match moment {
            Moment::Unknown => 0,
            Moment::None => u64::MAX,
            Moment::At(clock) => clock.clamp(1, u64::MAX - 1),
        };
        self.cell(0).store(word, Relaxed);
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("first", &self.first).finish_non_exhaustive()
    }
}

/// A duration in nanoseconds, as far as a cell can count.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When something began, or will end, by the page's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It is not known: nothing is shown.
    Unknown,
    /// Nothing has begun, and nothing will end: 0 is shown.
    None,
    /// Then.
    At(u64),
}

impl Moment {
    pub(crate) fn of(word: u64) -> Self {
        match word {
            0 => Self::Unknown,
            u64::MAX => Self::None,
            clock => Self::At(clock),
        }
    }
}

impl Default for Page {
    /// A page of this process's own.
    fn default() -> Self {
        Self::small(own_clock)
    }
}

impl Page {
    /// A page of this process's own, for a few numbers, by this clock.
    #[must_use]
    pub fn small(clock: Clock) -> Self {
        Self::of(Words::Own((0..OWN).map(|_| AtomicU64::new(0)).collect()), clock)
    }

    /// A page in memory that other processes may see, by a clock that they share. Whatever it held is forgotten.
    ///
    /// # Panics
    /// If it is smaller than 32 KiB.
    #[must_use]
    pub fn over(words: &'static [AtomicU64], clock: Clock) -> Self {
        assert!(words.len() >= OWN, "a page of {} words is too small", words.len());
        Self::of(Words::Shared(words), clock)
    }

    fn of(words: Words, clock: Clock) -> Self {
        let index = Index { next_word: HEAD, next_cell: words.len() / 4, ..Index::default() };
        words[AT_LENGTH].store(0, Release);
        words[AT_MAGIC].store(MAGIC, Relaxed);
        words[AT_LAYOUT].store(LAYOUT, Relaxed);
        words[AT_PROCESS].store(u64::from(std::process::id()), Relaxed);
        Self { words, clock, index: Arc::new(Mutex::new(index)) }
    }

    /// The time on the page's clock.
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The moment that is `age` ago.
    pub(crate) fn ago(&self, age: Duration) -> Moment {
        Moment::At(self.now().saturating_sub(nanoseconds(age)))
    }

    /// The moment that is `time` ahead.
    pub(crate) fn ahead(&self, time: Duration) -> Moment {
        Moment::At(self.now().saturating_add(nanoseconds(time)))
    }

    /// Whether other processes may see it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.words, Words::Shared(_))
    }

    /// Says that the process goes on.
    pub fn beat(&self) {
        self.words[AT_HEARTBEAT].store(self.now(), Relaxed);
    }

    /// How long the process has said nothing; `None` before the first word.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.since(AT_HEARTBEAT)
    }

    /// Says that somebody looks at the numbers.
    pub(crate) fn look(&self) {
        self.words[AT_LOOK].store(self.now(), Relaxed);
    }

    /// Whether somebody looks at the numbers now and then.
    pub(crate) fn is_seen(&self) -> bool {
        self.since(AT_LOOK).is_some_and(|unseen| unseen < SEEN)
    }

    /// When somebody looked at the numbers last, as a word that differs from look to look.
    pub(crate) fn last_look(&self) -> u64 {
        self.words[AT_LOOK].load(Relaxed)
    }

    fn since(&self, word: usize) -> Option<Duration> {
        since(self.words[word].load(Relaxed), self.now())
    }

    /// The series of this family with these labels, made if it is not there. If a shared page has no room for a series,
    /// it is counted, and shown to nobody.
    pub(crate) fn series(&self, family: &Family, labels: &[&str]) -> Series {
        debug_assert_eq!(family.own_labels(), labels.len(), "{}", family.name);
        let number = family.number();
        let mut index = lock(&self.index);
        let key = (number, labels.iter().map(|label| shortened(label)).collect());
        if let Some(first) = index.series.get(&key) {
            return Series { words: self.words.clone(), first: *first };
        }
        if let Some(first) = self.append(&mut index, family, number, &key.1) {
            index.series.insert(key, first);
            return Series { words: self.words.clone(), first };
        }
        if let Words::Own(_) = self.words {
            let next = index.next_page.get_or_insert_with(|| self.empty()).clone();
            drop(index);
            return next.series(family, labels);
        }
        if !mem::replace(&mut index.has_warned, true) {
            warn!(
                target: CONSUMER,
                "The memory for this worker's metrics is full: new series are not shown. Run fewer consumers in one worker."
            );
        }
        let unseen = (0..family.cells()).map(|_| AtomicU64::new(0)).collect();
        Series { words: Words::Own(unseen), first: 0 }
    }

    /// Another page of this process's own, twice as large as this one.
    fn empty(&self) -> Self {
        let words = (0..2 * self.words.len()).map(|_| AtomicU64::new(0)).collect();
        Self::of(Words::Own(words), self.clock)
    }

    fn append(&self, index: &mut Index, family: &Family, number: usize, labels: &[String]) -> Option<usize> {
        let mut record = vec![(number as u64) << 32 | labels.len() as u64, index.next_cell as u64];
        for label in labels {
            record.push(label.len() as u64);
            record.extend(label.as_bytes().chunks(8).map(packed));
        }
        let (begin, first) = (index.next_word, index.next_cell);
        let (end, last) = (begin + record.len(), first + family.cells());
        if end > self.words.len() / 4 || last > self.words.len() {
            return None;
        }
        for (word, value) in self.words[begin..end].iter().zip(record) {
            word.store(value, Relaxed);
        }
        for cell in &self.words[first..last] {
            cell.store(family.empty(), Relaxed);
        }
        (index.next_word, index.next_cell) = (end, last);
        // What is counted here is readable: the reader loads it with Acquire.
        self.words[AT_LENGTH].store((end - HEAD) as u64, Release);
        Some(first)
    }

    /// To be read by this process.
    #[must_use]
    pub fn view(&self) -> View {
        View { words: self.words.clone(), clock: self.clock, index: Some(self.index.clone()) }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

/// A page as a reader sees it. Another process may have written it, so every number in it is checked.
#[derive(Clone)]
pub struct View {
    words: Words,
    clock: Clock,
    /// The writer's, if that is this process.
    index: Option<Arc<Mutex<Index>>>,
}

/// One series, as it is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) family: &'static Family,
    pub(crate) labels: Vec<String>,
    pub(crate) cells: Vec<u64>,
}

impl Reading {
    pub(crate) fn gauge(family: &'static Family, labels: Vec<String>, value: f64) -> Self {
        Self { family, labels, cells: vec![value.to_bits()] }
    }

    #[cfg(any(test, feature = "http"))]
    /// Whether the number was ever measured.
    pub(crate) fn is_known(&self) -> bool {
        match self.family.kind {
            Kind::Gauge => !f64::from_bits(self.cells[0]).is_nan(),
            Kind::Age | Kind::Left => Moment::of(self.cells[0]) != Moment::Unknown,
            _ => true,
        }
    }
}

impl View {
    /// The page that another process writes into this memory, by the clock that both share.
    #[must_use]
    pub fn over(words: &'static [AtomicU64], clock: Clock) -> Self {
        Self { words: Words::Shared(words), clock, index: None }
    }

    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// How long the process that writes has said nothing; `None` before the first word.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        since(self.words.get(AT_HEARTBEAT)?.load(Relaxed), self.now())
    }

    /// All series that can be read. Those of families that this version does not know are left out, as is everything in
    /// a page of another layout.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let next = self.index.as_ref().and_then(|index| lock(index).next_page.clone());
        let mut readings = self.own_readings();
        readings.extend(next.into_iter().flat_map(|page| page.view().readings()));
        readings
    }

    fn own_readings(&self) -> Vec<Reading> {
        let word = |at: usize| self.words.get(at).map(|word| word.load(Relaxed));
        if word(AT_MAGIC) != Some(MAGIC) || word(AT_LAYOUT) != Some(LAYOUT) {
            return Vec::new();
        }
        let length = self.words[AT_LENGTH].load(Acquire);
        let end = HEAD.saturating_add(size(length)).min(self.words.len());
        let mut readings = Vec::new();
        let mut records = self.words[HEAD.min(end)..end].iter().map(|word| word.load(Relaxed));
        while let Some((number, labels, first)) = record(&mut records) {
            let Some(family) = FAMILIES.get(number) else { continue };
            let cells = self.words.get(first..first.saturating_add(family.cells()));
            if labels.len() == family.own_labels()
                && let Some(cells) = cells
            {
                let cells = if family.kind == Kind::State { agreed(cells) } else { loaded(cells) };
                readings.push(Reading { family, labels, cells });
            }
        }
        readings
    }
}

/// Methods for a process that serves the numbers of others.
#[cfg(any(test, feature = "http"))]
impl View {
    /// Says that somebody looks at the numbers: the process that writes then asks for those that cost something.
    pub(crate) fn look(&self) {
        if let Some(word) = self.words.get(AT_LOOK) {
            word.store(self.now(), Relaxed);
        }
    }

    /// Forgets what a process has written that has ended, so that another one may write.
    pub(crate) fn clear(&self) {
        for at in [AT_LENGTH, AT_MAGIC, AT_HEARTBEAT, AT_LOOK] {
            if let Some(word) = self.words.get(at) {
                word.store(0, Release);
            }
        }
    }

    /// Whether both are the same memory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.words.as_ptr(), other.words.as_ptr())
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

/// The time since this moment, which is 0 if there was none.
fn since(then: u64, now: u64) -> Option<Duration> {
    (then > 0).then(|| Duration::from_nanos(now.saturating_sub(then)))
}

fn loaded(cells: &[AtomicU64]) -> Vec<u64> {
    cells.iter().map(|cell| cell.load(Acquire)).collect()
}

/// Cells that are changed together, as two looks found them.
fn agreed(cells: &[AtomicU64]) -> Vec<u64> {
    let mut before = loaded(cells);
    for _ in 0..LOOKS {
        let now = loaded(cells);
        if now == before {
            break;
        }
        before = now;
    }
    before
}

/// The next record: family, labels, first cell.
fn record(words: &mut impl Iterator<Item = u64>) -> Option<(usize, Vec<String>, usize)> {
    let (head, first) = (words.next()?, words.next()?);
    let (number, count) = (head >> 32, head & 0xffff_ffff);
    let mut labels = Vec::new();
    for _ in 0..count {
        let length = size(words.next()?);
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend(words.next()?.to_le_bytes());
        }
        bytes.truncate(length);
        labels.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    Some((size(number), labels, size(first)))
}

fn packed(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn size(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

fn shortened(label: &str) -> String {
    // As `str::floor_char_boundary`, which needs Rust 1.91.
    let mut ends = (0..=label.len().min(LONGEST_LABEL)).rev();
    let end = ends.find(|end| label.is_char_boundary(*end)).unwrap_or_default();
    label[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::observe::families::{DELIVERIES, EXHAUSTED, HANDLER_SECONDS, PENDING};

    use super::*;

    fn fresh(words: usize) -> &'static [AtomicU64] {
        Box::leak((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn what_is_counted_is_read_with_its_labels() {
        let page = Page::default();
        page.series(&DELIVERIES, &["OrderConsumer", "false"]).add(3);
        page.series(&PENDING, &["orders", "Größe"]).set(2.5);
        let readings = page.view().readings();
        assert_eq!((readings[0].family.name, &readings[0].cells[..]), (DELIVERIES.name, &[3][..]));
        assert_eq!(readings[1].labels, ["orders", "Größe"]);
        assert_eq!(f64::from_bits(readings[1].cells[0]), 2.5);
    }

    #[test]
    fn a_series_that_is_asked_for_again_is_the_same() {
        let page = Page::default();
        page.series(&EXHAUSTED, &["A"]).count();
        page.series(&EXHAUSTED, &["A"]).count();
        let readings = page.view().readings();
        assert_eq!((readings.len(), readings[0].cells[0]), (1, 2));
    }

    #[test]
    fn a_page_of_shared_memory_is_read_by_all_who_have_the_memory() {
        let words = fresh(OWN);
        let page = Page::over(words, own_clock);
        page.series(&EXHAUSTED, &["A"]).count();
        assert_eq!(View::over(words, own_clock).readings(), page.view().readings());
        drop(page);
        assert_eq!(View::over(words, own_clock).readings()[0].cells, [1], "it outlives its writer");
    }

    #[test]
    fn a_page_of_ones_own_that_is_full_goes_on_in_another() {
        let page = Page::default();
        let names: Vec<_> = (0..OWN).map(|number| format!("Consumer{number}")).collect();
        for _ in 0..2 {
            names.iter().for_each(|name| page.series(&HANDLER_SECONDS, &[name, "handle_message"]).count());
        }
        let shown = page.view().readings();
        assert!(shown.iter().map(|reading| &reading.labels[0]).eq(&names));
        assert!(shown.iter().all(|reading| reading.cells[0] == 2));
    }

    #[test]
    fn a_shared_page_that_is_full_goes_on_counting_in_secret() {
        let page = Page::over(fresh(OWN), own_clock);
        let names: Vec<_> = (0..OWN).map(|number| format!("Consumer{number}")).collect();
        names.iter().for_each(|name| page.series(&HANDLER_SECONDS, &[name, "handle_message"]).count());
        let shown = page.view().readings();
        assert!(shown.len() < names.len());
        assert!(shown.iter().all(|reading| reading.cells[0] == 1));
    }

    #[test]
    fn a_page_of_another_layout_or_of_nothing_is_empty() {
        let words = fresh(OWN);
        assert!(View::over(words, own_clock).readings().is_empty());
        let page = Page::over(words, own_clock);
        page.series(&EXHAUSTED, &["A"]).count();
        words[AT_LAYOUT].store(LAYOUT + 1, Relaxed);
        assert!(page.view().readings().is_empty());
        assert!(View::over(fresh(3), own_clock).readings().is_empty());
    }

    #[test]
    fn a_heartbeat_tells_how_long_ago_it_was() {
        let page = Page::default();
        assert_eq!(page.silence(), None);
        page.beat();
        assert!(page.silence().is_some_and(|silence| silence < Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn no_page_panics_its_reader(
            words in prop::collection::vec(prop_oneof![any::<u64>(), 0..100_u64, (0..40_u64).prop_map(|n| n << 32 | 2)], 0..200),
        ) {
            let page: &'static [AtomicU64] = Box::leak(words.into_iter().map(AtomicU64::new).collect());
            if page.len() > AT_LENGTH {
                page[AT_MAGIC].store(MAGIC, Relaxed);
                page[AT_LAYOUT].store(LAYOUT, Relaxed);
            }
            let _ = View::over(page, own_clock).readings();
        }

        #[test]
        fn a_label_is_read_as_it_was_written_up_to_its_longest(label in "\\PC{0,300}") {
            let page = Page::default();
            page.series(&EXHAUSTED, &[&label]).count();
            let read = page.view().readings().remove(0).labels.remove(0);
            prop_assert!(label.starts_with(&read));
            prop_assert!(read.len() == label.len() || read.len() > LONGEST_LABEL - 4);
        }
    }
}
