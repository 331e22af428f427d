//! Header fields as they go over the wire (HPACK, RFC 7541).
//!
//! | file | what is in it |
//! |---|---|
//! | `decoder` | reads whatever a peer may send |
//! | `table` | the fields that have a number |
//! | `writer` | writes fields of the static table and literals: no table has to be kept |

mod decoder;
mod table;
mod writer;

pub use self::decoder::{Decoder, Field};
pub use self::table::index;
pub use self::writer::FieldsWriter;

/// What a peer may ask us to keep of its fields, in octets as the RFC counts them: the
/// size that holds where no other is announced.
pub const TABLE_OCTETS: usize = 4096;

/// What a field counts in addition to its name and value (section 4.1).
const FIELD_OVERHEAD: usize = 32;

/// Why a header block is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HpackError {
    /// It ends in the middle of a field.
    #[error("the header block ends in the middle of a field")]
    Truncated,
    /// A number is larger than any that can be meant.
    #[error("a number in the header block is too large")]
    Number,
    /// A string's Huffman code is none.
    #[error("a string in the header block is not Huffman-coded as it says")]
    Huffman,
    /// There is no field of that number.
    #[error("the header block refers to field {0}, which does not exist")]
    Index(usize),
    /// The peer wants a larger table than was offered, or wants it after a field.
    #[error("the header block changes the size of its table to {0} octets where it must not")]
    TableSize(usize),
    /// It stands for more than it may.
    #[error("the header block stands for more octets than it may")]
    TooLong,
}

#[cfg(test)]
mod tests;
