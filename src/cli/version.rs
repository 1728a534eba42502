//! `imks version`.

use crate::ImksResult;

/// Prints name and version.
pub(super) fn run() -> ImksResult<()> {
    super::say(concat!("imks ", env!("CARGO_PKG_VERSION")))
}
