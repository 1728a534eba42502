//! `imks admin`: tools for operators of the Admin UI.

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
    /// Read a password from one line of standard input and print its bcrypt hash
    Hash,
}

/// Prints the hash, and nothing else, to standard output.
///
/// # Errors
/// `Io`; `InvalidInput` if the password is empty or longer than 72 bytes.
pub(super) fn run(args: &Args) -> ImksResult<()> {
    let Command::Hash = args.command;
    let input = std::io::stdin();
    if input.is_terminal() {
        // This is only a hint, so a failure to write it is ignored.
        let _ = writeln!(std::io::stderr(), "Password (it is shown as you type):");
    }
    let mut password = String::new();
    input.lock().read_line(&mut password).map_err(ImksError::io("reading the password"))?;
    super::say(&hash_password(password.trim_end_matches(['\r', '\n']))?)
}
