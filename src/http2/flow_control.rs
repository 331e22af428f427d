//! Flow-control windows (RFC 9113, section 5.2): of a stream, and of the connection.

use super::error::Error;
use super::frame::{
    self, DEFAULT_FRAME_BYTES, INITIAL_WINDOW, MAX_FRAME_BYTES, MAX_WINDOW, setting,
};

/// The peer is told of credit once it is this part of a window.
const CREDIT_PART: u32 = 4;

/// A change would lift a window over 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// How much we may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow {
    /// Below zero if the peer took back what was used already (section 6.9.2).
    bytes: i64,
    /// As wide as it was with nothing unacknowledged.
    widest: i64,
}

impl SendWindow {
    pub(super) fn new(bytes: u32) -> Self {
        let bytes = i64::from(bytes);
        SendWindow {
            bytes,
            widest: bytes,
        }
    }

    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    /// What was sent and has not been acknowledged by a WINDOW_UPDATE.
    pub(super) fn unacknowledged_bytes(&self) -> u64 {
        self.widest.abs_diff(self.bytes)
    }

    pub(super) fn sent(&mut self, bytes: u32) {
        self.bytes -= i64::from(bytes);
    }

    /// WINDOW_UPDATE.
    pub(super) fn widen(&mut self, increment: u32) -> Result<(), Overflow> {
        let bytes = self.bytes + i64::from(increment);
        if bytes > i64::from(MAX_WINDOW) {
            return Err(Overflow);
        }
        self.bytes = bytes;
        self.widest = self.widest.max(bytes);
        Ok(())
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE changed by this much.
    pub(super) fn shift(&mut self, change: i64) -> Result<(), Overflow> {
        if self.bytes + change > i64::from(MAX_WINDOW) {
            return Err(Overflow);
        }
        self.bytes += change;
        self.widest += change;
        Ok(())
    }
}

/// How much the peer may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    size: u32,
    /// What the peer may send now.
    left: u32,
    /// What the peer may send in addition, and has not been told of.
    credit: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> Self {
        ReceiveWindow {
            size,
            left: size,
            credit: 0,
        }
    }

    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// The peer has sent this much. Says whether it was allowed to.
    #[must_use]
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// The peer may send this much again. Returns the increment of the WINDOW_UPDATE that
    /// says so, once there is enough of it to be worth a frame.
    #[must_use]
    pub(super) fn release(&mut self, bytes: u32) -> Option<u32> {
        self.credit += bytes;
        if self.credit == 0 || self.credit < self.size / CREDIT_PART {
            return None;
        }
        self.left += self.credit;
        Some(std::mem::take(&mut self.credit))
    }

    #[cfg(test)]
    pub(super) fn in_all(&self) -> u32 {
        self.left + self.credit
    }

    #[cfg(test)]
    pub(super) fn set_left(&mut self, bytes: u32) {
        self.left = bytes;
    }
}

/// The connection's windows, and what SETTINGS say of those of streams.
#[derive(Debug)]
pub(super) struct FlowControl {
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// The peer's SETTINGS_INITIAL_WINDOW_SIZE and SETTINGS_MAX_FRAME_SIZE.
    pub(super) initial_window: u32,
    pub(super) max_frame_bytes: u32,
    /// What the peer may have sent of requests that we ended, before it knew.
    late_bytes: u32,
}

impl FlowControl {
    /// With a receive window of so many bytes.
    pub(super) fn new(receive_window: u32) -> Self {
        FlowControl {
            send: SendWindow::new(INITIAL_WINDOW),
            receive: ReceiveWindow::new(receive_window),
            initial_window: INITIAL_WINDOW,
            max_frame_bytes: DEFAULT_FRAME_BYTES,
            late_bytes: 0,
        }
    }

    /// A change of SETTINGS_INITIAL_WINDOW_SIZE lifts a stream's window over its limit.
    pub(super) const SETTINGS_OVERFLOW: Error =
        Error::flow_control("SETTINGS lift a stream's flow-control window over 2^31-1");

    /// A setting of the peer. Returns by how much the send windows of streams change.
    pub(super) fn setting(&mut self, name: u16, value: u32) -> Result<i64, Error> {
        match name {
            setting::ENABLE_PUSH if value > 1 => {
                Err(Error::protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1"))
            }
            setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => Err(Error::flow_control(
                "SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1",
            )),
            setting::INITIAL_WINDOW_SIZE => {
                let change = i64::from(value) - i64::from(self.initial_window);
                self.initial_window = value;
                Ok(change)
            }
            setting::MAX_FRAME_SIZE => {
                if !(DEFAULT_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&value) {
                    return Err(Error::protocol("SETTINGS_MAX_FRAME_SIZE out of range"));
                }
                self.max_frame_bytes = value;
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    /// The peer may send so many bytes again, on whatever stream.
    pub(super) fn release(&mut self, bytes: u32, output: &mut Vec<u8>) {
        if let Some(increment) = self.receive.release(bytes) {
            frame::write_window_update(output, 0, increment);
        }
    }

    /// The peer may have sent so many bytes on a stream that we end now.
    pub(super) fn expect_late(&mut self, bytes: u32) {
        // All together, it may have used up the connection's window.
        self.late_bytes = self.late_bytes.saturating_add(bytes).min(self.receive.size);
    }

    /// So many bytes have arrived on a stream that has ended. Says whether the peer may
    /// have sent them before it knew.
    #[must_use]
    pub(super) fn is_late(&mut self, bytes: u32) -> bool {
        let left = self.late_bytes.checked_sub(bytes);
        self.late_bytes = left.unwrap_or(self.late_bytes);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_unacknowledged_until_the_window_is_widened() {
        let mut window = SendWindow::new(100);
        window.sent(70);
        assert_eq!((window.bytes(), window.unacknowledged_bytes()), (30, 70));
        window.widen(50).unwrap();
        assert_eq!((window.bytes(), window.unacknowledged_bytes()), (80, 20));
        // More than was sent: the peer has made its window larger.
        window.widen(1000).unwrap();
        assert_eq!((window.bytes(), window.unacknowledged_bytes()), (1080, 0));
        window.sent(80);
        window.shift(-2000).unwrap();
        assert_eq!((window.bytes(), window.unacknowledged_bytes()), (-1000, 80));
    }

    #[test]
    fn no_window_gets_over_its_limit() {
        let mut window = SendWindow::new(MAX_WINDOW - 1);
        assert_eq!(window.widen(1), Ok(()));
        assert_eq!(window.widen(1), Err(Overflow));
        assert_eq!(window.shift(1), Err(Overflow));
        assert_eq!(window.bytes(), i64::from(MAX_WINDOW));
    }

    #[test]
    fn credit_is_told_when_it_is_a_quarter_of_the_window() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(60) && !window.receive(41));
        assert_eq!(window.left(), 40);
        assert_eq!(window.release(24), None);
        assert_eq!(window.release(1), Some(25));
        assert_eq!((window.left(), window.in_all()), (65, 65));
    }
}
