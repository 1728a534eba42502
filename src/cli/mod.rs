//! The command line, with one file per subcommand.

mod admin;
mod backup;
#[cfg(feature = "tools")]
mod bench;
mod certificate;
#[cfg(feature = "tools")]
mod chat;
mod check_config;
mod check_environment;
mod completions;
mod config;
pub mod core;
#[cfg(feature = "tools")]
mod demo;
pub mod directory;
#[cfg(feature = "tools")]
mod doctor;
mod healthcheck;
mod hold;
mod key;
mod migrate;
#[cfg(feature = "tools")]
mod prove;
mod serve;
#[cfg(feature = "tools")]
mod terminal;
pub mod token;
#[cfg(feature = "tools")]
mod top;
mod version;
mod webhook;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::application::{EventHandler, Handler};
use crate::config::{Config, Flags, HEADING, process_origins, unknown_variables};
use crate::error::with_causes;
use crate::telemetry::logging;
use crate::{ImksError, ImksResult};

/// Real-time messaging server, Socket.IO compatible, in one binary.
///
/// Without a subcommand, it runs the server. The server needs no configuration: by default it stores messages
/// in SQLite under ./data, has its own directory of users and channels, and listens for HTTP and WebSocket on
/// 127.0.0.1:3000.
#[derive(Debug, Parser)]
#[command(name = "imks", version = version::TEXT)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every subcommand. All other values come from the file and the environment
/// (`imks check-config --table` lists them). Secrets have no options.
#[derive(Debug, clap::Args)]
struct Options {
    /// The configuration file, in TOML (IMKS_CONFIG)
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default)
    Serve(serve::Args),
    /// Apply the missing database migrations
    Migrate,
    /// Copy the SQLite database of a running server into a new file
    Backup(backup::Args),
    /// Check the configuration, print it without secrets, and try what it names
    CheckConfig(check_config::Args),
    /// Print a configuration file to begin with
    Config(config::Args),
    /// Make a certificate for development, with an authority to trust
    Certificate(certificate::Args),
    /// Print a token for a user of the embedded directory, for development
    Token(token::Args),
    /// Manage the API keys of back ends
    Key(key::Args),
    /// Set, release and list legal holds
    Hold(hold::Args),
    /// Manage users, channels and members of the embedded directory
    Directory(directory::Args),
    /// Show and repair the delivery of webhooks
    Webhook(webhook::Args),
    /// Tools for operators of the Admin UI
    Admin(admin::Args),
    /// Serve the embedded directory as a core for other servers: over gRPC to them (default 127.0.0.1:9000), and over
    /// HTTP to back ends with an API key (default 127.0.0.1:9001)
    Core,
    /// Check whether the server or core on this machine is healthy, for containers
    Healthcheck(healthcheck::Args),
    /// Chat on the terminal
    #[cfg(feature = "tools")]
    Chat(chat::Args),
    /// Show who is connected, and who has left
    #[cfg(feature = "tools")]
    Top(top::Args),
    /// Find out why clients do not reach a server, or a server not its broker or database
    #[cfg(feature = "tools")]
    Doctor(doctor::Args),
    /// Measure a Socket.IO server, and count what it loses, doubles or puts out of order
    #[cfg(feature = "tools")]
    Bench(bench::Args),
    /// Start a server, load it, kill it, cut off its database, and prove that nothing acknowledged was lost
    #[cfg(feature = "tools")]
    Prove(prove::Args),
    /// Start a server with three people who chat, to see it work
    #[cfg(feature = "tools")]
    Demo(demo::Args),
    /// Print what a shell needs to complete commands and options
    Completions(completions::Args),
    /// Print the version
    Version,
}

/// Parses the command line, runs the subcommand and returns its exit code.
///
/// Exit codes: 0 success, 1 failure, 2 invalid command line, 78 invalid configuration.
pub fn main() -> ExitCode {
    start(None)
}

/// Runs the command line of `imks`, whose server has `handler` answer the events that imks itself does not know.
pub fn run_command_line_with(handler: impl EventHandler) -> ExitCode {
    start(Some(Handler::new(handler)))
}

fn start(handler: Option<Handler>) -> ExitCode {
    // The provider is installed before anything can use TLS, because rustls panics if it cannot choose
    // between two.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    match run(arguments, handler) {
        Ok(code) => code,
        // Whoever reads has enough, as `head -1` has: that is the end, and no failure.
        Err(error) if is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(if matches!(error, ImksError::Config(_)) { EXIT_CONFIG } else { EXIT_FAILED })
        }
    }
}

fn run(arguments: Arguments, handler: Option<Handler>) -> ImksResult<ExitCode> {
    let command = arguments.command.unwrap_or(Command::Serve(serve::Args::default()));
    let is_tool = command.is_tool();
    match &command {
        Command::Version => return version::run().map(|()| ExitCode::SUCCESS),
        Command::Config(args) => return config::run(args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => return completions::run(args).map(|()| ExitCode::SUCCESS),
        Command::Admin(args) => return admin::run(args).map(|()| ExitCode::SUCCESS),
        Command::Certificate(args) => return certificate::run(args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "tools")]
        Command::Doctor(args) => return doctor::run(args),
        #[cfg(feature = "tools")]
        Command::Chat(args) => return chat::run(args),
        #[cfg(feature = "tools")]
        Command::Top(args) => return top::run(args),
        _ => {}
    }
    if let Command::CheckConfig(args) = &command
        && args.table
    {
        check_config::table()?;
        return Ok(ExitCode::SUCCESS);
    }
    let base = if command.is_about_core() { core::base() } else { Config::default() };
    let options = arguments.options;
    let origins = options.origins();
    let mut config = options.load(base)?;
    let read = move || options.load(Config::default());
    config.application.handler = handler;
    // The lines of a tool are enough, unless somebody asks for more.
    if is_tool && config.log.filter == logging::Config::default().filter {
        config.log.filter = TOOL_FILTER.into();
    }
    logging::start(&config.log);
    logging::catch_panics();
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    for name in unknown_variables(std::env::vars_os().filter_map(text)) {
        tracing::warn!(name, "this variable is not known; `imks check-config --table` lists all");
    }
    let runtime = runtime(config.worker_threads).map_err(ImksError::io("starting the runtime"))?;
    let ended = runtime.block_on(Box::pin(execute(command, config, &origins, read)));
    if is_tool {
        // A tool has ended what it began, or a second Ctrl-C wants nobody to wait for it.
        runtime.shutdown_background();
    }
    ended
}

/// Starts the threads that everything runs on; 0 is one of each core.
fn runtime(workers: usize) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.enable_all().thread_name("imks").build()
}

async fn execute(
    command: Command,
    config: Config,
    origins: &BTreeMap<String, String>,
    read: impl Fn() -> ImksResult<Config>,
) -> ImksResult<ExitCode> {
    match command {
        Command::Serve(args) => return Box::pin(serve::run(args, config, read)).await,
        Command::Healthcheck(args) => return healthcheck::run(args, &config).await,
        #[cfg(feature = "tools")]
        Command::Bench(args) => return Box::pin(bench::run(args, &config)).await,
        #[cfg(feature = "tools")]
        Command::Prove(args) => return Box::pin(prove::run(args)).await,
        #[cfg(feature = "tools")]
        Command::Demo(args) => return Box::pin(demo::run(args, &config)).await,
        Command::Migrate => Box::pin(migrate::run(config)).await?,
        Command::Backup(args) => Box::pin(backup::run(args, &config)).await?,
        Command::CheckConfig(args) => Box::pin(check_config::run(&args, config, origins)).await?,
        Command::Token(args) => Box::pin(token::run(args, &config)).await?,
        Command::Key(args) => Box::pin(key::run(args, &config)).await?,
        Command::Hold(args) => Box::pin(hold::run(args, &config)).await?,
        Command::Directory(args) => Box::pin(directory::run(args, &config)).await?,
        Command::Webhook(args) => Box::pin(webhook::run(args, &config)).await?,
        Command::Core => {
            let mut signals = serve::Signals::new()?;
            Box::pin(core::run(&config, async move { signals.next().await })).await?;
        }
        Command::Version
        | Command::Admin(_)
        | Command::Certificate(_)
        | Command::Config(_)
        | Command::Completions(_) => {}
        #[cfg(feature = "tools")]
        Command::Doctor(_) | Command::Chat(_) | Command::Top(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

impl Command {
    /// Whether the command is a tool, which tells by itself what it does.
    fn is_tool(&self) -> bool {
        #[cfg(feature = "tools")]
        let is_tool = matches!(self, Self::Bench(_) | Self::Prove(_) | Self::Demo(_));
        #[cfg(not(feature = "tools"))]
        let is_tool = false;
        is_tool
    }

    /// Whether the configuration is that of `imks core`.
    fn is_about_core(&self) -> bool {
        match self {
            Self::Core => true,
            Self::CheckConfig(args) => args.core,
            Self::Healthcheck(args) => args.core,
            _ => false,
        }
    }
}

impl Options {
    fn load(&self, base: Config) -> ImksResult<Config> {
        Config::from_process(base, self.config.clone(), &self.flags.0)
    }

    fn origins(&self) -> BTreeMap<String, String> {
        process_origins(self.config.clone(), &self.flags.0)
    }
}

/// Writes a line to standard output. A closed pipe is not an error.
pub(crate) fn say(text: &str) -> ImksResult<()> {
    match tell(text) {
        Err(error) if is_unread(&error) => Ok(()),
        told => told,
    }
}

/// Writes a line to standard output, for what goes on only as long as somebody reads it.
///
/// # Errors
/// [`ImksError::Io`], also for a closed pipe: [`is_unread`] tells it, and the program ends quietly with it.
pub(crate) fn tell(text: &str) -> ImksResult<()> {
    let mut out = std::io::stdout().lock();
    let told = writeln!(out, "{text}").and_then(|()| out.flush());
    told.map_err(ImksError::io(STANDARD_OUTPUT))
}

/// Whether an error says that nobody reads standard output any more.
pub(crate) fn is_unread(error: &ImksError) -> bool {
    matches!(error, ImksError::Io { context, source }
        if context == STANDARD_OUTPUT && source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Writes a line for people to standard error. Errors are ignored.
pub(crate) fn hint(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes an error with its causes to standard error.
fn complain(error: &ImksError) {
    hint(&format!("imks: {}", with_causes(error)));
}

/// Ends a tool whose options cannot work together as the parser of the command line ends it for a wrong one.
///
/// # Errors
/// Every error that is about something else.
#[cfg(feature = "tools")]
fn misused(error: ImksError) -> ImksResult<ExitCode> {
    if !matches!(error, ImksError::InvalidInput { .. }) {
        return Err(error);
    }
    complain(&error);
    Ok(ExitCode::from(EXIT_USAGE))
}

/// Returns why a value on the command line is refused, without the name of the field, which the parser tells itself.
fn reason(error: ImksError) -> String {
    match error {
        ImksError::InvalidInput { reason, .. } => reason,
        error => error.to_string(),
    }
}

/// What fails when a line cannot be written.
const STANDARD_OUTPUT: &str = "writing to standard output";
/// The filter of the log of a tool where none is configured.
const TOOL_FILTER: &str = "warn";
const EXIT_FAILED: u8 = 1;
/// The exit code for an invalid command line, that of the parser.
#[cfg(feature = "tools")]
const EXIT_USAGE: u8 = 2;
/// The exit code for an invalid configuration, `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_a_closed_standard_output_is_one_that_nobody_reads() {
        let error = |context: &str, kind: std::io::ErrorKind| ImksError::io(context)(kind.into());
        assert!(is_unread(&error(STANDARD_OUTPUT, std::io::ErrorKind::BrokenPipe)));
        assert!(!is_unread(&error(STANDARD_OUTPUT, std::io::ErrorKind::StorageFull)));
        assert!(!is_unread(&error("sending", std::io::ErrorKind::BrokenPipe)));
    }

    #[test]
    #[cfg(feature = "tools")]
    fn the_options_of_a_tool_stand_before_those_of_the_server() {
        for name in ["bench", "doctor", "top", "prove", "certificate", "demo"] {
            let mut command = Arguments::command();
            command.build();
            let help = command.find_subcommand_mut(name).unwrap().render_help().to_string();
            let (own, server) = help.split_once(HEADING).unwrap();
            for option in ["--config", "--listen", "--data-dir", "--core-url"] {
                assert!(server.contains(&format!("{option} <")), "{name} {option}: {help}");
                assert!(!own.contains(&format!("{option} <")), "{name} {option}: {help}");
            }
            assert!(own.contains("--help"), "{help}");
        }
    }

    #[test]
    fn no_subcommand_means_serve_and_options_may_follow_a_subcommand() {
        assert!(Arguments::try_parse_from(["imks", "--listen", "127.0.0.1:0"]).unwrap().command.is_none());
        let arguments = Arguments::try_parse_from(["imks", "migrate", "--data-dir", "/tmp/x"]).unwrap();
        assert_eq!(arguments.options.flags, Flags(vec![("data_dir", "/tmp/x".to_owned())]));
    }
}
