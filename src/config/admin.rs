//! Settings of the Admin UI: it is off, and never on without credentials by accident.

use std::path::PathBuf;

use super::setting::words;
use crate::secret::Secret;
use crate::socket::admin::{self, Mode};

/// Whether and how the stock Admin UI is served.
#[derive(Clone)]
pub struct Admin {
    /// Whether it is served at all.
    pub enabled: bool,
    /// How people prove who they are.
    pub auth: AdminAuth,
    /// Name of the operator.
    pub username: Option<String>,
    /// bcrypt hash of the operator's password.
    pub password_hash: Option<Secret>,
    /// How much is shown.
    pub mode: Mode,
    /// Whether operators can only watch.
    pub read_only: bool,
    /// Path of its namespace.
    pub namespace: String,
    /// Name of this server in the page.
    pub server_id: Option<String>,
    /// Files of the page, served under `/admin/`.
    pub ui_dir: Option<PathBuf>,
}

/// How people prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAuth {
    /// With a name and a password.
    Basic,
    /// Not at all: whoever reaches the server is let in.
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
    /// Returns what the server is told; nothing while the Admin UI is off.
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

    /// Lists what cannot work, each in a sentence that says what to change.
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
