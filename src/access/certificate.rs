//! A client's certificate, as far as it says who the client is.

use std::time::SystemTime;

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What a certificate says of its holder. Whether a trusted CA has signed it was checked when
/// the connection began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// The URIs among its subject alternative names, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// The DNS names among them.
    pub dns_names: Vec<String>,
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
}

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub struct CertificateError(String);

impl ClientCertificate {
    /// What a certificate says that somebody else has read.
    #[must_use]
    pub fn new(
        uris: Vec<String>,
        dns_names: Vec<String>,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Self {
        ClientCertificate {
            uris,
            dns_names,
            not_before,
            not_after,
        }
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] where it is none (X.509, RFC 5280), or its names cannot be read.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let refused = |error: &dyn std::fmt::Display| CertificateError(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| refused(&error))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| refused(&error))?;
        let names = names.map(|names| &names.value.general_names[..]);
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        for name in names.unwrap_or_default() {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                _ => {}
            }
        }
        let validity = certificate.validity();
        let time = |at: x509_parser::time::ASN1Time| SystemTime::from(at.to_datetime());
        Ok(ClientCertificate {
            uris,
            dns_names,
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;

    #[test]
    fn names_and_dates_are_read() {
        let mut params = CertificateParams::new(["gw-1.example".to_owned()]).expect("a name");
        for uri in ["spiffe://galaxy/gateway/gw-1", "https://example/"] {
            let uri = uri.try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.not_before = date_time_ymd(2001, 9, 9);
        params.not_after = date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("a certificate");
        let read = ClientCertificate::parse(der.der()).expect("it is one");
        assert_eq!(read.dns_names, ["gw-1.example"]);
        assert_eq!(
            read.uris,
            ["spiffe://galaxy/gateway/gw-1", "https://example/"]
        );
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(read.not_before, at(999_993_600));
        assert_eq!(read.not_after, at(4_102_444_800));
        for cut in [0, 1, 10, der.der().len() - 1] {
            assert!(
                ClientCertificate::parse(&der.der()[..cut]).is_err(),
                "{cut}"
            );
        }
    }
}
