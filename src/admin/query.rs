//! The queries of requests: every key is known, stands there once, and has a good value.

use axum::extract::Query;
use http::Uri;

use super::refusal::Refusal;

/// The most rows that an answer has.
pub(super) const MAX_ROWS: usize = 1000;

/// The pairs of a query, each of a key that is `known`.
pub(super) fn pairs(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Refusal> {
    let refused = |why| Err(Refusal::bad_request("BAD_QUERY", why));
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return refused("the query cannot be read".to_owned());
    };
    for (key, _) in &pairs {
        if !known.contains(&&**key) {
            let known = match known {
                [] => "there is none".to_owned(),
                _ => format!("there are {}", known.join(", ")),
            };
            return refused(format!("{key:?} is not a key of this query: {known}"));
        }
    }
    Ok(pairs)
}

/// The same, each key once at most.
pub(super) fn unique(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = pairs(uri, known)?;
    for (at, (key, _)) in pairs.iter().enumerate() {
        if pairs.iter().take(at).any(|(other, _)| other == key) {
            let why = format!("{key} stands in the query more than once");
            return Err(Refusal::bad_request("BAD_QUERY", why));
        }
    }
    Ok(pairs)
}

/// Why a value is refused.
pub(super) fn bad_value(key: &str, value: &str, wanted: &str) -> Refusal {
    let message = format!("{key}: {value:?} is not {wanted}");
    Refusal::bad_request("BAD_QUERY", message)
}

/// A number up to `most`.
pub(super) fn number(key: &str, value: &str, most: usize) -> Result<usize, Refusal> {
    // `parse` would take a sign.
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|n| is_number && *n <= most);
    number.ok_or_else(|| bad_value(key, value, &format!("a number from 0 to {most}")))
}

/// The only key of a query that says how many rows are asked for.
pub(super) fn limit(uri: &Uri) -> Result<usize, Refusal> {
    let pairs = unique(uri, &["limit"])?;
    match pairs.first() {
        Some((key, value)) => number(key, value, MAX_ROWS),
        None => Ok(MAX_ROWS),
    }
}
