//! A scenario from a file: how clients connect, and what they do in each phase. Everything in it is checked when it is
//! read, and a mistake is told with its line and with what is allowed there.

pub(super) mod player;
mod ramp;
mod scene;
mod step;
mod values;

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use self::step::{Arg, Step, TOKEN_BYTES};
use self::values::{Count, Name, Pause, PerSecond, Time};
use super::file;
use super::plan::CLIENTS_MAX;
use crate::cli::terminal::text;
use crate::{ImksError, ImksResult};

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Script {
    pub(super) clients: u32,
    /// How many clients begin to connect per second; `None` for as many as can.
    pub(super) ramp: Option<f64>,
    pub(super) phases: Vec<Phase>,
}

/// A part of a scenario, which begins for all clients at once when the one before has ended for all.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawPhase")]
pub(super) struct Phase {
    pub(super) name: String,
    /// How long rounds begin.
    pub(super) duration: Option<Duration>,
    /// How many rounds each client has.
    pub(super) rounds: Option<u64>,
    /// Rounds per second of all clients together; `None` for as many as they can.
    pub(super) rate: Option<f64>,
    /// The pause of a client after each round.
    pub(super) think: Option<Pause>,
    pub(super) flows: Vec<Flow>,
}

/// What a client can do in a round.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawFlow")]
pub(super) struct Flow {
    /// How often it is chosen, compared with the others.
    pub(super) weight: u64,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    connect: RawConnect,
    phase: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConnect {
    clients: Count<CLIENTS_MAX>,
    per_second: Option<PerSecond>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    name: Name,
    duration: Option<Time>,
    rounds: Option<Count<ROUNDS_MAX>>,
    rate: Option<PerSecond>,
    think: Option<Pause>,
    steps: Option<Vec<Step>>,
    flow: Option<Vec<Flow>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFlow {
    weight: Option<Count<WEIGHT_MAX>>,
    steps: Vec<Step>,
}

impl Script {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ImksError::Config`] if it cannot be read, and with the line of the first mistake.
    pub(super) fn read(path: &Path) -> ImksResult<Self> {
        let text = file::read(path, FILE_BYTES_MAX)?;
        Self::parse(&text).map_err(|mistake| ImksError::Config(format!("{}{mistake}", path.display())))
    }

    /// Reads the text of a file. The error begins with `:LINE: ` where it belongs to a line.
    fn parse(text: &str) -> Result<Self, String> {
        let raw: RawScript = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map(|span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
            let starts_line =
                error.span().is_some_and(|span| text.get(..span.start).is_some_and(|it| it.ends_with('\n')));
            let at = line.map_or(String::new(), |line| format!(":{}", line + usize::from(starts_line)));
            // It repeats what is written in the file, which may be of somebody else.
            format!("{at}: {}", text::line(error.message()))
        })?;
        let script = Self {
            clients: u32::try_from(raw.connect.clients.0).unwrap_or(u32::MAX),
            ramp: raw.connect.per_second.map(|rate| rate.0),
            phases: raw.phase,
        };
        script.check().map_err(|mistake| format!(": {mistake}"))?;
        Ok(script)
    }

    /// Checks what only shows in several phases together.
    fn check(&self) -> Result<(), String> {
        if self.phases.is_empty() || self.phases.len() > PHASES_MAX {
            return Err(format!("a scenario has 1 to {PHASES_MAX} of `[[phase]]`"));
        }
        let mut flows = self.phases.iter().flat_map(|phase| &phase.flows);
        if !flows.any(|flow| flow.steps.iter().any(|step| matches!(step, Step::Ack(_) | Step::Expect(_)))) {
            return Err("nothing is measured: no step is an `ack` or an `expect`".into());
        }
        let mut is_inside = false;
        for phase in &self.phases {
            if phase.flows.iter().any(|flow| flow.needs_a_room(is_inside)) {
                let name = &phase.name;
                return Err(format!(
                    "in the phase {name:?}, `$room` has no `join` before it that every client does"
                ));
            }
            is_inside |= phase.flows.iter().all(Flow::enters_a_room);
        }
        Ok(())
    }

    /// Returns the names of the events that clients wait for, each once.
    fn expected(&self) -> Vec<&str> {
        let steps = self.phases.iter().flat_map(|phase| &phase.flows).flat_map(|flow| &flow.steps);
        let mut names: Vec<&str> = steps
            .filter_map(|step| match step {
                Step::Expect(expecting) => Some(&*expecting.event),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl TryFrom<RawPhase> for Phase {
    type Error = String;

    fn try_from(raw: RawPhase) -> Result<Self, String> {
        let RawPhase { name: Name(name), duration, rounds, rate, think, steps, flow } = raw;
        if duration.is_none() && rounds.is_none() {
            return Err(
                "a phase ends after a `duration`, or after so many `rounds` of each client: say one, or both"
                    .into(),
            );
        }
        if name.chars().any(char::is_control) {
            return Err("the name of a phase is one line, without control characters".into());
        }
        let flows = match (steps, flow) {
            (Some(steps), None) => vec![Flow::try_from(RawFlow { weight: None, steps })?],
            (None, Some(flows)) if (1..=FLOWS_MAX).contains(&flows.len()) => flows,
            (None, Some(_)) => return Err(format!("a phase has at most {FLOWS_MAX} of `[[phase.flow]]`")),
            _ => {
                return Err(
                    "a phase has either `steps`, or `[[phase.flow]]` with a `weight` and `steps` each".into(),
                );
            }
        };
        Ok(Self {
            name,
            duration: duration.map(|time| time.0),
            rounds: rounds.map(|rounds| rounds.0),
            rate: rate.map(|rate| rate.0),
            think,
            flows,
        })
    }
}

impl TryFrom<RawFlow> for Flow {
    type Error = String;

    fn try_from(raw: RawFlow) -> Result<Self, String> {
        let flow = Self { weight: raw.weight.map_or(1, |weight| weight.0), steps: raw.steps };
        if flow.steps.is_empty() || flow.steps.len() > STEPS_MAX {
            return Err(format!("there are 1 to {STEPS_MAX} `steps`"));
        }
        let mut is_recognisable = false;
        for step in &flow.steps {
            match step {
                Step::Emit(sending) | Step::Ack(sending) => is_recognisable = sending.is_recognisable(),
                Step::Expect(expecting) if expecting.own && !is_recognisable => {
                    let hint = "`own` is what the step before has sent: an `emit` or `ack` with `$text` of";
                    return Err(format!("{hint} {TOKEN_BYTES} `bytes` or more"));
                }
                _ => {}
            }
        }
        Ok(flow)
    }
}

impl Flow {
    fn enters_a_room(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Join(_)))
    }

    /// Whether a step names the room of a client that may be in none.
    fn needs_a_room(&self, mut is_inside: bool) -> bool {
        for step in &self.steps {
            match step {
                Step::Join(_) => is_inside = true,
                Step::Emit(sending) | Step::Ack(sending)
                    if !is_inside && sending.args.contains(&Arg::Room) =>
                {
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

impl Phase {
    /// Returns the flow that a number by chance, from 0 to 1, chooses.
    fn choose(&self, chance: f64) -> Option<&Flow> {
        let total: u64 = self.flows.iter().map(|flow| flow.weight).sum();
        let mut left = (chance * total as f64) as u64;
        let chosen = self.flows.iter().find(|flow| {
            let is_it = left < flow.weight;
            left = left.saturating_sub(flow.weight);
            is_it
        });
        chosen.or_else(|| self.flows.last())
    }
}

/// The size of the largest scenario file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The maximum number of phases of a scenario.
const PHASES_MAX: usize = 32;

/// The maximum number of flows of a phase.
const FLOWS_MAX: usize = 32;

/// The maximum number of steps of a flow.
const STEPS_MAX: usize = 64;

/// The maximum number of rounds of a client in a phase.
const ROUNDS_MAX: u64 = 1_000_000_000;

/// The largest weight of a flow.
const WEIGHT_MAX: u64 = 1_000_000;

/// The longest time in a scenario file.
const REST_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
