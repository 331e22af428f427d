//! The bench's command line.

use clap::Parser;

use crate::row::{Row, Size};
use crate::system::System;

/// Runs galaxy-push beside what a deployment would use in its place.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// One round of small runs.
    #[arg(long)]
    pub(crate) quick: bool,

    /// How many rounds of all rows there are.
    #[arg(long)]
    pub(crate) rounds: Option<u32>,

    /// Latency by rate instead of the table's rows.
    #[arg(long)]
    pub(crate) curves: bool,

    /// Only rows that begin with one of these, such as `replay` or `live/1000`.
    #[arg(long, value_delimiter = ',')]
    pub(crate) rows: Vec<String>,

    /// Only these systems.
    #[arg(long, value_delimiter = ',')]
    pub(crate) systems: Vec<System>,

    /// As `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn size(&self) -> Size {
        let size = match (self.quick, self.curves) {
            (true, _) => Size::QUICK,
            (false, true) => Size::CURVE,
            (false, false) => Size::FULL,
        };
        Size {
            rounds: self.rounds.unwrap_or(size.rounds),
            ..size
        }
    }

    pub(crate) fn wants_row(&self, row: &Row) -> bool {
        let name = format!("{}/{}", row.group, row.parameter);
        self.rows.is_empty() || self.rows.iter().any(|wanted| name.starts_with(wanted))
    }

    pub(crate) fn wants(&self, system: System) -> bool {
        self.systems.is_empty() || self.systems.contains(&system)
    }
}
