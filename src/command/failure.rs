//! [`Failure`]: how a command ends that did not do its work.

/// The reason for which a command failed, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) message: String,
}

impl Failure {
    /// It was tried and did not work: exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure {
            exit: 1,
            message: message.into(),
        }
    }

    /// A flag, an argument or a variable is wrong: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure {
            exit: 2,
            message: message.into(),
        }
    }

    /// Another gateway has taken over the id: exit code 3.
    pub(crate) fn taken_over(message: impl Into<String>) -> Self {
        Failure {
            exit: 3,
            message: message.into(),
        }
    }
}
