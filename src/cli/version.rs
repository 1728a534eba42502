//! `imks version`.

use crate::ImksResult;

/// Prints the name and version of the program.
pub(super) fn run() -> ImksResult<()> {
    super::say(concat!("imks ", env!("CARGO_PKG_VERSION")))
}
