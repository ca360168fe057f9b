//! The wire protocol, byte for byte: every message, every close, every rejection.

mod all_values;
mod vocabulary;
mod messages;
mod any_message;
