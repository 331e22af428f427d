//! One stream of a connection, and how much may be sent on it.

/// One stream, and what its server keeps with it.
#[derive(Debug)]
pub struct Stream<S> {
    pub(super) id: u32,
    /// How much the peer takes; below zero if it took back what was used already.
    pub(super) window: i64,
    /// How much the peer may still send, and what it has to be told that it may again.
    pub(super) receive_window: u32,
    pub(super) release: u32,
    pub(super) body: Vec<u8>,
    /// How much of the body is kept back from the peer's windows.
    pub(super) unreleased: u32,
    /// Whether the request has arrived in full.
    pub(super) ended: bool,
    /// Whatever its server needs; dropped with the stream.
    pub state: S,
}

impl<S> Stream<S> {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What has arrived of the request's body and was not taken.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The [body](Self::body), and the state beside it.
    pub fn body_and_state(&mut self) -> (&[u8], &mut S) {
        (&self.body, &mut self.state)
    }

    /// Whether the request has arrived in full.
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.ended
    }
}

/// How much may be sent: a copy, to plan with.
#[derive(Clone, Copy, Debug)]
pub struct Sendable {
    pub(super) connection: i64,
    pub(super) max_payload: u32,
}

impl Sendable {
    /// The next frame of `left` bytes on a stream of which `planned` are planned
    /// already: how many it may have. Zero if there is none.
    pub fn plan<S>(&mut self, stream: &Stream<S>, planned: u32, left: usize) -> u32 {
        let windows = self.connection.min(stream.window - i64::from(planned));
        let most = windows.clamp(0, i64::from(self.max_payload)) as u32;
        let bytes = u32::try_from(left).unwrap_or(u32::MAX).min(most);
        self.connection -= i64::from(bytes);
        bytes
    }
}
