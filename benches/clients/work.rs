//! The workloads, by name, and what one run of them gives.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Outcome;
use super::program::Program;
use super::shouter::Shouter;

/// Clients of a process whose CPU time is measured.
const CLIENTS: usize = 50;
/// Clients of a process whose memory is measured.
const MANY: usize = 1_000;
/// How long connections rest before their memory is read.
const REST: Duration = Duration::from_secs(2);
/// What each of many clients does before the highest memory is read: so many answers of 1 KiB, and so many broadcasts
/// of 16 KiB.
const EACH: usize = 20;
/// A part of the work is done before anything is measured: programs that are compiled while they run need it.
const WARM_UP_PART: usize = 4;

/// One kind of work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Echo64,
    Echo1k,
    Echo16k,
    Back64,
    Back1k,
    Back16k,
    Hear64,
    Hear1k,
    Hear16k,
    Memory,
}

/// What the clients of a workload do with each message.
#[derive(Clone, Copy)]
enum Task {
    /// Sends a text and waits for the ack, which contains it.
    Echo,
    /// Sends bytes and waits for an event, which contains them: not every client can ask with bytes.
    Back,
    /// Gets a broadcast of bytes.
    Hear,
}

/// What a run gave.
#[derive(Clone, Copy, Default)]
pub struct Figures {
    /// CPU time for each message, in microseconds.
    pub message_us: Option<f64>,
    pub per_second: Option<f64>,
    /// CPU time for each connection, in microseconds.
    pub connection_us: Option<f64>,
    /// Resident memory for each connection that rests, in KiB.
    pub rest_kib: Option<f64>,
    /// The highest resident memory for each connection, in KiB.
    pub peak_kib: Option<f64>,
}

impl Workload {
    pub const ALL: [Self; 10] = [
        Self::Echo64,
        Self::Echo1k,
        Self::Echo16k,
        Self::Back64,
        Self::Back1k,
        Self::Back16k,
        Self::Hear64,
        Self::Hear1k,
        Self::Hear16k,
        Self::Memory,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Echo64 => "echo64",
            Self::Echo1k => "echo1k",
            Self::Echo16k => "echo16k",
            Self::Back64 => "back64",
            Self::Back1k => "back1k",
            Self::Back16k => "back16k",
            Self::Hear64 => "hear64",
            Self::Hear1k => "hear1k",
            Self::Hear16k => "hear16k",
            Self::Memory => "memory",
        }
    }

    /// What it does, for the report.
    pub fn meaning(self) -> String {
        let Some((task, bytes, _)) = self.work() else {
            return format!("{MANY} connections");
        };
        match task {
            Task::Echo => format!("text of {bytes} B, acked with the text"),
            Task::Back => format!("{bytes} bytes, sent back as an event"),
            Task::Hear => format!("broadcasts of {bytes} bytes, received"),
        }
    }

    /// The task, the size of a message, and how many of them each client has.
    fn work(self) -> Option<(Task, usize, usize)> {
        Some(match self {
            Self::Echo64 => (Task::Echo, 64, 1_500),
            Self::Echo1k => (Task::Echo, 1_024, 1_000),
            Self::Echo16k => (Task::Echo, 16_384, 300),
            Self::Back64 => (Task::Back, 64, 1_500),
            Self::Back1k => (Task::Back, 1_024, 1_000),
            Self::Back16k => (Task::Back, 16_384, 300),
            Self::Hear64 => (Task::Hear, 64, 3_000),
            Self::Hear1k => (Task::Hear, 1_024, 3_000),
            Self::Hear16k => (Task::Hear, 16_384, 1_000),
            Self::Memory => return None,
        })
    }

    pub fn run(self, program: &mut Program, shouter: &Shouter) -> Outcome<Figures> {
        let Some((task, bytes, count)) = self.work() else { return memory(program, shouter) };
        program.ask(&format!("connect {CLIENTS}"), "ready")?;
        task.run(program, shouter, bytes, count / WARM_UP_PART)?;
        let (cpu, start) = (program.cpu()?, Instant::now());
        task.run(program, shouter, bytes, count)?;
        let (cpu, messages) = (program.cpu()? - cpu, (CLIENTS * count) as f64);
        Ok(Figures {
            message_us: Some(cpu * 1e6 / messages),
            per_second: Some(messages / start.elapsed().as_secs_f64()),
            ..Figures::default()
        })
    }
}

/// What many connections take up: at rest, and at most while every client has talked and listened.
fn memory(program: &mut Program, shouter: &Shouter) -> Outcome<Figures> {
    let (before, cpu) = (program.memory_kib("VmRSS")?, program.cpu()?);
    program.ask(&format!("connect {MANY}"), "ready")?;
    let cpu = program.cpu()? - cpu;
    sleep(REST);
    let rest = program.memory_kib("VmRSS")?;
    Task::Echo.run(program, shouter, 1_024, EACH)?;
    Task::Hear.run(program, shouter, 16_384, EACH)?;
    let peak = program.memory_kib("VmHWM")?;
    let each = |kib: f64| Some((kib - before) / MANY as f64);
    Ok(Figures {
        connection_us: Some(cpu * 1e6 / MANY as f64),
        rest_kib: each(rest),
        peak_kib: each(peak),
        ..Figures::default()
    })
}

impl Task {
    fn run(self, program: &mut Program, shouter: &Shouter, bytes: usize, count: usize) -> Outcome<()> {
        match self {
            Self::Echo => program.ask(&format!("echo {bytes} {count}"), "done"),
            Self::Back => program.ask(&format!("back {bytes} {count}"), "done"),
            Self::Hear => {
                program.ask(&format!("hear {count}"), "listening")?;
                shouter.shout(bytes, count)?;
                program.hear("done")
            }
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.message_us.map(|us| format!("{us:.2} us CPU")),
            self.per_second.map(|rate| format!("{rate:.0}/s")),
            self.connection_us.map(|us| format!("{us:.0} us CPU to connect")),
            self.rest_kib.map(|kib| format!("{kib:.1} KiB at rest")),
            self.peak_kib.map(|kib| format!("{kib:.1} KiB at most")),
        ];
        formatter.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}
