//! `imks bench` beside this load generator: the same scenarios against the same server, and how far their figures differ.

use std::{
    fmt::Write,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    Outcome,
    echo::Echo,
    fanout::Fanout,
    kind::Kind,
    measure::{MEASURED, Measured, WARM_UP},
    server::{self, Server},
};

/// Figures may differ by this part.
const TOLERANCE: f64 = 0.1;

/// What the tool may add to a latency by itself, in milliseconds: a thread that wakes a task when an event is due, and the
/// tasks of a client. This generator spins instead. Next to latencies of milliseconds it is nothing.
const OWN_MS: f64 = 0.25;

/// Something that both can do.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    server: Kind,
    clients: usize,
    is_broadcast: bool,
    /// Events per second; without it, the next one follows the answer.
    rate: Option<f64>,
    bytes: usize,
    /// How long the server waits before it answers an echo.
    delay: Duration,
    /// Whether the figures are to be about the server alone.
    must_agree: bool,
}

/// Rates that leave both processors time, and servers that make clients wait. The last one is for information: the client of the
/// tool costs more than this server, and they share the machine.
const SCENARIOS: [Scenario; 7] = [
    Scenario { name: "echo, 2,000/s", rate: Some(2_000.0), ..ECHO },
    Scenario { name: "broadcast, 20/s to 200", clients: 200, rate: Some(20.0), ..BROADCAST },
    Scenario { name: "echo after 20 ms, 2,000/s", rate: Some(2_000.0), delay: DELAY, ..ECHO },
    Scenario { name: "echo after 20 ms, window 1", delay: DELAY, ..ECHO },
    Scenario { name: "echo of node, 10,000/s", server: Kind::Node, rate: Some(10_000.0), ..ECHO },
    Scenario { name: "broadcast of node, 10/s to 1,000", server: Kind::Node, rate: Some(10.0), ..BROADCAST },
    Scenario { name: "echo, window 1 (the processors are shared)", must_agree: false, ..ECHO },
];

const ECHO: Scenario = Scenario {
    name: "",
    server: Kind::Imks,
    clients: 100,
    is_broadcast: false,
    rate: None,
    bytes: 100,
    delay: Duration::ZERO,
    must_agree: true,
};

const DELAY: Duration = Duration::from_millis(20);

const BROADCAST: Scenario = Scenario { clients: 1_000, is_broadcast: true, ..ECHO };

/// What both say about a scenario.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_us: f64,
    client_us: f64,
}

type Figure = fn(&Figures) -> f64;

/// What both must agree about: nothing, within [`TOLERANCE`], or for latencies within [`OWN_MS`] too.
#[derive(Clone, Copy, PartialEq)]
enum Agreement {
    None,
    Part,
    PartOrOwn,
}

/// The figures that are compared. The CPU of the clients is their own.
const ROWS: [(&str, Figure, Agreement); 5] = [
    ("per second", |it| it.per_second, Agreement::Part),
    ("p50 ms", |it| it.p50_ms, Agreement::PartOrOwn),
    ("p99 ms", |it| it.p99_ms, Agreement::PartOrOwn),
    ("server CPU us each", |it| it.server_us, Agreement::Part),
    ("client CPU us each", |it| it.client_us, Agreement::None),
];

impl Agreement {
    /// Says what is to be said about two figures.
    fn verdict(self, one: f64, other: f64) -> &'static str {
        let is_near = (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&(other / one));
        match self {
            _ if is_near => "",
            Self::None => "",
            Self::PartOrOwn if (other - one).abs() <= OWN_MS => "within 0.25 ms",
            Self::Part | Self::PartOrOwn => "apart",
        }
    }
}

/// Runs every scenario with both in turn, and returns a table of the medians. A scenario that fails is a row, and the others go on.
pub fn compare(tool: &Path, rounds: u32) -> String {
    let mut text = String::from(
        "## `imks bench` beside the load generator: median\n\n| scenario | figure | load generator | imks bench | ratio | |\n\
         |---|---|---:|---:|---:|---|\n",
    );
    for scenario in SCENARIOS.into_iter().filter(|scenario| scenario.server.is_built()) {
        match scenario.run(tool, rounds) {
            Ok((ours, theirs)) => scenario.write_rows(&ours, &theirs, &mut text),
            Err(error) => {
                println!("{}: failed: {error}", scenario.name);
                let _ = writeln!(text, "| {} | failed | | | | apart |", scenario.name);
            }
        }
    }
    text
}

fn median(all: &[Figures], figure: Figure) -> f64 {
    let mut figures: Vec<f64> = all.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Scenario {
    /// Returns the figures of the load generator and of the tool, round by round.
    fn run(&self, tool: &Path, rounds: u32) -> Outcome<(Vec<Figures>, Vec<Figures>)> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let generator = self.generate(&self.start()?)?;
            let bench = self.measure(tool, &self.start()?)?;
            println!(
                "{} round {round}: {:.0}/s and {:.0}/s",
                self.name, generator.per_second, bench.per_second
            );
            ours.push(generator);
            theirs.push(bench);
        }
        Ok((ours, theirs))
    }

    fn write_rows(&self, ours: &[Figures], theirs: &[Figures], text: &mut String) {
        for (name, figure, agreement) in ROWS {
            let (one, other) = (median(ours, figure), median(theirs, figure));
            let agreement = if self.must_agree { agreement } else { Agreement::None };
            let (ratio, verdict) = (other / one, agreement.verdict(one, other));
            let _ = writeln!(
                text,
                "| {} | {name} | {one:.2} | {other:.2} | **{ratio:.2}** | {verdict} |",
                self.name
            );
        }
    }

    fn start(&self) -> Outcome<Server> {
        Server::start(|port| {
            let mut command = self.server.command(port);
            if !self.delay.is_zero() {
                command.args(["--delay-ms", &self.delay.as_millis().to_string()]);
            }
            command
        })
    }

    fn generate(&self, server: &Server) -> Outcome<Figures> {
        let Self { rate, bytes, clients, .. } = *self;
        let Measured { per_second, latency, cpu_us, client_cpu_us, .. } = match self.is_broadcast {
            true => Fanout { rooms: 1, under_way: 1, rate, bytes }.run(server, clients)?,
            false => Echo { window: 1, rate, bytes }.run(server, clients)?,
        };
        Ok(Figures {
            per_second,
            p50_ms: latency.quantile_ms(0.5),
            p99_ms: latency.quantile_ms(0.99),
            server_us: cpu_us,
            client_us: client_cpu_us,
        })
    }

    fn measure(&self, tool: &Path, server: &Server) -> Outcome<Figures> {
        let mut command = Command::new(tool);
        command.args(["bench", &format!("http://{}", server.address), "--json"]);
        command.args(["--scenario", if self.is_broadcast { "broadcast" } else { "echo" }]);
        command.args(["--clients", &self.clients.to_string(), "--message-size", &self.bytes.to_string()]);
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        command.args(["--warm-up", &seconds(WARM_UP), "--duration", &seconds(MEASURED)]);
        if let Some(rate) = self.rate {
            // A window that a burst does not fill: a rate is kept whatever is under way.
            command.args(["--rate", &rate.to_string(), "--window", "64"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut progress = BufReader::new(child.stderr.take().ok_or("no progress")?).lines();
        if !progress.by_ref().any(|line| line.is_ok_and(|line| line.ends_with("measuring"))) {
            return Err("the tool did not begin to measure".into());
        }
        let (server_cpu, client_cpu) = (server.cpu()?, server::cpu(child.id())?);
        let rest = thread::spawn(move || progress.for_each(drop));
        // As long as it measures, without the closing of all connections after that.
        thread::sleep(MEASURED);
        let (server_cpu, client_cpu) = (server.cpu()? - server_cpu, server::cpu(child.id())? - client_cpu);
        let mut said = String::new();
        child.stdout.take().ok_or("no findings")?.read_to_string(&mut said)?;
        let status = child.wait()?;
        let _ = rest.join();
        // What it says of a run with faults is not comparable.
        if !status.success() {
            return Err(format!("the tool ended with {status}: {said}").into());
        }
        let found: Value = serde_json::from_str(&said).map_err(|error| format!("{status}: {error}"))?;
        let number = |value: &Value| value.as_f64().ok_or_else(|| format!("a number is missing in {found}"));
        let completed = number(&found["completed"])?;
        Ok(Figures {
            per_second: number(&found["per_second"])?,
            p50_ms: number(&found["latency_ms"]["p50"])?,
            p99_ms: number(&found["latency_ms"]["p99"])?,
            server_us: server_cpu * 1e6 / completed,
            client_us: client_cpu * 1e6 / completed,
        })
    }
}
