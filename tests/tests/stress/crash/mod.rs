//! Crash rounds with the real thing: the server binary on a real directory is killed, stopped and started twice, at
//! moments nobody chose. Afterwards nobody is locked out and no count is off.
//!
//! `CRASH_ROUNDS=200` runs more rounds, `CRASH_SEED=…` those of another run: the same choices, though threads and
//! kernel interleave as they like. `--nocapture` shows the times.

mod kill;
mod stop;
mod start;
mod full_disk;
mod account;
mod load;
mod server;
mod random;
