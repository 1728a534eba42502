//! `imks admin`: what an operator of the Admin UI needs.

use std::io::{BufRead, IsTerminal, Write};

use clap::Subcommand;

use crate::socket::admin::hash_password;
use crate::{ImksError, ImksResult};

/// Options of `imks admin`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a password, one line of standard input, and print its bcrypt hash
    Hash,
}

/// Prints the hash, and nothing else, on standard output.
///
/// # Errors
/// `Io`; `InvalidInput` for a password that is empty or longer than 72 bytes.
pub(super) fn run(args: &Args) -> ImksResult<()> {
    let Command::Hash = args.command;
    let input = std::io::stdin();
    if input.is_terminal() {
        // A hint only; without it everything works.
        let _ = writeln!(std::io::stderr(), "Password (it is shown as you type):");
    }
    let mut password = String::new();
    input.lock().read_line(&mut password).map_err(ImksError::io("reading the password"))?;
    super::say(&hash_password(password.trim_end_matches(['\r', '\n']))?)
}
