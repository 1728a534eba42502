//! What a service manager is told: `sd_notify` of systemd, datagrams to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager that started this process, if it wants to be told anything.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// Returns the service manager that the environment names. One that cannot be reached is logged: it would end a server
    /// that never says that it is ready.
    pub(crate) fn of_process() -> Self {
        let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        Self::at(&name).unwrap_or_else(|error| {
            tracing::warn!(%error, socket = ?name, "the service manager of {SOCKET} cannot be reached");
            Self::default()
        })
    }

    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Some((socket, address))))
    }

    /// Says that the server has started, or that it has reloaded.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// Says that the server reloads. [`Self::ready`] ends that.
    pub(crate) fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
    }

    /// Says that the server stops, and that it may take `time`, whatever the unit says.
    pub(crate) fn stopping(&self, time: Duration) {
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(%error, "the service manager was not told {state:?}");
        }
    }
}

/// Returns the address of a socket that has no file.
#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has abstract sockets"))
}

/// Returns the time since the machine started, by the clock that systemd compares with.
fn monotonic_micros() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

/// The variable in which a service manager says where it listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How long a service manager may leave a datagram unread before the server goes on without it.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(manager: &ServiceManager, listener: &UnixDatagram) {
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        let next = || {
            let mut buffer = [0; 256];
            let length = listener.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        manager.ready();
        assert_eq!(next(), "READY=1");
        let before = monotonic_micros();
        manager.reloading();
        let reloading = next();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
        assert!((before..=monotonic_micros()).contains(&time.parse().unwrap()), "{reloading}");
        manager.stopping(Duration::from_secs(45));
        assert_eq!(next(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000");
    }

    #[test]
    fn a_service_manager_hears_what_happens_at_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        hears(&ServiceManager::at(path.as_os_str()).unwrap(), &listener);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_service_manager_hears_what_happens_at_an_abstract_socket() {
        let name = format!("imks-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&abstract_address(name.as_bytes()).unwrap()).unwrap();
        hears(&ServiceManager::at(format!("@{name}").as_ref()).unwrap(), &listener);
    }

    #[test]
    fn a_service_manager_that_is_gone_stops_nothing() {
        let directory = tempfile::tempdir().unwrap();
        ServiceManager::at(directory.path().join("gone").as_os_str()).unwrap().ready();
        ServiceManager::default().ready();
        assert!(ServiceManager::at("x".repeat(200).as_ref()).is_err(), "no path of a socket is that long");
    }
}
