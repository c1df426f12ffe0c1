//! A certificate authority for development: one root for all servers of a network on one machine.
//!
//! Its key lies beside the network's other files and protects nothing but that network. Nobody
//! should add its root to a browser or system that is used for anything else.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// File of the root certificate in the authority's directory.
pub const CERT_FILE: &str = "ca.pem";
/// File of the root key, readable by its owner only.
pub const KEY_FILE: &str = "ca.key";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Days that the root holds.
const ROOT_DAYS: u32 = 3_650;
/// Days that a server's certificate holds; some clients refuse more than 825.
const SERVER_DAYS: u32 = 825;
/// Name in the root; the issuer's name in every certificate, so it must not change.
const ROOT_NAME: &str = "Comity development CA";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written; files written before it stay.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Only one of [`CERT_FILE`] and [`KEY_FILE`] is there: a new one would not fit the other.
    #[error("{} has a root without its key or a key without its root", directory.display())]
    Half {
        /// The authority's directory.
        directory: PathBuf,
    },
    /// A key that cannot be read, or a name that no certificate can hold.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate needs a name or an address.
    #[error("a certificate needs at least one name")]
    NoName,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl Issued {
    /// Writes both files; the key's is readable by its owner only.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; the certificate may be written without the key.
    pub fn write(&self, cert: &Path, key: &Path) -> Result<(), Error> {
        write(cert, &self.cert_pem, 0o644)?;
        write(key, &self.key_pem, 0o600)
    }
}

/// The authority: a root certificate and its key.
pub struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority in `directory`, which is made together with a new root if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Half`], or [`Error::Certificate`] for a key that is none.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (cert, key) = (directory.join(CERT_FILE), directory.join(KEY_FILE));
        match (read(&cert)?, read(&key)?) {
            (Some(cert_pem), Some(key_pem)) => {
                let key = KeyPair::from_pem(&key_pem)?;
                // The issuer's part of a certificate is its name and key, and both are known.
                let issuer = Issuer::new(root_params(), key);
                Ok(Self { cert_pem, issuer })
            }
            (None, None) => {
                fs::create_dir_all(directory).map_err(|source| Error::File {
                    path: directory.to_owned(),
                    source,
                })?;
                let key_pair = KeyPair::generate()?;
                let cert_pem = root_params().self_signed(&key_pair)?.pem();
                write(&key, &key_pair.serialize_pem(), 0o600)?;
                write(&cert, &cert_pem, 0o644)?;
                let issuer = Issuer::new(root_params(), key_pair);
                Ok(Self { cert_pem, issuer })
            }
            _ => Err(Error::Half {
                directory: directory.to_owned(),
            }),
        }
    }

    /// The root certificate, as PEM, for clients to trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A new key with a certificate for a server under `names`: DNS names and IP addresses.
    ///
    /// # Errors
    ///
    /// [`Error::NoName`], or [`Error::Certificate`] for a name that no certificate can hold.
    pub fn issue(&self, names: &[&str]) -> Result<Issued, Error> {
        let first = names.first().ok_or(Error::NoName)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name = name(first);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        hold_for(&mut params, SERVER_DAYS);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(ROOT_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    hold_for(&mut params, ROOT_DAYS);
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From yesterday, so that a clock slightly behind takes it, for `days`.
fn hold_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + DAY * days;
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a new file and moves it into place: a mode given to an open call does not change that
/// of a file already there, and a reader never sees half a key.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    written().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

    use super::*;

    fn trusted(root_pem: &str, issued: &Issued, name: &str, at: UnixTime) -> bool {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let cert = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(&cert, &[], &name, &[], at)
            .is_ok()
    }

    #[test]
    fn a_server_is_trusted_under_its_names_and_addresses_only() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let issued = authority
            .issue(&["acme.localhost", "localhost", "127.0.0.1", "::1"])
            .unwrap();
        let now = UnixTime::now();
        for name in ["acme.localhost", "localhost", "127.0.0.1", "::1"] {
            assert!(trusted(authority.cert_pem(), &issued, name, now), "{name}");
        }
        for name in ["globex.localhost", "x.acme.localhost", "127.0.0.2"] {
            assert!(!trusted(authority.cert_pem(), &issued, name, now), "{name}");
        }
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + DAY * 826);
        assert!(!trusted(authority.cert_pem(), &issued, "localhost", later));
        PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    }

    #[test]
    fn an_authority_opened_again_is_the_same_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let again = Authority::open(dir.path()).unwrap();
        assert_eq!(first.cert_pem(), again.cert_pem());
        let issued = again.issue(&["localhost"]).unwrap();
        let now = UnixTime::now();
        assert!(trusted(first.cert_pem(), &issued, "localhost", now));
        let other = Authority::open(&dir.path().join("other")).unwrap();
        assert!(!trusted(other.cert_pem(), &issued, "localhost", now));
    }

    #[test]
    fn keys_are_readable_by_their_owner_only_also_over_an_older_file() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let (cert, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        fs::write(&key, "open to all").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let issued = authority.issue(&["localhost"]).unwrap();
        issued.write(&cert, &key).unwrap();
        for path in [&key, &dir.path().join(KEY_FILE)] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        assert_eq!(fs::read_to_string(&key).unwrap(), issued.key_pem);
    }

    #[test]
    fn half_an_authority_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        assert!(matches!(
            Authority::open(dir.path()),
            Err(Error::Half { .. })
        ));
        assert!(!dir.path().join(KEY_FILE).exists());
    }

    #[test]
    fn a_server_without_a_name_gets_no_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        assert!(matches!(authority.issue(&[]), Err(Error::NoName)));
    }
}
