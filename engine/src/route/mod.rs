//! Subject -> handler: patterns are compiled once, and found without allocating.
//!
//! Where several patterns match a subject, [`Routes`] compares them token by token from the left:
//! the same token beats `*`, and `*` beats `>`.
//!
//! ```
//! use nats_consumer::route::{Pattern, PatternError, Routes};
//!
//! let routes = [("orders.created", 1), ("orders.*", 2), ("orders.>", 3)]
//!     .into_iter()
//!     .map(|(pattern, handler)| Ok((Pattern::parse(pattern)?, handler)))
//!     .collect::<Result<Routes<_>, PatternError>>()?;
//!
//! assert_eq!(routes.find("orders.created"), Some(&1));
//! assert_eq!(routes.find("orders.updated"), Some(&2));
//! assert_eq!(routes.find("orders.payment.failed"), Some(&3));
//! assert_eq!(routes.find("orders"), None);
//! # Ok::<(), PatternError>(())
//! ```

mod pattern;
mod template;

use std::collections::HashMap;
use std::str::Split;

pub use pattern::{Pattern, PatternError, Rule, validate_publish_subject};
use pattern::{Token, has_empty_token};
pub use template::{Template, TemplateError, Tokens};

/// Patterns and what each leads to, compiled for [`find`](Self::find).
///
/// Made by collecting pairs; of two equal patterns the last wins.
#[derive(Debug, Clone)]
pub struct Routes<T> {
    /// Nothing beats a literal match, and most subjects have one: the cost of finding it does not
    /// grow with their number.
    literals: HashMap<Box<str>, T>,
    wildcards: Node<T>,
}

impl<T> Routes<T> {
    /// The target of the most specific pattern that matches `subject`.
    pub fn find(&self, subject: &str) -> Option<&T> {
        self.literals.get(subject).or_else(|| {
            if has_empty_token(subject) {
                return None;
            }
            self.wildcards.find(subject.split('.'))
        })
    }
}

impl<T> FromIterator<(Pattern, T)> for Routes<T> {
    fn from_iter<I: IntoIterator<Item = (Pattern, T)>>(pairs: I) -> Self {
        let mut literals = HashMap::new();
        let mut wildcards = Node::default();
        for (pattern, target) in pairs {
            if pattern.is_literal() {
                literals.insert(pattern.as_str().into(), target);
            } else {
                wildcards.insert(pattern.tokens(), target);
            }
        }
        Self { literals, wildcards }
    }
}

/// A place in the trie of wildcard patterns: what may follow the tokens that led here.
#[derive(Debug, Clone)]
struct Node<T> {
    literals: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    rest: Option<T>,
    /// The target of the pattern that ends here.
    end: Option<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), any: None, rest: None, end: None }
    }
}

impl<T> Node<T> {
    fn insert<'p>(&mut self, tokens: impl Iterator<Item = Token<'p>>, target: T) {
        let mut node = self;
        for token in tokens {
            node = match token {
                Token::Literal(token) => node.literals.entry(token.into()).or_default(),
                Token::Any => node.any.get_or_insert_default(),
                Token::Rest => {
                    node.rest = Some(target);
                    return;
                }
            };
        }
        node.end = Some(target);
    }

    /// Each node has one depth, so a search visits none twice, however often it turns back.
    fn find(&self, mut tokens: Split<'_, char>) -> Option<&T> {
        let Some(token) = tokens.next() else {
            return self.end.as_ref();
        };
        let by_literal = || self.literals.get(token)?.find(tokens.clone());
        let by_any = || self.any.as_ref()?.find(tokens.clone());
        by_literal().or_else(by_any).or(self.rest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn routes(patterns: &[&'static str]) -> Routes<&'static str> {
        patterns.iter().map(|text| (pattern(text), *text)).collect()
    }

    #[test]
    fn the_same_token_beats_any_token_beats_the_rest() {
        let routes = routes(&[">", "orders.>", "orders.*", "orders.created", "*.created"]);
        assert_eq!(routes.find("orders.created"), Some(&"orders.created"));
        assert_eq!(routes.find("orders.updated"), Some(&"orders.*"));
        assert_eq!(routes.find("orders.payment.failed"), Some(&"orders.>"));
        assert_eq!(routes.find("users.created"), Some(&"*.created"));
        assert_eq!(routes.find("users.updated"), Some(&">"));
    }

    #[test]
    fn a_token_further_left_decides() {
        let routes = routes(&["orders.>", "*.created"]);
        assert_eq!(routes.find("orders.created"), Some(&"orders.>"));
    }

    #[test]
    fn a_promising_start_that_leads_nowhere_is_given_up() {
        let routes = routes(&["orders.payment.*.v2", "orders.*.failed", "*.payment.>"]);
        assert_eq!(routes.find("orders.payment.failed"), Some(&"orders.*.failed"));
        assert_eq!(routes.find("orders.payment.created"), Some(&"*.payment.>"));
    }

    #[test]
    fn a_subject_that_no_pattern_matches_leads_nowhere() {
        let routes = routes(&["orders.created", "orders.*.failed", "orders.*.*.>"]);
        for subject in ["", "orders", "orders.updated", "orders.a.", "orders..failed"] {
            assert_eq!(routes.find(subject), None, "{subject:?}");
        }
    }

    #[test]
    fn of_two_equal_patterns_the_last_wins() {
        for text in ["orders.created", "orders.*", "orders.>"] {
            let routes: Routes<_> = [(pattern(text), 1), (pattern(text), 2)].into_iter().collect();
            assert_eq!(routes.find("orders.created"), Some(&2), "{text}");
        }
    }

    #[test]
    fn the_deepest_pattern_is_searched_on_an_ordinary_stack() {
        let deepest = vec!["*"; pattern::LONGEST / 2].join(".");
        let routes: Routes<_> = [(pattern(&deepest), ())].into_iter().collect();
        assert_eq!(routes.find(&deepest), Some(&()));
        assert_eq!(routes.find(&format!("{deepest}.a")), None);
    }
}
