//! Property tests of templates: no value changes the form of a subject.

use nats_consumer::route::{Template, validate_publish_subject};
use proptest::prelude::*;

/// Templates and the number of their names.
fn templates() -> impl Strategy<Value = (Template, usize)> {
    prop::collection::vec(any::<bool>(), 1..6).prop_map(|names| {
        let token =
            |(at, is_name): (usize, &bool)| if *is_name { format!("{{n{at}}}") } else { format!("t{at}") };
        let text: Vec<_> = names.iter().enumerate().map(token).collect();
        let count = names.iter().filter(|is_name| **is_name).count();
        (Template::parse(&text.join(".")).unwrap(), count)
    })
}

fn filled(template: &Template, values: &[String]) -> Option<String> {
    let values: Vec<(&str, &dyn std::fmt::Display)> =
        template.names().zip(values).map(|(name, value)| (name, value as &dyn std::fmt::Display)).collect();
    template.fill(&values).ok()
}

proptest! {
    #[test]
    fn what_was_filled_in_is_what_is_read(
        (template, count) in templates(),
        values in prop::collection::vec("[a-zA-Z0-9_-]{1,5}|[\u{e4}\u{f6}\u{1f600}]{1,2}", 5),
    ) {
        let subject = filled(&template, &values).unwrap();
        prop_assert!(template.pattern().matches(&subject));
        let tokens = template.extract(&subject).unwrap();
        let read: Vec<_> = tokens.iter().map(|(_, token)| token.to_owned()).collect();
        prop_assert_eq!(&read[..], &values[..count]);
    }

    #[test]
    fn no_value_adds_a_token_or_a_wildcard(
        (template, _) in templates(),
        values in prop::collection::vec("[a.*>{} \r\n\t\0]{0,3}|\\PC{0,4}", 5),
    ) {
        if let Some(subject) = filled(&template, &values) {
            prop_assert!(validate_publish_subject(&subject).is_ok());
            prop_assert_eq!(subject.split('.').count(), template.as_str().split('.').count());
            prop_assert_eq!(subject.split_whitespace().count(), 1);
        }
    }

    #[test]
    fn no_text_panics_and_a_template_is_read_as_it_was_written(text in "[a{}.*>_ ]{0,8}|\\PC{0,8}", subject in any::<String>()) {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.as_str(), &text);
            prop_assert_eq!(template.names().count(), text.matches('{').count());
            let _ = template.extract(&subject);
        }
    }
}
