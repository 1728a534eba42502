//! TLS of a listener for programs, whose callers may have to show a certificate. Files that change are read again.

use std::path::Path;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ImksResult;
use crate::background;
use crate::http::tls::{Callers, Certificates, Config, Tls};

/// The certificate of a listener, and the check of those of its callers.
#[derive(Debug)]
pub struct MutualTls {
    certificates: Certificates,
    config: Config,
    callers: Callers,
    protocols: &'static [&'static str],
    tls: Tls,
    /// When the file with the CA of callers was last changed.
    ca_changed_at: Option<SystemTime>,
}

impl MutualTls {
    /// Reads the files. `protocols` are the names for ALPN.
    ///
    /// # Errors
    /// [`Config`](crate::ImksError::Config) that names the file and its problem.
    pub fn open(
        certificates: Certificates,
        config: Config,
        callers: Callers,
        protocols: &'static [&'static str],
    ) -> ImksResult<Self> {
        let tls = certificates.programs(&config, &callers, protocols)?;
        let ca_changed_at = callers.ca().and_then(changed_at);
        Ok(Self { certificates, config, callers, protocols, tls, ca_changed_at })
    }

    /// Returns the certificate that callers are shown, which can be read again.
    pub(crate) fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Follows changes of the certificate in a task of `tasks` until `stop`.
    pub fn watch(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let (certificates, reload) = (self.certificates.clone(), self.config.reload);
        let watching = move |stop| certificates.clone().watch(reload, stop);
        tasks.spawn(background::keep("certificates", stop.clone(), watching));
    }

    /// Returns the acceptor for the next connection. Reads the CA of callers again if its file changed.
    pub(crate) fn acceptor(&mut self) -> Tls {
        let changed_at = self.callers.ca().and_then(changed_at);
        if changed_at != self.ca_changed_at {
            self.ca_changed_at = changed_at;
            match self.certificates.programs(&self.config, &self.callers, self.protocols) {
                Ok(tls) => self.tls = tls,
                Err(error) => {
                    tracing::error!(%error, "the CA of callers was not exchanged, the old one stays in use");
                }
            }
        }
        self.tls.clone()
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
