//! Tests that load the whole machine: kills under load, and thousands of sockets. They run apart, since they would delay
//! the waits of other tests.

mod crash;
mod flood;
mod told;
