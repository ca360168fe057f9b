//! The ledger's rule where one session takes another's place: who is ended, what lingers, what is taken up, and by whom.

mod one_user;
mod choice;
mod lingering;
mod devices;
mod any_history;
