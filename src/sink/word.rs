//! What an output has to say to the operator, and whether it asks for attention. Where it is said, others decide.

use std::fmt;

/// A sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Something is wrong, or lost.
    Warning(String),
    /// The ordinary course of things, or the end of what was wrong.
    Notice(String),
}

impl Word {
    /// Somebody should look.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::Warning(_))
    }

    /// The same of an output.
    pub(super) fn of(self, name: &str) -> Self {
        let of = |sentence: String| format!("output {name}: {sentence}");
        match self {
            Self::Warning(sentence) => Self::Warning(of(sentence)),
            Self::Notice(sentence) => Self::Notice(of(sentence)),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Warning(sentence) | Self::Notice(sentence)) = self;
        f.write_str(sentence)
    }
}
