//! The printed table: a line for each figure, as soon as it is measured.

use std::fmt;

use serde::Serialize;

use crate::measure::{Round, Run, disturbed, median, quartiles};

/// The figures so far.
pub(crate) struct Table(Vec<Row>);

/// One figure.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    /// The figure to compare with, usually the floor's: a median, like the server's.
    pub(crate) beside: Option<f64>,
    pub(crate) server: f64,
    /// The median of the ratios of the two, each pair measured in turns.
    pub(crate) ratio: Option<f64>,
    /// The quartiles of these ratios.
    pub(crate) quartiles: Option<[f64; 2]>,
    pub(crate) goal: Goal,
    pub(crate) load: Option<LoadCost>,
    /// The number of disturbed rounds, in which other processes took more than a tenth of a core, and of all rounds.
    pub(crate) disturbed: (usize, usize),
}

/// The processor time of the load itself for one cycle, in microseconds, beside that of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadCost {
    /// With the server to compare with.
    pub(crate) beside: f64,
    pub(crate) server: f64,
    /// The larger of its ratios to what the two servers take.
    pub(crate) share: f64,
}

/// The goal of a figure.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Goal {
    #[default]
    None,
    /// An upper bound for the figure itself.
    Below(f64),
    /// A lower bound for the ratio.
    AtLeast { ratio: f64, of: &'static str },
    /// An upper bound for the ratio.
    AtMost { ratio: f64, of: &'static str },
    /// The ratio differs from 1 by at most `tenths` tenths.
    Within { tenths: u8, of: &'static str },
}

/// A row as it is saved.
#[derive(Serialize)]
struct Saved<'a> {
    figure: &'a str,
    unit: &'static str,
    beside: Option<f64>,
    server: f64,
    ratio: Option<f64>,
    quartiles: Option<[f64; 2]>,
    goal: String,
    is_met: bool,
    disturbed_rounds: usize,
    rounds: usize,
    /// The load's own processor time for one cycle, in microseconds, with each of the two servers.
    load_micros: Option<[f64; 2]>,
    is_load_the_bottleneck: bool,
}

impl LoadCost {
    /// The largest share of a core that a load may have, as a ratio to that of the server. A load with more decides how
    /// fast the server is.
    const MAX_SHARE: f64 = 0.6;

    fn of_rounds(rounds: &[Round<2>]) -> Self {
        let share = |index: usize| median(rounds, |round| round[index].load_micros / round[index].cpu_micros);
        Self {
            beside: median(rounds, |[floor, _]| floor.load_micros),
            server: median(rounds, |[_, server]| server.load_micros),
            share: share(0).max(share(1)),
        }
    }

    fn is_bottleneck(self) -> bool {
        self.share > Self::MAX_SHARE
    }
}

impl fmt::Display for LoadCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { beside, server, share } = self;
        write!(f, "load {beside:.1} and {server:.1} µs")?;
        if self.is_bottleneck() {
            write!(f, ", THE LOAD IS THE BOTTLENECK: {share:.2} of the server's share of a core")?;
        }
        Ok(())
    }
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
        println!("{:<74} {:>9} {:>9} {:>6} {:>13}  {:<23}", "figure", "floor", "server", "ratio", "quartiles", "goal");
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
        let mut notes = Vec::from([verdict.to_owned()]);
        if let (disturbed @ 1.., of) = row.disturbed {
            notes.push(format!("disturbed {disturbed} of {of}"));
        }
        notes.extend(row.load.map(|load| load.to_string()));
        notes.retain(|note| !note.is_empty());
        let notes = notes.join(", ");
        let quartiles = row.quartiles.map_or_else(String::new, |[low, high]| format!("{low:.3}-{high:.3}"));
        let (beside, server, goal) = (or_none(row.beside), number(row.server), row.goal.to_string());
        println!("{figure:<74} {beside:>9} {server:>9} {ratio:>6} {quartiles:>13}  {goal:<23} {notes}");
        self.0.push(row);
    }

    /// Prints a line that is no figure.
    pub(crate) fn note(&self, line: &str) {
        println!("{line}");
    }

    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<_> = self.0.iter().map(Row::saved).collect();
        serde_json::to_string_pretty(&rows).expect("plain figures always serialise")
    }
}

impl Row {
    /// A figure of the second server beside that of the first, under a load of cycles.
    pub(crate) fn of_rounds(
        rounds: &[Round<2>],
        figure: &str,
        unit: &'static str,
        goal: Goal,
        value: impl Fn(&Run) -> f64,
    ) -> Self {
        let ratio = |[beside, server]: &Round<2>| value(server) / value(beside);
        Self {
            figure: figure.to_owned(),
            unit,
            beside: Some(median(rounds, |[beside, _]| value(beside))),
            server: median(rounds, |[_, server]| value(server)),
            ratio: Some(median(rounds, ratio)),
            quartiles: Some(quartiles(rounds, ratio)),
            goal,
            load: Some(LoadCost::of_rounds(rounds)),
            disturbed: disturbed(rounds),
        }
    }

    fn saved(&self) -> Saved<'_> {
        let &Self { ref figure, unit, beside, server, ratio, quartiles, goal, load, disturbed } = self;
        let (disturbed_rounds, rounds) = disturbed;
        Saved {
            figure,
            unit,
            beside,
            server,
            ratio,
            quartiles,
            goal: goal.to_string(),
            is_met: goal.is_met(self),
            disturbed_rounds,
            rounds,
            load_micros: load.map(|load| [load.beside, load.server]),
            is_load_the_bottleneck: load.is_some_and(LoadCost::is_bottleneck),
        }
    }
}
