//! What `imks top` asks a server: its sessions, and why others were closed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;

use super::table::{Sample, Session};
use crate::cli::terminal::{Trust, without_secrets};
use crate::http_client::{HttpClient, Limits};
use crate::{ImksError, ImksResult};

/// A server that is asked again and again.
pub(super) struct Server {
    client: HttpClient,
    sessions: String,
    metrics: String,
    key: String,
}

impl Server {
    /// Creates a client for the control surface of the server at an address, and sends nothing yet.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the address cannot be read, or there are no certificates to trust.
    pub(super) fn new(url: &str, key: &str, trust: &Trust) -> ImksResult<Self> {
        let url = url.trim_end_matches('/');
        let base = url.strip_suffix(crate::contract::BACK_ENDS_PREFIX).unwrap_or(url);
        let is_http = base.starts_with("http://") || base.starts_with("https://");
        if !is_http || !base.parse::<Uri>().is_ok_and(|uri| has_no_user(&uri)) {
            return Err(ImksError::Config(format!(
                "the address {:?} must begin with http:// or https://, and have a host and no user",
                without_secrets(url)
            )));
        }
        Ok(Self {
            client: HttpClient::trusting((*trust.config()?).clone()),
            sessions: format!("{base}{}/sessions", crate::contract::BACK_ENDS_PREFIX),
            metrics: format!("{base}/metrics"),
            key: key.trim().to_owned(),
        })
    }

    /// Asks who is connected, and how many sessions were closed for which reason, where the server tells that.
    ///
    /// # Errors
    /// [`ImksError::Io`] or [`ImksError::Timeout`] without an answer, [`ImksError::Config`] for a refusal.
    pub(super) async fn sample(&self) -> ImksResult<Sample> {
        let (status, body) = self.get(&self.sessions).await?;
        if status != StatusCode::OK {
            return Err(refusal(status, &body));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| ImksError::Config("this is no imks server: the answer has no sessions".into()))?;
        let closed = match self.get(&self.metrics).await {
            Ok((StatusCode::OK, body)) => Some(reasons(&String::from_utf8_lossy(&body))),
            // With a listener of their own, metrics are there.
            _ => None,
        };
        Ok(Sample { sessions: answer.data.sessions, closed })
    }

    async fn get(&self, url: &str) -> ImksResult<(StatusCode, Bytes)> {
        let request = Request::get(url)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .body(Full::new(Bytes::new()))
            .map_err(|_| ImksError::Config("the key has characters that no key has".into()))?;
        let asked =
            self.client.ask("no answer from the server; `imks doctor` finds out why", request, LIMITS);
        let answer = Box::pin(asked).await?;
        Ok((answer.status(), answer.into_body()))
    }
}

/// Whether a text can be sent as a key.
pub(super) fn is_key(text: &str) -> bool {
    let key = text.trim();
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
}

fn has_no_user(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

#[derive(Deserialize)]
struct Answer {
    data: Sessions,
}

#[derive(Deserialize)]
struct Sessions {
    #[serde(default)]
    sessions: Vec<Session>,
}

fn refusal(status: StatusCode, body: &[u8]) -> ImksError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = answer["error"]["code"].as_str().unwrap_or("no code");
    let advice = match status.as_u16() {
        401 => "the key is not accepted: imks key add NAME --scope read makes one",
        403 => "the key lacks the scope read",
        404 => "the API for back ends is not at this address: with IMKS_INTERNAL_LISTEN it is there",
        429 => "too many calls: raise --interval",
        _ => "look into the log of the server",
    };
    ImksError::Config(format!(
        "HTTP {} {}: {advice}",
        status.as_u16(),
        crate::cli::terminal::text::line(code)
    ))
}

/// Reads the counters of closed sessions by reason, in the text format of Prometheus.
fn reasons(metrics: &str) -> BTreeMap<String, u64> {
    let one = |line: &str| {
        let (reason, count) = line.strip_prefix("imks_sessions_closed_total{reason=\"")?.split_once("\"}")?;
        Some((crate::cli::terminal::text::line(reason), count.trim().parse().ok()?))
    };
    metrics.lines().filter_map(one).take(REASONS_MAX).collect()
}

/// The most reasons that are read: a server has a few.
const REASONS_MAX: usize = 100;
const LIMITS: Limits = Limits { deadline: Duration::from_secs(10), answer_bytes_max: 32 << 20 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_read_from_the_metrics() {
        let text = "# TYPE imks_sessions_closed_total counter\nimks_sessions_closed_total{reason=\"slow\"} 3\n\
                    imks_sessions_closed_total{reason=\"ping_timeout\"} 0\nimks_other{reason=\"x\"} 9\nnonsense\n";
        assert_eq!(reasons(text), BTreeMap::from([("slow".into(), 3), ("ping_timeout".into(), 0)]));
    }

    #[test]
    fn the_address_may_be_that_of_the_server_or_of_its_api() {
        let trust = Trust::read(None).unwrap();
        let server = |url: &str| Server::new(url, "k", &trust).unwrap().sessions;
        assert_eq!(server("http://a:1/"), "http://a:1/api/v1/admin/sessions");
        assert_eq!(server("http://a:1/api/v1/admin"), "http://a:1/api/v1/admin/sessions");
        assert!(matches!(Server::new("a:1", "k", &trust), Err(ImksError::Config(_))));
        let refused = Server::new("http://u:hunter2@a:1", "k", &trust).map(drop).unwrap_err().to_string();
        assert!(refused.contains("no user") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_key_that_no_header_can_have_is_none() {
        assert!(is_key("imks_4f-x\n"));
        assert!(!is_key("ü") && !is_key("two words") && !is_key(" "));
    }
}
