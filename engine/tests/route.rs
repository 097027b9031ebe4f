//! Routing agrees with a specification too slow to use, whatever the patterns and the subject.

use nats_consumer::route::{Pattern, Routes, validate_publish_subject};
use proptest::prelude::*;

/// Few different tokens, so that patterns and subjects meet often.
fn subjects() -> impl Strategy<Value = String> {
    "[abc](\\.[abc]){0,4}|[ab*>]?(\\.[ab*>]?){0,3}"
}

fn patterns() -> impl Strategy<Value = Pattern> {
    "([ab*](\\.[ab*]){0,3}(\\.>)?)|>".prop_map(|text| Pattern::parse(&text).unwrap())
}

/// How a pattern's tokens rank at a subject, smaller is more specific; `None`: no match.
fn specification(pattern: &Pattern, subject: &str) -> Option<Vec<u8>> {
    let subject: Vec<_> = subject.split('.').collect();
    let pattern: Vec<_> = pattern.as_str().split('.').collect();
    let open = pattern.last() == Some(&">");
    let lengths_fit = subject.len() == pattern.len() || open && subject.len() > pattern.len();
    if !lengths_fit || subject.contains(&"") {
        return None;
    }
    let rank = |(ours, theirs): (&&str, &&str)| match *ours {
        ">" => Some(2),
        "*" => Some(1),
        ours => (ours == *theirs).then_some(0),
    };
    pattern.iter().zip(&subject).map(rank).collect()
}

/// Enough cases that patterns and subjects meet; PROPTEST_CASES may ask for more.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(4000), ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_pattern_matches_as_specified(pattern in patterns(), subject in subjects()) {
        prop_assert_eq!(pattern.matches(&subject), specification(&pattern, &subject).is_some());
    }

    #[test]
    fn the_most_specific_pattern_is_found(
        patterns in prop::collection::vec(patterns(), 0..30),
        subject in subjects(),
    ) {
        let best = patterns
            .iter()
            .enumerate()
            .filter_map(|(at, pattern)| Some((specification(pattern, &subject)?, at)))
            .min_by(|(rank, at), (other, other_at)| rank.cmp(other).then(other_at.cmp(at)))
            .map(|(_, at)| at);
        let routes: Routes<_> = patterns.into_iter().zip(0..).collect();
        prop_assert_eq!(routes.find(&subject).copied(), best);
    }

    #[test]
    fn a_literal_pattern_is_a_subject_to_publish_to(text in "[a*> .]{0,6}") {
        let literal = Pattern::parse(&text).is_ok_and(|pattern| pattern.is_literal());
        prop_assert_eq!(validate_publish_subject(&text).is_ok(), literal);
    }

    #[test]
    fn no_text_panics(text in any::<String>(), subject in any::<String>()) {
        let parsed = Pattern::parse(&text).or_else(|_| Pattern::parse("*.a.>"));
        let pattern = parsed.unwrap();
        let matches = pattern.matches(&subject);
        let routes: Routes<_> = [(pattern, ())].into_iter().collect();
        prop_assert_eq!(routes.find(&subject).is_some(), matches);
        let _ = validate_publish_subject(&subject);
    }
}
