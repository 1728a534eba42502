//! A type for secret text that does not reveal the secret when printed.

use std::fmt;
use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use uuid::Uuid;

use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// A password, a hash, or a URL that may contain credentials. `Debug` and `Display` omit the secret parts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret text. It must not appear in a log, an error or a page.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Returns a name for a user that nobody can relate to the user without the key: the first 16 bytes of HMAC-SHA-256
/// (RFC 2104) of the user id.
///
/// # Errors
/// [`ImksError::Signing`].
pub fn pseudonym(key: Uuid, user: Uuid) -> ImksResult<Uuid> {
    let digest = digest(key.as_bytes(), user.as_bytes())?;
    digest.first_chunk().map(|bytes| Uuid::from_bytes(*bytes)).ok_or(ImksError::Internal("a short digest"))
}

/// Returns HMAC-SHA-256 (RFC 2104) of `bytes`, which says nothing about them to whoever does not have the key.
///
/// # Errors
/// [`ImksError::Signing`].
pub fn digest(key: &[u8], bytes: &[u8]) -> ImksResult<[u8; 32]> {
    let signed = sign(bytes, &EncodingKey::from_secret(key), Algorithm::HS256);
    // The digest comes as base64url.
    let text = signed.map_err(|error| ImksError::Signing(Cause::new(error)))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| ImksError::Signing(Cause::new(error)))?;
    bytes.try_into().map_err(|_| ImksError::Internal("a digest of another length"))
}

/// Returns the SHA-256 hash of some bytes.
///
/// # Errors
/// [`ImksError::Internal`] if the TLS library does not have it.
pub fn sha256(bytes: &[u8]) -> ImksResult<[u8; 32]> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or(ImksError::Internal("no SHA-256"))?;
    let hash = suite.common.hash_provider.hash(bytes);
    hash.as_ref().try_into().map_err(|_| ImksError::Internal("a hash of another length"))
}

/// Whether two texts are the same, in a time that does not depend on where they differ.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    one.len() == other.len() && differences == 0
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// Returns the scheme, host, port and path of a URL, or of several that begin with the same scheme and are separated by
/// commas, and hides any other text completely.
fn redact(text: &str) -> String {
    let all = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => {
            let next = format!(",{scheme}://");
            let each: Option<Vec<_>> =
                rest.split(&next).map(|rest| shown(&format!("{scheme}://{rest}"))).collect();
            each.map(|each| each.join(","))
        }
        _ => shown(text),
    };
    all.unwrap_or_else(|| HIDDEN.into())
}

/// Returns the part of a text that may be shown, or `None` if all of it must be hidden.
///
/// If the credentials of a URL contain reserved characters (`/`, `?`, `#`, `@`), their end is ambiguous. So
/// only the text after the last `@` of the whole URL is shown, and nothing if that `@` may be part of a
/// parameter.
fn shown(text: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.split('?').next().unwrap_or_default();
        return (!path.contains('@')).then(|| format!("sqlite:{path}"));
    }
    let (scheme, rest) = text.split_once("://")?;
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, _)) if credentials.contains(['?', '#']) => return None,
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let address = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) =
        address.split_once('/').map_or((address, ""), |(authority, path)| (authority, path));
    let slash = if address.contains('/') { "/" } else { "" };
    let is_shown = is_scheme(scheme) && is_authority(authority) && is_path(path);
    is_shown.then(|| format!("{scheme}://{credentials}{authority}{slash}{path}"))
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a text is a list of hosts or bracketed IPv6 addresses, each with an optional port. Text after a
/// colon that is not a port is refused, because it may be a password.
fn is_authority(text: &str) -> bool {
    text.split(',').all(|host| {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("", port),
            Some(_) => return false,
            None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
        };
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_name && (port.is_empty() || port.strip_prefix(':').is_some_and(|it| it.parse::<u16>().is_ok()))
    })
}

/// Whether a text consists only of characters that occur in database names and simple paths, so that it
/// cannot contain parameters.
fn is_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte))
}

const HIDDEN: &str = "(hidden)";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_is_that_of_the_standard_and_secrets_are_compared_in_whole() {
        let hash = sha256(b"abc").unwrap();
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf], "FIPS 180-2, appendix B.1");
        assert!(is_same(&hash, &sha256(b"abc").unwrap()) && !is_same(&hash, &sha256(b"abd").unwrap()));
        assert!(!is_same(&hash, &hash[..31]) && is_same(b"", b""));
    }

    #[test]
    fn of_a_url_the_credentials_and_parameters_are_hidden() {
        for (url, shown) in [
            ("postgres://im:hunter2@db:5432/imks?password=x", "postgres://***@db:5432/imks"),
            ("postgres://im:p@ss:word@db/imks", "postgres://***@db/imks"),
            ("postgres://im:hun/ter2@db/imks", "postgres://***@db/imks"),
            ("postgres://db/imks?user=a&password=x", "postgres://db/imks"),
            ("postgres://db/imks?user=a&password=x@y", HIDDEN),
            ("postgres://im:hun?ter2@db/imks", HIDDEN),
            ("postgres://im:hunter2", HIDDEN),
            ("postgres://a:1,b:2/imks", "postgres://a:1,b:2/imks"),
            ("http://user:secret@core:9000", "http://***@core:9000"),
            (
                "nats://im:hunter2@one:4222,nats://two,nats://t0ken@three",
                "nats://***@one:4222,nats://two,nats://***@three",
            ),
            ("nats://im:hunter2@one,im:hunter2@two", "nats://***@two"),
            ("nats://one,nats://im:hunter2", HIDDEN),
            ("https://[::1]:9000/path", "https://[::1]:9000/path"),
            ("sqlite://data/imks.db", "sqlite://data/imks.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("$2b$12$abcdefghijklmnopqrstuv", HIDDEN),
            ("hunter2", HIDDEN),
            ("", HIDDEN),
        ] {
            assert_eq!(redact(url), shown, "{url}");
        }
    }

    proptest! {
        /// The characters of the password occur nowhere else in the URL, so that any leaked part is detected.
        #[test]
        fn no_part_of_a_password_is_shown(
            password in r"[\u{e0}-\u{ff}/?#@:&=%\[\],.]{1,24}",
            template in prop::sample::select(vec![
                "postgres://im:PASSWORD@db/imks",
                "postgres://im:PASSWORD@db:5432/imks?sslmode=require",
                "postgresql://PASSWORD@db",
                "postgres://db/imks?password=PASSWORD",
                "postgres://db/imks?user=im&password=PASSWORD&sslmode=require",
                "postgres://im:PASSWORD@/imks?host=/run/postgresql",
                "http://user:PASSWORD@core:9000",
                "https://PASSWORD:x@core/path",
                "PASSWORD",
                "key=PASSWORD",
            ]),
        ) {
            let secret = Secret::from(template.replace("PASSWORD", &password));
            for shown in [secret.to_string(), format!("{secret:?}")] {
                let leaked = shown.chars().any(|it| ('\u{e0}'..='\u{ff}').contains(&it));
                prop_assert!(!leaked, "{shown} of {}", secret.expose());
            }
        }
    }
}
