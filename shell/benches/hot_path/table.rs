//! What is printed: a line for each figure, as soon as it is known.

use serde::Serialize;

/// The figures so far.
pub(crate) struct Table(Vec<Row>);

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    /// Medians.
    pub(crate) floor: Option<f64>,
    pub(crate) server: f64,
    /// The median of the ratios of pairs, each measured in turns.
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: &'static str,
    pub(crate) is_met: bool,
    /// Of how many pairs how many were measured while other processes took more than a tenth of a core.
    pub(crate) disturbed: (usize, usize),
}

impl Table {
    pub(crate) fn new() -> Self {
        println!("{:<58} {:>12} {:>12} {:>7}  {:<22}", "figure", "floor", "server", "ratio", "goal");
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, row: Row) {
        let number = |value: f64| if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let or_none = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let figure = format!("{}, {}", row.figure, row.unit);
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let verdict = if row.is_met { "met" } else { "MISSED" };
        let note = match row.disturbed {
            (0, _) => String::new(),
            (disturbed, of) => format!(", disturbed {disturbed} of {of}"),
        };
        let (floor, server, goal) = (or_none(row.floor), number(row.server), row.goal);
        println!("{figure:<58} {floor:>12} {server:>12} {ratio:>7}  {goal:<22} {verdict}{note}");
        self.0.push(row);
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("plain figures always serialise")
    }
}
