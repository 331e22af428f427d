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
#[error("it cannot be read: {0}")]
pub struct CertificateError(String);

impl ClientCertificate {
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
