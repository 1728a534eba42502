//! What operators install: the unit of systemd, the package, the chart, the dashboard and alerts, backups and upgrades.

#![cfg(feature = "tools")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests"
)]

#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod client;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "tools/run.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod run;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod server;

#[path = "deploy/backup.rs"]
mod backup;
#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/monitoring.rs"]
mod monitoring;
#[path = "deploy/package.rs"]
mod package;
#[path = "deploy/systemd.rs"]
mod systemd;
#[path = "deploy/tour.rs"]
mod tour;
#[path = "deploy/upgrade.rs"]
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the project.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs a command that must succeed, and returns what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; see `make test`"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}
