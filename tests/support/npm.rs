//! The scripts of npm in `clients/js`: the TypeScript client is built before a test uses it.

use std::{fs::File, path::Path, process::Command};

/// Runs a script of npm in the package.
pub fn npm(script: &str) {
    let mut npm = Command::new("npm");
    npm.args(["run", "--silent", script])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js"));
    let output = npm.output().expect("npm runs: `make test` installs what is missing");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "npm run {script}:\n{said}");
}

/// Builds the package. Tests are processes of their own: one after the other, and the compiler writes only what is new.
pub fn build() {
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("client-package.lock"));
    let lock = lock.expect("a file for the lock");
    lock.lock().expect("the lock");
    npm("build");
}
