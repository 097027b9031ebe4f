//! The messages that a process publishes.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::error::{Error, ErrorKind};
use crate::lock::lock;
use crate::observe::families::PUBLISHED;
use crate::observe::page::{Page, Series};

/// Streams that are told apart.
const MOST_STREAMS: usize = 64;

/// The name of all other streams.
const OTHER: &str = "other";

/// The label where no stream has answered.
const NO_STREAM: &str = "";

/// The metrics of published messages.
#[derive(Debug)]
pub(crate) struct Published {
    page: Page,
    stored: Mutex<HashMap<String, Series>>,
    failed: Series,
    unconfirmed: Series,
}

impl Published {
    pub(crate) fn new(page: &Page) -> Self {
        let failure = |result| page.series(&PUBLISHED, &[NO_STREAM, result]);
        Self {
            page: page.clone(),
            stored: Mutex::default(),
            failed: failure("error"),
            unconfirmed: failure("timeout"),
        }
    }

    /// Counts messages by the streams that stored them, or by their errors.
    pub(crate) fn count<'a>(&self, results: impl IntoIterator<Item = Result<&'a str, &'a Error>>) {
        let mut alike = ("", 0);
        for result in results {
            match result {
                Ok(stream) if stream == alike.0 => alike.1 += 1,
                Ok(stream) => {
                    self.stored(alike);
                    alike = (stream, 1);
                }
                Err(error) => self.failed(error, 1),
            }
        }
        self.stored(alike);
    }

    /// Counts messages that all failed with this error.
    pub(crate) fn failed(&self, error: &Error, messages: u64) {
        match error.kind() {
            ErrorKind::Unconfirmed => self.unconfirmed.add(messages),
            _ => self.failed.add(messages),
        }
    }

    fn stored(&self, (stream, messages): (&str, u64)) {
        if messages == 0 {
            return;
        }
        let mut stored = lock(&self.stored);
        if let Some(series) = stored.get(stream) {
            return series.add(messages);
        }
        let label = if stored.len() < MOST_STREAMS { stream } else { OTHER };
        let series = self.page.series(&PUBLISHED, &[label, "ok"]);
        series.add(messages);
        // Streams without limit would fill the memory.
        if label == stream {
            stored.insert(stream.to_owned(), series);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "It failed.")
    }

    /// The number of messages of each series.
    fn counts(page: &Page) -> Vec<(Vec<String>, u64)> {
        page.view().readings().into_iter().map(|it| (it.labels, it.cells[0])).collect()
    }

    #[test]
    fn messages_count_for_their_streams_and_failures_for_none() {
        let page = Page::default();
        let published = Published::new(&page);
        published.count([Ok("orders")]);
        let (late, nowhere) = (error(ErrorKind::Unconfirmed), error(ErrorKind::NoStream));
        published.count([Ok("orders"), Ok("orders"), Ok("letters"), Err(&late), Err(&nowhere), Ok("orders")]);
        published.failed(&error(ErrorKind::Unreachable), 3);
        let of = |stream: &str, result: &str, count| (vec![stream.to_owned(), result.to_owned()], count);
        let expected =
            [of("", "error", 4), of("", "timeout", 1), of("orders", "ok", 4), of("letters", "ok", 1)];
        assert_eq!(counts(&page), expected);
    }

    #[test]
    fn streams_beyond_the_bound_are_one() {
        let page = Page::default();
        let published = Published::new(&page);
        (0..100).for_each(|number| published.count([Ok(format!("stream{number}").as_str())]));
        let counts = counts(&page);
        assert_eq!(counts.len(), 2 + MOST_STREAMS + 1);
        assert_eq!(counts.last(), Some(&(vec!["other".to_owned(), "ok".to_owned()], 36)));
    }
}
