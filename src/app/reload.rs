//! What a running server takes from a configuration that was read again.

use super::App;
use crate::config::{Config, Listing};
use crate::telemetry::logging;
use crate::{ImksError, ImksResult};

impl App {
    /// Takes the values of `config` that can change while the server runs ([`IN_USE`]), reads the certificate again, and
    /// looks at the keys of tokens.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the certificate or the filter of the log cannot be used, an error of the issuer of keys, or
    /// several of them as one; what came before stays in use, and everything else is taken.
    pub async fn reload(&self, config: &Config) -> ImksResult<()> {
        self.gate.reload(&config.control);
        self.engine.cors().set(config.engine.cors.clone());
        let filter = logging::set_filter(&config.log.filter).map_err(ImksError::Config);
        let keys = self.messaging.reload(&config.messaging).await;
        all([self.reload_certificate(), filter, keys])
    }
}

/// Returns all errors as one.
fn all(outcomes: [ImksResult<()>; 3]) -> ImksResult<()> {
    let mut errors: Vec<ImksError> = outcomes.into_iter().filter_map(Result::err).collect();
    match errors.len() {
        0 | 1 => errors.pop().map_or(Ok(()), Err),
        _ => {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(ImksError::Config(texts.join("; ")))
        }
    }
}

/// The values that count at once when a configuration is read again.
pub(crate) const IN_USE: &[&str] = &[
    "log.filter",
    "engine.cors_origins",
    "limits.events",
    "limits.connects",
    "limits.sends",
    "limits.sends_per_channel",
    "limits.sessions_per_user",
    "limits.control_calls",
];

/// What differs between two configurations, by the keys of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Values that count at once.
    pub(crate) in_use: Vec<&'static str>,
    /// Values that count after a restart.
    pub(crate) after_restart: Vec<&'static str>,
}

impl Changes {
    /// Compares the values that are in use with others.
    pub(crate) fn between(used: &Listing, read: &Listing) -> Self {
        let differs = |key: &str, value: &str| used.row(key).is_none_or(|row| row.value != value);
        let changed = read.rows.iter().filter(|row| differs(row.field.key, &row.value));
        let (in_use, after_restart) = changed.map(|row| row.field.key).partition(|key| IN_USE.contains(key));
        Self { in_use, after_restart }
    }

    /// Puts the values that count at once into the values that are in use.
    pub(crate) fn apply(&self, used: &mut Listing, read: &Listing) {
        for row in used.rows.iter_mut().filter(|row| self.in_use.contains(&row.field.key)) {
            if let Some(new) = read.row(row.field.key) {
                row.value.clone_from(&new.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(edit: impl FnOnce(&mut Config)) -> Listing {
        let mut config = Config::default();
        edit(&mut config);
        Listing::of(&mut config)
    }

    #[test]
    fn every_part_that_was_not_reloaded_is_told() {
        let wrong = |text: &str| Err(ImksError::Config(text.into()));
        assert!(all([Ok(()), Ok(()), Ok(())]).is_ok());
        let one = all([Ok(()), Err(ImksError::Timeout("the keys")), Ok(())]);
        assert!(matches!(one, Err(ImksError::Timeout("the keys"))), "{one:?}");
        let told = all([wrong("no certificate"), wrong("no filter"), Ok(())]).unwrap_err().to_string();
        assert!(told.contains("no certificate; ") && told.contains("no filter"), "{told}");
    }

    #[test]
    fn every_value_that_counts_at_once_is_a_value() {
        let all = listing(|_| {});
        assert!(IN_USE.iter().all(|key| all.row(key).is_some()));
    }

    #[test]
    fn what_needs_a_restart_is_told_until_it_was_done() {
        let mut used = listing(|_| {});
        let read = listing(|config| {
            config.messaging.sessions_per_user = 3;
            config.database.data_dir = "/elsewhere".into();
        });
        let changes = Changes::between(&used, &read);
        assert_eq!(changes.in_use, ["limits.sessions_per_user"]);
        assert_eq!(changes.after_restart, ["data_dir"]);
        changes.apply(&mut used, &read);
        let again = Changes::between(&used, &read);
        assert_eq!((again.in_use.len(), again.after_restart), (0, vec!["data_dir"]));
    }
}
