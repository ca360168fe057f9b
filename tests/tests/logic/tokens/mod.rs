//! Tokens: which are accepted, and why others are not.

mod fixtures;
mod claims;
mod providers;
mod keys;
mod commands;
mod rotation;
mod newer_keys;
mod refresh_schedule;
