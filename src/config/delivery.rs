//! What delivery is for: latency or throughput.

use std::fmt;
use std::str::FromStr;

/// How processor time is spent while events arrive faster than gateways can be written to
/// one by one. [`Config::delivery`](super::Config::delivery) says what follows from it.
///
/// ```
/// use galaxy_push::config::Delivery;
///
/// assert_eq!("throughput".parse(), Ok(Delivery::Throughput));
/// assert_eq!(Delivery::default().to_string(), "auto");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Rests half as long as the writes before them, while events accumulate; less where they
    /// are many in a write.
    #[default]
    Auto,
    /// No rests.
    Latency,
    /// Long rests, also after single events.
    Throughput,
}

impl Delivery {
    /// All of them.
    pub const ALL: &'static [Delivery] = &[Delivery::Auto, Delivery::Latency, Delivery::Throughput];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Delivery::Auto => "auto",
            Delivery::Latency => "latency",
            Delivery::Throughput => "throughput",
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no [`Delivery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is one of auto, latency and throughput")]
#[non_exhaustive]
pub struct ParseDeliveryError;

impl FromStr for Delivery {
    type Err = ParseDeliveryError;

    fn from_str(text: &str) -> Result<Self, ParseDeliveryError> {
        let named = |delivery: &&Delivery| delivery.name() == text;
        Delivery::ALL
            .iter()
            .find(named)
            .copied()
            .ok_or(ParseDeliveryError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for &delivery in Delivery::ALL {
            assert_eq!(delivery.to_string().parse(), Ok(delivery));
        }
        for wrong in ["", "Auto", "auto ", "fast"] {
            assert_eq!(wrong.parse::<Delivery>(), Err(ParseDeliveryError));
        }
    }
}
