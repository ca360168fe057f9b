//! What servers that share a store know of one another, for operators. Nothing here decides who gets a slot.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use session_core::{NodeId, Timestamp};

/// The settings in force that all servers of a store should share, by the names of their keys.
pub type SharedSettings = BTreeMap<String, String>;

/// What a server says of itself, as JSON in the store. Unknown fields are ignored: servers of several versions may share a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAbout {
    /// The name that its configuration gives it.
    pub name: String,
    /// The version of the software.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started_at: u64,
    /// How many clients it has told that they have a slot.
    pub sessions: u64,
    /// The id that its new sessions have, if that is another one than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<String>,
    /// The settings that should be the same at all.
    pub settings: SharedSettings,
}

/// The nodes that share a store, as this server sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeList {
    /// By their ids.
    pub nodes: Vec<StoredNode>,
    /// In how many parts the users are.
    pub parts: u16,
    /// Why the list may be incomplete or old.
    pub problems: Vec<String>,
}

/// A node of a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNode {
    /// Its id.
    pub node: NodeId,
    /// Whether it is this server.
    pub is_this: bool,
    /// How it stands in the parts of the users.
    pub parts: NodeParts,
    /// When it was seen.
    pub times: NodeTimes,
    /// What it says of itself, if that can be read.
    pub about: Option<NodeAbout>,
}

/// In how many parts of the users a node is, and how it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeParts {
    /// In how many it is alive: the server has seen a beat of it lately.
    pub alive: u16,
    /// In how many it counts as alive, but has sent no beat for some time.
    pub silent: u16,
    /// In how many it was declared dead.
    pub dead: u16,
    /// In how many it has left.
    pub left: u16,
}

impl NodeParts {
    /// In how many it counts as alive.
    #[must_use]
    pub const fn beating(self) -> u16 {
        self.alive + self.silent
    }
}

/// When a node was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeTimes {
    /// How long ago its last beat was seen: in the part in which that was the longest ago, of those in which it counts as alive.
    pub last_beat: Option<Duration>,
    /// When it was declared dead.
    pub dead_since: Option<Timestamp>,
}

/// What became of the order to declare a node dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Burial {
    /// The store is shared with nobody.
    NotShared,
    /// It is this server.
    OwnNode,
    /// Nobody has this id. These nodes there are.
    NoSuchNode(Vec<NodeId>),
    /// It is dead, or has left, in each part.
    AlreadyDead,
    /// It was declared dead.
    Ordered {
        /// In how many parts it is dead now that counted it as alive.
        buried: u16,
        /// In how many parts it still counts as alive. This server goes on to declare it dead there at each of its beats.
        open: u16,
    },
}
