//! When the client of a granted session may be told: scenarios, and any history.

mod any_history;
mod scenarios;
