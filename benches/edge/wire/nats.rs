//! NATS' text protocol: what a client sends, and what a server does.

use std::io::Write as _;

use super::{Malformed, Parsed, line, number};

/// The longest message that is worth reading.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// One thing that the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// About itself, in JSON, before all else.
    Info(&'a [u8]),
    Message(Message<'a>),
    Ping,
    Pong,
    Ok,
    Error(&'a [u8]),
}

/// A message for one of our subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) subject: &'a [u8],
    /// The number that we gave to the subscription.
    pub(crate) subscription: usize,
    /// Where a response is wanted.
    pub(crate) reply: Option<&'a [u8]>,
    /// As `NATS/1.0 100 FlowControl Request\r\n…`; empty for most.
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// The first thing in `bytes`, and how many bytes it took; `None` while it is not
/// complete.
pub(crate) fn said(bytes: &[u8]) -> Parsed<Said<'_>> {
    let Some((head, read)) = line(bytes)? else {
        return Ok(None);
    };
    let (word, rest) = match head.iter().position(|&byte| byte == b' ') {
        Some(end) => (&head[..end], &head[end + 1..]),
        None => (head, &[][..]),
    };
    let said = match word {
        b"MSG" => return message(bytes, read, rest, false),
        b"HMSG" => return message(bytes, read, rest, true),
        b"INFO" => Said::Info(rest),
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        b"+OK" => Said::Ok,
        b"-ERR" => Said::Error(rest),
        _ => return Err(Malformed),
    };
    Ok(Some((said, read)))
}

/// `SUBJECT SUBSCRIPTION [REPLY] [HEADERS' BYTES] BYTES`, and then these bytes.
fn message<'a>(
    bytes: &'a [u8],
    start: usize,
    head: &'a [u8],
    has_headers: bool,
) -> Parsed<Said<'a>> {
    let mut words = head.split(|&byte| byte == b' ');
    let mut word = || words.next().ok_or(Malformed);
    let (subject, subscription) = (word()?, number(word()?)?);
    let mut rest = [word()?, &[], &[]];
    let mut count = 1;
    for word in words {
        *rest.get_mut(count).ok_or(Malformed)? = word;
        count += 1;
    }
    let rest = &rest[..count];
    let (reply, sizes) = match (rest, has_headers) {
        ([reply, sizes @ ..], false) if sizes.len() == 1 => (Some(*reply), sizes),
        ([reply, sizes @ ..], true) if sizes.len() == 2 => (Some(*reply), sizes),
        (sizes, _) => (None, sizes),
    };
    let (header_bytes, all_bytes) = match (sizes, has_headers) {
        ([all], false) => (0, number(all)?),
        ([headers, all], true) => (number(headers)?, number(all)?),
        _ => return Err(Malformed),
    };
    if all_bytes > MAX_MESSAGE_BYTES || header_bytes > all_bytes {
        return Err(Malformed);
    }
    let end = start + all_bytes + 2;
    let Some(content) = bytes.get(start..end) else {
        return Ok(None);
    };
    let content = content.strip_suffix(b"\r\n").ok_or(Malformed)?;
    let (headers, payload) = content.split_at(header_bytes);
    let message = Message {
        subject,
        subscription,
        reply,
        headers,
        payload,
    };
    Ok(Some((Said::Message(message), end)))
}

/// A client's first words.
pub(crate) fn connect(to: &mut Vec<u8>) {
    to.extend_from_slice(
        b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"protocol\":1,\
        \"lang\":\"rust\",\"version\":\"0\",\"name\":\"edge\"}\r\n",
    );
}

/// Asks for messages.
pub(crate) fn subscribe(to: &mut Vec<u8>, subject: &str, subscription: usize) {
    // Into memory, which cannot fail.
    let _ = write!(to, "SUB {subject} {subscription}\r\n");
}

/// Publishes a message; `reply` says where a response is wanted.
pub(crate) fn publish(to: &mut Vec<u8>, subject: &[u8], reply: Option<&str>, payload: &[u8]) {
    to.extend_from_slice(b"PUB ");
    to.extend_from_slice(subject);
    let _ = match reply {
        Some(reply) => write!(to, " {reply} {}\r\n", payload.len()),
        None => write!(to, " {}\r\n", payload.len()),
    };
    to.extend_from_slice(payload);
    to.extend_from_slice(b"\r\n");
}

/// Asks whether everything before has been processed.
pub(crate) fn ping(to: &mut Vec<u8>) {
    to.extend_from_slice(b"PING\r\n");
}

/// Responds to a [`Said::Ping`].
pub(crate) fn pong(to: &mut Vec<u8>) {
    to.extend_from_slice(b"PONG\r\n");
}
