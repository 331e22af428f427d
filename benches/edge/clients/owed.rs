//! The responses that a publisher waits for, where a batch is as many requests as it has
//! events.

use std::collections::VecDeque;

use galaxy_push::lab::load::Responses;

/// How many responses each batch still lacks, the oldest batch first.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed(VecDeque<usize>);

impl Owed {
    pub(super) fn add(&mut self, events: usize) {
        self.0.push_back(events);
    }

    /// The response to one event has come; `false` if none was due.
    pub(super) fn received<R: Responses>(&mut self, responses: &mut R) -> bool {
        let Some(left) = self.0.front_mut() else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            self.0.pop_front();
            responses.accepted(None);
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
