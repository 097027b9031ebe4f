//! What the server does not permit, read from its words, so that whoever asked for it hears so.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// What a permission is missing for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Publish,
    Subscribe,
}

/// A permission that the user of a connection does not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Denial {
    pub(crate) act: Act,
    pub(crate) subject: String,
}

impl Denial {
    /// Reads `Permissions Violation for Publish to "orders.created"` and the like, in whatever text; `None` where
    /// it says something else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (_, what) = text.split_once("Permissions Violation for ")?;
        let publish = what.strip_prefix("Publish to \"").map(|rest| (Act::Publish, rest));
        let (act, rest) =
            publish.or_else(|| Some((Act::Subscribe, what.strip_prefix("Subscription to \"")?)))?;
        let (subject, _) = rest.split_once('"')?;
        Some(Self { act, subject: subject.to_owned() })
    }

    pub(crate) fn error(&self) -> Error {
        Error::new(ErrorKind::Denied, self.to_string())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = match self.act {
            Act::Publish => "publish",
            Act::Subscribe => "subscribe",
        };
        write!(
            f,
            "The NATS server does not permit this user to {act} to {}: allow it under `{act}` in the user's \
             permissions.",
            self.subject
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_denial_is_read_from_the_words_of_the_server() {
        let read = |text: &str| Denial::read(text).map(|denial| (denial.act, denial.subject));
        assert_eq!(
            read(r#"nats: Permissions Violation for Publish to "orders.created""#),
            Some((Act::Publish, "orders.created".into()))
        );
        assert_eq!(
            read(r#"Permissions Violation for Subscription to "_deliver.x" using queue "billing""#),
            Some((Act::Subscribe, "_deliver.x".into()))
        );
        assert_eq!(read("maximum subscriptions exceeded"), None);
    }

    proptest! {
        #[test]
        fn no_words_of_a_server_panic(start in "(Permissions Violation for (Publish to \"|Subscription)?)?", rest in "\\PC{0,20}") {
            let _ = Denial::read(&format!("{start}{rest}"));
        }
    }
}
