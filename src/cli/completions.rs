//! `imks completions SHELL`: prints what a shell needs to complete commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// Options of `imks completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell, for example `imks completions bash > /usr/share/bash-completion/completions/imks`
    shell: Shell,
}

pub(super) fn run(args: &Args) -> ImksResult<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Arguments::command(), "imks", &mut script);
    let script = String::from_utf8(script).map_err(|error| ImksError::Task(Cause::new(error)))?;
    super::say(script.trim_end())
}
