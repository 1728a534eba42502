//! `proto/check`, on copies of the contract that somebody has changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A copy of the contract, beside the tools of the original.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").args(["-r", &format!("{ROOT}/proto")]).arg(directory.path()).status();
        assert!(copied.unwrap().success());
        symlink(Path::new(ROOT).join("tests"), directory.path().join("tests")).unwrap();
        Self(directory)
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> &Self {
        let path = self.0.path().join("proto").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        self
    }

    /// What `proto/check` says, and whether it was content.
    fn check(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(self.0.path().join("proto/check")).args(arguments).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said)
    }
}

#[test]
fn the_contract_is_in_good_style_and_published() {
    assert_eq!(Copy::new().check(&[]), (true, String::new()));
}

#[test]
fn a_field_that_is_gone_or_changed_is_refused() {
    for (from, to, says) in [
        ("  string name = 4;\n", "", "field \"4\""),
        ("  string name = 4;\n", "  bytes name = 4;\n", "type"),
        ("  string name = 4;\n", "  string title = 4;\n", "name"),
    ] {
        let copy = Copy::new();
        let (is_fine, said) = copy.edit("core/v1/channel.proto", from, to).check(&[]);
        assert!(!is_fine && said.contains(says), "{to}: {said}");
        assert!(!copy.check(&["publish"]).0, "what breaks others cannot be published over them");
    }
}

#[test]
fn a_call_that_is_gone_is_refused() {
    let call = "  rpc KickUser(KickUserRequest) returns (KickUserResponse);\n";
    let (is_fine, said) = Copy::new().edit("imks/v1/control.proto", call, "").check(&[]);
    assert!(!is_fine && said.contains("KickUser"), "{said}");
}

#[test]
fn a_field_in_another_style_is_refused() {
    let more = "  int64 version = 9;\n  string Topic = 10;\n";
    let (is_fine, said) =
        Copy::new().edit("core/v1/channel.proto", "  int64 version = 9;\n", more).check(&[]);
    assert!(!is_fine && said.contains("lower_snake_case"), "{said}");
}

#[test]
fn a_field_that_was_added_is_taken_into_what_is_published_once() {
    let copy = Copy::new();
    let more = "  int64 version = 9;\n  string topic = 10;\n";
    let (is_fine, said) = copy.edit("core/v1/channel.proto", "  int64 version = 9;\n", more).check(&[]);
    assert!(!is_fine && said.contains("run proto/check publish"), "{said}");
    assert_eq!(copy.check(&["publish"]), (true, String::new()));
    assert_eq!(copy.check(&[]), (true, String::new()));
    assert!(!copy.edit("core/v1/channel.proto", "  string topic = 10;\n", "").check(&[]).0);
}
