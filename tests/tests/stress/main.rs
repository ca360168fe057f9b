//! Tests that load the whole machine: kills under load, and thousands of sockets. They are apart from the others, whose
//! waits they would make longer.

mod crash;
mod flood;
