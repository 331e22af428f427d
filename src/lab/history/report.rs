//! What was found, bounded.

use std::collections::HashMap;
use std::fmt;
use std::mem::{self, Discriminant};
use std::sync::Mutex;

use super::lock;
use super::summary::Summary;
use super::violation::Violation;

/// How many violations of each kind are kept: the first ones tell most, and one
/// broken promise can be the cause of a million others.
const KEPT_OF_EACH_KIND: u64 = 10;

/// The violations of a history, as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<Found>);

#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    kept: Vec<Violation>,
    counts: HashMap<Discriminant<Violation>, u64>,
}

impl Findings {
    #[cold]
    pub(super) fn add(&self, violation: Violation) {
        lock(&self.0).add(violation);
    }

    pub(super) fn found(&self) -> Found {
        lock(&self.0).clone()
    }
}

impl Found {
    pub(super) fn add(&mut self, violation: Violation) {
        let count = self
            .counts
            .entry(mem::discriminant(&violation))
            .or_default();
        *count += 1;
        if *count <= KEPT_OF_EACH_KIND {
            self.kept.push(violation);
        }
    }

    pub(super) fn report(self, summary: Summary) -> Report {
        Report {
            found: self.counts.values().sum(),
            violations: self.kept,
            summary,
        }
    }
}

/// What a history shows. Its text has a line for each violation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The first violations of each kind, in the order in which they were found.
    pub violations: Vec<Violation>,
    /// How many there are, those that are not kept included.
    pub found: u64,
    /// How much was checked.
    pub summary: Summary,
}

impl Report {
    /// Whether all promises were kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        let unlisted = self.found - self.violations.len() as u64;
        if unlisted > 0 {
            writeln!(f, "and {unlisted} more of the same kinds")?;
        }
        write!(f, "{} violations; {}", self.found, self.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Cursor, Epoch, Seq};

    #[test]
    fn of_each_kind_the_first_are_kept_and_all_are_counted() {
        let findings = Findings::default();
        let cursor = |seq| Cursor::new(Epoch::MAX, Seq::new(seq));
        for seq in 1..=25 {
            findings.add(Violation::GivenTwice {
                publisher: "p".into(),
                cursor: cursor(seq),
            });
        }
        let hole = Violation::Hole {
            first: cursor(30),
            last: cursor(31),
        };
        findings.add(hole.clone());
        let report = findings.found().report(Summary::default());
        assert_eq!((report.violations.len(), report.found), (11, 26));
        assert_eq!(report.violations.last(), Some(&hole));
        let text = report.to_string();
        assert!(text.contains("\nand 15 more of the same kinds\n26 violations"));
        assert!(!report.is_clean());
    }
}
