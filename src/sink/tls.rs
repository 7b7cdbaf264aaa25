//! TLS from PEM files: what is trusted, and who we are. Verification cannot be switched off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::Error;
use super::target::TlsFiles;

/// Where distributions keep the authorities that they trust: Debian, Red Hat, SUSE.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// What the PEM files held.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Reads the files.
pub(super) fn read(output: &str, files: &TlsFiles) -> Result<Material, Error> {
    let ca = match &files.ca {
        Some(path) => path.clone(),
        None => system_bundle().ok_or_else(|| Error::Setup {
            output: output.to_owned(),
            why: "this system has no bundle of certificate authorities: name one with ?ca="
                .to_owned(),
        })?,
    };
    let roots = certificates(output, &ca)?;
    let identity = match &files.identity {
        None => None,
        Some((cert, key)) => {
            let chain = certificates(output, cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| odd(output, key, format!("no private key in PEM: {error}")))?;
            Some((chain, key_der))
        }
    };
    Ok(Material { roots, identity })
}

fn system_bundle() -> Option<PathBuf> {
    SYSTEM.iter().map(PathBuf::from).find(|path| path.exists())
}

fn certificates(output: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| odd(output, path, format!("no certificates in PEM: {error}")))?;
    if found.is_empty() {
        return Err(odd(output, path, "holds no certificate".to_owned()));
    }
    Ok(found)
}

fn odd(output: &str, path: &Path, why: String) -> Error {
    Error::Secret {
        output: output.to_owned(),
        path: path.to_owned(),
        why,
    }
}

/// The cryptography of all outputs.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A configuration for TLS 1.2 and 1.3.
pub(super) fn client(output: &str, files: &TlsFiles) -> Result<Arc<ClientConfig>, Error> {
    let material = read(output, files)?;
    let setup = |error: rustls::Error| Error::Setup {
        output: output.to_owned(),
        why: format!("TLS: {error}"),
    };
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold one that this library does not understand.
    let (added, _) = roots.add_parsable_certificates(material.roots);
    if added == 0 {
        return Err(Error::Setup {
            output: output.to_owned(),
            why: "TLS: no certificate authority can be used".to_owned(),
        });
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .with_root_certificates(roots);
    let config = match material.identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(setup)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}
