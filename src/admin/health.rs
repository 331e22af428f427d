//! `/livez` and `/readyz`, as Kubernetes and etcd have them.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};

use super::api::Check;
use super::query;
use super::refusal::Refusal;

/// What of the checks is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    is_verbose: bool,
    excluded: Vec<String>,
}

impl Asked {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let mut asked = Asked::default();
        for (key, value) in query::pairs(uri, &["verbose", "exclude"])? {
            match (&*key, &*value) {
                ("exclude", _) => asked.excluded.push(value),
                (_, "" | "1" | "true") => asked.is_verbose = true,
                (_, "0" | "false") => asked.is_verbose = false,
                _ => return Err(query::bad_value(&key, &value, "true or false")),
            }
        }
        Ok(asked)
    }

    /// 200 where every check that counts is well, else 503.
    pub(super) fn answer(&self, endpoint: &str, checks: &[Check]) -> Response {
        let excludes = |check: &Check| self.excluded.contains(&check.name);
        let is_ok = checks.iter().all(|check| check.ok || excludes(check));
        let mut text = String::new();
        // Writing to a string does not fail.
        for check in checks {
            let name = &check.name;
            let _ = match (check.ok, excludes(check)) {
                (_, true) if self.is_verbose => writeln!(text, "[+]{name} excluded: ok"),
                (true, false) if self.is_verbose => writeln!(text, "[+]{name} ok"),
                (false, false) => writeln!(text, "[-]{name} failed: {}", check.detail),
                _ => Ok(()),
            };
        }
        let is_known = |name: &&String| checks.iter().any(|check| check.name == **name);
        let unknown = self.excluded.iter().filter(|name| !is_known(name));
        if self.is_verbose {
            for name in unknown {
                let _ = writeln!(text, "warn: there is no check {name:?} to exclude");
            }
        }
        match (is_ok, self.is_verbose) {
            (true, false) => text = "ok".to_owned(),
            (true, true) => {
                let _ = writeln!(text, "{endpoint} check passed");
            }
            (false, _) => {
                let _ = writeln!(text, "{endpoint} check failed");
            }
        }
        let status = if is_ok {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, text).into_response()
    }
}
