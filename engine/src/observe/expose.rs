//! Metrics as text: the format of Prometheus, and OpenMetrics 1.0.

use std::fmt::Write;
use std::time::Duration;

use crate::observe::families::{FAMILIES, Family, Kind, READY};
use crate::observe::page::{Moment, Reading, View};
use crate::observe::report::Report;
use crate::observe::state::ConsumerState;

/// How metrics are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client that sends this `Accept` header.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let is_wanted = |part: &str| {
            let mut words = part.split(';').map(str::trim);
            words.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
                && !words.any(|word| matches!(word, "q=0" | "q=0.0"))
        };
        if accept.split(',').any(is_wanted) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of the text.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    fn of(self, kind: Kind) -> &'static str {
        match (kind, self) {
            (Kind::Counter | Kind::Time, _) => "counter",
            (Kind::Info, Self::OpenMetrics) => "info",
            (Kind::Histogram(_), _) => "histogram",
            _ => "gauge",
        }
    }

    /// The name of a family in the lines about it.
    fn title(self, family: &Family) -> String {
        match self {
            Self::Prometheus => family.sample(),
            Self::OpenMetrics => family.name.to_owned(),
        }
    }
}

/// The metrics of a page as text. Consumers that were ready until less than `grace` ago are ready.
#[must_use]
pub fn text(view: &View, format: Format, grace: Duration) -> String {
    let (mut readings, now) = (view.readings(), view.now());
    let ready: Vec<_> = readings.iter().filter_map(|reading| ready(reading, now, grace)).collect();
    readings.extend(ready);
    written(&readings, now, format)
}

/// Whether the consumer is ready whose status this is.
fn ready(reading: &Reading, now: u64, grace: Duration) -> Option<Reading> {
    let report = Report::read(reading)?;
    Some(Reading::gauge(&READY, reading.labels.clone(), f64::from(u8::from(report.is_ready(now, grace)))))
}

/// Readings as text.
pub(crate) fn written(readings: &[Reading], now: u64, format: Format) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let of_family: Vec<_> =
            readings.iter().filter(|reading| reading.family.number() == family.number()).collect();
        let mut samples = String::new();
        of_family.iter().for_each(|reading| write_samples(&mut samples, reading, now));
        if !samples.is_empty() {
            write_head(&mut text, family, format);
            text.push_str(&samples);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_head(text: &mut String, family: &Family, format: Format) {
    let title = format.title(family);
    let _ = writeln!(text, "# HELP {title} {}", family.help);
    let _ = writeln!(text, "# TYPE {title} {}", format.of(family.kind));
    if format == Format::OpenMetrics && !family.unit.is_empty() {
        let _ = writeln!(text, "# UNIT {title} {}", family.unit);
    }
}

fn write_samples(text: &mut String, reading: &Reading, now: u64) {
    let (name, labels) = (reading.family.sample(), labels(reading));
    let mut write = |value: f64| {
        let _ = writeln!(text, "{name}{} {value}", braced(&labels));
    };
    let cell = reading.cells.first().copied().unwrap_or_default();
    match reading.family.kind {
        Kind::Counter => write(cell as f64),
        Kind::Time => write(seconds(cell)),
        Kind::Info => write(1.0),
        Kind::Gauge => {
            let value = f64::from_bits(cell);
            if !value.is_nan() {
                write(value);
            }
        }
        Kind::Age => show(Moment::of(cell), |moment| now.saturating_sub(moment), write),
        Kind::Left => show(Moment::of(cell), |moment| moment.saturating_sub(now), write),
        Kind::Histogram(bounds) => write_histogram(text, reading, bounds, &labels),
        Kind::State => write_states(text, reading, &labels),
    }
}

fn write_states(text: &mut String, reading: &Reading, labels: &str) {
    let Some(report) = Report::read(reading) else { return };
    for state in ConsumerState::ALL {
        let is_in = u8::from(state == report.state);
        let _ = writeln!(text, "{}{{{labels},state=\"{}\"}} {is_in}", reading.family.name, state.name());
    }
}

fn show(moment: Moment, time: impl Fn(u64) -> u64, mut write: impl FnMut(f64)) {
    match moment {
        Moment::Unknown => {}
        Moment::None => write(0.0),
        Moment::At(moment) => write(seconds(time(moment))),
    }
}

fn write_histogram(text: &mut String, reading: &Reading, bounds: &[f64], labels: &str) {
    let name = reading.family.name;
    let (buckets, sum) = reading.cells.split_at(bounds.len() + 1);
    let mut count: u64 = 0;
    for (number, bucket) in buckets.iter().enumerate() {
        count = count.wrapping_add(*bucket);
        let bound = bounds.get(number).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(text, "{name}_sum{} {}", braced(labels), seconds(sum[0]));
    let _ = writeln!(text, "{name}_count{} {count}", braced(labels));
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn labels(reading: &Reading) -> String {
    let pairs = reading.family.labels.iter().zip(&reading.labels);
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    pairs.join(",")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use crate::observe::families::*;
    use crate::observe::page::Page;

    use super::*;

    fn lines(page: &Page, format: Format) -> Vec<String> {
        text(&page.view(), format, Duration::ZERO).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_counter_has_its_suffix_where_each_format_wants_it() {
        let page = Page::default();
        page.series(&DELIVERIES, &["Orders", "false"]).add(7);
        let help = "Deliveries that arrived.";
        let sample = "nats_consumer_deliveries_total{consumer=\"Orders\",redelivered=\"false\"} 7";
        assert_eq!(
            lines(&page, Format::Prometheus),
            [
                &format!("# HELP nats_consumer_deliveries_total {help}"),
                "# TYPE nats_consumer_deliveries_total counter",
                sample
            ]
        );
        assert_eq!(
            lines(&page, Format::OpenMetrics),
            [
                &format!("# HELP nats_consumer_deliveries {help}"),
                "# TYPE nats_consumer_deliveries counter",
                sample,
                "# EOF"
            ]
        );
    }

    #[test]
    fn a_histogram_adds_its_buckets_up() {
        let page = Page::default();
        let series = page.series(&QUEUE_SECONDS, &["Orders"]);
        [(0, 2), (2, 1), (12, 1)].into_iter().for_each(|(bucket, count)| {
            series.cell(bucket).store(count, std::sync::atomic::Ordering::Relaxed);
        });
        series.cell(13).store(1_500_000_000, std::sync::atomic::Ordering::Relaxed);
        let lines = lines(&page, Format::OpenMetrics);
        let has = |line: &str| assert!(lines.iter().any(|each| each == line), "{line} of {lines:#?}");
        has("# UNIT nats_consumer_queue_seconds seconds");
        has("nats_consumer_queue_seconds_bucket{consumer=\"Orders\",le=\"0.01\"} 2");
        has("nats_consumer_queue_seconds_bucket{consumer=\"Orders\",le=\"1.0\"} 3");
        has("nats_consumer_queue_seconds_bucket{consumer=\"Orders\",le=\"+Inf\"} 4");
        has("nats_consumer_queue_seconds_sum{consumer=\"Orders\"} 1.5");
        has("nats_consumer_queue_seconds_count{consumer=\"Orders\"} 4");
    }

    #[test]
    fn what_is_not_known_is_not_shown_and_what_is_not_there_is_nothing() {
        let page = Page::default();
        page.series(&PENDING, &["orders", "Orders"]);
        let oldest = page.series(&OLDEST_SECONDS, &["orders", "Orders"]);
        assert!(lines(&page, Format::Prometheus).is_empty());
        oldest.set_moment(Moment::None);
        assert!(lines(&page, Format::Prometheus)[2].ends_with(" 0"));
        oldest.set_moment(page.ago(Duration::from_secs(5)));
        let age: f64 = lines(&page, Format::Prometheus)[2].rsplit(' ').next().unwrap().parse().unwrap();
        assert!((5.0..65.0).contains(&age) || page.now() < 5_000_000_000, "{age}");
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let page = Page::default();
        page.series(&EXHAUSTED, &["a\"} 1\n\\"]).count();
        let line = &lines(&page, Format::Prometheus)[2];
        assert_eq!(line, "nats_consumer_exhausted_total{consumer=\"a\\\"} 1\\n\\\\\"} 1");
    }

    #[test]
    fn openmetrics_is_for_those_who_accept_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text; q=0"] {
            assert_eq!(Format::accepted(accept), Format::Prometheus, "{accept}");
        }
    }
}
