//! Subjects: which pattern fits one, and the names that stand for its tokens.

pub(crate) mod router;
pub(crate) mod template;
