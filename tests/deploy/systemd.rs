//! The unit of systemd, and what the program tells systemd.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{done, file};

/// How exposed the unit may be at most, in tenths, by `systemd-analyze security`.
const EXPOSURE_MAX: &str = "20";
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn systemd_takes_the_unit_and_finds_it_well_confined() {
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(file("deploy/systemd/imks.service")).unwrap();
    let unit = directory.path().join("imks.service");
    // It is installed elsewhere.
    std::fs::write(&unit, text.replace("/usr/bin/imks", env!("CARGO_BIN_EXE_imks"))).unwrap();
    let told =
        Command::new("systemd-analyze").arg("verify").arg(&unit).output().expect("systemd; see `make test`");
    let complaints = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success() && !complaints.contains("imks.service"), "{complaints}");
    let mut security = Command::new("systemd-analyze");
    done(security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX]).arg(&unit));
}

/// A program with a socket that it tells what happens. It is killed when dropped.
struct Service {
    child: Child,
    manager: UnixDatagram,
    _directory: TempDir,
}

impl Service {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
        command.args(arguments).env_clear().envs(environment.iter().copied()).env("NOTIFY_SOCKET", &path);
        command.current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), manager, _directory: directory }
    }

    fn says(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.manager.recv(&mut buffer).expect("it says something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn signal(&self, signal: &str) {
        done(Command::new("kill").args([signal, &self.child.id().to_string()]));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn systemd_hears_when_the_server_is_ready_reloads_and_stops_and_how_long_its_drain_may_take() {
    let drain = [("IMKS_DRAIN_DELAY", "100ms"), ("IMKS_DRAIN_DEADLINE", "70s")];
    let mut service = Service::start(&["--listen", "127.0.0.1:0"], &drain);
    assert_eq!(service.says(), "READY=1");
    service.signal("-HUP");
    assert!(service.says().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(service.says(), "READY=1");
    service.signal("-TERM");
    assert_eq!(service.says(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=85100000");
    assert!(service.child.wait().unwrap().success());
}

#[test]
fn systemd_hears_when_a_core_is_ready_reloads_and_stops() {
    let listen = [("IMKS_LISTEN", "127.0.0.1:0"), ("IMKS_INTERNAL_LISTEN", "127.0.0.1:0")];
    let mut service = Service::start(&["core"], &listen);
    assert_eq!(service.says(), "READY=1");
    service.signal("-HUP");
    assert!(service.says().starts_with("RELOADING=1\n"));
    assert_eq!(service.says(), "READY=1");
    service.signal("-TERM");
    assert!(service.says().starts_with("STOPPING=1\n"));
    assert!(service.child.wait().unwrap().success());
}
