//! One value of the configuration: its names, its sentence, and how lists of all of them are made.

use super::setting::Setting;

/// Names and meaning of one value.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name in the file, with dots between levels.
    pub key: &'static str,
    /// Name in the environment. Of a secret, `<env>_FILE` may point to a file that holds it.
    pub env: &'static str,
    /// What it does, in a sentence without a final dot.
    pub help: &'static str,
}

/// Sees every value of a configuration, one after the other.
pub trait Visitor {
    /// Reads or changes one value.
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T);
}

/// One line of a list of all values.
#[derive(Debug, Clone)]
pub struct Row {
    /// Names and meaning.
    pub field: Field,
    /// Whether the value is a secret.
    pub secret: bool,
    /// The value as text, without what is secret; empty if it is not set.
    pub value: String,
}

/// All values of a configuration, without what is secret.
#[derive(Debug, Default)]
pub struct Listing {
    /// The values, in the order of the document.
    pub rows: Vec<Row>,
}

impl Listing {
    /// Lists `config`. Nothing is changed; the reference is mutable because visitors may change.
    pub fn of(config: &mut super::Config) -> Self {
        let mut listing = Self::default();
        super::fields(config, &mut listing);
        listing
    }

    /// Finds a value by its name in the file.
    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.field.key == key)
    }

    /// Writes the table of `docs/operations.md`.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("| variable | key in the file | default | meaning |\n| --- | --- | --- | --- |\n");
        for Row { field, secret, value } in &self.rows {
            let default = if value.is_empty() { "not set".into() } else { format!("`{value}`") };
            let file = if *secret { format!(" or `{}_FILE`", field.env) } else { String::new() };
            text.push_str(&format!(
                "| `{}`{file} | `{}` | {default} | {} |\n",
                field.env, field.key, field.help
            ));
        }
        text
    }
}

impl Visitor for Listing {
    fn field<T: Setting>(&mut self, field: Field, slot: &mut T) {
        self.rows.push(Row { field, secret: T::SECRET, value: slot.show() });
    }
}
