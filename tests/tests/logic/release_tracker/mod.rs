//! Debts: that every slot finds its way back into the store, however many answers are lost.

mod commands;
mod scenarios;
mod any_history;
