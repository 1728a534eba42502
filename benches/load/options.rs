//! The command line.

use std::{path::PathBuf, time::Duration};

use super::{Outcome, kind::Kind, workload::Workload};

/// What to run.
pub struct Options {
    pub workloads: Vec<Workload>,
    pub servers: Vec<Kind>,
    pub rounds: u32,
    /// No new round starts after this much time.
    pub time: Duration,
    pub report: Option<PathBuf>,
    /// The program `imks`, whose `bench` is compared with this generator; nothing else is measured then.
    pub tool: Option<PathBuf>,
    /// Whether a budget that is missed is an error.
    pub gate: bool,
}

impl Options {
    /// Reads the arguments after the program's name; `--bench`, which cargo adds, is ignored.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            workloads: Workload::ALL.to_vec(),
            servers: Kind::COMPARED.to_vec(),
            rounds: 3,
            time: Duration::from_secs(15 * 60),
            report: None,
            tool: None,
            gate: false,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => continue,
                "--gate" => {
                    options.gate = true;
                    continue;
                }
                _ => {}
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--only" => options.workloads = named(&value, &Workload::ALL, Workload::name)?,
                "--servers" => options.servers = named(&value, &Kind::ALL, Kind::name)?,
                "--rounds" => options.rounds = value.parse()?,
                "--minutes" => options.time = Duration::from_secs(60 * value.parse::<u64>()?),
                "--tool" => options.tool = Some(value.into()),
                "--report" => options.report = Some(value.into()),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        Ok(options)
    }
}

fn named<T: Copy>(list: &str, all: &[T], name: fn(T) -> &'static str) -> Outcome<Vec<T>> {
    let find = |wanted: &str| {
        all.iter().copied().find(|item| name(*item) == wanted).ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|item| name(*item)).collect();
            format!("{wanted} is none of {}", known.join(", "))
        })
    };
    Ok(list.split(',').map(find).collect::<Result<_, _>>()?)
}
