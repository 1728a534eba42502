//! The package for Debian and Ubuntu: built from this program, and installed into a root of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{done, file};

/// What lintian may say: compression is for releases; there is no manual page beside `--help`; the configuration may
/// name secrets.
const ACCEPTED: &str = "uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball,no-manual-page,\
                        non-standard-file-perm";

/// Builds the package, and returns where it is.
pub fn build(program: &Path, directory: &Path) -> PathBuf {
    let mut command = Command::new(file("deploy/deb/build"));
    command
        .arg(program)
        .arg(directory)
        .env("COMPRESSION", "none")
        .env("MAINTAINER", "Imks <imks@debian.org>");
    let said = done(&mut command);
    PathBuf::from(said.lines().last().unwrap())
}

/// A root of its own, in which packages are installed.
pub struct Root(PathBuf);

impl Root {
    pub fn new(path: PathBuf) -> Self {
        for directory in ["var/lib/dpkg/updates", "var/lib/dpkg/info"] {
            std::fs::create_dir_all(path.join(directory)).unwrap();
        }
        std::fs::write(path.join("var/lib/dpkg/status"), "").unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Does something to a package.
    pub fn dpkg(&self, action: &str, what: &Path) {
        // Whoever runs the tests need not be root.
        let mut command = Command::new("fakeroot");
        command.arg("dpkg").arg(format!("--root={}", self.0.display())).arg("--force-script-chrootless");
        // The root is empty.
        command.args(["--force-depends", "--force-not-root", "--log=/dev/null", action]).arg(what);
        done(&mut command);
    }
}

fn field(package: &Path, name: &str) -> String {
    done(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).trim().to_owned()
}

#[test]
fn the_package_installs_a_program_a_unit_a_user_and_a_configuration_and_keeps_the_data_when_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let package = build(Path::new(env!("CARGO_BIN_EXE_imks")), directory.path());
    assert_eq!(field(&package, "Package"), "imks");
    assert_eq!(field(&package, "Version"), env!("CARGO_PKG_VERSION"));
    assert!(field(&package, "Depends").contains("libc6 (>= 2."));

    let files = done(Command::new("dpkg-deb").arg("--contents").arg(&package));
    assert!(files.lines().all(|line| line.contains(" root/root ")), "{files}");
    assert!(files.starts_with("drwxr-xr-x"), "what it says about / holds for /: {files}");

    let installed = Root::new(directory.path().join("root"));
    let (root, dpkg) = (installed.path(), |action: &str, what: &Path| installed.dpkg(action, what));
    dpkg("--install", &package);
    let mode = |name: &str| std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("usr/bin/imks"), mode("etc/imks/imks.toml")), (0o755, 0o640));
    let users = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(
        users.lines().any(|line| line.starts_with("imks:") && line.contains(":/var/lib/imks:")),
        "{users}"
    );
    assert!(root.join("usr/lib/systemd/system/imks.service").exists());

    let configured = root.join("etc/imks/imks.toml");
    let mut command = Command::new(root.join("usr/bin/imks"));
    command.args(["check-config", "--no-environment", "--config"]).arg(&configured).env_clear();
    let shown = done(&mut command);
    let row = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(row("IMKS_DATA_DIR ").contains(" /var/lib/imks "), "{shown}");
    assert!(row("IMKS_FIRST_PAGE ").contains(" off "), "a package is not for development: {shown}");

    std::fs::create_dir_all(root.join("var/lib/imks")).unwrap();
    std::fs::write(root.join("var/lib/imks/imks.db"), "messages").unwrap();
    std::fs::write(&configured, "listen = \"127.0.0.1:4000\"\n").unwrap();
    dpkg("--install", &package);
    assert!(
        std::fs::read_to_string(&configured).unwrap().contains("4000"),
        "an upgrade keeps the configuration"
    );
    dpkg("--remove", Path::new("imks"));
    assert!(configured.exists() && !root.join("usr/bin/imks").exists());
    dpkg("--purge", Path::new("imks"));
    assert!(!configured.exists());
    assert!(root.join("var/lib/imks/imks.db").exists(), "messages go only by hand");
}

#[test]
fn lintian_finds_nothing_in_the_package() {
    let Ok(version) = Command::new("lintian").arg("--version").output() else {
        return eprintln!("lintian is not installed: the package was not linted");
    };
    assert!(version.status.success());
    let directory = tempfile::tempdir().unwrap();
    // Releases are stripped, and compressed, which takes long.
    let program = directory.path().join("imks");
    done(Command::new("strip").arg(env!("CARGO_BIN_EXE_imks")).arg("-o").arg(&program));
    let package = build(&program, directory.path());
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root", "--suppress-tags", ACCEPTED]);
    done(lintian.arg(&package));
}

#[test]
fn shells_complete_commands_and_options() {
    let directory = tempfile::tempdir().unwrap();
    let script = |shell: &str| {
        let script = done(Command::new(env!("CARGO_BIN_EXE_imks")).args(["completions", shell]).env_clear());
        let path = directory.path().join(shell);
        std::fs::write(&path, &script).unwrap();
        (script, path)
    };
    let (_, bash) = script("bash");
    let line = format!(
        "source {} && COMP_WORDS=(imks back) COMP_CWORD=1 && _imks imks back imks && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    assert_eq!(done(Command::new("bash").args(["--norc", "-c", &line])), "backup\n");
    for shell in ["zsh", "fish"] {
        let (script, _) = script(shell);
        assert!(script.contains("check-config") && script.contains("no-environment"), "{shell}");
    }
}

#[test]
fn the_notes_of_a_release_are_its_section_of_the_changelog() {
    let directory = tempfile::tempdir().unwrap();
    let changelog = directory.path().join("CHANGELOG.md");
    let text = "# Changelog\n\n## [Unreleased]\n\n- soon\n\n## [0.2.0] - 2027-01-01\n\n### Added\n\n- this\n\n## [0.1.0]\n\n- that\n";
    std::fs::write(&changelog, text).unwrap();
    let notes = |version: &str| {
        let output =
            Command::new(file(".github/release-notes")).arg(version).arg(&changelog).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(notes("0.2.0"), (true, "### Added\n\n- this\n\n".trim_end().to_owned() + "\n"));
    assert_eq!(notes("0.1.0"), (true, "- that\n".to_owned()));
    assert!(!notes("0.3.0").0, "a release without notes is refused");
    assert!(
        done(Command::new(file(".github/release-notes")).arg("Unreleased").current_dir(file("")))
            .contains("###")
    );
}

#[test]
fn settings_in_the_image_and_in_the_compose_file_exist() {
    let table = done(Command::new(env!("CARGO_BIN_EXE_imks")).args(["check-config", "--table"]).env_clear());
    for name in ["Dockerfile", "compose.yaml", "deploy/systemd/imks.service"] {
        let text = std::fs::read_to_string(file(name)).unwrap();
        let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        let settings: Vec<&str> = words.filter(|word| word.starts_with("IMKS_")).collect();
        assert!(!settings.is_empty(), "{name}");
        // The first is of the build, the second names the file of the others.
        let others = settings.into_iter().filter(|name| !["IMKS_BUILD", "IMKS_CONFIG"].contains(name));
        let unknown: Vec<&str> = others.filter(|name| !table.contains(&format!("`{name}`"))).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
}
