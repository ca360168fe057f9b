//! Tests without sockets, processes and mounts. Their result does not depend on the load of the machine.

mod ledger;
mod eviction;
mod record;
mod store;
mod store_client;
mod admin;
mod admin_outcome;
mod release_tracker;
mod leaving_tracker;
mod session;
mod client_info;
mod authenticate_object;
mod protocol;
mod tokens;
mod connection_limiter;
mod connection_limiter_model;
mod work;
mod fair_queue;
mod handshake;
mod rooms;
mod log_events;
mod parts;
mod cluster_simulation;
mod membership;
mod core_simulation;
mod simulation;
