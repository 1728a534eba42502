//! The list of all metrics, by owner, for `/metrics`, OTLP and the documentation.

use crate::telemetry::{self, Catalog};
use crate::{application, auth, bus, control, engine, http, messaging, models, pb, socket, webhook};

/// All metrics, in the order of the documentation.
pub(crate) static INSTRUMENTS: Catalog = &[
    messaging::metrics::INSTRUMENTS,
    control::metrics::INSTRUMENTS,
    socket::metrics::INSTRUMENTS,
    bus::metrics::INSTRUMENTS,
    models::metrics::INSTRUMENTS,
    webhook::metrics::INSTRUMENTS,
    application::metrics::INSTRUMENTS,
    engine::metrics::INSTRUMENTS,
    http::metrics::INSTRUMENTS,
    pb::metrics::INSTRUMENTS,
    auth::metrics::INSTRUMENTS,
    telemetry::metrics::INSTRUMENTS,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;
    use crate::telemetry::prometheus::{self, Format};
    use crate::telemetry::source::Kind;

    #[test]
    fn every_file_that_declares_metrics_is_listed() {
        let listed = include_str!("instruments.rs");
        for path in files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
            let text = std::fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap();
            if product.lines().any(|line| line == "instruments! {") {
                let module = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
                let entry = format!("    {module}::metrics::INSTRUMENTS,");
                assert!(path.ends_with("metrics.rs") && listed.contains(&entry), "{}", path.display());
            }
        }
    }

    fn files(directory: &Path) -> Vec<std::path::PathBuf> {
        let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus_and_stand_once() {
        let mut seen = HashSet::new();
        for instrument in INSTRUMENTS.iter().copied().flatten() {
            let name = instrument.name;
            let kind = instrument.source.kind();
            // OpenMetrics names a counter without its ending, and wants quotation marks in the help escaped.
            assert!(seen.insert(name.trim_end_matches("_total")), "{name} is declared twice");
            assert!(!instrument.help.contains('"'), "{name}");
            assert!(name.starts_with("imks_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(kind != Kind::Latency || name.ends_with("_seconds"), "{name}");
            assert!(!name.ends_with("_ms") && !name.ends_with("_timestamp"), "{name}: times are in seconds");
            assert!(!instrument.help.is_empty() && !instrument.help.ends_with('.'), "{name}");
            assert!(!matches!(instrument.label, Some("le" | "job" | "instance")), "{name}");
        }
    }

    #[test]
    fn the_version_stands_on_the_page() {
        let line = concat!("imks_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
        assert!(prometheus::text(INSTRUMENTS, Format::Prometheus).lines().any(|it| it == line));
    }
}
