//! Missing permissions, read from the errors that the server sends.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// A permission of a NATS user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Permission {
    Publish,
    Subscribe,
}

/// A permission that the user of a connection does not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Denial {
    pub(crate) permission: Permission,
    pub(crate) subject: String,
}

impl Denial {
    /// Reads `Permissions Violation for Publish to "orders.created"` and the like, in whatever text; `None` where
    /// it says something else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (_, what) = text.split_once("Permissions Violation for ")?;
        let publish = what.strip_prefix("Publish to \"").map(|rest| (Permission::Publish, rest));
        let (permission, rest) =
            publish.or_else(|| Some((Permission::Subscribe, what.strip_prefix("Subscription to \"")?)))?;
        let (subject, _) = rest.split_once('"')?;
        Some(Self { permission, subject: subject.to_owned() })
    }

    pub(crate) fn error(&self) -> Error {
        Error::new(ErrorKind::Denied, self.to_string())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = match self.permission {
            Permission::Publish => "publish",
            Permission::Subscribe => "subscribe",
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
        let read = |text: &str| Denial::read(text).map(|denial| (denial.permission, denial.subject));
        assert_eq!(
            read(r#"nats: Permissions Violation for Publish to "orders.created""#),
            Some((Permission::Publish, "orders.created".into()))
        );
        assert_eq!(
            read(r#"Permissions Violation for Subscription to "_deliver.x" using queue "billing""#),
            Some((Permission::Subscribe, "_deliver.x".into()))
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
