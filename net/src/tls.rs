//! TLS settings of clients: `tls_config` of Prometheus' configuration, on rustls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use model::{ConfigError, ConfigPath, Secret};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Deserialize;

use crate::error::NetError;

/// `tls_config` as written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawTlsConfig {
    /// CA certificates in PEM.
    pub ca: Option<String>,
    /// File with CA certificates.
    pub ca_file: Option<PathBuf>,
    /// Client certificate in PEM.
    pub cert: Option<String>,
    /// File with the client certificate.
    pub cert_file: Option<PathBuf>,
    /// Client key in PEM.
    pub key: Option<Secret>,
    /// File with the client key.
    pub key_file: Option<PathBuf>,
    /// Name to verify instead of the host's.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Lowest version: `TLS12` or `TLS13`.
    pub min_version: Option<String>,
    /// Highest version.
    pub max_version: Option<String>,
}

/// A valid `tls_config`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    ca: Option<PemSource>,
    cert: Option<(PemSource, PemSource)>,
    /// Name to verify instead of the host's.
    pub server_name: Option<String>,
    insecure_skip_verify: bool,
    tls13_only: bool,
    tls12_only: bool,
}

/// PEM text, here or in a file that may change.
#[derive(Clone, Debug, PartialEq)]
enum PemSource {
    Inline(Secret),
    File(PathBuf),
}

impl PemSource {
    fn read(&self) -> Result<(Vec<u8>, PathBuf), NetError> {
        match self {
            Self::Inline(text) => Ok((text.expose().as_bytes().to_vec(), PathBuf::from("inline"))),
            Self::File(path) => std::fs::read(path)
                .map(|bytes| (bytes, path.clone()))
                .map_err(|error| NetError::File { path: path.clone(), reason: error.to_string() }),
        }
    }
}

impl RawTlsConfig {
    /// Checks the settings; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When two forms of one setting are given, a certificate lacks its key, or a version is not known.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<TlsConfig, ConfigError> {
        let source = |inline: Option<Secret>, file: Option<PathBuf>, refusal: &str| {
            let inline = inline.filter(|text| !text.is_empty());
            let file = file.filter(|file| !file.as_os_str().is_empty());
            match (inline, file) {
                (Some(_), Some(_)) => Err(ConfigError::new(path, refusal)),
                (Some(text), None) => Ok(Some(PemSource::Inline(text))),
                (None, Some(file)) => Ok(Some(PemSource::File(dir.join(file)))),
                (None, None) => Ok(None),
            }
        };
        let refusals = [
            "at most one of ca, ca_file & ca_ref must be configured",
            "at most one of cert, cert_file & cert_ref must be configured",
            "at most one of key and key_file must be configured",
        ];
        let ca = source(self.ca.map(Secret::new), self.ca_file, refusals[0])?;
        let cert = source(self.cert.map(Secret::new), self.cert_file, refusals[1])?;
        let key = source(self.key, self.key_file, refusals[2])?;
        let cert = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConfigError::new(
                    path,
                    "exactly one of key or key_file must be configured when a client certificate is configured",
                ));
            }
            (None, Some(_)) => {
                return Err(ConfigError::new(
                    path,
                    "exactly one of cert or cert_file must be configured when a client key is configured",
                ));
            }
        };
        let version = |text: &Option<String>, key: &str| match text.as_deref() {
            None => Ok(None),
            Some("TLS13") => Ok(Some(13)),
            Some("TLS12") => Ok(Some(12)),
            // Older versions are not spoken at all; as a lower bound they are harmless.
            Some("TLS11" | "TLS10") if key == "min_version" => Ok(Some(12)),
            Some(old @ ("TLS11" | "TLS10")) => {
                let text = format!("only TLS 1.2 and 1.3 are spoken here, not {old}");
                Err(ConfigError::new(&path.key(key), text))
            }
            Some(other) => Err(ConfigError::new(&path.key(key), format!("unknown TLS version: {other}"))),
        };
        let min = version(&self.min_version, "min_version")?;
        let max = version(&self.max_version, "max_version")?;
        if let (Some(min), Some(max)) = (min, max)
            && max < min
        {
            return Err(ConfigError::new(
                path,
                "tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified",
            ));
        }
        Ok(TlsConfig {
            ca,
            cert,
            server_name: self.server_name.filter(|name| !name.is_empty()),
            insecure_skip_verify: self.insecure_skip_verify,
            tls13_only: min == Some(13),
            tls12_only: max == Some(12),
        })
    }
}

impl TlsConfig {
    /// Files whose change makes [`TlsConfig::client_config`] give something else.
    pub fn files(&self) -> Vec<&Path> {
        let sources = self.ca.iter().chain(self.cert.iter().flat_map(|(cert, key)| [cert, key]));
        sources
            .filter_map(|source| match source {
                PemSource::File(path) => Some(path.as_path()),
                PemSource::Inline(_) => None,
            })
            .collect()
    }

    /// What tells a file from what it was before.
    pub(crate) fn stamps(&self) -> Vec<FileStamp> {
        self.files().into_iter().map(FileStamp::of).collect()
    }

    /// Reads the files and makes rustls' settings, without ALPN.
    ///
    /// # Errors
    /// When a file cannot be read, holds no PEM of the right kind, or certificate and key do not fit.
    pub fn client_config(&self) -> Result<ClientConfig, NetError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[&rustls::SupportedProtocolVersion] = if self.tls13_only {
            &[&rustls::version::TLS13]
        } else if self.tls12_only {
            &[&rustls::version::TLS12]
        } else {
            rustls::ALL_VERSIONS
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| NetError::Tls(error.to_string()))?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny { provider }))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match &self.cert {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let (pem, path) = cert.read()?;
                let chain = certificates(&pem, &path)?;
                let (pem, path) = key.read()?;
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| NetError::File { path, reason: "holds no private key in PEM".to_owned() })?;
                builder.with_client_auth_cert(chain, key).map_err(|error| NetError::Tls(error.to_string()))
            }
        }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, NetError> {
        // Reading hundreds of certificates for each of hundreds of clients takes long; as in Go, once must do.
        static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
        let Some(ca) = &self.ca else { return Ok(Arc::clone(SYSTEM.get_or_init(system_roots))) };
        let (pem, path) = ca.read()?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&pem, &path)? {
            roots
                .add(certificate)
                .map_err(|error| NetError::File { path: path.clone(), reason: error.to_string() })?;
        }
        Ok(Arc::new(roots))
    }
}

fn system_roots() -> Arc<RootCertStore> {
    // A machine without certificates can still speak plain HTTP; TLS handshakes then fail with "unknown issuer".
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "loaded the system's certificates");
    Arc::new(roots)
}

/// Time of change, length, and which file it is: another one under the same name may have the same time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileStamp(Option<(SystemTime, u64, u64)>);

impl FileStamp {
    fn of(path: &Path) -> Self {
        let Ok(meta) = std::fs::metadata(path) else { return Self(None) };
        let Ok(modified) = meta.modified() else { return Self(None) };
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&meta);
        #[cfg(not(unix))]
        let number = 0;
        Self(Some((modified, meta.len(), number)))
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| NetError::File { path: path.to_owned(), reason: error.to_string() })?;
    if certificates.is_empty() {
        return Err(NetError::File {
            path: path.to_owned(),
            reason: "holds no certificate in PEM".to_owned(),
        });
    }
    Ok(certificates)
}

/// `insecure_skip_verify`: the user asked for it by name.
#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
