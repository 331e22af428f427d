//! The variables of OpenTelemetry. The SDK reads them itself, and where a value is of no use it
//! goes on without: so they are checked before.

use std::ffi::OsString;
use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::StartError;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";

/// The first that is set counts: that of traces, that of all signals.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const UNSUPPORTED: [(&str, &str); 8] = {
    const COMPRESSION: &str = "compression is not supported";
    const CERTIFICATES: &str = "certificates of its own are not supported: the collector's is \
                                checked against the system's CAs, or those of SSL_CERT_FILE";
    [
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", COMPRESSION),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", COMPRESSION),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", CERTIFICATES),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", CERTIFICATES),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", CERTIFICATES),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", CERTIFICATES),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", CERTIFICATES),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", CERTIFICATES),
    ]
};
/// Each with its bounds. The queue's memory is taken at the start.
const NUMBERS: [(&str, RangeInclusive<u32>); 9] = [
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 1..=u32::MAX),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", 1..=u32::MAX),
    ("OTEL_BSP_SCHEDULE_DELAY", 1..=u32::MAX),
    ("OTEL_BSP_EXPORT_TIMEOUT", 1..=u32::MAX),
    (QUEUE, 1..=65_536),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1..=65_536),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", 0..=u32::MAX),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", 0..=u32::MAX),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", 0..=u32::MAX),
];
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];
/// The SDK's own default.
const DEFAULT_QUEUE: usize = 2048;

/// What the environment says, as far as the SDK does not read it itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Environment {
    /// Where the collector is.
    pub(super) endpoint: String,
    /// How many spans may wait for it.
    pub(super) queue: usize,
    /// Whether it says which service this is.
    pub(super) names_service: bool,
}

impl Environment {
    /// What the process's environment says; `None` if nothing is to be exported.
    pub(super) fn read() -> Result<Option<Self>, StartError> {
        Self::of(&|name| std::env::var_os(name))
    }

    fn of(variables: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Self>, StartError> {
        let read = |variable| read(variables, variable);
        let first = |names: [&'static str; 2]| -> Result<_, StartError> {
            for variable in names {
                if let Some(value) = read(variable)? {
                    return Ok(Some((variable, value)));
                }
            }
            Ok(None)
        };
        let Some((variable, endpoint)) = first(ENDPOINTS)? else {
            return Ok(None);
        };
        if is_disabled(read(DISABLED)?)? || exports_nothing(read(EXPORTER)?)? {
            return Ok(None);
        }
        check_endpoint(&endpoint).map_err(|reason| fault(variable, reason))?;
        if let Some((variable, protocol)) = first(PROTOCOLS)?
            && protocol != "grpc"
        {
            return Err(fault(
                variable,
                format!("{protocol:?}: only grpc is supported"),
            ));
        }
        // The SDK takes the first that is set at all, whatever it is set to.
        let [of_traces, general] = HEADERS;
        let is_empty = variables(of_traces).is_some() && read(of_traces)?.is_none();
        if is_empty && read(general)?.is_some() {
            return Err(fault(
                of_traces,
                "it is set and empty, so that the other headers would not be sent: unset it",
            ));
        }
        if let Some((variable, headers)) = first(HEADERS)? {
            check_pairs(&headers, check_header).map_err(|reason| fault(variable, reason))?;
        }
        for (variable, reason) in UNSUPPORTED {
            if read(variable)?.is_some() {
                return Err(fault(variable, reason));
            }
        }
        for (variable, bounds) in NUMBERS {
            if let Some(value) = read(variable)? {
                number(&value, &bounds).map_err(|reason| fault(variable, reason))?;
            }
        }
        check_sampler(read(SAMPLER)?, read(SAMPLER_ARG)?)?;
        let attributes = read(RESOURCE_ATTRIBUTES)?.unwrap_or_default();
        check_pairs(&attributes, |_, _| Ok(()))
            .map_err(|reason| fault(RESOURCE_ATTRIBUTES, reason))?;
        let names_service = read(SERVICE_NAME)?.is_some()
            || attributes
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .any(|(key, _)| key.trim() == "service.name");
        let queue = read(QUEUE)?.and_then(|value| value.parse().ok());
        Ok(Some(Environment {
            endpoint,
            queue: queue.unwrap_or(DEFAULT_QUEUE),
            names_service,
        }))
    }
}

fn fault(variable: &'static str, reason: impl Into<String>) -> StartError {
    StartError::Environment {
        variable,
        reason: reason.into(),
    }
}

/// A variable that is empty is as good as none.
fn read(
    variables: &dyn Fn(&str) -> Option<OsString>,
    variable: &'static str,
) -> Result<Option<String>, StartError> {
    let Some(value) = variables(variable) else {
        return Ok(None);
    };
    let value = value
        .into_string()
        .map_err(|_| fault(variable, "it is not UTF-8"))?;
    Ok(Some(value).filter(|value| !value.is_empty()))
}

fn is_disabled(value: Option<String>) -> Result<bool, StartError> {
    match value.map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(fault(
            DISABLED,
            format!("{other:?} is neither true nor false"),
        )),
    }
}

fn exports_nothing(value: Option<String>) -> Result<bool, StartError> {
    match value.as_deref() {
        None | Some("otlp") => Ok(false),
        Some("none") => Ok(true),
        Some(other) => Err(fault(
            EXPORTER,
            format!("{other:?} is neither otlp nor none"),
        )),
    }
}

/// Its text is not repeated: it may hold a password.
fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let uri: Uri = endpoint.parse().map_err(|_| "it is not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it does not begin with http:// or https://");
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        return Err("it has a user or a password: credentials belong into \
                    OTEL_EXPORTER_OTLP_HEADERS");
    }
    if !matches!(
        uri.path_and_query().map(|path| path.as_str()),
        None | Some("/")
    ) {
        return Err("it has a path: OTLP over gRPC has none");
    }
    if uri.host().unwrap_or_default().is_empty() {
        return Err("it has no host");
    }
    Ok(())
}

/// Pairs `name=value`, with commas between them. Values are not repeated: they may be
/// credentials, and so may what should have been a pair.
fn check_pairs(
    pairs: &str,
    check: impl Fn(&str, &str) -> Result<(), &'static str>,
) -> Result<(), String> {
    for (pair, number) in pairs.split_terminator(',').zip(1..) {
        let checked = match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => check(name.trim(), value.trim()),
            _ => Err("is not of the form name=value"),
        };
        checked.map_err(|reason| format!("entry {number} {reason}"))?;
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), &'static str> {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err("has a name that no header can have");
    }
    let value = percent_decode_str(value).decode_utf8();
    if value.is_ok_and(|value| !value.is_empty() && HeaderValue::from_str(&value).is_ok()) {
        Ok(())
    } else {
        Err("has a value that no header can have")
    }
}

fn number(value: &str, bounds: &RangeInclusive<u32>) -> Result<(), String> {
    match value.parse() {
        Ok(number) if bounds.contains(&number) => Ok(()),
        _ => Err(format!(
            "{value:?} is not a whole number from {} to {}",
            bounds.start(),
            bounds.end()
        )),
    }
}

fn check_sampler(sampler: Option<String>, argument: Option<String>) -> Result<(), StartError> {
    let Some(sampler) = sampler else {
        return Ok(());
    };
    if !SAMPLERS.contains(&&*sampler) {
        let known = SAMPLERS.join(", ");
        return Err(fault(SAMPLER, format!("{sampler:?} is none of {known}")));
    }
    if let Some(argument) = argument
        && sampler.ends_with("traceidratio")
        && !argument
            .parse()
            .is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio))
    {
        return Err(fault(
            SAMPLER_ARG,
            format!("{argument:?} is not a ratio from 0 to 1"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Environment>, String> {
        let find = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Environment::of(&find).map_err(|error| error.to_string())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");

    #[test]
    fn nothing_is_exported_without_an_endpoint_or_when_it_is_switched_off() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(
            of(&[("OTEL_TRACES_SAMPLER", "bad")]),
            Ok(None),
            "it is not asked"
        );
        assert_eq!(of(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(of(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn what_is_right_is_taken() {
        let traces = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://collector:4317/",
        );
        let wanted = |endpoint: &str| Environment {
            endpoint: endpoint.to_owned(),
            queue: DEFAULT_QUEUE,
            names_service: false,
        };
        assert_eq!(of(&[ENDPOINT]), Ok(Some(wanted(ENDPOINT.1))));
        assert_eq!(of(&[ENDPOINT, traces]), Ok(Some(wanted(traces.1))));
        let all = of(&[
            ENDPOINT,
            ("OTEL_SDK_DISABLED", "false"),
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20t,x-tenant = a",
            ),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "17"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=push"),
        ]);
        let all = all.unwrap().unwrap();
        assert_eq!((all.queue, all.names_service), (17, true));
    }

    #[test]
    fn an_empty_variable_takes_away_no_headers() {
        let read = |of_traces: &'static str| {
            of(&[
                ENDPOINT,
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", of_traces),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret"),
            ])
        };
        assert!(read("a=b").is_ok());
        let error = read("").unwrap_err();
        assert!(error.contains("OTEL_EXPORTER_OTLP_TRACES_HEADERS: it is set and empty"));
        assert!(!error.contains("secret"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_repeated() {
        for (variable, value, reason) in [
            (
                "OTEL_SDK_DISABLED",
                "maybe",
                "\"maybe\" is neither true nor false",
            ),
            (
                "OTEL_TRACES_EXPORTER",
                "zipkin",
                "\"zipkin\" is neither otlp nor none",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://a b",
                "it is not a URL",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "collector:4317",
                "it does not begin with http:// or https://",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://collector:4318/v1/traces",
                "it has a path: OTLP over gRPC has none",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://me:secret@collector:4317",
                "it has a user or a password: credentials belong into OTEL_EXPORTER_OTLP_HEADERS",
            ),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/protobuf",
                "\"http/protobuf\": only grpc is supported",
            ),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "a=b,secret",
                "entry 2 is not of the form name=value",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                "a b=secret",
                "entry 1 has a name that no header can have",
            ),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "a=secret%0a",
                "entry 1 has a value that no header can have",
            ),
            (
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "10s",
                "\"10s\" is not a whole number from 1 to 4294967295",
            ),
            (
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "0",
                "\"0\" is not a whole number from 1 to 65536",
            ),
            (
                "OTEL_EXPORTER_OTLP_COMPRESSION",
                "gzip",
                "compression is not supported",
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "a=b,=c",
                "entry 2 is not of the form name=value",
            ),
        ] {
            let wanted = format!("{variable}: {reason}");
            assert_eq!(of(&[(variable, value), ENDPOINT]), Err(wanted));
        }
        let samplers = of(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "xray")]).unwrap_err();
        assert!(samplers.starts_with("OTEL_TRACES_SAMPLER: \"xray\" is none of always_on"));
        for argument in ["2", "-0.1", "NaN", "half"] {
            let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
            let ratio = of(&[ENDPOINT, sampler, ("OTEL_TRACES_SAMPLER_ARG", argument)]);
            let wanted = "OTEL_TRACES_SAMPLER_ARG: ";
            assert!(ratio.unwrap_err().starts_with(wanted), "{argument}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_utf8_is_named() {
        use std::os::unix::ffi::OsStringExt as _;
        let find = |_: &str| Some(OsString::from_vec(vec![0xff]));
        let error = Environment::of(&find).unwrap_err();
        assert_eq!(
            error.to_string(),
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: it is not UTF-8"
        );
    }
}
