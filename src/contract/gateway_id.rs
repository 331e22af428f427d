//! What a `gateway_client_id` may be.

/// The longest `gateway_client_id`, in bytes.
pub const MAX_GATEWAY_ID_BYTES: usize = 256;

/// Checks a `gateway_client_id`: 1 to [`MAX_GATEWAY_ID_BYTES`] bytes, and none
/// of the control characters that would garble a log line or a terminal.
///
/// # Errors
///
/// [`GatewayIdError`] says what is wrong with it.
pub fn check(id: &str) -> Result<(), GatewayIdError> {
    if id.is_empty() {
        return Err(GatewayIdError::Empty);
    }
    if id.len() > MAX_GATEWAY_ID_BYTES {
        return Err(GatewayIdError::TooLong { bytes: id.len() });
    }
    match id.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(GatewayIdError::ControlCharacter { at }),
        None => Ok(()),
    }
}

/// Why a text is no `gateway_client_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayIdError {
    /// There is none.
    #[error("gateway_client_id is empty")]
    Empty,
    /// It is longer than [`MAX_GATEWAY_ID_BYTES`].
    #[error("gateway_client_id has {bytes} bytes, the limit is {MAX_GATEWAY_ID_BYTES}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It has a control character (Unicode's general category Cc).
    #[error("gateway_client_id has a control character at byte {at}")]
    ControlCharacter {
        /// The character's offset in bytes.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_256_bytes_pass() {
        for id in ["a", "eu-west/gateway 7", "ворота-7", &"x".repeat(256)] {
            assert_eq!(check(id), Ok(()), "{id:?}");
        }
    }

    #[test]
    fn the_length_is_counted_in_bytes() {
        assert_eq!(check(""), Err(GatewayIdError::Empty));
        assert_eq!(
            check(&"x".repeat(257)),
            Err(GatewayIdError::TooLong { bytes: 257 })
        );
        // 129 characters, two bytes each.
        assert_eq!(
            check(&"ж".repeat(129)),
            Err(GatewayIdError::TooLong { bytes: 258 })
        );
    }

    #[test]
    fn control_characters_are_refused_where_they_stand() {
        for control in ['\0', '\n', '\r', '\t', '\x1b', '\x7f', '\u{85}'] {
            assert_eq!(
                check(&format!("ж{control}")),
                Err(GatewayIdError::ControlCharacter { at: 2 }),
                "{control:?}"
            );
        }
    }

    #[test]
    fn every_error_names_the_field() {
        for id in ["", "\n", &"x".repeat(257)] {
            let message = check(id).unwrap_err().to_string();
            assert!(message.starts_with("gateway_client_id "), "{message}");
        }
    }
}
