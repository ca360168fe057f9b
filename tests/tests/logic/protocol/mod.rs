//! The wire protocol, byte for byte: every message, close and error.

mod all_values;
mod vocabulary;
mod messages;
mod any_message;
