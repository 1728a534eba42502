//! One value of the configuration: its names, its sentence, and how lists of all of them are made.

use super::setting::Setting;

/// Names and meaning of one value.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name in the file, with dots between levels.
    pub key: &'static str,
    /// Name in the environment.
    pub env: &'static str,
    /// Never shown; `<env>_FILE` may point to a file that holds it.
    pub secret: bool,
    /// What it does, in a sentence.
    pub help: &'static str,
}

impl Field {
    /// An ordinary value.
    pub const fn new(key: &'static str, env: &'static str, help: &'static str) -> Self {
        Self { key, env, secret: false, help }
    }

    /// A value that is never shown.
    pub const fn secret(key: &'static str, env: &'static str, help: &'static str) -> Self {
        Self { key, env, secret: true, help }
    }
}

/// Is shown every value of a configuration, one after the other.
pub trait Visitor {
    /// One value: may read it or change it.
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T);
}

/// One line of a list of all values.
#[derive(Debug, Clone)]
pub struct Row {
    /// Name in the file.
    pub key: &'static str,
    /// Name in the environment.
    pub env: &'static str,
    /// Whether the value is hidden.
    pub secret: bool,
    /// What it does.
    pub help: &'static str,
    /// The value as text; secrets are redacted.
    pub value: String,
}

/// All values of a configuration, secrets redacted.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of the document.
    pub rows: Vec<Row>,
}

impl Listing {
    /// Lists `config`. Nothing is changed; the reference is mutable because visitors may change.
    pub fn of(config: &mut super::Config) -> Self {
        let mut listing = Self::default();
        super::fields(config, &mut listing);
        listing
    }

    /// Whether the file may contain this key.
    pub fn has_key(&self, key: &str) -> bool {
        self.rows.iter().any(|row| row.key == key)
    }

    /// The table of `docs/operations.md`.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("| variable | key in the file | default | meaning |\n| --- | --- | --- | --- |\n");
        for row in &self.rows {
            let default = if row.value.is_empty() { "not set".into() } else { format!("`{}`", row.value) };
            let file = if row.secret { format!(" or `{}_FILE`", row.env) } else { String::new() };
            text.push_str(&format!("| `{}`{file} | `{}` | {default} | {} |\n", row.env, row.key, row.help));
        }
        text
    }
}

impl Visitor for Listing {
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
        let shown = slot.show();
        let value = if field.secret { redact(&shown) } else { shown };
        self.rows.push(Row { key: field.key, env: field.env, secret: field.secret, help: field.help, value });
    }
}

/// Hides the password of a URL, and everything of what is no URL.
pub fn redact(secret: &str) -> String {
    if secret.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = secret.split_once("://") else { return "(hidden)".into() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let path = tail.split('?').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{path}")
        }
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            redact("postgres://im:p@ss:word@db:5432/imks?password=x"),
            "postgres://im:***@db:5432/imks"
        );
        assert_eq!(redact("postgres://db/imks?user=a&password=x"), "postgres://db/imks");
        assert_eq!(redact("sqlite://data/imks.db"), "sqlite://data/imks.db");
        assert_eq!(redact("hunter2"), "(hidden)");
        assert_eq!(redact(""), "");
    }
}
