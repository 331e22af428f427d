//! HTTP/2 without I/O: bytes in, bytes out (RFC 9113, RFC 7541).
//!
//! A gateway's stream is one long response, of which every event is to be on its way
//! after one system call. A general library puts a buffer, a queue and a task between
//! an event and its socket; here a response's data stays where it is, in the ring, and
//! only the nine bytes before it are made. A publisher's stream is the reverse: what one
//! system call has read is in the ring before the next. So this is the part of HTTP/2
//! that a server of streams needs, and no more: requests whose bodies grow where they
//! are, responses of any length, flow control, and a firm hand on peers that abuse any
//! of it.
//!
//! | file | what is in it |
//! |---|---|
//! | [`frame`] | headers of frames, settings, error codes |
//! | `reader` | finds frames in what arrives, and checks their form |
//! | `header_block` | the header block that is arriving |
//! | [`hpack`] | header fields, read and written |
//! | `huffman` | the code of HPACK's strings |
//! | [`request`] | a request's head, checked |
//! | `flow_control` | windows |
//! | `response` | a response's fields, checked |
//! | [`server`] | the server's end of a connection |
//! | [`client`] | the client's end of a connection with one call |
//!
//! Nothing here knows of sockets, tasks or time (which is told), of gRPC, or of events.

pub mod client;
mod error;
mod flow_control;
pub mod frame;
mod header_block;
pub mod hpack;
mod huffman;
mod reader;
pub mod request;
mod response;
pub mod server;

pub use error::Error;
