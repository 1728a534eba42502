//! `imks certificate`: makes a certificate for development, with an authority of its own that can be trusted for it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::ServerName;

use crate::clock::{Micros, now_micros, rfc3339};
use crate::{ImksError, ImksResult};

/// Options of `imks certificate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the files go: ca.pem, cert.pem and key.pem
    #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
    dir: PathBuf,
    /// A name or address of the server; may be given several times
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// How many days it is good
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

/// Makes an authority and a certificate of it. The key of the authority is forgotten, so it can never sign another one.
///
/// # Errors
/// [`ImksError::Config`] for a name that is invalid in a certificate, or a file that is there already; [`ImksError::Io`].
pub(super) fn run(args: &Args) -> ImksResult<()> {
    if let Some(name) = args.names.iter().find(|name| !is_name(name)) {
        let text = format!(
            "{name:?} is no name or address of a server: write it as chat.example, *.chat.example or 192.0.2.7"
        );
        return Err(ImksError::Config(text));
    }
    let (now, names) = (now_micros(), args.names.join(", "));
    let until = now.saturating_add(i64::from(args.days) * DAY_MICROS);
    let made = Made::new(&args.names, now, until).map_err(|error| ImksError::Config(error.to_string()))?;
    let files = [
        (
            "ca.pem",
            &made.authority,
            0o644,
            "to trust: --ca, SSL_CERT_FILE, NODE_EXTRA_CA_CERTS, a browser".into(),
        ),
        (
            "cert.pem",
            &made.certificate,
            0o644,
            format!("IMKS_TLS_CERT, for {names}, until {}", rfc3339(until)),
        ),
        ("key.pem", &made.key, 0o600, "IMKS_TLS_KEY".into()),
    ]
    .map(|(name, text, mode, what)| (args.dir.join(name), text, mode, what));
    if let Some((path, ..)) = files.iter().find(|(path, ..)| path.exists()) {
        let text = format!("{} is there already: remove it, or name another --dir", path.display());
        return Err(ImksError::Config(text));
    }
    let made_directory = DirBuilder::new().recursive(true).mode(0o755).create(&args.dir);
    made_directory.map_err(ImksError::io(format!("making {}", args.dir.display())))?;
    for (path, text, mode, what) in files {
        write(&path, text, mode)?;
        super::say(&format!("{}  {what}", path.display()))?;
    }
    Ok(())
}

/// Whether clients can compare a server with this name: a name of the DNS, also for all below it, or an address.
fn is_name(name: &str) -> bool {
    ServerName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok()
}

/// Writes a new file with the rights `mode`.
fn write(path: &Path, text: &str, mode: u32) -> ImksResult<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(ImksError::io(format!("writing {}", path.display())))
}

/// What was made, in PEM.
struct Made {
    authority: String,
    certificate: String,
    key: String,
}

impl Made {
    fn new(names: &[String], now: Micros, until: Micros) -> Result<Self, rcgen::Error> {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let (mut authority, authority_key) =
            (params(Vec::new(), "imks development authority", now, until)?, key()?);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own: Certificate = authority.self_signed(&authority_key)?;
        let (mut server, server_key) = (params(names.to_vec(), "imks development", now, until)?, key()?);
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let signed = server.signed_by(&server_key, &Issuer::new(authority, authority_key))?;
        Ok(Self {
            authority: pem("CERTIFICATE", own.der()),
            certificate: pem("CERTIFICATE", signed.der()),
            key: pem("PRIVATE KEY", &server_key.serialize_der()),
        })
    }
}

fn params(
    names: Vec<String>,
    subject: &str,
    now: Micros,
    until: Micros,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, subject);
    let at = |micros: Micros| UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    params.not_before = (at(now) - CLOCK_SKEW).into();
    params.not_after = at(until).into();
    Ok(params)
}

/// Returns the text form of DER: lines of 64 characters between two marks.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The longest time for which clients accept a certificate, in days.
const DAYS_MAX: i64 = 825;
const DAY_MICROS: Micros = 86_400_000_000;
/// How far clocks of clients may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);
