//! Certificates in files, good and bad.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use imks::http::tls::Certificates;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `cert.pem` and `key.pem` in a directory.
pub struct Files {
    pub directory: TempDir,
}

/// A certificate as its DER, and its key as PEM.
pub struct Made {
    pub der: Vec<u8>,
    pub key: String,
}

impl Made {
    /// Valid from `from` to `to`, seen from now.
    pub fn new(from: impl Fn(SystemTime) -> SystemTime, to: impl Fn(SystemTime) -> SystemTime) -> Self {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let now = imks::testing::clock::now_micros();
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now.try_into().unwrap());
        params.not_before = from(now).into();
        params.not_after = to(now).into();
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { der: cert.der().to_vec(), key: pem("PRIVATE KEY", &key.serialize_der()) }
    }

    pub fn good() -> Self {
        Self::new(|now| now - DAY, |now| now + DAY)
    }
}

impl Files {
    pub fn new(made: &Made) -> Self {
        let files = Self { directory: TempDir::new().unwrap() };
        files.write(made);
        files
    }

    pub fn write(&self, made: &Made) {
        std::fs::write(self.cert(), pem("CERTIFICATE", &made.der)).unwrap();
        std::fs::write(self.key(), &made.key).unwrap();
    }

    pub fn cert(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    pub fn open(&self) -> Certificates {
        Certificates::open(self.cert(), self.key()).unwrap()
    }

    pub fn error(&self) -> String {
        Certificates::open(self.cert(), self.key()).unwrap_err().to_string()
    }
}

/// As Kubernetes does it: the files are links into a directory that is itself a link, and that one is exchanged.
pub fn exchange(directory: &Path, name: &str, made: &Made) {
    let version = directory.join(name);
    std::fs::create_dir(&version).unwrap();
    std::fs::write(version.join("cert.pem"), pem("CERTIFICATE", &made.der)).unwrap();
    std::fs::write(version.join("key.pem"), &made.key).unwrap();
    let next = directory.join("..next");
    std::os::unix::fs::symlink(name, &next).unwrap();
    std::fs::rename(next, directory.join("..data")).unwrap();
    for file in ["cert.pem", "key.pem"] {
        let link = directory.join(file);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new("..data").join(file), link).unwrap();
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
