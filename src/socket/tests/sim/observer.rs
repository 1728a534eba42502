//! What is seen of a simulated cluster: the trace, the events that were sent, and everything that is wrong.

use std::collections::HashMap;

use tokio::time::Instant;

use super::logged::Sessions;
use super::plain::Sockets;

/// An event that an application has sent.
#[derive(Debug, Clone)]
pub(super) struct Emit {
    /// The process that sent it.
    pub(super) sender: u64,
    pub(super) rooms: Vec<String>,
    pub(super) except: Vec<String>,
}

/// Everything that is seen of a cluster.
pub(super) struct Observer {
    started: Instant,
    lines: Vec<(u128, String)>,
    /// What is wrong, with the time.
    pub(super) wrong: Vec<String>,
    /// The events, by number.
    pub(super) emits: Vec<Emit>,
    /// The names of sockets in the trace: their ids are random.
    names: HashMap<String, String>,
    pub(super) sockets: Sockets,
    pub(super) sessions: Sessions,
}

impl Observer {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            lines: Vec::new(),
            wrong: Vec::new(),
            emits: Vec::new(),
            names: HashMap::new(),
            sockets: Sockets::default(),
            sessions: Sessions::default(),
        }
    }

    /// Adds a line to the trace.
    pub(super) fn note(&mut self, line: impl Into<String>) {
        self.lines.push((self.started.elapsed().as_millis(), line.into()));
    }

    /// Notes something that must not be.
    pub(super) fn object(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("WRONG {what}"));
        self.wrong.push(format!("at {} ms: {what}", self.started.elapsed().as_millis()));
    }

    pub(super) fn check(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.object(what);
        }
    }

    /// Numbers an event.
    pub(super) fn emit(&mut self, sender: u64, rooms: Vec<String>, except: Vec<String>) -> u64 {
        let names = |rooms: &[String]| rooms.iter().map(|room| self.name(room)).collect::<Vec<_>>();
        let line = format!(
            "p{sender} sends {} to {:?} without {:?}",
            self.emits.len(),
            names(&rooms),
            names(&except)
        );
        self.note(line);
        self.emits.push(Emit { sender, rooms, except });
        self.emits.len() as u64 - 1
    }

    /// Gives a socket that a process has opened a name for the trace.
    pub(super) fn call(&mut self, sid: &str, process: u64) {
        let number = self.names.len();
        self.names.entry(sid.to_owned()).or_insert_with(|| format!("s{number}/{process}"));
    }

    /// Returns the name of a socket, or of a room.
    pub(super) fn name(&self, room: &str) -> String {
        self.names.get(room).cloned().unwrap_or_else(|| room.to_owned())
    }

    /// Returns the trace. What happens at the same time has no order.
    pub(super) fn trace(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        lines.sort();
        lines.into_iter().map(|(millis, line)| format!("{millis:>7} {line}")).collect()
    }
}
