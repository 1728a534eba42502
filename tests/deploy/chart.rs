//! The chart for Kubernetes: rendered by Helm's own code, with the package `helm-python-sdk`.

use std::process::Command;

use super::{done, file};

// Helm's code comes as a wheel for this architecture only.
#[cfg_attr(not(target_arch = "x86_64"), ignore = "there is no helm-python-sdk for it")]
#[test]
fn the_chart_renders_what_its_values_say_and_refuses_what_cannot_work() {
    let mut command = Command::new(file("target/python/bin/python"));
    let said = done(
        command
            .arg(file("tests/python/chart.py"))
            .arg(file("deploy/helm/imks"))
            .arg(env!("CARGO_BIN_EXE_imks")),
    );
    assert!(said.contains("checks passed"), "{said}");
}
