//! The configuration values that can be given on the command line. Their help is taken from the table of
//! fields.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{Config, Listing};

/// The values given as command-line options, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(pub Vec<(&'static str, String)>);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let listing = Listing::of(&mut Config::default());
        let options = OPTIONS.iter().filter_map(|(key, option)| Some((listing.row(key)?, *option)));
        command.args(options.map(|(row, option)| {
            let default = if row.value.is_empty() { "not set" } else { &row.value };
            Arg::new(row.field.key)
                .long(option)
                .help(format!("{} ({}) [default: {default}]", row.field.help, row.field.env))
                .value_name("VALUE")
                .help_heading(HEADING)
                .global(true)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |key| matches.get_one::<String>(key).cloned();
        let given = OPTIONS.iter().filter_map(|(key, _)| Some((*key, text(key)?)));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

/// The heading of the options of a server in every help: below those of the subcommand itself.
pub const HEADING: &str = "Configuration of the server";

/// The keys and their options. Secrets have no option, because every user of the machine can read a command
/// line.
const OPTIONS: [(&str, &str); 3] = [("listen", "listen"), ("data_dir", "data-dir"), ("core_url", "core-url")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_can_be_given_on_the_command_line() {
        let listing = Listing::of(&mut Config::default());
        let secrets: Vec<&str> =
            listing.rows.iter().filter(|row| row.secret).map(|row| row.field.key).collect();
        assert!(secrets.contains(&"database.url"), "{secrets:?}");
        // The address of a core is an option, because it has a secret only where somebody writes a password into it.
        for (key, option) in OPTIONS.iter().filter(|(key, _)| *key != "core_url") {
            assert!(!secrets.contains(key), "--{option}");
        }
    }
}
