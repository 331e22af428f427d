//! A client's certificate, as far as it says who the client is.

use std::sync::atomic::{AtomicU64, Ordering};
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
    /// It, and what leads to its CA, in DER.
    chain: Vec<Vec<u8>>,
    trusted_by: TrustedBy,
}

/// The revision of the CAs that have been asked last. It says nothing about the certificate.
#[derive(Debug, Default)]
struct TrustedBy(AtomicU64);

impl Clone for TrustedBy {
    fn clone(&self) -> Self {
        TrustedBy(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for TrustedBy {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for TrustedBy {}

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read: {0}")]
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
            chain: Vec::new(),
            trusted_by: TrustedBy::default(),
        }
    }

    /// Reads a client's certificate from its chain, of which it is the first. All are DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] where it is none (X.509, RFC 5280), or its names cannot be read.
    pub fn of_chain(chain: &[impl AsRef<[u8]>]) -> Result<Self, CertificateError> {
        let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let mut certificate = ClientCertificate::parse(first)?;
        certificate.chain = chain.iter().map(|der| der.as_ref().to_vec()).collect();
        Ok(certificate)
    }

    /// Reads a certificate in DER, by itself.
    ///
    /// # Errors
    ///
    /// As [`of_chain`](Self::of_chain).
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
            chain: vec![der.to_vec()],
            trusted_by: TrustedBy::default(),
        })
    }

    /// It, and what leads to its CA, as the client has shown them.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The revision of the CAs of which one is known to have signed it.
    pub(crate) fn trusted_by(&self) -> u64 {
        // Relaxed, here and below: a number by itself. Who reads an old one asks again.
        self.trusted_by.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set_trusted_by(&self, revision: u64) {
        self.trusted_by.0.store(revision, Ordering::Relaxed);
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
