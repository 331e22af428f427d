//! What a status says to machines: `google.rpc.ErrorInfo` and `google.rpc.RetryInfo`, in the
//! trailer `grpc-status-details-bin`.
//!
//! The messages are those of googleapis: `google/rpc/status.proto`,
//! `google/rpc/error_details.proto`, `google/protobuf/any.proto` and `duration.proto`. They
//! are written down here, because there are only eight fields: the crates that have them
//! generated (`tonic-types`, `prost-types`) are ten thousand lines, and keep the metadata in
//! no order.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;

/// The domain of every [`ErrorInfo`] of this contract.
pub const DOMAIN: &str = "galaxy-push";

/// `type_url`s; decoders look at what is behind the last slash.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// Why a call is refused or has ended: [`ErrorInfo::reason`]. What each of them means
        /// for the peer is a table in `docs/protocol.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorReason {
            $($(#[$doc])+ $name,)+
        }

        impl ErrorReason {
            /// All of them.
            pub const ALL: &[ErrorReason] = &[$(ErrorReason::$name,)+];

            /// The value of [`ErrorInfo::reason`].
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorReason::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// A newer subscription has the id.
    TakenOver = "TAKEN_OVER",
    /// An operator has ended the stream.
    DisconnectedByOperator = "DISCONNECTED_BY_OPERATOR",
    /// The gateway was too slow: the ring has dropped events that it had not read.
    Lagged = "LAGGED",
    /// The peer takes nothing of its response.
    Stalled = "STALLED",
    /// The server is stopping.
    Stopping = "STOPPING",
    /// As many gateways as allowed are subscribed.
    TooManySubscribers = "TOO_MANY_SUBSCRIBERS",
    /// The `gateway_client_id` is none.
    InvalidGatewayId = "INVALID_GATEWAY_ID",
    /// A value of the call's metadata is none of its key.
    InvalidMetadata = "INVALID_METADATA",
    /// The bytes are not a message of the method's type.
    MalformedMessage = "MALFORMED_MESSAGE",
    /// A batch has no events.
    NoEvents = "NO_EVENTS",
    /// An event has no `kind`.
    KindNotSet = "KIND_NOT_SET",
    /// A required field is empty.
    FieldEmpty = "FIELD_EMPTY",
    /// An event has a cursor, which only publishing assigns.
    CursorSet = "CURSOR_SET",
    /// A text is not UTF-8.
    FieldNotUtf8 = "FIELD_NOT_UTF8",
    /// An event is larger than allowed.
    EventTooLarge = "EVENT_TOO_LARGE",
    /// A batch has more events than allowed.
    TooManyEvents = "TOO_MANY_EVENTS",
    /// A batch needs more of the ring than allowed.
    BatchTooLarge = "BATCH_TOO_LARGE",
    /// No sequence is left in this epoch.
    EpochExhausted = "EPOCH_EXHAUSTED",
    /// The log that replicas share cannot be written to.
    BackboneUnavailable = "BACKBONE_UNAVAILABLE",
    /// A server that shares its log with others does not have this.
    NotWithBackbone = "NOT_WITH_BACKBONE",
    /// The log that replicas share has not said whether the batch is stored.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// A request message is longer than allowed.
    RequestTooLarge = "REQUEST_TOO_LARGE",
    /// More long requests are arriving on one connection than allowed.
    TooManyLongRequests = "TOO_MANY_LONG_REQUESTS",
    /// The request has not arrived in time.
    RequestTimeout = "REQUEST_TIMEOUT",
    /// The request ends within a message.
    RequestCutShort = "REQUEST_CUT_SHORT",
    /// The call has another number of request messages than its method takes.
    WrongMessageCount = "WRONG_MESSAGE_COUNT",
    /// A message has the compressed flag, and no compression was agreed on.
    CompressedFlag = "COMPRESSED_FLAG",
    /// The call announces compressed requests.
    CompressionNotSupported = "COMPRESSION_NOT_SUPPORTED",
    /// There is no such method here.
    UnknownMethod = "UNKNOWN_METHOD",
    /// There is no such service here.
    UnknownService = "UNKNOWN_SERVICE",
    /// The call has no credential.
    CredentialMissing = "CREDENTIAL_MISSING",
    /// The credential cannot be read.
    CredentialMalformed = "CREDENTIAL_MALFORMED",
    /// The credential lacks something, or was made for something else.
    CredentialNotAccepted = "CREDENTIAL_NOT_ACCEPTED",
    /// The credential is that of two principals.
    CredentialAmbiguous = "CREDENTIAL_AMBIGUOUS",
    /// The credential is nobody's.
    CredentialUnknown = "CREDENTIAL_UNKNOWN",
    /// The credential has expired.
    CredentialExpired = "CREDENTIAL_EXPIRED",
    /// The credential's time has not come.
    CredentialNotYetValid = "CREDENTIAL_NOT_YET_VALID",
    /// The credential no longer holds.
    CredentialRevoked = "CREDENTIAL_REVOKED",
    /// Too many wrong credentials came from the peer's address.
    TooManyFailedCredentials = "TOO_MANY_FAILED_CREDENTIALS",
    /// The principal may not subscribe under this id.
    SubscribeNotGranted = "SUBSCRIBE_NOT_GRANTED",
    /// The principal may not publish an event of this kind.
    PublishNotGranted = "PUBLISH_NOT_GRANTED",
    /// The principal has as many streams as it may have.
    TooManyStreams = "TOO_MANY_STREAMS",
    /// A field's text is no cursor.
    InvalidCursor = "INVALID_CURSOR",
    /// The cursor is of another epoch than this server's.
    OtherEpoch = "OTHER_EPOCH",
    /// The cursor is beyond what was published.
    CursorBeyondHead = "CURSOR_BEYOND_HEAD",
    /// A process had reported that it has enforced more.
    EnforcedWentBack = "ENFORCED_WENT_BACK",
    /// Who reports has no stream of this id and instance.
    NotSubscribed = "NOT_SUBSCRIBED",
    /// The name of the gateway's process is none.
    InvalidInstance = "INVALID_INSTANCE",
    /// A duration is longer or shorter than allowed.
    DurationNotAllowed = "DURATION_NOT_ALLOWED",
    /// As many processes as allowed report.
    TooManyProcesses = "TOO_MANY_PROCESSES",
    /// As many calls as allowed wait for gateways.
    TooManyWaits = "TOO_MANY_WAITS",
    /// The principal publishes faster than it may.
    RateExceeded = "RATE_EXCEEDED",
}

/// A gRPC status code's name, as gRPC writes it. A code that is none counts as `UNKNOWN`.
pub(crate) fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ErrorInfo {
    /// Why, in `UPPER_SNAKE_CASE`: one of [`ErrorReason`]'s values where the domain is
    /// [`DOMAIN`]; a later version may have others.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// What the reason's meaning belongs to. A proxy's errors have another one.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// The figures and names of the message.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

impl ErrorInfo {
    /// Whether it is this contract's, and says this.
    #[must_use]
    pub fn is(&self, reason: ErrorReason) -> bool {
        self.domain == DOMAIN && self.reason == reason.as_str()
    }
}

/// What `grpc-status-details-bin` says, as far as this contract uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Why.
    pub error_info: Option<ErrorInfo>,
    /// `google.rpc.RetryInfo`: how long to wait at least before the next attempt.
    pub retry_delay: Option<Duration>,
}

impl Details {
    /// The bytes of the `google.rpc.Status` with this code and message, which are to be those
    /// of the gRPC status: decoders compare them.
    #[must_use]
    pub fn encode(&self, code: i32, message: &str) -> Vec<u8> {
        let mut details = Vec::new();
        if let Some(info) = &self.error_info {
            details.push(Any {
                type_url: ERROR_INFO.to_owned(),
                value: info.encode_to_vec(),
            });
        }
        if let Some(delay) = self.retry_delay {
            let delay = ProtobufDuration {
                seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                // Below a thousand million.
                nanos: delay.subsec_nanos().cast_signed(),
            };
            let info = RetryInfo {
                retry_delay: Some(delay),
            };
            details.push(Any {
                type_url: RETRY_INFO.to_owned(),
                value: info.encode_to_vec(),
            });
        }
        let status = RpcStatus {
            code,
            message: message.to_owned(),
            details,
        };
        status.encode_to_vec()
    }

    /// What these bytes say. Where they say nothing that is known here, be it that they are no
    /// `google.rpc.Status`, nothing is said. The first detail of a type counts.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut decoded = Details::default();
        let Ok(status) = RpcStatus::decode(bytes) else {
            return decoded;
        };
        for Any { type_url, value } in status.details {
            match type_url.rsplit('/').next() {
                Some("google.rpc.ErrorInfo") if decoded.error_info.is_none() => {
                    decoded.error_info = ErrorInfo::decode(&*value).ok();
                }
                Some("google.rpc.RetryInfo") if decoded.retry_delay.is_none() => {
                    let info = RetryInfo::decode(&*value).ok();
                    decoded.retry_delay = info
                        .and_then(|info| info.retry_delay)
                        .and_then(ProtobufDuration::read);
                }
                _ => {}
            }
        }
        decoded
    }
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtobufDuration>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtobufDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl ProtobufDuration {
    /// `None` for a time that is negative, or has more than a second of nanoseconds.
    fn read(self) -> Option<Duration> {
        let nanos = u32::try_from(self.nanos).ok()?;
        let seconds = u64::try_from(self.seconds).ok()?;
        (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details() -> Details {
        Details {
            error_info: Some(ErrorInfo {
                reason: "LAGGED".to_owned(),
                domain: DOMAIN.to_owned(),
                metadata: [("missed".to_owned(), "42".to_owned())].into(),
            }),
            retry_delay: Some(Duration::from_millis(1500)),
        }
    }

    #[test]
    fn the_bytes_are_those_of_googles_messages() {
        // What protobuf 7.36.2 for Python writes, with the modules of
        // googleapis-common-protos 1.76.0.
        let expected = "080b120374776f\
            1a4f0a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4572726f72496e\
            666f12230a064c4147474544120b67616c6178792d707573681a0c0a066d697373656412023432\
            1a360a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e5265747279496e\
            666f120a0a0808011080cab5ee01";
        let bytes = details().encode(11, "two");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = details().encode(11, "two");
        assert_eq!(Details::decode(&bytes), details());
        let nothing = Details::default();
        assert_eq!(Details::decode(&nothing.encode(5, "x")), nothing);
    }

    #[test]
    fn what_is_not_understood_says_nothing() {
        for bytes in [&b"\xff\xff"[..], b"", b"\x1a\x02\x0a\x00", b"not protobuf"] {
            assert_eq!(Details::decode(bytes), Details::default(), "{bytes:?}");
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000)] {
            assert_eq!(ProtobufDuration { seconds, nanos }.read(), None);
        }
    }

    #[test]
    fn reasons_are_upper_snake_case_and_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in ErrorReason::ALL {
            let text = reason.as_str();
            let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            // error_details.proto: at most 63 characters of [A-Z][A-Z0-9_]+[A-Z0-9].
            assert!(text.len() <= 63 && text.chars().all(is_word), "{text}");
            assert!(seen.insert(text), "{text} is there twice");
        }
    }
}
