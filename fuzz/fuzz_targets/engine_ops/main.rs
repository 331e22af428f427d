//! Operations on an engine, in any order, against a plain queue that makes the
//! same promises: see [`model`].
//!
//! The input is a program. Its first eight bytes are the engine's settings, which also say
//! what feeds it: publishers, or an appender, to which the model gives the sequences of a
//! log. Then each operation is one byte (its value modulo 16, so that lower-case letters
//! name them all) and its operands. With an appender, `p` and `a` have one more before
//! these: the hole that the log has there.
//!
//! | byte | operation | operands |
//! |---|---|---|
//! | `p` | publish one event | size |
//! | `a` | publish a batch | count, size |
//! | `b` | publish a batch that must be refused | which way |
//! | `c` | subscribe without a cursor | id |
//! | `d` | subscribe from a cursor, counted back from the head | id, distance |
//! | `e` | subscribe from a text | id, which one |
//! | `f` `g` | receive a batch | id, limit |
//! | `h` | receive until there is nothing | id |
//! | `i` | wait for a batch, with a waker | id |
//! | `j` | publish until the subscriber lags | id |
//! | `k` | drop the subscriber, and whatever it has left behind | id |
//! | `l` | the clock goes forward | tens of ms |
//! | `m` | the clock goes back | tens of ms |
//! | `n` | let go of the oldest batch that is held | |
//! | `o` | close, or abort | which one |

#![no_main]

mod events;
mod model;
mod run;

use galaxy_push::cursor::Seq;
use galaxy_push::engine::Resume;
use libfuzzer_sys::fuzz_target;

use model::cursor;
use run::{Hole, IDS, Run};

fuzz_target!(|input: &[u8]| {
    let mut program = Program(input);
    let mut run = Run::new(&mut program);
    while let Some(op) = program.next() {
        step(&mut run, op, &mut program);
        run.check();
    }
    run.finish();
});

/// Bytes that run out; then all operands are 0.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn byte(&mut self) -> usize {
        usize::from(self.next().unwrap_or(0))
    }

    /// The hole before a batch, for an engine that has an appender.
    fn hole(&mut self, run: &Run) -> Hole {
        match run.is_appended() {
            true => Hole::of(self.byte()),
            false => Hole::None,
        }
    }

    fn id(&mut self) -> u8 {
        self.next().unwrap_or(0) % IDS
    }
}

fn step(run: &mut Run, op: u8, program: &mut Program<'_>) {
    match op % 16 {
        0 => {
            let hole = program.hole(run);
            run.publish(hole, &[program.byte()]);
        }
        1 => {
            let hole = program.hole(run);
            let (count, bytes) = (1 + program.byte(), program.byte());
            run.publish(hole, &vec![bytes; count]);
        }
        2 => run.publish_badly(program.byte()),
        3 => run.subscribe(program.id(), "", |model| (Resume::NoCursor, model.head)),
        4 => {
            let (id, distance) = (program.id(), program.byte() as u64);
            // Mostly back, a little forward.
            let seq = (run.model.head + 3).saturating_sub(distance);
            let seq = seq.min(Seq::MAX.number());
            run.subscribe(id, cursor(seq).to_text().as_str(), |model| {
                model.resume(seq)
            });
        }
        5 => run.subscribe_elsewhere(program.id(), program.byte()),
        6 | 7 => {
            let (id, limit) = (program.id(), program.byte());
            run.receive(id, if limit == 255 { usize::MAX } else { limit * 32 });
        }
        8 => {
            let id = program.id();
            while run.receive(id, usize::MAX) {}
        }
        9 => run.wait(program.id()),
        10 => run.lap(program.id()),
        11 => run.leave(program.id()),
        12 => run.clock_forward(program.byte() as u64 * 10),
        13 => run.clock_back(program.byte() as u64 * 10),
        14 => run.let_go(),
        _ => run.end(program.byte() % 2 == 1),
    }
}
