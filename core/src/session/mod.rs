//! One session: what happens to a connection goes in as events, what is to be done about it comes out as actions.

mod machine;
mod state;
mod replies;
mod io;
mod settings;

pub use io::{Actions, Effect, Event, Frame, Identity, Violation};
pub use machine::Session;
pub use settings::SessionSettings;
