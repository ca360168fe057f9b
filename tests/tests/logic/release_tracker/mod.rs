//! The release tracker: every slot is released in the end, however many answers are lost.

mod commands;
mod scenarios;
mod any_history;
