//! Whether a server's listeners are open to more than may be meant.

use super::{Address, Config, ConfigError, Setting};

/// What protects a server's listeners, beside where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// TCP connections are encrypted.
    pub has_tls: bool,
    /// Peers have to show a certificate that a CA of ours has signed.
    pub has_client_ca: bool,
    /// An access file, or an authenticator, says who may do what.
    pub has_access: bool,
}

impl Protection {
    /// What the settings say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Protection {
            has_tls: config.tls_cert.is_some(),
            has_client_ca: config.tls_client_ca.is_some(),
            has_access: config.access.is_some(),
        }
    }
}

/// Refuses listeners that others than this machine reach, and that do not keep them out.
///
/// A TCP listener on loopback and a Unix socket pass. Any other needs encryption, or
/// `allow_plaintext`; and somebody who says who calls, or `allow_anonymous`. A host name
/// counts as being on loopback if it is `localhost`: what others resolve to may change.
///
/// # Errors
///
/// The first listener that is open, and the setting that would permit it.
pub fn check_exposure(config: &Config, protection: Protection) -> Result<(), ConfigError> {
    match exposures(config, protection).into_iter().next() {
        Some(exposed) => Err(exposed),
        None => Ok(()),
    }
}

/// All that [`check_exposure`] refuses.
#[must_use]
pub fn exposures(config: &Config, protection: Protection) -> Vec<ConfigError> {
    let listeners = [
        (Setting::Listen, Some(&config.listen)),
        (Setting::PublishListen, Some(&config.publish_listen)),
        (Setting::AdminListen, config.admin_listen.as_ref()),
    ];
    let mut exposures = Vec::new();
    for (setting, address) in listeners {
        let Some(address) = address.filter(|address| !address.is_local()) else {
            continue;
        };
        if !protection.has_tls && !config.allow_plaintext {
            let reason = format!(
                "{address} is not on loopback and has no TLS: everybody on the way can read and \
                 change what is sent; allow_plaintext permits it"
            );
            exposures.push(ConfigError::new(setting, reason));
        }
        // At the admin listener certificates are not required.
        let has_client_ca = protection.has_client_ca && setting != Setting::AdminListen;
        let knows_peers = has_client_ca || protection.has_access;
        if !knows_peers && !config.allow_anonymous {
            let reason = format!(
                "{address} is not on loopback, and there is neither an access file nor a client \
                 CA: everybody who reaches it may use it; allow_anonymous permits it"
            );
            exposures.push(ConfigError::new(setting, reason));
        }
    }
    exposures
}

impl Address {
    /// Whether only this machine reaches it, as far as its text says.
    fn is_local(&self) -> bool {
        let Address::Tcp(text) = self else {
            return true;
        };
        let host = text.rsplit_once(':').map_or(&**text, |(host, _)| host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<std::net::IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn on(text: &str) -> Config {
        Config {
            listen: address(text),
            ..Config::default()
        }
    }

    fn refused(config: &Config, protection: Protection) -> Option<String> {
        check_exposure(config, protection)
            .err()
            .map(|error| error.to_string())
    }

    const NONE: Protection = Protection {
        has_tls: false,
        has_client_ca: false,
        has_access: false,
    };

    #[test]
    fn what_only_this_machine_reaches_needs_no_protection() {
        for local in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "localhost:1",
            "LOCALHOST:1",
            "unix:/run/gateways.sock",
        ] {
            assert_eq!(refused(&on(local), NONE), None, "{local}");
        }
    }

    #[test]
    fn whatever_else_is_refused_and_the_settings_are_named() {
        for open in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.7:1",
            "[2001:db8::1]:1",
            "[::ffff:10.0.0.7]:1",
            // The system takes these for addresses.
            "0:1",
            "127.1:1",
            "localhost.example:1",
            "gateways.example:1",
        ] {
            let line = refused(&on(open), NONE).expect(open);
            assert!(line.starts_with(&format!("listen: {open} ")), "{line}");
            assert!(line.contains("allow_plaintext"), "{line}");
        }
        let publishers = Config {
            publish_listen: address("0.0.0.0:1"),
            ..Config::default()
        };
        let line = refused(&publishers, NONE).unwrap();
        assert!(line.starts_with("publish_listen: "), "{line}");
    }

    #[test]
    fn encryption_and_peers_that_are_known_are_needed_both() {
        for has_tls in [false, true] {
            for has_client_ca in [false, true] {
                for has_access in [false, true] {
                    for allow_plaintext in [false, true] {
                        for allow_anonymous in [false, true] {
                            let config = Config {
                                allow_plaintext,
                                allow_anonymous,
                                ..on("0.0.0.0:1")
                            };
                            let protection = Protection {
                                has_tls,
                                has_client_ca,
                                has_access,
                            };
                            let is_private = has_tls || allow_plaintext;
                            let is_known = has_client_ca || has_access || allow_anonymous;
                            let line = refused(&config, protection);
                            assert_eq!(line.is_none(), is_private && is_known, "{protection:?}");
                            if let Some(line) = line {
                                let missing = if is_private {
                                    "allow_anonymous"
                                } else {
                                    "allow_plaintext"
                                };
                                assert!(line.contains(missing), "{line}");
                            }
                        }
                    }
                }
            }
        }
    }
}
