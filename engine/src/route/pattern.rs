//! Subject patterns, and what makes one valid.
//!
//! A subject is a list of tokens between dots. In a pattern, the token `*` stands for exactly one
//! token and `>`, which comes last, for one or more. Inside a longer token (`cre*`) neither means
//! anything, as in NATS itself.

use std::convert::Infallible;
use std::fmt;

/// The longest subject in bytes: what a server's `max_control_line` allows by default.
///
/// It also bounds how deep a trie of patterns gets, and with it the recursion of a search.
pub(super) const LONGEST: usize = 4096;

/// A valid subject pattern: which messages a handler is for.
///
/// ```
/// use nats_consumer::Pattern;
///
/// let pattern = Pattern::parse("orders.*.paid")?;
/// assert!(pattern.matches("orders.7.paid") && !pattern.matches("orders.7.8.paid"));
/// assert!(Pattern::parse("orders..paid").is_err());
/// # Ok::<(), nats_consumer::route::PatternError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Checks `text` and keeps it as a pattern, as a server reads it: braces mean nothing.
    ///
    /// # Errors
    /// Names `text` and the [`Rule`] that it breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern stands for one subject only: itself.
    pub fn is_literal(&self) -> bool {
        is_literal(&self.0)
    }

    /// Whether the pattern stands for `subject`. No pattern does for one with an empty token.
    pub fn matches(&self, subject: &str) -> bool {
        if has_empty_token(subject) {
            return false;
        }
        let mut theirs = subject.split('.');
        for ours in self.tokens() {
            match (ours, theirs.next()) {
                (Token::Rest, Some(_)) => return true,
                (Token::Any, Some(_)) => {}
                (Token::Literal(ours), Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// The error of a router that has a handler for it already.
    pub(crate) fn is_twice(&self) -> PatternError {
        PatternError::new(&self.0, Rule::Once)
    }

    /// Whether some subject matches both patterns.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let mut theirs = other.tokens();
        for ours in self.tokens() {
            match (ours, theirs.next()) {
                (Token::Rest, Some(_)) | (_, Some(Token::Rest)) => return true,
                (Token::Any, Some(_)) | (Token::Literal(_), Some(Token::Any)) => {}
                (Token::Literal(ours), Some(Token::Literal(theirs))) if ours == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether every subject that matches `other` matches this one too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let mut theirs = other.tokens();
        for ours in self.tokens() {
            match (ours, theirs.next()) {
                (Token::Rest, Some(_)) => return true,
                (Token::Any, Some(Token::Any | Token::Literal(_))) => {}
                (Token::Literal(ours), Some(Token::Literal(theirs))) if ours == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = Token<'_>> {
        tokens(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Pattern> for String {
    fn from(pattern: &Pattern) -> Self {
        pattern.as_str().to_owned()
    }
}

/// Checks that a message can be published to `subject`.
///
/// Wildcards are refused because a server does not: it stores the message under a literal
/// `orders.*`.
///
/// # Errors
/// Names `subject` and the [`Rule`] that it breaks.
pub fn validate_publish_subject(subject: &str) -> Result<(), PatternError> {
    check(subject)?;
    if is_literal(subject) { Ok(()) } else { Err(PatternError::new(subject, Rule::WithoutWildcard)) }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'p> {
    Literal(&'p str),
    Any,
    Rest,
}

fn tokens(pattern: &str) -> impl Iterator<Item = Token<'_>> {
    pattern.split('.').map(|token| match token {
        "*" => Token::Any,
        ">" => Token::Rest,
        _ => Token::Literal(token),
    })
}

fn is_literal(pattern: &str) -> bool {
    tokens(pattern).all(|token| matches!(token, Token::Literal(_)))
}

pub(super) fn has_empty_token(subject: &str) -> bool {
    subject.split('.').any(str::is_empty)
}

fn check(text: &str) -> Result<(), PatternError> {
    let before_last = text.rsplit_once('.').map_or("", |(before, _)| before);
    let broken = if text.is_empty() {
        Rule::NotEmpty
    } else if text.len() > LONGEST {
        Rule::NotTooLong
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Rule::WithoutWhiteSpace
    } else if has_empty_token(text) {
        Rule::WithoutEmptyToken
    } else if tokens(before_last).any(|token| matches!(token, Token::Rest)) {
        Rule::RestIsLast
    } else {
        return Ok(());
    };
    Err(PatternError::new(text, broken))
}

/// A rule that every pattern keeps, and every subject to publish to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// There is at least one token.
    NotEmpty,
    /// At most 4,096 bytes: a server closes the connection on more.
    NotTooLong,
    /// No white space and no control characters: they would break the line of the protocol.
    WithoutWhiteSpace,
    /// No dot at either end, and no two in a row.
    WithoutEmptyToken,
    /// The token `>` stands only at the end.
    RestIsLast,
    /// No token `*` or `>`, where a message is published.
    WithoutWildcard,
    /// One handler for each pattern of a router.
    Once,
    /// A brace encloses a whole token that is a name.
    Name,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEmpty => "it is empty; give at least one token",
            Self::NotTooLong => "it is longer than 4096 bytes; shorten it",
            Self::WithoutWhiteSpace => "it has white space or a control character; remove it",
            Self::WithoutEmptyToken => "it has an empty token; put one dot between two tokens",
            Self::RestIsLast => "the token `>` is not the last one; end with it, or use `*`",
            Self::Once => "it has a handler already; give the router one handler for each pattern",
            Self::Name => "a brace does not enclose a name; write `{name}` for a whole token, with letters, digits and `_`",
            Self::WithoutWildcard => "a message goes to one subject; replace the wildcard",
        })
    }
}

/// A malformed pattern, or a subject that cannot be published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    text: Box<str>,
    rule: Rule,
}

impl PatternError {
    pub(super) fn new(text: &str, rule: Rule) -> Self {
        let text = text.into();
        Self { text, rule }
    }

    /// The rule that was broken.
    pub fn rule(&self) -> Rule {
        self.rule
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All of a subject that is far too long would hide the reason.
        let start: String = self.text.chars().take(100).collect();
        write!(f, "invalid subject {start:?}: {}", self.rule)
    }
}

impl std::error::Error for PatternError {}

/// Needed for patterns and templates, which are parsed already and never malformed.
impl From<Infallible> for PatternError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_breaks(text: &str, rule: Rule) {
        let parsed = Pattern::parse(text).map_err(|error| error.rule());
        assert_eq!(parsed, Err(rule), "{text:?}");
    }

    #[test]
    fn a_pattern_matches_what_the_server_would_deliver() {
        for (text, subject, expected) in [
            ("orders.created", "orders.created", true),
            ("orders.created", "ORDERS.created", false),
            ("orders.*", "orders.created", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.payment.failed", false),
            ("orders.*.failed", "orders.payment.failed", true),
            ("*.*", "orders.error", true),
            ("orders.>", "orders", false),
            ("orders.>", "orders.payment.failed", true),
            ("orders.>", "orders.", false),
            ("*.orders.>", "eu.orders.created.v1", true),
            (">", "orders", true),
            (">", "", false),
            ("orders.cre*", "orders.created", false),
            ("orders.cre*", "orders.cre*", true),
            ("orders>", "orders.created", false),
        ] {
            let matches = Pattern::parse(text).unwrap().matches(subject);
            assert_eq!(matches, expected, "{text} and {subject}");
        }
    }

    #[test]
    fn two_patterns_overlap_where_a_subject_matches_both() {
        for (one, other, expected) in [
            ("orders.created", "orders.created", true),
            ("orders.created", "orders.paid", false),
            ("orders.*", "*.created", true),
            ("orders.*", "orders.created.v1", false),
            ("orders.>", "orders", false),
            ("orders.>", "*.*.v1", true),
            (">", "orders", true),
            ("orders.*.v1", "orders.>", true),
            ("orders.created.v1", "orders.*", false),
        ] {
            let (one, other) = (Pattern::parse(one).unwrap(), Pattern::parse(other).unwrap());
            assert_eq!(one.overlaps(&other), expected, "{one} and {other}");
            assert_eq!(other.overlaps(&one), expected, "{other} and {one}");
        }
    }

    #[test]
    fn a_malformed_pattern_names_the_rule_it_breaks() {
        assert_breaks("", Rule::NotEmpty);
        assert_breaks(&"a".repeat(LONGEST + 1), Rule::NotTooLong);
        assert_breaks("orders created", Rule::WithoutWhiteSpace);
        assert_breaks("orders.\r\nPUB", Rule::WithoutWhiteSpace);
        for text in [".", "orders.", ".orders", "orders..created", "orders..>"] {
            assert_breaks(text, Rule::WithoutEmptyToken);
        }
        assert_breaks("orders.>.failed", Rule::RestIsLast);
        assert_breaks(">.>", Rule::RestIsLast);
    }

    #[test]
    fn a_message_is_published_to_one_subject() {
        for subject in ["orders", "orders.created", "orders.cre*", "$KV.a>b"] {
            assert_eq!(validate_publish_subject(subject), Ok(()));
        }
        for subject in ["*", ">", "orders.*", "orders.*.failed", "orders.>"] {
            let error = validate_publish_subject(subject).unwrap_err();
            assert_eq!(error.rule(), Rule::WithoutWildcard, "{subject}");
        }
        let error = validate_publish_subject("orders..created").unwrap_err();
        assert_eq!(error.rule(), Rule::WithoutEmptyToken);
    }

    #[test]
    fn an_error_quotes_the_pattern_but_not_all_of_a_long_one() {
        let error = Pattern::parse("orders.\n").unwrap_err().to_string();
        assert!(error.contains(r#""orders.\n""#), "{error}");
        let error = Pattern::parse(&"é".repeat(5000)).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }
}
