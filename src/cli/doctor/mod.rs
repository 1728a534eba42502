//! `imks doctor`: finds out why clients do not reach a server, or a server not its broker or database.

mod advice;
mod broker;
mod database;
mod exchange;
mod http;
mod network;
mod page;
mod quic;
mod report;
mod session;
mod token;
mod url;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use self::report::{Check, Outcome, Report};
use super::terminal::{self, Endings};
use crate::config::Setting;
use crate::config::setting::is_origin;
use crate::{ImksError, ImksResult};

/// Options of `imks doctor`.
#[derive(Debug, clap::Args)]
#[group(id = "doctor")]
pub(super) struct Args {
    /// The address of a server: http://, https://, ws:// or wss://, with a path if it is not /socket.io/
    #[arg(required_unless_present_any = ["redis", "nats", "database"], conflicts_with_all = ["redis", "nats", "database"])]
    url: Option<String>,
    /// Examine a Redis server, as REDIS_URL
    #[arg(long, value_name = "URL", conflicts_with_all = ["nats", "database"])]
    redis: Option<String>,
    /// Examine NATS servers, as NATS_URL
    #[arg(long, value_name = "URL", conflicts_with = "database")]
    nats: Option<String>,
    /// Examine a database, as DATABASE_URL
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The name of the cluster in the broker (IMKS_CLUSTER_PREFIX)
    #[arg(long, value_name = "NAME", default_value = "imks")]
    prefix: String,
    /// A token to sign in with
    #[arg(long, env = "IMKS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A channel, by name or id, to send three messages to, which are deleted at once
    #[arg(long, requires = "token")]
    channel: Option<String>,
    /// The origin of a web page that must be able to connect, for example `https://chat.example`
    #[arg(long, value_parser = origin_of)]
    origin: Option<String>,
    /// Also open a session on QUIC without HTTP/3 at this UDP port (IMKS_QUIC_LISTEN)
    #[arg(long, value_name = "PORT", requires = "url", value_parser = clap::value_parser!(u16).range(1..))]
    quic: Option<u16>,
    /// Also keep a connection open for so long, to see whether it is cut
    #[arg(long, value_name = "TIME", requires = "token", value_parser = Duration::parse)]
    watch: Option<Duration>,
    /// A file with certificates to trust too, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn origin_of(text: &str) -> Result<String, String> {
    match is_origin(text) {
        true => Ok(text.to_owned()),
        false => Err("write it as browsers do, for example https://chat.example".into()),
    }
}

/// Examines what the command line names. Exit codes: 0 all is well, 1 something is not, 78 an address that cannot be used, 130
/// interrupted.
pub(super) fn run(args: &Args) -> ImksResult<ExitCode> {
    terminal::block_on(examine(args))
}

async fn examine(args: &Args) -> ImksResult<ExitCode> {
    let mut endings = Endings::new()?;
    let mut doctor = Doctor::new(args)?;
    let is_whole = tokio::select! {
        done = Box::pin(doctor.examine(args)) => done.map(|()| true)?,
        () = endings.next() => false,
    };
    doctor.conclude(is_whole)
}

/// Makes checks one after the other, and shows each when it is done.
struct Doctor {
    report: Report,
    is_json: bool,
}

impl Doctor {
    fn new(args: &Args) -> ImksResult<Self> {
        let target = match (&args.url, &args.redis, &args.nats) {
            (Some(url), ..) | (_, Some(url), _) | (_, _, Some(url)) => url.as_str(),
            _ => args.database.as_deref().unwrap_or_default(),
        };
        let target = terminal::without_secrets(target);
        if !args.json {
            super::say(&format!("imks doctor: {target}"))?;
        }
        Ok(Self { report: Report::new(target), is_json: args.json })
    }

    async fn examine(&mut self, args: &Args) -> ImksResult<()> {
        match (&args.url, &args.redis, &args.nats, &args.database) {
            (Some(url), ..) => Box::pin(url::examine(self, url, args)).await,
            (_, Some(url), ..) => broker::redis(self, url, &args.prefix).await,
            (_, _, Some(url), _) => broker::nats(self, url, &args.prefix).await,
            (.., Some(url)) => database::examine(self, url).await,
            _ => Err(ImksError::Config("name a server: imks doctor URL".into())),
        }
    }

    /// Makes a check, shows it, and returns what later checks need of it: nothing, if it failed.
    async fn check<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = (Option<T>, Outcome)>,
    ) -> ImksResult<Option<T>> {
        let progress = terminal::Progress::show(name, self.is_json);
        let started = Instant::now();
        let (value, outcome) = Box::pin(work).await;
        drop(progress);
        self.add(Check { name, outcome, took: started.elapsed() })?;
        Ok(value)
    }

    /// Shows that checks are not made, and why.
    fn skip(&mut self, names: &[&'static str], why: &str) -> ImksResult<()> {
        names.iter().try_for_each(|name| {
            self.add(Check { name, outcome: Outcome::Skipped(why.to_owned()), took: Duration::ZERO })
        })
    }

    fn add(&mut self, check: Check) -> ImksResult<()> {
        if !self.is_json {
            check.lines().iter().try_for_each(|line| super::say(&terminal::text::line(line)))?;
        }
        self.report.push(check);
        Ok(())
    }

    fn conclude(self, is_whole: bool) -> ImksResult<ExitCode> {
        let mut json = self.report.json();
        if !is_whole {
            // What was not tried is not known to be well.
            json["ok"] = false.into();
        }
        match (self.is_json, is_whole) {
            (true, _) => super::say(&json.to_string())?,
            (false, true) => super::say(&self.report.summary())?,
            (false, false) => super::say(&self.report.summary_so_far())?,
        }
        Ok(match (is_whole, self.report.is_well()) {
            (false, _) => ExitCode::from(terminal::EXIT_INTERRUPTED),
            (true, true) => ExitCode::SUCCESS,
            (true, false) => ExitCode::FAILURE,
        })
    }
}

/// Returns that something did not come in time.
fn in_vain(what: &str) -> String {
    format!("{what} within {} s", ANSWER_MAX.as_secs())
}

/// How long any one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
