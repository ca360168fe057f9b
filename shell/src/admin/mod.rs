//! Requests of an operator about one user, for a list of users, about the servers that share the store, or how the server is doing: to a running server over a Unix socket ([`socket`]), or to the store itself if
//! no server runs.

mod request;
mod report;
mod error;
mod status;
mod nodes;
mod user_list;
mod service;
mod look_alikes;
mod routes;
mod socket_address;
mod bound_socket;
pub mod socket;

pub use bound_socket::BoundSocket;
pub use error::AdminError;
pub use nodes::{BurialReport, DifferingSetting, NodeReport, NodeState, NodesReport, SettingValue};
pub use report::{Change, NextOutcome, OverridesReport, SessionReport, StateReport, UserReport};
pub use request::{AdminRequest, DefaultWord, Override, SlotCount, UnlimitedWord, UserPatch};
pub(crate) use routes::parse_node;
pub use service::{AddressOf, AdminService, ServerStatusOf};
pub use status::{
    ChangedSetting, ConfigurationStatus, ConnectionTotals, DescriptorTotals, MapUsage, ServerStatus, SessionTotals,
    StatusReport, StoreStatus, UserTotals,
};
pub(crate) use user_list::is_cursor;
pub use user_list::{ListedUser, SessionsReport, UserList, UserListRequest};
