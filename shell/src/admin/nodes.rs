//! The servers that share the store, for an operator.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use session_core::{NodeId, Timestamp};

use crate::store::{NodeAbout, NodeList, NodeParts, StoredNode};

/// The servers that share the store, as the one that answers sees them. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesReport {
    /// Whether other servers can share the store. If not, the rest is empty.
    pub shared: bool,
    /// In how many parts the users are.
    pub parts: u16,
    /// By name, then by id.
    pub nodes: Vec<NodeReport>,
    /// The settings that differ between nodes that are alive, and should not.
    pub differing_settings: Vec<DifferingSetting>,
    /// Why the list may be incomplete or old.
    pub problems: Vec<String>,
}

/// A server, under one of its ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The id, 16 hexadecimal digits.
    pub node: String,
    /// Its name. This and what else it says of itself is `None` if it has not written that, or it has left or expired.
    pub name: Option<String>,
    /// Whether it is the server that answers.
    pub this: bool,
    /// The state.
    pub state: NodeState,
    /// In how many parts of the users it has which state.
    pub parts: NodeParts,
    /// When the server started, since 1970.
    pub started_at: Option<u64>,
    /// How long ago that was.
    pub age_ms: Option<u64>,
    /// How long ago its last beat was seen, in the part in which that is the longest ago.
    pub last_beat_ms: Option<u64>,
    /// When it was declared dead, since 1970.
    pub dead_since: Option<u64>,
    /// How many clients of the server have slots, when it last said so.
    pub sessions: Option<u64>,
    /// The version of the software.
    pub version: Option<String>,
    /// The id that the server's new sessions have, if another one.
    pub renamed_to: Option<String>,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is alive in each part that it is in.
    Alive,
    /// It counts as alive, but no beat of it was seen lately, in one part at least.
    Silent,
    /// It was declared dead, in one part at least, and is alive in none.
    Dead,
    /// It has stopped.
    Left,
    /// It differs between the parts.
    Differs,
}

/// A setting that all servers should share, and do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingSetting {
    /// The name of its key.
    pub key: String,
    /// Its values.
    pub values: Vec<SettingValue>,
}

/// A value of a setting, and the nodes that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingValue {
    /// The value.
    pub value: String,
    /// The ids.
    pub nodes: Vec<String>,
}

/// What the order to declare a node dead has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BurialReport {
    /// The id.
    pub node: String,
    /// In how many parts of the users it is dead now that counted it as alive. Neither here nor there if it was dead before, or has left.
    pub buried: u16,
    /// In how many parts it still counts as alive. The server goes on to declare it dead there.
    pub open: u16,
}

impl NodesReport {
    /// The report at this time. Without a list, of a store that nobody shares.
    pub(super) fn new(list: Option<NodeList>, now: Timestamp) -> Self {
        let shared = list.is_some();
        let NodeList { nodes, parts, problems } = list.unwrap_or_default();
        let differing_settings = differing_settings(&nodes);
        let mut nodes: Vec<_> = nodes.into_iter().map(|node| NodeReport::new(node, now)).collect();
        nodes.sort_by(|one, other| {
            let key =
                |node: &NodeReport| (!node.state.is_in(), node.name.is_none(), node.name.clone(), node.node.clone());
            key(one).cmp(&key(other))
        });
        Self { shared, parts, nodes, differing_settings, problems }
    }

    /// That of a store that nobody shares.
    #[must_use]
    pub fn not_shared() -> Self {
        Self::new(None, Timestamp::default())
    }
}

impl NodeState {
    fn new(NodeParts { alive, silent, dead, left }: NodeParts) -> Self {
        match (alive > 0, silent > 0, dead > 0, left > 0) {
            (true, false, false, false) => Self::Alive,
            (_, true, false, false) => Self::Silent,
            // It left where nobody had declared it dead yet.
            (false, false, true, _) => Self::Dead,
            (false, false, false, true) => Self::Left,
            (true | false, true | false, true | false, true | false) => Self::Differs,
        }
    }

    /// Whether the node may serve clients.
    const fn is_in(self) -> bool {
        match self {
            Self::Alive | Self::Silent | Self::Differs => true,
            Self::Dead | Self::Left => false,
        }
    }
}

impl NodeReport {
    fn new(StoredNode { node, is_this, parts, times, about }: StoredNode, now: Timestamp) -> Self {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let started_at = about.as_ref().map(|about| about.started_at);
        let about = about.as_ref();
        Self {
            node: node.to_string(),
            name: about.map(|about| about.name.clone()),
            this: is_this,
            state: NodeState::new(parts),
            parts,
            started_at,
            age_ms: started_at.map(|started_at| now.millis().saturating_sub(started_at)),
            last_beat_ms: times.last_beat.map(millis),
            dead_since: times.dead_since.map(Timestamp::millis),
            // Those of a server under several ids are counted once.
            sessions: about
                .filter(|about| about.renamed_to.is_none() && parts.beating() > 0)
                .map(|about| about.sessions),
            version: about.map(|about| about.version.clone()),
            renamed_to: about.and_then(|about| about.renamed_to.clone()),
        }
    }
}

/// The settings that differ between nodes that may serve clients. A node of a version that lacks a setting does not count for it.
fn differing_settings(nodes: &[StoredNode]) -> Vec<DifferingSetting> {
    let newest = |about: &&NodeAbout| about.renamed_to.is_none();
    let alive = nodes.iter().filter(|node| node.parts.beating() > 0);
    let alive: Vec<_> = alive.filter_map(|node| Some((node.node, node.about.as_ref().filter(newest)?))).collect();
    let keys: BTreeSet<_> = alive.iter().flat_map(|(_, about)| about.settings.keys()).collect();
    let values = |key: &String| {
        let mut values = BTreeMap::<&String, Vec<NodeId>>::new();
        for (node, about) in &alive {
            if let Some(value) = about.settings.get(key) {
                values.entry(value).or_default().push(*node);
            }
        }
        values
    };
    let differing = keys.into_iter().map(|key| (key, values(key))).filter(|(_, values)| values.len() > 1);
    let value = |(value, nodes): (&String, Vec<NodeId>)| SettingValue {
        value: value.clone(),
        nodes: nodes.iter().map(ToString::to_string).collect(),
    };
    differing
        .map(|(key, values)| DifferingSetting { key: key.clone(), values: values.into_iter().map(value).collect() })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::NodeTimes;

    fn node(number: u64, name: Option<&str>, parts: [u16; 4], settings: &[(&str, &str)]) -> StoredNode {
        let [alive, silent, dead, left] = parts;
        let about = name.map(|name| NodeAbout {
            name: name.into(),
            version: "1".into(),
            started_at: 1000,
            sessions: 7,
            renamed_to: None,
            settings: settings.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        });
        let times =
            NodeTimes { last_beat: (alive + silent > 0).then_some(Duration::from_millis(300)), dead_since: None };
        let parts = NodeParts { alive, silent, dead, left };
        StoredNode { node: NodeId::new(number), is_this: number == 1, parts, times, about }
    }

    #[test]
    fn node_is_alive_only_if_it_is_in_each_part() {
        for (parts, state) in [
            ([64, 0, 0, 0], NodeState::Alive),
            ([60, 0, 0, 0], NodeState::Alive),
            ([48, 16, 0, 0], NodeState::Silent),
            ([0, 64, 0, 0], NodeState::Silent),
            ([0, 0, 64, 0], NodeState::Dead),
            ([0, 0, 0, 64], NodeState::Left),
            ([63, 0, 1, 0], NodeState::Differs),
            ([0, 1, 0, 63], NodeState::Differs),
            ([0, 0, 32, 32], NodeState::Dead),
        ] {
            let [alive, silent, dead, left] = parts;
            assert_eq!(NodeState::new(NodeParts { alive, silent, dead, left }), state, "{parts:?}");
        }
    }

    #[test]
    fn report_names_the_settings_that_differ_between_living_nodes() {
        let nodes = vec![
            node(1, Some("web-2"), [64, 0, 0, 0], &[("limit", "2"), ("linger", "0s"), ("auth", "open")]),
            node(2, Some("web-1"), [0, 64, 0, 0], &[("limit", "3"), ("linger", "0s")]),
            node(3, Some("web-3"), [64, 0, 0, 0], &[("limit", "2"), ("linger", "0s"), ("auth", "open")]),
            node(4, Some("web-0"), [0, 0, 64, 0], &[("linger", "9s")]),
            node(5, None, [0, 0, 0, 64], &[]),
        ];
        let list = NodeList { nodes, parts: 64, problems: Vec::new() };
        let report = NodesReport::new(Some(list), Timestamp::from_epoch(Duration::from_secs(3)));
        let names: Vec<_> = report.nodes.iter().map(|node| node.name.as_deref().unwrap_or("-")).collect();
        assert_eq!(names, ["web-1", "web-2", "web-3", "web-0", "-"]);
        let id = |number| NodeId::new(number).to_string();
        let value = |value: &str, nodes| SettingValue { value: value.into(), nodes };
        assert_eq!(
            report.differing_settings,
            [DifferingSetting {
                key: "limit".into(),
                values: vec![value("2", vec![id(1), id(3)]), value("3", vec![id(2)])]
            }]
        );
        let silent = &report.nodes[0];
        assert_eq!((silent.state, silent.last_beat_ms, silent.age_ms), (NodeState::Silent, Some(300), Some(2000)));
        assert_eq!((report.nodes[3].sessions, report.nodes[1].sessions, report.nodes[1].this), (None, Some(7), true));
        assert!(!NodesReport::new(None, Timestamp::default()).shared);
    }
}
