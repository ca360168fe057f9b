//! Tests over real sockets, processes and disks.

mod server;
mod slot_limit;
mod hostile_input;
mod connection_limits;
mod origins_and_proxies;
mod own_origin;
mod proxy_headers;
mod foreign_clients;
mod real_proxies;
mod tls;
mod computations;
mod token_sessions;
mod user_id_form;
mod provider_tokens;
mod full_disk;
mod data_directory;
mod missing_rights;
mod supervision;
mod binaries;
mod configuration;
mod reload;
mod log_lines;
mod admin_commands;
mod operator_answers;
mod client_command;
mod client_bench;
