//! The ids of users, nodes, sessions and slots, and the secret that resumes one.

mod names;
mod resume_token;

pub use names::{DisplayName, NodeId, SessionId, SlotId, UserId, UserIdError};
pub use resume_token::{ResumeKey, ResumeToken};
