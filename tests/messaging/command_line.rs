//! The commands of an operator, as they are typed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn imks(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_wrong_configuration_is_told_in_whole_and_ends_with_78() {
    let environment =
        [("IMKS_LISTEN", "here"), ("DATABASE_URL", "oracle://me:hunter2@db"), ("IMKS_LIMIT_SENDS", "fast")];
    let output = imks(&["check-config"], &environment);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    for part in ["IMKS_LISTEN", "DATABASE_URL", "IMKS_LIMIT_SENDS"] {
        assert!(complaint.contains(part), "{part} is missing in {complaint}");
    }
    assert!(!complaint.contains("hunter2"), "{complaint}");
}

#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let output = imks(&["check-config"], &[("DATABASE_URL", "postgres://im:hunter2@db/imks")]);
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("postgres://im:***@db/imks"), "{shown}");
}

#[test]
fn a_token_is_printed_alone_so_that_a_shell_can_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let output = imks(&["token", "alice", "--data-dir", data], &[]);
    let token = text(&output.stdout);
    assert!(output.status.success());
    assert_eq!((token.trim_end().split('.').count(), token.lines().count()), (3, 1), "{token}");
}

#[test]
fn the_database_of_a_standalone_server_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output = imks(&["token", "alice", "--data-dir", data.to_str().unwrap()], &[]);
    assert!(output.status.success());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("imks.db"))), (0o700, 0o600));
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let output = imks(&["token", "alice", "--data-dir", "/proc/imks"], &[]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/proc/imks"), "{}", text(&output.stderr));
}

#[test]
fn a_server_uses_as_many_open_files_as_the_system_lets_it() {
    let directory = tempfile::tempdir().unwrap();
    let serve = format!("ulimit -S -n 256; exec {} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_imks"));
    let mut server = Command::new("sh")
        .args(["-c", &serve])
        .env("IMKS_DATA_DIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("is ready")));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|column| files.split_whitespace().nth(column).unwrap());
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(soft, hard);
    assert_ne!(hard, "256");
}

#[test]
fn a_server_that_is_not_there_is_not_healthy() {
    let output = imks(&["healthcheck", "--listen", "127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_version_is_printed() {
    assert_eq!(text(&imks(&["version"], &[]).stdout), concat!("imks ", env!("CARGO_PKG_VERSION"), "\n"));
}
