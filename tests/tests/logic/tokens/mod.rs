//! Tokens: which are accepted, and why others are not.

mod fixtures;
mod claims;
mod keys;
mod commands;
