//! Which host the listener is asked as, and from which page.
//!
//! A website can have a browser send requests to any address, and by a name of its own that
//! it lets point here (DNS rebinding) even read the answers. So a host name counts only where
//! the settings have it, and a browser's request only where it comes from our own page.

use std::net::IpAddr;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, Version, header};

use super::refusal::Refusal;
use crate::config::Address;

/// The names that the listener may be asked as, beside IP addresses and `localhost`.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// The host of the listener's own address.
    own: Option<String>,
    more: ArcSwap<Vec<String>>,
}

impl Hosts {
    /// Those of the listener's address, and more: names, or `*.` and what they end in.
    pub(crate) fn new(listen: Option<&Address>, more: &[String]) -> Self {
        let own = listen.and_then(Address::host);
        let hosts = Hosts {
            own: own.map(str::to_ascii_lowercase),
            more: ArcSwap::default(),
        };
        hosts.set(more);
        hosts
    }

    /// From here on these.
    pub(crate) fn set(&self, more: &[String]) {
        let lower = more.iter().map(|name| name.to_ascii_lowercase());
        self.more.store(std::sync::Arc::new(lower.collect()));
    }

    fn allow(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(&host);
        bare.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || self.own.as_ref() == Some(&host)
            || self
                .more
                .load()
                .iter()
                .any(|name| match name.strip_prefix("*.") {
                    Some(parent) => host
                        .strip_suffix(parent)
                        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                    None => *name == host,
                })
    }

    /// Refuses a request that names another host, or that a browser sends for another site.
    /// `any_host`: it came by a unix socket, to which no name leads. `any_site`: there is
    /// nothing to be had.
    pub(super) fn check(
        &self,
        parts: &Parts,
        any_host: bool,
        any_site: bool,
    ) -> Result<(), Refusal> {
        let asked = match authority(parts) {
            Err(_) if any_host => None,
            other => other?,
        };
        if let Some(asked) = &asked
            && !any_host
            && !self.allow(asked.host())
        {
            let message = format!(
                "the host {:?} is not one of this listener: use an IP address, or name it in \
                 admin_hosts",
                asked.host()
            );
            return Err(Refusal::forbidden("HOST_NOT_ALLOWED", message));
        }
        if any_site || is_same_site(&parts.headers, asked.as_ref()) {
            return Ok(());
        }
        let message = "the request comes from a page of another site";
        Err(Refusal::forbidden("CROSS_SITE", message))
    }
}

/// The host that is asked, with its port.
fn authority(parts: &Parts) -> Result<Option<Authority>, Refusal> {
    let refused = |why: &str| Err(Refusal::bad_request("BAD_HOST", why));
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = match fields
        .next()
        .map(|value| Authority::try_from(value.as_bytes()))
    {
        None => None,
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return refused("the Host header is no host"),
    };
    if fields.next().is_some() {
        return refused("there is more than one Host header");
    }
    let authority = match (parts.uri.authority(), field) {
        (Some(uri), Some(field)) if *uri != field => {
            return refused("the Host header differs from the request's target");
        }
        (Some(uri), _) => Some(uri.clone()),
        (None, field) => field,
    };
    match &authority {
        Some(host) if host.as_str().contains('@') => refused("the Host header has a user in it"),
        // Before HTTP/1.1 there was none; no browser is that old.
        None if parts.version >= Version::HTTP_11 => refused("there is no Host header"),
        _ => Ok(authority),
    }
}

/// Whether no browser sends it for another site, as far as browsers say.
fn is_same_site(fields: &HeaderMap, asked: Option<&Authority>) -> bool {
    let sites = fields.get_all("sec-fetch-site").iter();
    let mut origins = fields.get_all(header::ORIGIN).iter();
    sites
        .map(http::HeaderValue::as_bytes)
        .all(|site| site == b"same-origin" || site == b"none")
        && origins.all(|origin| {
            let origin = Uri::try_from(origin.as_bytes()).ok();
            origin
                .zip(asked)
                .is_some_and(|(origin, asked)| is_origin_of(&origin, asked))
        })
}

/// Whether a page of that origin has come from the host that is asked. What is in front of us
/// may speak TLS where we do not: so the scheme counts for nothing but its port.
fn is_origin_of(origin: &Uri, asked: &Authority) -> bool {
    let default_port = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let port = |of: &Authority| of.port_u16().unwrap_or(default_port);
    origin
        .authority()
        .is_some_and(|of| of.host().eq_ignore_ascii_case(asked.host()) && port(of) == port(asked))
}

/// The status of a path that does not exist.
pub(super) fn not_found() -> Refusal {
    let message = "there is nothing at this path";
    Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, more: &[&str]) -> Hosts {
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        Hosts::new(Some(&listen.parse().unwrap()), &more)
    }

    fn parts(host: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/").header("host", host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn addresses_localhost_and_names_of_the_settings_are_hosts() {
        let hosts = hosts("Ops.example:50053", &["push.example", "*.Internal.example"]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:1",
            "10.1.2.3:50053",
            "[::1]",
            "[2001:db8::1]:80",
            "localhost",
            "LOCALHOST:9",
            "localhost.:9",
            "ops.example",
            "OPS.EXAMPLE.:1",
            "push.example:7",
            "a.internal.example",
            "b.a.internal.example:1",
        ] {
            assert!(
                hosts.check(&parts(host, &[]), false, false).is_ok(),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "2130706433",
            "0x7f.1",
            "127.1",
            "internal.example",
            ".internal.example",
            "evilinternal.example",
            "a.push.example",
            "xops.example",
            "user@127.0.0.1",
            "127.0.0.1, evil",
            "",
        ] {
            let mut request = parts("localhost", &[]);
            let value = http::HeaderValue::from_str(host).unwrap();
            request.headers.insert("host", value);
            assert!(hosts.check(&request, false, true).is_err(), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused_however_the_browser_says_so() {
        let hosts = hosts("127.0.0.1:1", &["ops.example"]);
        let check = |host, fields: &[_]| hosts.check(&parts(host, fields), false, false).is_ok();
        for fields in [
            &[("origin", "http://ops.example:9")][..],
            &[
                ("origin", "http://OPS.example:9"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(check("ops.example:9", fields), "{fields:?}");
        }
        assert!(check("ops.example", &[("origin", "https://ops.example")]));
        assert!(check(
            "ops.example:443",
            &[("origin", "https://ops.example")]
        ));
        for fields in [
            ("origin", "null"),
            ("origin", "http://evil.example"),
            ("origin", "http://ops.example"),
            ("origin", "http://ops.example:10"),
            ("origin", "ops.example:9"),
            ("origin", "file://ops.example:9"),
            ("origin", ""),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "Same-Origin"),
        ] {
            assert!(!check("ops.example:9", &[fields]), "{fields:?}");
        }
    }
}
