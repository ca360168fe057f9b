//! Whether the server admits sessions now, for the health check.

use std::sync::{Arc, PoisonError, RwLock};

/// Why the server admits no session, if so. A clone shares the same state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<Option<&'static str>>>);

impl Readiness {
    /// What a client that signs in now would be told. `None` if it may be admitted.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets it.
    pub fn set_refusal(&self, refusal: Option<&'static str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = refusal;
    }
}
