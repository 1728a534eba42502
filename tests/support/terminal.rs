//! A program in a pseudo-terminal, and its screen as text.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

/// A program in a terminal. It is ended with this value.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Kept open, so that the settings of the terminal can be looked at when the program has ended.
    side: OwnedFd,
    shown: Arc<(Mutex<Shown>, Condvar)>,
}

struct Shown {
    parser: vt100::Parser,
    /// Every byte that the program wrote.
    raw: Vec<u8>,
}

impl Terminal {
    /// Starts a program in a terminal of this size.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let side = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        tcsetwinsize(&side, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(side.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).process_group(0);
        let child = command.spawn().unwrap();
        let shown = Shown { parser: vt100::Parser::new(rows, columns, 0), raw: Vec::new() };
        let shown = Arc::new((Mutex::new(shown), Condvar::new()));
        let (screen, keyboard) = (File::from(controller.try_clone().unwrap()), File::from(controller));
        let filling = shown.clone();
        std::thread::spawn(move || fill(screen, &filling));
        Self { child, keyboard, side, shown }
    }

    /// Presses keys: text, or what a terminal sends for others.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Returns the screen.
    pub fn screen(&self) -> String {
        self.shown.0.lock().parser.screen().contents()
    }

    /// Returns row and column of the cursor.
    pub fn cursor(&self) -> (u16, u16) {
        self.shown.0.lock().parser.screen().cursor_position()
    }

    /// Returns everything that the program wrote.
    pub fn raw(&self) -> Vec<u8> {
        self.shown.0.lock().raw.clone()
    }

    /// Waits until the screen has a text. Returns the screen.
    pub fn sees(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Waits until a text is gone from the screen.
    pub fn sees_no(&self, text: &str) -> String {
        self.until(text, |screen| !screen.contains(text))
    }

    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut shown = self.shown.0.lock();
        loop {
            let screen = shown.parser.screen().contents();
            if is_so(&screen) {
                return screen;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what:?}; the screen is\n{screen}");
            self.shown.1.wait_for(&mut shown, left);
        }
    }

    /// Waits until the program has ended. The terminal must be as it was: lines are edited and echoed.
    pub fn ended(mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end; the screen is\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        };
        let modes = tcgetattr(&self.side).unwrap().local_modes;
        assert!(modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO));
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fill(mut screen: File, shown: &(Mutex<Shown>, Condvar)) {
    let mut bytes = [0; 4096];
    // Reading fails when the program has ended.
    while let Ok(count @ 1..) = screen.read(&mut bytes) {
        let mut filled = shown.0.lock();
        filled.parser.process(&bytes[..count]);
        filled.raw.extend_from_slice(&bytes[..count]);
        shown.1.notify_all();
    }
}

/// Nothing on this machine takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(30);
