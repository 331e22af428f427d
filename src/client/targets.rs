//! Several servers: which one is tried next.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::channel::Connector;

/// The longest wait before another server is tried. Not none: a server that stops sends all its
/// gateways away at once.
const STEP: Duration = Duration::from_millis(200);

/// The servers, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Targets {
    all: Vec<Target>,
    current: usize,
    /// How many have failed since one was good for something.
    failed: usize,
}

#[derive(Debug)]
struct Target {
    connector: Connector,
    /// It has asked to be left alone until then.
    not_before: Instant,
}

impl Targets {
    /// At least one.
    pub(super) fn new(connectors: Vec<Connector>) -> Self {
        let now = Instant::now();
        let target = |connector| Target {
            connector,
            not_before: now,
        };
        Targets {
            all: connectors.into_iter().map(target).collect(),
            current: 0,
            failed: 0,
        }
    }

    /// The one that is tried, or that was successful.
    pub(super) fn current(&self) -> &Connector {
        &self.all[self.current].connector
    }

    /// It was good for something.
    pub(super) fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// The current one has failed, and asks not to be tried again for so long. Goes on to the
    /// next, and returns when to try that, and whether it is another one; `None` if there is only
    /// this one.
    pub(super) fn elsewhere(
        &mut self,
        asked: Duration,
        backoff: &mut Backoff,
    ) -> Option<(Duration, bool)> {
        if self.all.len() == 1 {
            return None;
        }
        let before = self.current;
        let now = Instant::now();
        self.all[self.current].not_before = now + asked;
        self.failed += 1;
        let others = (1..=self.all.len()).map(|step| (self.current + step) % self.all.len());
        let is_free = |target: &usize| self.all[*target].not_before <= now;
        if self.failed < self.all.len()
            && let Some(next) = others.clone().find(is_free)
            && next != self.current
        {
            self.current = next;
            return Some((rand::random_range(Duration::ZERO..=STEP), true));
        }
        // All have failed, or want to be left alone: the one for which that ends first.
        self.failed = 0;
        self.current = others.min_by_key(|target| self.all[*target].not_before.max(now))?;
        let asked = self.all[self.current].not_before.duration_since(now);
        Some((backoff.wait().max(asked), self.current != before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);

    fn targets(count: usize) -> Targets {
        let connector = |n| Connector::new(format!("127.0.0.1:{}", n + 1).parse().unwrap());
        Targets::new((0..count).map(connector).collect())
    }

    fn port(targets: &Targets) -> usize {
        let address = targets.current().address().to_string();
        address.rsplit(':').next().unwrap().parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_tried_before_there_is_a_wait() {
        let mut backoff = Backoff::new(FIRST, FIRST);
        let mut targets = targets(3);
        let mut fail = |targets: &mut Targets| {
            let (wait, has_moved) = targets.elsewhere(Duration::ZERO, &mut backoff).unwrap();
            assert!(has_moved);
            (port(targets), wait >= FIRST / 2)
        };
        assert_eq!(port(&targets), 1);
        assert_eq!(fail(&mut targets), (2, false));
        assert_eq!(fail(&mut targets), (3, false));
        assert_eq!(fail(&mut targets), (1, true));
        assert_eq!(fail(&mut targets), (2, false));
        targets.succeeded();
        // It stays where it succeeded, and goes on from there.
        assert_eq!(port(&targets), 2);
        assert_eq!(fail(&mut targets), (3, false));
        assert_eq!(fail(&mut targets), (1, false));
        assert_eq!(fail(&mut targets), (2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_be_left_alone_is() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let mut targets = targets(3);
        let minute = Duration::from_secs(60);
        targets.elsewhere(minute, &mut backoff);
        targets.elsewhere(Duration::ZERO, &mut backoff);
        assert_eq!(port(&targets), 3);
        targets.succeeded();
        // Not to 1, which is next.
        targets.elsewhere(2 * minute, &mut backoff);
        assert_eq!(port(&targets), 2);
        // All of them: the one that asked for the shortest time, after that.
        let next = targets.elsewhere(3 * minute, &mut backoff);
        assert_eq!((port(&targets), next), (1, Some((minute, true))));
    }

    #[tokio::test]
    async fn one_alone_has_nobody_else() {
        let mut backoff = Backoff::default();
        assert_eq!(targets(1).elsewhere(Duration::ZERO, &mut backoff), None);
    }
}
