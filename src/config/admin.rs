//! The settings of the Admin UI. It is off by default, and cannot be on without credentials by accident.

use std::path::PathBuf;

use super::setting::words;
use crate::secret::Secret;
use crate::socket::admin::{self, Mode};

/// The settings of the stock Admin UI.
#[derive(Clone)]
pub struct Admin {
    /// Whether the Admin UI is served.
    pub enabled: bool,
    /// The authentication of operators.
    pub auth: AdminAuth,
    /// The name of the operator.
    pub username: Option<String>,
    /// The bcrypt hash of the operator's password.
    pub password_hash: Option<Secret>,
    /// The level of detail that the Admin UI shows.
    pub mode: Mode,
    /// Whether operators can only watch.
    pub read_only: bool,
    /// The path of the Admin UI's namespace.
    pub namespace: String,
    /// The name of this server in the Admin UI.
    pub server_id: Option<String>,
    /// The directory with the files of the page, which is served under `/admin/`.
    pub ui_dir: Option<PathBuf>,
}

/// The authentication of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAuth {
    /// A name and a password are required.
    Basic,
    /// No authentication: anyone who can reach the server may connect.
    None,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: false,
            auth: AdminAuth::Basic,
            username: None,
            password_hash: None,
            mode: Mode::default(),
            read_only: false,
            namespace: admin::NAMESPACE_DEFAULT.into(),
            server_id: None,
            ui_dir: None,
        }
    }
}

impl Admin {
    /// Returns the configuration of the instrumentation; `None` if the Admin UI is off.
    pub fn instrumentation(&self) -> Option<admin::Config> {
        let auth = match (self.auth, &self.username, &self.password_hash) {
            (AdminAuth::None, ..) => admin::Auth::None,
            (AdminAuth::Basic, Some(username), Some(hash)) => {
                admin::Auth::Basic { username: username.clone(), password_hash: hash.expose().to_owned() }
            }
            // Refused by `problems`.
            (AdminAuth::Basic, ..) => return None,
        };
        self.enabled.then(|| admin::Config {
            mode: self.mode,
            read_only: self.read_only,
            namespace: self.namespace.clone(),
            server_id: self.server_id.clone(),
            ..admin::Config::new(auth)
        })
    }

    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub(super) fn problems(&self) -> Vec<String> {
        if !self.enabled {
            return Vec::new();
        }
        let mut problems = Vec::new();
        match (self.auth, &self.username, &self.password_hash) {
            (AdminAuth::None, ..) => {}
            (AdminAuth::Basic, Some(_), Some(hash)) => {
                let wrong = admin::check_hash(hash.expose()).err();
                problems.extend(wrong.map(|why| format!("IMKS_ADMIN_PASSWORD_HASH is not valid: {why}")));
            }
            (AdminAuth::Basic, ..) => problems.push(CREDENTIALS_NEEDED.into()),
        }
        if !self.namespace.starts_with('/') || self.namespace == "/" {
            problems.push("IMKS_ADMIN_NAMESPACE must start with / and be more than that".into());
        }
        problems
    }
}

words!(AdminAuth { "basic" => Basic, "none" => None });
words!(Mode { "production" => Production, "development" => Development });

const CREDENTIALS_NEEDED: &str = "IMKS_ADMIN=true needs IMKS_ADMIN_USERNAME and IMKS_ADMIN_PASSWORD_HASH, or \
     IMKS_ADMIN_AUTH=none if everybody may enter";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_and_without_credentials_it_stays_off() {
        assert!(Admin::default().instrumentation().is_none());
        let careless = Admin { enabled: true, ..Admin::default() };
        assert_eq!(careless.problems(), [CREDENTIALS_NEEDED]);
        assert!(careless.instrumentation().is_none());
        let open = Admin { auth: AdminAuth::None, ..careless };
        assert!(open.problems().is_empty());
        assert_eq!(open.instrumentation().unwrap().auth, admin::Auth::None);
    }

    #[test]
    fn a_password_is_no_hash() {
        let (username, password_hash) = (Some("admin".into()), Some("secret".into()));
        let config = Admin { enabled: true, username, password_hash, ..Admin::default() };
        assert!(config.problems()[0].contains("bcrypt hash"));
    }
}
