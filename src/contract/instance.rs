//! Which of several processes with one gateway id this is: the values of `push-instance`.

/// The longest that is accepted, in bytes.
pub const MAX_BYTES: usize = 128;

/// Why a text does not name an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than [`MAX_BYTES`].
    #[error("it has {bytes} bytes, more than {MAX_BYTES}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It begins or ends with a space, which HTTP/2 does not let a value do (RFC 9113, 8.2.1).
    #[error("it begins or ends with a space")]
    Space,
    /// A character that is not visible in ASCII, and no space.
    #[error("it has a character that is not visible ASCII, at byte {at}")]
    Character {
        /// Where.
        at: usize,
    },
}

/// Checks a text that is to name an instance: 1 to 128 visible characters of ASCII, with spaces
/// between.
///
/// # Errors
///
/// What is wrong with it.
///
/// ```
/// use galaxy_push::contract::instance::{self, InstanceError};
///
/// assert_eq!(instance::check("gateway-7f9c on host-3, pid 41"), Ok(()));
/// assert_eq!(instance::check(""), Err(InstanceError::Empty));
/// assert_eq!(instance::check("a "), Err(InstanceError::Space));
/// assert_eq!(instance::check("a\tb"), Err(InstanceError::Character { at: 1 }));
/// ```
pub fn check(text: &str) -> Result<(), InstanceError> {
    if text.is_empty() {
        return Err(InstanceError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(InstanceError::TooLong { bytes: text.len() });
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(InstanceError::Space);
    }
    match text.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
        Some(at) => Err(InstanceError::Character { at }),
        None => Ok(()),
    }
}
