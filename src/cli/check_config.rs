//! `imks check-config`: prints the configuration that the server would use.

use crate::ImksResult;
use crate::app::INSTRUMENTS;
use crate::auth::check_public_keys;
use crate::config::{Config, Listing};
use crate::http::tls::Certificates;
use crate::telemetry::instrument;

/// Options of `imks check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the tables of all settings, with their defaults, and of all metrics
    #[arg(long)]
    pub(super) table: bool,
}

/// Prints every value, and checks the certificate and the file with the keys of tokens. The rest of the
/// configuration was already checked when it was loaded.
pub(super) async fn run(mut config: Config) -> ImksResult<()> {
    let rows = Listing::of(&mut config).rows;
    let width = rows.iter().map(|row| row.field.env.len()).max().unwrap_or_default();
    for row in rows {
        let value = if row.value.is_empty() { "(not set)" } else { &row.value };
        super::say(&format!("{:width$}  {value}", row.field.env))?;
    }
    if let (Some(cert), Some(key)) = (config.tls.cert, config.tls.key) {
        Certificates::open(cert, key)?;
    }
    check_public_keys(&config.login).await?;
    super::say("The configuration can work.")?;
    Ok(())
}

/// Prints the tables of docs/operations.md.
pub(super) fn table() -> ImksResult<()> {
    super::say(&Listing::of(&mut Config::default()).markdown())?;
    super::say(instrument::markdown(INSTRUMENTS).trim_end())
}
