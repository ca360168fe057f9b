//! The servers that share a store, as text for people.

use std::time::Duration;

use crate::admin::{DifferingSetting, NodeReport, NodeState, NodesReport};
use crate::runtime::rfc3339::format_rfc3339;

const HEADINGS: [&str; 7] = ["NAME", "ID", "STATE", "AGE", "LAST BEAT", "SESSIONS", "VERSION"];

/// A table of the nodes, and a line for each thing that is wrong.
pub(crate) fn describe(report: &NodesReport) -> String {
    if !report.shared {
        return "this server shares its store with nobody: only with store = \"redis\" there are others\n".into();
    }
    let rows: Vec<_> =
        [HEADINGS.map(Into::into)].into_iter().chain(report.nodes.iter().map(|node| row(node, report.parts))).collect();
    let widths: Vec<_> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.extend(report.differing_settings.iter().map(|setting| differing(setting, &report.nodes)));
    lines.extend(report.problems.iter().map(|problem| format!("problem: {problem}")));
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn row(node: &NodeReport, parts: u16) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        or_dash(node.name.clone()),
        node.node.clone(),
        state(node, parts),
        or_dash(node.age_ms.map(whole_seconds)),
        or_dash(node.last_beat_ms.map(|millis| format!("{} ago", tenths(millis)))),
        or_dash(node.sessions.map(|sessions| sessions.to_string())),
        or_dash(node.version.clone()),
    ]
}

/// The state, in words.
fn state(node: &NodeReport, parts: u16) -> String {
    let counts = node.parts;
    let in_parts = |number: u16| if number == parts { String::new() } else { format!(" in {number} of {parts} parts") };
    let silence = node.last_beat_ms.map(|millis| format!(" for {}", tenths(millis))).unwrap_or_default();
    let mut text = match node.state {
        NodeState::Alive => format!("alive{}", in_parts(counts.alive)),
        NodeState::Silent => format!("silent{silence}{}", in_parts(counts.silent)),
        NodeState::Dead => {
            let since = node.dead_since.map(|since| format!(" since {}", format_rfc3339(since)));
            format!("dead{}", since.unwrap_or_default())
        }
        NodeState::Left => "left".into(),
        NodeState::Differs => {
            let all =
                [("alive", counts.alive), ("silent", counts.silent), ("dead", counts.dead), ("left", counts.left)];
            let each = all.into_iter().filter(|(_, number)| *number > 0);
            let each: Vec<_> = each.map(|(state, number)| format!("{state} in {number}")).collect();
            format!("{} of {parts} parts", each.join(", "))
        }
    };
    if node.this {
        text += ", this server";
    }
    if let Some(newest) = &node.renamed_to {
        text += &format!(", now {newest}");
    }
    text
}

/// A node in a sentence.
pub(crate) fn described_node(node: &NodeReport, parts: u16) -> String {
    let name = node.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let beat = node.last_beat_ms.map(|millis| format!(", its last beat was seen {} ago", tenths(millis)));
    format!("{}{name} is {}{}", node.node, state(node, parts), beat.unwrap_or_default())
}

fn differing(DifferingSetting { key, values }: &DifferingSetting, nodes: &[NodeReport]) -> String {
    let values: Vec<_> = values
        .iter()
        .map(|value| {
            let mut of: Vec<_> = value.nodes.iter().map(|id| short_name(id, nodes)).collect();
            of.sort_unstable();
            format!("{:?} at {}", value.value, of.join(" and "))
        })
        .collect();
    format!("{key} differs, and should be the same at all servers: {}", values.join(", "))
}

/// The name of a node, and its id if another one that is listed has the same name.
fn short_name(id: &str, nodes: &[NodeReport]) -> String {
    let name = nodes.iter().find(|node| node.node == id).and_then(|node| node.name.as_ref());
    let Some(name) = name else { return id.to_owned() };
    let is_unique = nodes.iter().filter(|node| node.name.as_ref() == Some(name)).count() == 1;
    if is_unique { name.clone() } else { format!("{name} ({id})") }
}

fn whole_seconds(millis: u64) -> String {
    humantime::format_duration(Duration::from_secs(millis / 1000)).to_string()
}

/// In tenths of a second, or in whole seconds from ten on.
fn tenths(millis: u64) -> String {
    if millis < 10_000 { format!("{}.{}s", millis / 1000, millis % 1000 / 100) } else { whole_seconds(millis) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::SettingValue;
    use crate::store::NodeParts;

    fn node(id: &str, name: Option<&str>, state: NodeState, parts: [u16; 4]) -> NodeReport {
        let [alive, silent, dead, left] = parts;
        let is_in = alive + silent > 0;
        NodeReport {
            node: id.into(),
            name: name.map(Into::into),
            this: false,
            state,
            parts: NodeParts { alive, silent, dead, left },
            started_at: name.map(|_| 0),
            age_ms: name.map(|_| 3_600_500),
            last_beat_ms: is_in.then_some(1290),
            dead_since: (dead > 0).then_some(3_600_000),
            sessions: is_in.then_some(12),
            version: name.map(|_| "0.1.0".into()),
            renamed_to: None,
        }
    }

    #[test]
    fn table_shows_nodes_and_settings_that_differ() {
        let this = NodeReport { this: true, ..node("01", Some("web-1"), NodeState::Alive, [64, 0, 0, 0]) };
        let renamed = NodeReport {
            renamed_to: Some("02".into()),
            ..node("03", Some("web-2"), NodeState::Differs, [60, 0, 4, 0])
        };
        let report = NodesReport {
            shared: true,
            parts: 64,
            nodes: vec![
                this,
                node("02", Some("web-2"), NodeState::Silent, [48, 16, 0, 0]),
                renamed,
                node("04", None, NodeState::Dead, [0, 0, 64, 0]),
                node("05", None, NodeState::Left, [0, 0, 0, 64]),
            ],
            differing_settings: vec![DifferingSetting {
                key: "limit".into(),
                values: vec![
                    SettingValue { value: "2".into(), nodes: vec!["01".into()] },
                    SettingValue { value: "3".into(), nodes: vec!["02".into(), "09".into()] },
                ],
            }],
            problems: vec!["the store is closed".into()],
        };
        assert_eq!(
            describe(&report),
            "\
NAME   ID  STATE                                       AGE  LAST BEAT  SESSIONS  VERSION
web-1  01  alive, this server                          1h   1.2s ago   12        0.1.0
web-2  02  silent for 1.2s in 16 of 64 parts           1h   1.2s ago   12        0.1.0
web-2  03  alive in 60, dead in 4 of 64 parts, now 02  1h   1.2s ago   12        0.1.0
-      04  dead since 1970-01-01T01:00:00Z             -    -          -         -
-      05  left                                        -    -          -         -
limit differs, and should be the same at all servers: \"2\" at web-1, \"3\" at 09 and web-2 (02)
problem: the store is closed
"
        );
        assert_eq!(
            described_node(&report.nodes[1], 64),
            "02 (web-2) is silent for 1.2s in 16 of 64 parts, its last beat was seen 1.2s ago"
        );
        assert!(describe(&NodesReport::not_shared()).starts_with("this server shares its store with nobody"));
    }
}
