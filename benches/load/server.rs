//! A server under test: start, wait until it listens, read its cost, stop.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::Outcome;

/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts what `command` gives for a free port of the loopback interface, and waits until it accepts.
    pub fn start(command: impl FnOnce(u16) -> Command) -> Outcome<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Self::start_on(address.port(), command)
    }

    /// Like [`Server::start`], for a port that is known.
    pub fn start_on(port: u16, command: impl FnOnce(u16) -> Command) -> Outcome<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = command(address.port()).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut server = Self { child, address };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended at its start: {status}").into());
            }
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// User and system time of its living threads, in seconds.
    pub fn cpu(&self) -> Outcome<f64> {
        cpu(self.child.id())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// User and system time of the living threads of a process, in seconds, by the clock of the scheduler: `/proc/PID/stat` counts in
/// hundredths of a second, which is coarse for a server with little to do.
pub fn cpu(pid: u32) -> Outcome<f64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += stat.split_whitespace().next().ok_or("no time in schedstat")?.parse::<u64>()?;
    }
    match nanos {
        0 => Err("this kernel tells no times of threads (schedstat)".into()),
        nanos => Ok(nanos as f64 / 1e9),
    }
}
