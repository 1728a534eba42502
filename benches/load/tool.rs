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
    measure::Measured,
    server::{self, Server},
};

/// How long the tool measures. This generator has a warm-up of one second, and measures two.
const DURATION: Duration = Duration::from_secs(3);

/// Figures may differ by this part.
const TOLERANCE: f64 = 0.1;

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
}

/// Rates that leave both processors time, and servers that are slower than both kinds of clients. The last one is for
/// information: the client of the tool costs more than this server, and they share the machine.
const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "echo, 2,000/s", rate: Some(2_000.0), ..ECHO },
    Scenario { name: "broadcast, 20/s to 200", clients: 200, rate: Some(20.0), ..BROADCAST },
    Scenario { name: "echo of node, window 1", server: Kind::Node, ..ECHO },
    Scenario { name: "broadcast of node to 1,000, window 1", server: Kind::Node, ..BROADCAST },
    Scenario { name: "echo, window 1 (the tool is slower)", ..ECHO },
];

const ECHO: Scenario =
    Scenario { name: "", server: Kind::Imks, clients: 100, is_broadcast: false, rate: None, bytes: 100 };

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

/// The figures that are compared, and whether both must agree about them: the CPU of the clients is their own.
const ROWS: [(&str, Figure, bool); 5] = [
    ("per second", |it| it.per_second, true),
    ("p50 ms", |it| it.p50_ms, true),
    ("p99 ms", |it| it.p99_ms, true),
    ("server CPU us each", |it| it.server_us, true),
    ("client CPU us each", |it| it.client_us, false),
];

/// Runs every scenario with both in turn, and returns a table of the medians.
pub fn compare(tool: &Path, rounds: u32) -> Outcome<String> {
    let mut text = String::from(
        "## `imks bench` beside the load generator: median\n\n| scenario | figure | load generator | imks bench | ratio | |\n\
         |---|---|---:|---:|---:|---|\n",
    );
    for scenario in SCENARIOS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let generator = scenario.generate(&scenario.start()?)?;
            let bench = scenario.measure(tool, &scenario.start()?)?;
            println!(
                "{} round {round}: {:.0}/s and {:.0}/s",
                scenario.name, generator.per_second, bench.per_second
            );
            ours.push(generator);
            theirs.push(bench);
        }
        for (name, figure, must_agree) in ROWS {
            let (one, other) = (median(&ours, figure), median(&theirs, figure));
            let ratio = other / one;
            let is_far = must_agree && !(1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio);
            let verdict = if is_far { "apart" } else { "" };
            let _ = writeln!(
                text,
                "| {} | {name} | {one:.2} | {other:.2} | **{ratio:.2}** | {verdict} |",
                scenario.name
            );
        }
    }
    Ok(text)
}

fn median(all: &[Figures], figure: Figure) -> f64 {
    let mut figures: Vec<f64> = all.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Scenario {
    fn start(&self) -> Outcome<Server> {
        Server::start(|port| self.server.command(port))
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
        command.args(["--duration", &format!("{}s", DURATION.as_secs())]);
        if let Some(rate) = self.rate {
            // A window that a burst does not fill: a rate is kept whatever is under way.
            command.args(["--rate", &rate.to_string(), "--window", "64"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut progress = BufReader::new(child.stderr.take().ok_or("no progress")?).lines();
        if !progress.by_ref().any(|line| line.is_ok_and(|line| line.contains("have joined"))) {
            return Err("the clients of the tool did not join".into());
        }
        let (server_cpu, client_cpu) = (server.cpu()?, server::cpu(child.id())?);
        let rest = thread::spawn(move || progress.for_each(drop));
        let mut said = String::new();
        child.stdout.take().ok_or("no findings")?.read_to_string(&mut said)?;
        // It has ended or is about to, and nobody has waited for it yet: its times are still there.
        let (server_cpu, client_cpu) = (server.cpu()? - server_cpu, server::cpu(child.id())? - client_cpu);
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
