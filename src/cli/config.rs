//! `imks config init`: prints a configuration file with every value, all of them commented out.

use crate::ImksResult;
use crate::config::{Config, Listing};

/// Options of `imks config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a file with every value and its default, for example `imks config init > imks.toml`
    Init,
}

pub(super) fn run(args: &Args) -> ImksResult<()> {
    match args.command {
        Command::Init => super::say(file(&Listing::of(&mut Config::default())).trim_end()),
    }
}

/// Returns the text of a file that changes nothing until lines of it are activated.
fn file(listing: &Listing) -> String {
    let mut text = String::from(HEAD);
    let mut sections: Vec<(&str, String)> = vec![("", String::new())];
    for row in &listing.rows {
        let (section, key) = row.field.key.rsplit_once('.').unwrap_or(("", row.field.key));
        let known = sections.iter().position(|(name, _)| *name == section);
        let index = known.unwrap_or_else(|| {
            sections.push((section, format!("\n[{section}]\n")));
            sections.len() - 1
        });
        let secret = if row.secret { SECRET } else { "" };
        let (help, env, value) = (row.meaning(), row.field.env, value(&row.value));
        sections[index].1.push_str(&format!("\n# {help}.{secret}\n# {env}\n#{key} = {value}\n"));
    }
    sections.iter().for_each(|(_, rows)| text.push_str(rows));
    text
}

/// Returns a value as TOML: whole numbers and booleans bare, all others as text.
fn value(text: &str) -> String {
    let is_bare = text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
    if is_bare { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() }
}

const SECRET: &str = " A secret: rather set the variable, or the one that ends in _FILE.";
const HEAD: &str = "\
# The configuration of imks. Every value stands here with its default: remove the # to change it.
# Variables of the environment override this file, options of the command line override both.
# Use it with `imks --config imks.toml`; `imks --config imks.toml check-config` tries it.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_changes_nothing_and_neither_does_it_with_every_line_activated() {
        let shown = |config: &mut Config| {
            Listing::of(config).rows.into_iter().map(|row| row.value).collect::<Vec<_>>()
        };
        let defaults = shown(&mut Config::default());
        let text = file(&Listing::of(&mut Config::default()));
        let active: Vec<_> = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|it| !it.starts_with(' ')).unwrap_or(line))
            .collect();
        for text in [text.clone(), active.join("\n")] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let path = Some(file.path().to_owned());
            let mut loaded = crate::config::load(Config::default(), path, &|_| None, &[]).unwrap();
            assert_eq!(shown(&mut loaded), defaults);
        }
    }
}
