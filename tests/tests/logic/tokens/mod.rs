//! Tokens: who is let in, and why the others are not.

mod fixtures;
mod claims;
mod keys;
mod commands;
