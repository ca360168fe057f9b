//! The printed table: a line for each figure, as soon as it is measured.

use std::fmt;

use serde::Serialize;

/// The figures so far.
pub(crate) struct Table(Vec<Row>);

/// One figure.
pub(crate) struct Row {
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    /// The figure to compare with, usually the floor's: a median, like the server's.
    pub(crate) beside: Option<f64>,
    pub(crate) server: f64,
    /// The median of the ratios of the two, each pair measured in turns.
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: Goal,
    /// The number of disturbed rounds, in which other processes took more than a tenth of a core, and of all rounds.
    pub(crate) disturbed: (usize, usize),
}

/// The goal of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    None,
    /// An upper bound for the figure itself.
    Below(f64),
    /// A lower bound for the ratio.
    AtLeast {
        ratio: f64,
        of: &'static str,
    },
    /// An upper bound for the ratio.
    AtMost {
        ratio: f64,
        of: &'static str,
    },
    /// The ratio differs from 1 by at most `tenths` tenths.
    Within {
        tenths: u8,
        of: &'static str,
    },
}

/// A row as it is saved.
#[derive(Serialize)]
struct Saved<'a> {
    figure: &'a str,
    unit: &'static str,
    beside: Option<f64>,
    server: f64,
    ratio: Option<f64>,
    goal: String,
    is_met: bool,
    disturbed_rounds: usize,
    rounds: usize,
}

impl Goal {
    fn is_met(self, row: &Row) -> bool {
        let ratio = row.ratio.unwrap_or(f64::NAN);
        match self {
            Self::None => true,
            Self::Below(most) => row.server <= most,
            Self::AtLeast { ratio: least, .. } => ratio >= least,
            Self::AtMost { ratio: most, .. } => ratio <= most,
            Self::Within { tenths, .. } => (ratio - 1.0).abs() <= f64::from(tenths) / 10.0,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Below(most) => write!(f, "≤ {most}"),
            Self::AtLeast { ratio, of } => write!(f, "≥ {ratio} × {of}"),
            Self::AtMost { ratio, of } => write!(f, "≤ {ratio} × {of}"),
            Self::Within { tenths, of } => write!(f, "± 0.{tenths} × {of}"),
        }
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        println!("{:<74} {:>9} {:>9} {:>6}  {:<23}", "figure", "floor", "server", "ratio", "goal");
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, row: Row) {
        let number = |value: f64| if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let or_none = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let figure = format!("{}, {}", row.figure, row.unit);
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let verdict = match row.goal {
            Goal::None => "",
            goal if goal.is_met(&row) => "met",
            Goal::Below(_) | Goal::AtLeast { .. } | Goal::AtMost { .. } | Goal::Within { .. } => "MISSED",
        };
        let note = match row.disturbed {
            (0, _) => String::new(),
            (disturbed, of) => format!(", disturbed {disturbed} of {of}"),
        };
        let (beside, server, goal) = (or_none(row.beside), number(row.server), row.goal.to_string());
        println!("{figure:<74} {beside:>9} {server:>9} {ratio:>6}  {goal:<23} {verdict}{note}");
        self.0.push(row);
    }

    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<_> = self.0.iter().map(Row::saved).collect();
        serde_json::to_string_pretty(&rows).expect("plain figures always serialise")
    }
}

impl Row {
    fn saved(&self) -> Saved<'_> {
        let &Self { ref figure, unit, beside, server, ratio, goal, disturbed: (disturbed_rounds, rounds) } = self;
        let is_met = goal.is_met(self);
        Saved { figure, unit, beside, server, ratio, goal: goal.to_string(), is_met, disturbed_rounds, rounds }
    }
}
