//! Notes of invalidations: whoever knows a head has the note of each event up to it.

use super::*;
use crate::engine::inbox::{Inbox, Note};
use crate::engine::sync::thread;

/// `PushEvent { session_invalidation: { user_id } }`
fn invalidation(user: u8) -> [u8; 5] {
    [0x12, 3, 0x12, 1, user]
}

fn revoke(ring: &Ring, inbox: &Inbox, user: u8) {
    let encoded = invalidation(user);
    let events = [Event::parse(&encoded).expect("it is valid")];
    let total = ring.check(&events).expect("it fits");
    let note = Note::of(&events, 0);
    ring.put(&events, total, 0, |first| {
        inbox.push(note, first);
    })
    .expect("it is open");
}

/// The sequences up to the head for which there are notes.
fn noted(ring: &Ring, inbox: &Inbox, notes: &mut Vec<u64>) -> u64 {
    let head = ring.head();
    notes.extend(inbox.take().iter().filter_map(|note| Some(note.get(0)?.0)));
    head
}

#[test]
fn a_look_against_two_publishers() {
    model(|| {
        let (ring, inbox) = (ring(), Arc::new(Inbox::new()));
        let publishers = [b'a', b'b'].map(|user| {
            let (ring, inbox) = (Arc::clone(&ring), Arc::clone(&inbox));
            thread::spawn(move || revoke(&ring, &inbox, user))
        });
        let mut notes = Vec::new();
        for _ in 0..2 {
            let head = noted(&ring, &inbox, &mut notes);
            for seq in 1..=head {
                assert!(notes.contains(&seq), "{seq} of {head} is not in {notes:?}");
            }
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        noted(&ring, &inbox, &mut notes);
        notes.sort_unstable();
        assert_eq!(notes, [1, 2]);
    });
}
