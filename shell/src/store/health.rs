//! How a store is doing.

use session_core::ledger::StoreError;

/// How a store is doing, and what it would tell a client that signs in now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// All is well.
    Ready,
    /// The store works, but not as it should.
    Degraded {
        /// The error that it rejects an acquire with. `None` if it still admits new sessions. Releases are always taken.
        refusal: Option<StoreError>,
        /// What is wrong, for an operator. At least one.
        problems: Vec<String>,
    },
    /// The store does nothing now.
    Unavailable {
        /// The error that it rejects every command with.
        refusal: StoreError,
        /// What is wrong, for an operator.
        problem: String,
    },
}

impl StoreHealth {
    /// What a client that signs in now would be told. `None` if it may be admitted.
    #[must_use]
    pub fn message(&self) -> Option<&'static str> {
        self.refusal().map(StoreError::message)
    }

    /// What is wrong, for an operator.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        match self {
            Self::Ready => &[],
            Self::Degraded { problems, .. } => problems,
            Self::Unavailable { problem, .. } => std::slice::from_ref(problem),
        }
    }

    /// The error that the store rejects an acquire with. `None` if it applies it.
    #[must_use]
    pub fn refusal(&self) -> Option<StoreError> {
        match self {
            Self::Ready => None,
            Self::Degraded { refusal, .. } => *refusal,
            Self::Unavailable { refusal, .. } => Some(*refusal),
        }
    }
}
