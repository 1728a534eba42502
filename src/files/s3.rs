//! The store in an object store with the interface of Amazon S3: requests are signed here (Signature Version 4), and
//! clients send them. The server itself only asks for sizes and removes objects.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use rusty_s3::actions::S3Action;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use uuid::Uuid;

use super::signature::from_hex;
use super::{Config, Download, File, Upload, presentation};
use crate::clock::{Micros, Timestamp};
use crate::http_client::{HttpClient, Limits};
use crate::{ImksError, ImksResult};

/// A bucket.
pub(super) struct S3 {
    /// The bucket as clients reach it.
    public: Bucket,
    /// The bucket as this server reaches it.
    internal: Bucket,
    credentials: Credentials,
    http: HttpClient,
}

impl S3 {
    pub(super) fn new(config: &Config) -> ImksResult<Self> {
        let endpoint = given(config.s3_endpoint.as_deref(), "IMKS_S3_ENDPOINT")?;
        let internal = config.s3_internal_endpoint.as_deref().unwrap_or(endpoint);
        let secret = config.s3_secret.as_ref().map(|secret| secret.expose());
        let credentials = Credentials::new(
            given(config.s3_key_id.as_deref(), "IMKS_S3_KEY_ID")?,
            given(secret, "IMKS_S3_SECRET")?,
        );
        let http = HttpClient::new()?;
        Ok(Self { public: bucket(config, endpoint)?, internal: bucket(config, internal)?, credentials, http })
    }

    pub(super) fn upload(&self, file: File<'_>, lifetime: Duration, now: Micros) -> Upload {
        let key = file.id.to_string();
        let mut headers = BTreeMap::from([
            ("content-length", file.size.to_string()),
            ("content-type", file.mime.to_owned()),
            // Nothing replaces what is there: what was checked when it was complete is what is served.
            ("if-none-match", "*".to_owned()),
        ]);
        if let Some(checksum) = file.sha256.and_then(from_hex) {
            headers.insert("x-amz-checksum-sha256", STANDARD.encode(checksum));
        }
        let mut action = self.public.put_object(Some(&self.credentials), &key);
        for (name, value) in &headers {
            action.headers_mut().insert(*name, value.clone());
        }
        let url = action.sign(lifetime).to_string();
        Upload { method: "PUT", url, headers, expires_at: expiry(lifetime, now) }
    }

    pub(super) fn download(&self, file: File<'_>, lifetime: Duration, now: Micros) -> Download {
        let key = file.id.to_string();
        let (mime, disposition) = presentation(file.mime, file.filename);
        let mut action = self.public.get_object(Some(&self.credentials), &key);
        action.query_mut().insert("response-content-disposition", disposition);
        action.query_mut().insert("response-content-type", mime);
        Download { url: action.sign(lifetime).to_string(), expires_at: expiry(lifetime, now) }
    }

    pub(super) async fn size(&self, id: Uuid) -> ImksResult<Option<u64>> {
        let key = id.to_string();
        let url = self.internal.head_object(Some(&self.credentials), &key).sign(OWN_LIFETIME);
        let answer = self.send(Method::HEAD, url.as_str()).await?;
        let length = answer
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK if length.is_some() => Ok(length),
            status => Err(refused(status)),
        }
    }

    pub(super) async fn remove(&self, id: Uuid) -> ImksResult<()> {
        let key = id.to_string();
        let url = self.internal.delete_object(Some(&self.credentials), &key).sign(OWN_LIFETIME);
        let status = self.send(Method::DELETE, url.as_str()).await?.status();
        if status.is_success() || status == StatusCode::NOT_FOUND { Ok(()) } else { Err(refused(status)) }
    }

    async fn send(&self, method: Method, url: &str) -> ImksResult<Response<Bytes>> {
        let request = Request::builder().method(method).uri(url).body(Full::default());
        let request = request.map_err(|_| ImksError::Internal("an address of the object store is none"))?;
        self.http.send(NAME, request, Limits { deadline: DEADLINE, answer_bytes_max: ANSWER_BYTES_MAX }).await
    }
}

fn given<'a>(value: Option<&'a str>, variable: &str) -> ImksResult<&'a str> {
    value.ok_or_else(|| ImksError::Config(format!("attachments in an object store need {variable}")))
}

fn bucket(config: &Config, endpoint: &str) -> ImksResult<Bucket> {
    let name = given(config.s3_bucket.as_deref(), "IMKS_S3_BUCKET")?.to_owned();
    let style = if config.s3_path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
    let wrong = || {
        ImksError::Config("IMKS_S3_ENDPOINT must be an address, for example https://s3.example.com".into())
    };
    let endpoint = endpoint.parse().map_err(|_| wrong())?;
    Bucket::new(endpoint, style, name, config.s3_region.clone()).map_err(|_| wrong())
}

fn expiry(lifetime: Duration, now: Micros) -> Timestamp {
    Timestamp(now + i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX / 2))
}

fn refused(status: StatusCode) -> ImksError {
    tracing::warn!(%status, "the object store refused a request");
    ImksError::Unavailable(NAME)
}

const NAME: &str = "the object store";
/// How long the signatures of this server's own requests are valid.
const OWN_LIFETIME: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer of the object store to this server, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
