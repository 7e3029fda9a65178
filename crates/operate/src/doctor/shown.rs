//! The certificates that servers and Sentinels show: what is needed to connect to them, and ends like any other.
//!
//! Nothing is said over these connections, so that whoever vouches for the other side does not matter here: a certificate that has ended is
//! to be read as well as one that is right. They are dropped as soon as they have shown it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::read::host_and_port;

/// How long showing may take.
const SHOWN_WITHIN: Duration = Duration::from_millis(1_500);

/// When the first of the certificates that each address shows ends, in seconds since 1970. Who shows none, or none that can be read, is
/// left out: that it cannot be connected to is said elsewhere.
pub(super) async fn look(addresses: &[String]) -> Vec<(String, i64)> {
    let looks = addresses.iter().map(|address| async move {
        let ends = tokio::time::timeout(SHOWN_WITHIN, one(address)).await.ok()??;
        Some((address.clone(), ends))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

async fn one(address: &str) -> Option<i64> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let witness = Arc::new(Witness { provider: provider.clone(), ends: Mutex::new(None) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let (host, _) = host_and_port(address);
    let name = ServerName::try_from(host).ok()?;
    let socket = TcpStream::connect(address).await.ok()?;
    // It has been shown by the time a server asks for one of ours and gets none.
    let _: Result<_, _> = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    *witness.ends.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes note of what is shown, and trusts it no further than that.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    ends: Mutex<Option<i64>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let end = |shown: &CertificateDer<'_>| {
            let (_, certificate) = X509Certificate::from_der(shown).ok()?;
            Some(certificate.validity().not_after.timestamp())
        };
        let first = std::iter::once(end_entity).chain(intermediates).filter_map(end).min();
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = first;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
