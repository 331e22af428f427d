//! The contract's words for where a stream starts.

use crate::contract::revocations::Completeness;
use crate::contract::start::{Reason, Resume as Word};
use crate::engine::{Replay, Resume};

/// `push-resume`, `push-resume-reason` and `push-missed`.
pub(crate) fn describe(resume: Resume) -> (Word, &'static Reason, Option<u64>) {
    use Word::{Fresh, Resumed};
    match resume {
        Resume::Resumed => (Resumed, &Reason::Requested, None),
        Resume::NoCursor => (Fresh, &Reason::NoCursor, None),
        Resume::Expired { missed } => (Fresh, &Reason::Expired, Some(missed)),
        Resume::Ahead => (Fresh, &Reason::Ahead, None),
        Resume::OtherEpoch { .. } => (Fresh, &Reason::OtherEpoch, None),
        Resume::Malformed => (Fresh, &Reason::Malformed, None),
    }
}

/// `push-revocations`.
pub(crate) fn completeness(replay: &Replay) -> Completeness {
    if replay.is_complete() {
        Completeness::Complete
    } else {
        Completeness::Partial
    }
}

/// All that a subscription's start is counted by: `push-resume` with `push-resume-reason`.
pub(crate) const STARTS: [(Word, Reason); 6] = [
    (Word::Resumed, Reason::Requested),
    (Word::Fresh, Reason::NoCursor),
    (Word::Fresh, Reason::Expired),
    (Word::Fresh, Reason::Ahead),
    (Word::Fresh, Reason::OtherEpoch),
    (Word::Fresh, Reason::Malformed),
];
