//! The numbers of an outbox: rows of a database that wait to be published.

use std::time::Duration;

use crate::observe::families::*;
use crate::observe::page::{Moment, Page, Series};

/// The metrics of the outbox of one database. Only the process that relays it knows them.
#[derive(Debug)]
pub struct Outbox {
    page: Page,
    published: Series,
    rows: Series,
    oldest: Series,
    stuck: Series,
}

impl Outbox {
    /// In this page.
    #[must_use]
    pub fn new(page: &Page, database: &str) -> Self {
        let series = |family: &Family| page.series(family, &[database]);
        Self {
            page: page.clone(),
            published: series(&OUTBOX_PUBLISHED),
            rows: series(&OUTBOX_ROWS),
            oldest: series(&OUTBOX_OLDEST_SECONDS),
            stuck: series(&OUTBOX_STUCK),
        }
    }

    /// Counts rows that a stream has stored.
    pub fn count_published(&self, rows: u64) {
        self.published.add(rows);
    }

    /// Whether somebody reads the metrics now and then: to count rows costs a query.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.page.is_seen()
    }

    /// Sets how many rows wait, the age of the oldest if there is one, and how many were refused.
    pub fn set(&self, rows: u64, oldest: Option<Duration>, stuck: u64) {
        self.rows.set(rows as f64);
        self.oldest.set_moment(oldest.map_or(Moment::None, |age| self.page.ago(age)));
        self.stuck.set(stuck as f64);
    }

    /// Another process relays from now on, and knows the numbers.
    pub fn forget(&self) {
        self.rows.set(f64::NAN);
        self.oldest.set_moment(Moment::Unknown);
        self.stuck.set(f64::NAN);
    }
}
