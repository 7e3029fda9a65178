//! Certificates: loaded once, and again when their files change.
//!
//! A change never touches an open connection, and a broken new file leaves the old certificate in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate in use and the files it came from.
pub struct Certificate {
    cert_path: PathBuf,
    key_path: PathBuf,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    cert_pem: Vec<u8>,
    key_pem: Vec<u8>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no usable PEM {what}: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was expected in it.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not make a pair, or are of an unknown kind.
    #[error("certificate {cert} and key {key} cannot be used together: {source}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn load(cert_path: &Path, key_path: &Path) -> Result<Self, CertificateError> {
        let loaded = load(cert_path, key_path)?;
        Ok(Self {
            cert_path: cert_path.to_owned(),
            key_path: key_path.to_owned(),
            current: ArcSwap::from_pointee(loaded),
        })
    }

    /// What the next handshake uses.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// Reads the files again. Answers whether there was anything new.
    ///
    /// # Errors
    /// When they cannot be used; the old certificate stays.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let cert_pem = read(&self.cert_path)?;
        let key_pem = read(&self.key_path)?;
        let current = self.current.load();
        if current.cert_pem == cert_pem && current.key_pem == key_pem {
            return Ok(false);
        }
        self.current.store(Arc::new(parse(&self.cert_path, &self.key_path, cert_pem, key_pem)?));
        Ok(true)
    }
}

fn load(cert_path: &Path, key_path: &Path) -> Result<Loaded, CertificateError> {
    parse(cert_path, key_path, read(cert_path)?, read(key_path)?)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

fn parse(cert_path: &Path, key_path: &Path, cert_pem: Vec<u8>, key_pem: Vec<u8>) -> Result<Loaded, CertificateError> {
    let pem = |path: &Path, what, source| CertificateError::Pem { path: path.to_owned(), what, source };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert_pem)
        .collect::<Result<_, _>>()
        .map_err(|source| pem(cert_path, "certificate", source))?;
    if chain.is_empty() {
        return Err(pem(cert_path, "certificate", rustls::pki_types::pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| pem(key_path, "private key", source))?;
    let pair = |source| CertificateError::Pair { cert: cert_path.to_owned(), key: key_path.to_owned(), source };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients that come back, all at once after a failure, resume without the expensive part of a handshake.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(pair)?;
    config.send_tls13_tickets = 1;
    Ok(Loaded { config: Arc::new(config), cert_pem, key_pem })
}
