//! Positions: bytes in the endless row of segments that the ring slides over.
//!
//! A position is `segment number << segment_shift | offset`. A frame never crosses the
//! end of its segment: where it does not fit, it starts the next one.

/// How positions are made up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    segment_shift: u32,
    /// The bits of the offset.
    mask: u64,
}

impl Positions {
    /// For segments of `1 << segment_shift` bytes.
    pub(super) fn new(segment_shift: u32) -> Self {
        Positions {
            segment_shift,
            mask: (1 << segment_shift) - 1,
        }
    }

    /// The number of the segment that a position is in.
    pub(super) fn segment(self, position: u64) -> u64 {
        position >> self.segment_shift
    }

    /// The segment of the byte before a position.
    pub(super) fn segment_before(self, position: u64) -> u64 {
        self.segment(position.saturating_sub(1))
    }

    /// Where a position is in its segment.
    pub(super) fn offset(self, position: u64) -> u64 {
        position & self.mask
    }

    /// Where a segment starts.
    pub(super) fn start_of(self, segment: u64) -> u64 {
        segment << self.segment_shift
    }

    /// How many bytes there are from a position to the end of its segment.
    pub(super) fn room(self, position: u64) -> u64 {
        self.mask + 1 - self.offset(position)
    }

    /// Where a frame of `bytes` starts, if the one before ends at `end`.
    pub(super) fn place(self, end: u64, bytes: u64) -> u64 {
        if self.offset(end) + bytes <= self.mask + 1 {
            end
        } else {
            // Only reached with an offset above 0: every frame fits in a segment.
            self.start_of(self.segment(end) + 1)
        }
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_frame_stays_in_one_segment() {
        let positions = Positions::new(8);
        assert_eq!(positions.place(0, 256), 0);
        assert_eq!(positions.place(200, 56), 200);
        assert_eq!(positions.place(200, 57), 256);
        assert_eq!(positions.place(256, 256), 256);
    }

    #[test]
    fn a_position_tells_its_segment_and_offset() {
        let positions = Positions::new(8);
        let at = positions.start_of(3) + 7;
        assert_eq!((positions.segment(at), positions.offset(at)), (3, 7));
        assert_eq!(positions.room(at), 249);
        // What ends where a segment does is in that segment.
        assert_eq!(positions.segment_before(positions.start_of(3)), 2);
        assert_eq!(positions.segment_before(0), 0);
    }
}
