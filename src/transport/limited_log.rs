//! Log lines that repeat: one in a while, with the number of those that it stands for.

use std::time::Duration;

use tokio::time::Instant;

/// How long a line stands for those like it.
const INTERVAL: Duration = Duration::from_secs(10);

/// When a line of its kind was logged last, and how many were not.
#[derive(Debug, Default)]
pub(super) struct LimitedLog {
    logged: Option<Instant>,
    unlogged: u64,
}

impl LimitedLog {
    /// Calls `log` with the number of times since the last line, this one included, unless
    /// there was a line just now.
    pub(super) fn log(&mut self, log: impl FnOnce(u64)) {
        self.unlogged += 1;
        let now = Instant::now();
        if self.logged.is_none_or(|at| now >= at + INTERVAL) {
            log(self.unlogged);
            self.logged = Some(now);
            self.unlogged = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_stands_for_those_like_it() {
        let mut limited = LimitedLog::default();
        let mut lines = Vec::new();
        for _ in 0..21 {
            limited.log(|times| lines.push(times));
            tokio::time::advance(INTERVAL / 10).await;
        }
        assert_eq!(lines, [1, 10, 10]);
    }
}
