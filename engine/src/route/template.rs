//! Subjects with names in them: `orders.{id}.paid`.

use std::collections::HashSet;
use std::fmt;

use super::pattern::{Pattern, PatternError, Rule, validate_publish_subject};

/// A subject with names for some of its tokens. It is a pattern for messages to come, reads the values out of their
/// subjects, and makes the subject of a message to be published. No value can add a token or a wildcard to it.
///
/// ```
/// use nats_consumer::Template;
///
/// let paid = Template::parse("orders.{id}.paid")?;
/// assert_eq!(paid.pattern().as_str(), "orders.*.paid");
/// assert_eq!(paid.fill(&[("id", &7)])?, "orders.7.paid");
/// assert!(paid.fill(&[("id", &"7.refunded")]).is_err());
///
/// let tokens = paid.extract("orders.7.paid").unwrap();
/// assert_eq!(tokens.get("id"), Some("7"));
/// assert!(paid.extract("orders.7.created").is_none());
/// # Ok::<(), nats_consumer::route::TemplateError>(())
/// ```
///
/// In a program, one template serves consumer, router, handler and publisher:
///
/// ```
/// use nats_consumer::{ConsumerOptions, HandlerError, Message, Outgoing, Router, Template};
/// use std::sync::LazyLock;
///
/// static PAID: LazyLock<Template> = LazyLock::new(|| Template::parse("orders.{id}.paid").unwrap());
///
/// async fn on_paid(message: Message) -> Result<(), HandlerError> {
///     let tokens = PAID.extract(message.subject()).ok_or("no paid order")?;
///     let id: u64 = tokens.get("id").unwrap_or_default().parse().map_err(HandlerError::dead_letter)?;
///     println!("order {id} is paid");
///     Ok(())
/// }
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ConsumerOptions::pull("orders", "shipping").filter(PAID.pattern());
/// let router = Router::new().route(&*PAID, on_paid)?;
/// let outgoing = Outgoing::to(&PAID.fill(&[("id", &7)])?, "")?;
/// # Ok(()) }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: Box<str>,
    pattern: Pattern,
}

impl Template {
    /// Reads a template: tokens between dots, of which each is a text or a `{name}`. A name is made of ASCII letters,
    /// digits and `_`, and does not begin with a digit.
    ///
    /// # Errors
    /// The text is not a subject, has a wildcard, repeats a name, or has a brace that does not enclose a whole token.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        validate_publish_subject(text)?;
        Self::of_filter(text)
    }

    /// Reads the text of a filter or a route: as [`parse`](Self::parse), and wildcards may stand beside the names. With
    /// a wildcard nothing can be published to it: [`fill`](Self::fill) refuses.
    ///
    /// ```
    /// use nats_consumer::Template;
    ///
    /// let orders = Template::of_filter("{tenant}.orders.>")?;
    /// assert_eq!(orders.extract("acme.orders.7.paid").unwrap().get("tenant"), Some("acme"));
    /// assert!(orders.fill(&[("tenant", &"acme")]).is_err());
    /// # Ok::<(), nats_consumer::route::TemplateError>(())
    /// ```
    ///
    /// # Errors
    /// The text is not a pattern, repeats a name, or has a brace that does not enclose a whole token.
    pub fn of_filter(text: &str) -> Result<Self, TemplateError> {
        let mut names = HashSet::new();
        let mut pattern = Vec::new();
        for part in parts(text) {
            match part {
                Part::Name(name) if !names.insert(name) => {
                    return Err(TemplateError::Twice { name: name.into() });
                }
                Part::Text(token) if token.contains(['{', '}']) => {
                    return Err(TemplateError::Brace { token: token.into() });
                }
                Part::Name(_) => pattern.push("*"),
                Part::Text(token) => pattern.push(token),
            }
        }
        Ok(Self { text: text.into(), pattern: Pattern::parse(&pattern.join("."))? })
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern of its subjects: `*` for each name.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Its names, from left to right.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        parts(&self.text).filter_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The tokens that the names stand for in `subject`; `None` for a subject of another form.
    #[must_use]
    pub fn extract<'s>(&self, subject: &'s str) -> Option<Tokens<'_, 's>> {
        self.pattern.matches(subject).then_some(Tokens { template: self, subject })
    }

    /// The subject with a value for each name.
    ///
    /// # Errors
    /// A name has no value, a value has a name that the template does not have, or a value cannot be one token: it is
    /// empty, or contains a dot, a `*`, a `>`, a brace, white space or a control character. Or the subject is too long.
    pub fn fill(&self, values: &[(&str, &dyn fmt::Display)]) -> Result<String, TemplateError> {
        if let Some((name, _)) = values.iter().find(|(name, _)| self.names().all(|ours| ours != *name)) {
            return Err(TemplateError::Unknown { name: (*name).into(), template: self.text.clone() });
        }
        let mut tokens = Vec::new();
        for part in parts(&self.text) {
            tokens.push(match part {
                Part::Text(token) => token.to_owned(),
                Part::Name(name) => self.value(name, values)?,
            });
        }
        let subject = tokens.join(".");
        validate_publish_subject(&subject)?;
        Ok(subject)
    }

    fn value(&self, name: &str, values: &[(&str, &dyn fmt::Display)]) -> Result<String, TemplateError> {
        let Some((_, value)) = values.iter().find(|(theirs, _)| *theirs == name) else {
            return Err(TemplateError::Missing { name: name.into(), template: self.text.clone() });
        };
        let value = value.to_string();
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || ".*>{}".contains(c);
        if value.is_empty() || value.contains(forbidden) {
            return Err(TemplateError::Value { name: name.into(), value: value.into() });
        }
        Ok(value)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&Template> for Pattern {
    fn from(template: &Template) -> Self {
        template.pattern.clone()
    }
}

/// The text that a router or a filter is given. A token in braces is a name, as in a [`Template`], and stands for `*`:
/// `orders.{id}.paid` is `orders.*.paid`.
impl TryFrom<&str> for Pattern {
    type Error = PatternError;

    fn try_from(text: &str) -> Result<Self, PatternError> {
        let is_malformed = |part: Part| matches!(part, Part::Text(token) if token.contains(['{', '}']));
        if parts(text).any(is_malformed) {
            return Err(PatternError::new(text, Rule::Name));
        }
        let tokens = parts(text).map(|part| match part {
            Part::Name(_) => "*",
            Part::Text(token) => token,
        });
        Self::parse(&tokens.collect::<Vec<_>>().join("."))
    }
}

/// As from `&str`.
impl TryFrom<&String> for Pattern {
    type Error = PatternError;

    fn try_from(text: &String) -> Result<Self, PatternError> {
        Self::try_from(text.as_str())
    }
}

/// The tokens of a subject that a [`Template`] has names for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'t, 's> {
    template: &'t Template,
    subject: &'s str,
}

impl<'t, 's> Tokens<'t, 's> {
    /// The token that `name` stands for; `None` if the template has no such name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'s str> {
        self.iter().find(|(ours, _)| *ours == name).map(|(_, token)| token)
    }

    /// Each name with its token, from left to right.
    pub fn iter(&self) -> impl Iterator<Item = (&'t str, &'s str)> + use<'t, 's> {
        parts(&self.template.text).zip(self.subject.split('.')).filter_map(|(part, token)| match part {
            Part::Name(name) => Some((name, token)),
            Part::Text(_) => None,
        })
    }
}

enum Part<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn parts(template: &str) -> impl Iterator<Item = Part<'_>> {
    template.split('.').map(|token| {
        let name = token.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        name.filter(|name| is_name(name)).map_or(Part::Text(token), Part::Name)
    })
}

fn is_name(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| !c.is_ascii_digit()) && text.chars().all(is_of_name)
}

/// A malformed template, or values that do not fit one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// You cannot publish to the template, or to the filled subject.
    Subject(PatternError),
    /// A brace does not enclose a whole token that is a name.
    Brace {
        /// The token with the brace.
        token: Box<str>,
    },
    /// A name occurs twice.
    Twice {
        /// The name.
        name: Box<str>,
    },
    /// A name has no value.
    Missing {
        /// The name.
        name: Box<str>,
        /// The template.
        template: Box<str>,
    },
    /// A value is for a name that the template does not have.
    Unknown {
        /// The name.
        name: Box<str>,
        /// The template.
        template: Box<str>,
    },
    /// A value is not a token of a subject.
    Value {
        /// The name that it is for.
        name: Box<str>,
        /// The value.
        value: Box<str>,
    },
}

impl From<PatternError> for TemplateError {
    fn from(error: PatternError) -> Self {
        Self::Subject(error)
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(error) => error.fmt(f),
            Self::Brace { token } => write!(
                f,
                "invalid token {token:?} of a template: write `{{name}}` for the whole token, with letters, digits and `_`"
            ),
            Self::Twice { name } => write!(f, "the template has the name {name:?} twice; rename one"),
            Self::Missing { name, template } => write!(f, "{template} needs a value for {name:?}"),
            Self::Unknown { name, template } => {
                write!(f, "{template} has no name {name:?}; remove the value")
            }
            Self::Value { name, value } => {
                // All of a value that is far too long would hide the reason.
                let start: String = value.chars().take(100).collect();
                write!(
                    f,
                    "the value {start:?} for {name:?} cannot be a token of a subject: it must not be empty and must not \
                     contain dots, `*`, `>`, braces or white space"
                )
            }
        }
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid() -> Template {
        Template::parse("orders.{id}.{kind}.paid").unwrap()
    }

    #[test]
    fn a_template_reads_what_it_was_filled_with() {
        let subject = paid().fill(&[("kind", &"gift"), ("id", &7)]).unwrap();
        assert_eq!(subject, "orders.7.gift.paid");
        let template = paid();
        let tokens = template.extract(&subject).unwrap();
        assert_eq!(tokens.iter().collect::<Vec<_>>(), [("id", "7"), ("kind", "gift")]);
        assert_eq!((tokens.get("id"), tokens.get("paid")), (Some("7"), None));
    }

    #[test]
    fn a_subject_of_another_form_has_no_tokens_to_read() {
        for subject in
            ["orders.7.paid", "orders.7.gift.paid.twice", "orders..gift.paid", "Orders.7.gift.paid", ""]
        {
            assert_eq!(paid().extract(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_value_that_would_change_the_form_of_the_subject_is_refused() {
        for value in ["", "a.b", ".", "*", ">", "a*", "{x}", "x}", "a b", "a\r\nPUB b 0\r\n", "\u{a0}", "\0"]
        {
            let error = paid().fill(&[("id", &value), ("kind", &"gift")]).unwrap_err();
            assert_eq!(error, TemplateError::Value { name: "id".into(), value: value.into() }, "{value:?}");
        }
        let long = "a".repeat(5000);
        let error = paid().fill(&[("id", &long), ("kind", &"gift")]).unwrap_err();
        assert!(matches!(error, TemplateError::Subject(_)), "{error}");
    }

    #[test]
    fn values_and_names_have_to_agree() {
        let error = paid().fill(&[("id", &7)]).unwrap_err();
        assert_eq!(error.to_string(), "orders.{id}.{kind}.paid needs a value for \"kind\"");
        let error = paid().fill(&[("id", &7), ("kind", &"gift"), ("Id", &8)]).unwrap_err();
        assert!(matches!(error, TemplateError::Unknown { .. }), "{error}");
    }

    #[test]
    fn the_names_of_a_filter_are_read_beside_wildcards_and_nothing_is_published_to_it() {
        let template = Template::of_filter("*.{id}.>").unwrap();
        assert_eq!(template.pattern().as_str(), "*.*.>");
        assert_eq!(template.extract("orders.7.paid.twice").unwrap().get("id"), Some("7"));
        assert_eq!(template.extract("orders.7"), None);
        let error = template.fill(&[("id", &7)]).unwrap_err();
        assert!(matches!(error, TemplateError::Subject(_)), "{error}");
        let error = Template::of_filter("{a}.*.{a}").unwrap_err();
        assert_eq!(error, TemplateError::Twice { name: "a".into() });
    }

    #[test]
    fn the_text_of_a_route_may_have_names_beside_wildcards() {
        for (text, expected) in [
            ("orders.{id}.paid", "orders.*.paid"),
            ("{tenant}.orders.>", "*.orders.>"),
            ("{a}.*.{a}", "*.*.*"),
            ("orders.paid", "orders.paid"),
        ] {
            assert_eq!(Pattern::try_from(text).unwrap().as_str(), expected, "{text}");
        }
        for text in ["orders.{id", "orders.{order-id}.paid", "orders.no-{id}", "{}", "orders.{>}"] {
            let error = Pattern::try_from(text).unwrap_err();
            assert_eq!(error.rule(), Rule::Name, "{text}");
            assert!(error.to_string().contains(text) && error.to_string().contains("`{name}`"), "{error}");
        }
        let error = Pattern::try_from("{a}..b").unwrap_err();
        assert_eq!(error.rule(), Rule::WithoutEmptyToken);
    }

    #[test]
    fn a_malformed_template_says_what_is_wrong() {
        for text in [
            "orders.{id",
            "orders.id}",
            "orders.{}",
            "orders.{7}",
            "orders.{a-b}",
            "orders.no-{id}",
            "{{id}}",
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(matches!(error, TemplateError::Brace { .. }), "{text}: {error}");
        }
        for text in ["", "orders.*", "orders.{id}.>", "orders..{id}", "orders.{a b}"] {
            let error = Template::parse(text).unwrap_err();
            assert!(matches!(error, TemplateError::Subject(_)), "{text}: {error}");
        }
        let error = Template::parse("{id}.orders.{id}").unwrap_err();
        assert_eq!(error, TemplateError::Twice { name: "id".into() });
    }
}
