//! `imks version`.

use crate::ImksResult;

/// Prints the name and version of the program.
pub(super) fn run() -> ImksResult<()> {
    super::say(&format!("imks {TEXT}"))
}

/// The version, with the commit and the date where the build was told them (`IMKS_BUILD`).
pub(super) const TEXT: &str = match option_env!("IMKS_BUILD") {
    Some(text) => text,
    None => env!("CARGO_PKG_VERSION"),
};
