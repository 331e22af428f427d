//! The answers that a publisher waits for, where a batch is as many requests as it has
//! events.

use std::collections::VecDeque;

use galaxy_push::lab::load::Answers;

/// How many answers each batch still lacks, the oldest batch first.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed(VecDeque<usize>);

impl Owed {
    pub(super) fn add(&mut self, events: usize) {
        self.0.push_back(events);
    }

    /// One event was answered; `false` if none was waited for.
    pub(super) fn answered<A: Answers>(&mut self, answers: &mut A) -> bool {
        let Some(left) = self.0.front_mut() else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            self.0.pop_front();
            answers.accepted(None);
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
