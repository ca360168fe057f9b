//! Crash rounds with the server binary on a real directory: it is killed, stopped and started twice at random moments.
//! Afterwards every slot is free again and every count is right.
//!
//! `CRASH_ROUNDS=200` runs more rounds. `CRASH_SEED=…` repeats the choices of another run; threads and kernel still
//! interleave differently. `--nocapture` shows the times.

mod kill;
mod stop;
mod start;
mod full_disk;
mod account;
mod load;
mod server;
mod random;
