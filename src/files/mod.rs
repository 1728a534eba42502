//! Files that are attached to messages: where their bytes are, and the signed addresses under which clients upload and
//! download them. Names, sizes and permissions are in `models` and `messaging`; here a file is an id.

pub mod local;
mod s3;
pub mod signature;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use self::local::Local;
use self::s3::S3;
use crate::clock::{Micros, Timestamp};
use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// The place where attached files are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: messages have no attachments.
    Off,
    /// A directory of this server.
    Local,
    /// An object store with the interface of Amazon S3.
    S3,
}

/// The configuration of attached files.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the files are.
    pub place: Place,
    /// The directory for [`Place::Local`]; below the data directory if absent.
    pub dir: Option<PathBuf>,
    /// The size of the largest file, in bytes.
    pub size_max: u64,
    /// The most bytes of all files of one user.
    pub user_bytes_max: u64,
    /// How long an address for an upload or a download is valid.
    pub address_lifetime: Duration,
    /// How long an upload to this server, or a download from it, may take.
    pub transfer_timeout: Duration,
    /// The address of the object store, as clients reach it.
    pub s3_endpoint: Option<String>,
    /// The address of the object store, as this server reaches it, if it is another one.
    pub s3_internal_endpoint: Option<String>,
    /// The bucket.
    pub s3_bucket: Option<String>,
    /// The region of the bucket.
    pub s3_region: String,
    /// Whether the bucket is a part of the path, rather than of the host name.
    pub s3_path_style: bool,
    /// The id of the access key.
    pub s3_key_id: Option<String>,
    /// The secret of the access key.
    pub s3_secret: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            place: Place::Local,
            dir: None,
            size_max: 25 << 20,
            user_bytes_max: 1 << 30,
            address_lifetime: Duration::from_secs(600),
            transfer_timeout: Duration::from_secs(600),
            s3_endpoint: None,
            s3_internal_endpoint: None,
            s3_bucket: None,
            s3_region: "us-east-1".into(),
            s3_path_style: true,
            s3_key_id: None,
            s3_secret: None,
        }
    }
}

impl Config {
    /// Returns the problems of values with which no file could be attached.
    pub fn problems(&self) -> impl Iterator<Item = &'static str> {
        let is_s3 = self.place == Place::S3;
        let of_web = |address: &Option<String>| {
            address.as_ref().is_none_or(|it| it.starts_with("https://") || it.starts_with("http://"))
        };
        // Neither a user nor a parameter would be sent, and both would be shown.
        let is_bare =
            |address: &Option<String>| address.as_ref().is_none_or(|it| !it.contains(['@', '?', '#']));
        let given = self.s3_endpoint.is_some() && self.s3_bucket.is_some() && self.s3_key_id.is_some();
        let checks = [
            (!is_s3 || given && self.s3_secret.is_some(), S3_INCOMPLETE),
            (of_web(&self.s3_endpoint), "IMKS_S3_ENDPOINT must start with http:// or https://"),
            (
                of_web(&self.s3_internal_endpoint),
                "IMKS_S3_INTERNAL_ENDPOINT must start with http:// or https://",
            ),
            (is_bare(&self.s3_endpoint), S3_CREDENTIALS),
            (is_bare(&self.s3_internal_endpoint), S3_INTERNAL_CREDENTIALS),
            (
                self.size_max > 0,
                "IMKS_ATTACHMENTS_SIZE must be at least 1; IMKS_ATTACHMENTS=off switches attachments off",
            ),
            ((LIFETIME_MIN..=LIFETIME_MAX).contains(&self.address_lifetime), LIFETIME_RULE),
        ];
        checks.into_iter().filter(|(ok, _)| !ok).map(|(_, problem)| problem)
    }
}

/// What is known of a file besides its bytes.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Names its bytes.
    pub id: Uuid,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower case hex digits, if the uploader gave it.
    pub sha256: Option<&'a str>,
    /// Its media type.
    pub mime: &'a str,
    /// The name under which it is saved.
    pub filename: &'a str,
    /// The user who uploads or downloads it.
    pub user: Uuid,
}

/// How to upload a file: one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Upload {
    /// The method.
    pub method: &'static str,
    /// The address; a path is one of this server.
    pub url: String,
    /// The headers that the request must have.
    pub headers: BTreeMap<&'static str, String>,
    /// When the address stops being valid.
    pub expires_at: Timestamp,
}

/// Where to download a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Download {
    /// The address; a path is one of this server. Whoever has it can read the file until it expires.
    pub url: String,
    /// When the address stops being valid.
    pub expires_at: Timestamp,
}

/// The store of attached files. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    store: Store,
    config: Arc<Config>,
}

#[derive(Clone)]
enum Store {
    Off,
    Local(Local),
    S3(Arc<S3>),
}

impl Files {
    /// Opens the store. Creates the directory of a local one.
    ///
    /// # Errors
    /// [`ImksError::Config`] if something is missing, [`ImksError::Io`] if the directory cannot be used.
    pub fn open(config: &Config, data_dir: &Path) -> ImksResult<Self> {
        let directory = || config.dir.clone().unwrap_or_else(|| data_dir.join("attachments"));
        let store = match config.place {
            Place::Off => Store::Off,
            Place::Local => Store::Local(Local::open(directory())?),
            Place::S3 => Store::S3(Arc::new(S3::new(config)?)),
        };
        Ok(Self { store, config: Arc::new(config.clone()) })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the store of this server itself, if it is the one.
    pub fn local(&self) -> Option<&Local> {
        match &self.store {
            Store::Local(local) => Some(local),
            Store::Off | Store::S3(_) => None,
        }
    }

    /// Whether messages can have attachments.
    pub fn is_on(&self) -> bool {
        !matches!(self.store, Store::Off)
    }

    /// Returns the request that uploads a file, and nothing but this file: its size, and its checksum where it is
    /// known, are signed.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] without a store, [`ImksError::Signing`].
    pub fn upload(&self, file: File<'_>, now: Micros) -> ImksResult<Upload> {
        match &self.store {
            Store::Off => Err(NO_STORE),
            Store::Local(local) => local.upload(file, self.expiry(now)),
            Store::S3(s3) => Ok(s3.upload(file, self.config.address_lifetime, now)),
        }
    }

    /// Returns an address that anybody can download a file from, for a short time.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] without a store, [`ImksError::Signing`].
    pub fn download(&self, file: File<'_>, now: Micros) -> ImksResult<Download> {
        match &self.store {
            Store::Off => Err(NO_STORE),
            Store::Local(local) => local.download(file, self.expiry(now)),
            Store::S3(s3) => Ok(s3.download(file, self.config.address_lifetime, now)),
        }
    }

    /// Returns the size of the bytes that were uploaded; `None` if there are none.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`], [`ImksError::Timeout`], [`ImksError::Io`].
    pub async fn size(&self, id: Uuid) -> ImksResult<Option<u64>> {
        match &self.store {
            Store::Off => Err(NO_STORE),
            Store::Local(local) => local.size(id).await,
            Store::S3(s3) => s3.size(id).await,
        }
    }

    /// Removes the bytes of a file, if there are any.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`], [`ImksError::Timeout`], [`ImksError::Io`].
    pub async fn remove(&self, id: Uuid) -> ImksResult<()> {
        match &self.store {
            Store::Off => Err(NO_STORE),
            Store::Local(local) => local.remove(id).await,
            Store::S3(s3) => s3.remove(id).await,
        }
    }

    /// Returns how long after the creation of a file nothing can be uploaded under its address any more, in microseconds.
    pub fn address_closes_after(&self) -> Micros {
        let longest = self.config.address_lifetime.saturating_add(self.config.transfer_timeout);
        i64::try_from(longest.as_micros()).unwrap_or(i64::MAX / 2)
    }

    fn expiry(&self, now: Micros) -> Micros {
        now + i64::try_from(self.config.address_lifetime.as_micros()).unwrap_or(i64::MAX / 2)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Files").field("place", &self.config.place).finish_non_exhaustive()
    }
}

/// Returns how a browser should treat a file: `Content-Type` and `Content-Disposition`. Only pictures, sound and video
/// are shown; everything else is saved, so that no page of an uploader runs under the name of the server.
pub(crate) fn presentation(mime: &str, filename: &str) -> (&'static str, String) {
    let shown = SHOWN.iter().find(|shown| **shown == mime);
    let how = if shown.is_some() { "inline" } else { "attachment" };
    // RFC 6266: a plain name for old clients, and the real one in UTF-8.
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ' ' => character,
        _ => '_',
    };
    let plain: String = filename.chars().map(plain).collect();
    let real = percent_encoding::utf8_percent_encode(filename, percent_encoding::NON_ALPHANUMERIC);
    let disposition = format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{real}");
    (shown.copied().unwrap_or("application/octet-stream"), disposition)
}

const S3_CREDENTIALS: &str = "IMKS_S3_ENDPOINT must have no user, password or parameter: write the key into IMKS_S3_KEY_ID and IMKS_S3_SECRET";
const S3_INTERNAL_CREDENTIALS: &str = "IMKS_S3_INTERNAL_ENDPOINT must have no user, password or parameter: write the key into IMKS_S3_KEY_ID and \
     IMKS_S3_SECRET";
const S3_INCOMPLETE: &str =
    "IMKS_ATTACHMENTS=s3 needs IMKS_S3_ENDPOINT, IMKS_S3_BUCKET, IMKS_S3_KEY_ID and IMKS_S3_SECRET";
const LIFETIME_RULE: &str = "IMKS_ATTACHMENTS_ADDRESS_LIFETIME must be between 1m and 12h, shorter than a file that was not sent is kept";
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// The longest time that an address of a file is valid.
const LIFETIME_MAX: Duration = Duration::from_secs(12 * 3_600);
const NO_STORE: ImksError = ImksError::Unavailable("attachments");
/// The media types that browsers show without running anything in them.
const SHOWN: [&str; 11] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_store_needs_its_address_its_bucket_and_its_key() {
        let problems = |config: Config| config.problems().count();
        assert_eq!(problems(Config::default()), 0);
        let s3 =
            Config { place: Place::S3, s3_endpoint: Some("https://s3.example".into()), ..Config::default() };
        assert_eq!(problems(s3.clone()), 1);
        let s3 = Config {
            s3_bucket: Some("b".into()),
            s3_key_id: Some("k".into()),
            s3_secret: Some("s".into()),
            ..s3
        };
        assert_eq!(problems(s3.clone()), 0);
        assert_eq!(problems(Config { s3_endpoint: Some("s3.example".into()), ..s3.clone() }), 1);
        for address in
            ["https://im:hunter2@s3.example", "https://s3.example?token=hunter2", "https://s3.example/#x"]
        {
            let public = Config { s3_endpoint: Some(address.into()), ..s3.clone() };
            let internal = Config { s3_internal_endpoint: Some(address.into()), ..s3.clone() };
            for config in [public, internal] {
                let told: Vec<_> = config.problems().collect();
                assert!(told.len() == 1 && !told[0].contains("hunter2"), "{told:?}");
            }
        }
    }

    #[test]
    fn a_page_is_saved_and_never_shown_and_a_name_cannot_leave_its_header() {
        let (mime, disposition) = presentation("text/html", "a\"\r\nX: y;ü.html");
        assert_eq!(mime, "application/octet-stream");
        assert_eq!(
            disposition,
            "attachment; filename=\"a___X_ y__.html\"; filename*=UTF-8''a%22%0D%0AX%3A%20y%3B%C3%BC%2Ehtml"
        );
        assert!(presentation("image/svg+xml", "a.svg").1.starts_with("attachment"));
        assert_eq!(presentation("image/png", "a.png").0, "image/png");
    }
}
