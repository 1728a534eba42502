//! `imks check-config`: prints the configuration that the server would use, and tries what it names.

use std::collections::BTreeMap;

use super::check_environment;
use crate::app::INSTRUMENTS;
use crate::config::{Config, Listing};
use crate::telemetry::instrument;
use crate::{ImksError, ImksResult};

/// Options of `imks check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the tables of all settings, with their defaults, and of all metrics
    #[arg(long)]
    pub(super) table: bool,
    /// Check the configuration of `imks core` instead of that of the server
    #[arg(long)]
    pub(super) core: bool,
    /// Check the values alone: no address, directory, file, database, broker or core is tried
    #[arg(long)]
    no_environment: bool,
}

/// Prints every value with its origin, then tries what the configuration names. The values themselves were already
/// checked when they were loaded.
///
/// # Errors
/// [`ImksError::Config`] with everything that does not work.
pub(super) async fn run(
    args: &Args,
    mut config: Config,
    origins: &BTreeMap<String, String>,
) -> ImksResult<()> {
    let rows = Listing::of(&mut config).rows;
    let width = |of: fn(&crate::config::field::Row) -> usize| rows.iter().map(of).max().unwrap_or_default();
    let (names, values) =
        (width(|row| row.field.env.len()), width(|row| row.value.len()).clamp(NOT_SET.len(), VALUE_WIDTH));
    for row in &rows {
        let value = if row.value.is_empty() { NOT_SET } else { &row.value };
        let origin = origins.get(row.field.key).map_or("default", String::as_str);
        super::say(&format!("{:names$}  {value:values$}  {origin}", row.field.env))?;
    }
    if args.no_environment {
        return super::say("The values can work. Nothing that they name was tried.");
    }
    let problems = match args.core {
        true => check_environment::problems_of_core(&config).await,
        false => Box::pin(check_environment::problems(&config)).await,
    };
    for warning in check_environment::warnings(&config, args.core).await {
        super::hint(&format!("warning: {warning}"));
    }
    if problems.is_empty() {
        super::say("The configuration can work.")
    } else {
        Err(ImksError::Config(problems.join("\n")))
    }
}

/// Prints the tables of docs/operations.md.
pub(super) fn table() -> ImksResult<()> {
    super::say(&Listing::of(&mut Config::default()).markdown())?;
    super::say(instrument::markdown(INSTRUMENTS).trim_end())
}

const NOT_SET: &str = "(not set)";
/// The width that longer values exceed rather than move the column of origins of all others.
const VALUE_WIDTH: usize = 32;
