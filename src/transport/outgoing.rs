//! What one stream is to write: response data, where it lies.

use super::in_flight::InFlight;

/// A piece of response data, as far as it is not written.
#[derive(Debug)]
pub(super) struct Outgoing<D> {
    data: Option<D>,
    /// How much of it has its frames; at most the last of them is half written.
    framed_bytes: usize,
    pub(super) in_flight: InFlight,
}

impl<D> Default for Outgoing<D> {
    fn default() -> Self {
        Outgoing {
            data: None,
            framed_bytes: 0,
            in_flight: InFlight::default(),
        }
    }
}

impl<D: AsRef<[u8]>> Outgoing<D> {
    /// Whether nothing is left to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.data.is_none()
    }

    pub(super) fn set(&mut self, data: D) {
        self.in_flight.queue(data.as_ref().len() as u64);
        self.data = Some(data);
        self.framed_bytes = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.data.as_ref().map_or(&[], D::as_ref)
    }

    /// How much has its frames: where the next one begins.
    pub(super) fn framed_bytes(&self) -> usize {
        self.framed_bytes
    }

    pub(super) fn unframed_bytes(&self) -> usize {
        self.bytes().len() - self.framed_bytes
    }

    /// Frames are begun for everything up to here.
    pub(super) fn framed(&mut self, bytes: usize) {
        self.framed_bytes = bytes;
    }

    /// So many bytes are written, and with them, maybe, the whole of their frame. With its
    /// last frame the data is let go of.
    pub(super) fn written(&mut self, bytes: u64, is_whole_frame: bool) {
        self.in_flight.written(bytes);
        if is_whole_frame && self.unframed_bytes() == 0 {
            self.data = None;
            self.framed_bytes = 0;
        }
    }

    /// The data that is not written in full, and how much of it is.
    pub(super) fn half_written(&self) -> Option<(&D, usize)> {
        let data = self.data.as_ref()?;
        let unwritten = usize::try_from(self.in_flight.unwritten_bytes()).unwrap_or(usize::MAX);
        Some((data, data.as_ref().len().saturating_sub(unwritten)))
    }

    /// The data and who watches it, when its stream has ended.
    pub(super) fn into_parts(self) -> Option<(D, InFlight)> {
        self.data.map(|data| (data, self.in_flight))
    }
}
