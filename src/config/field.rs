//! The names and meaning of a configuration value, and the listing of all values.

use super::bounds;
use super::setting::Setting;

/// The names and meaning of one configuration value.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name in the file, with dots between levels.
    pub key: &'static str,
    /// The name in the environment. For a secret, `<env>_FILE` may name a file that contains it.
    pub env: &'static str,
    /// The meaning, as a sentence without a final dot.
    pub help: &'static str,
    /// What its number or duration may be (`LEAST..MOST`, and `0|` before it where 0 has a meaning); empty without a rule.
    pub bounds: &'static str,
}

/// A visitor of all values of a configuration.
pub trait Visitor {
    /// Visits one value, and may change it.
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T);
}

/// One row of a [`Listing`].
#[derive(Debug, Clone)]
pub struct Row {
    /// The names and meaning of the value.
    pub field: Field,
    /// Whether the value is a secret.
    pub secret: bool,
    /// The value as a text without its secret parts; empty if it is not set.
    pub value: String,
    /// What the value may be, such as `at least 1`, if the table says so.
    pub rule: Option<String>,
}

impl Row {
    /// Returns the meaning of the value with what it may be, as a sentence without a final dot.
    pub fn meaning(&self) -> String {
        let rule = self.rule.as_ref().map(|rule| format!("; {rule}")).unwrap_or_default();
        format!("{}{rule}", self.field.help)
    }
}

/// All values of a configuration, without their secret parts.
#[derive(Debug, Default)]
pub struct Listing {
    /// The values, in the order of the documentation.
    pub rows: Vec<Row>,
}

impl Listing {
    /// Lists the values of `config`, which it does not change. The reference is mutable because other
    /// visitors change values.
    pub fn of(config: &mut super::Config) -> Self {
        let mut listing = Self::default();
        super::fields(config, &mut listing);
        listing
    }

    /// Returns the row with this name in the file.
    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.field.key == key)
    }

    /// Returns the table of variables for `docs/operations.md`.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("| variable | key in the file | default | meaning |\n| --- | --- | --- | --- |\n");
        for row in &self.rows {
            let Row { field, secret, value, .. } = row;
            let default = if value.is_empty() { "not set".into() } else { format!("`{value}`") };
            let file = if *secret { format!(" or `{}_FILE`", field.env) } else { String::new() };
            text.push_str(&format!(
                "| `{}`{file} | `{}` | {default} | {} |\n",
                field.env,
                field.key,
                row.meaning()
            ));
        }
        text
    }
}

impl Visitor for Listing {
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
        self.rows.push(Row {
            field,
            secret: T::SECRET,
            value: slot.show(),
            rule: bounds::rule(field.bounds),
        });
    }
}
