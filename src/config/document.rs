//! The generated tables of `docs/operations.md`. `IMKS_UPDATE_DOCS=1 cargo test --lib operations_document` writes them.

/// Compares what stands between `<!-- name` and `<!-- /name -->` with `table`, or writes it.
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
pub(crate) fn check(name: &str, table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    // One test at a time: each writes the whole document.
    let _writing = WRITING.lock();
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(&format!("<!-- {name}:")).expect("the section begins");
    let (marker, rest) = rest.split_once('\n').expect("the marker has a line of its own");
    let (current, tail) = rest.split_once(&format!("<!-- /{name} -->")).expect("the section ends");
    if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
        let updated = format!("{head}<!-- {name}:{marker}\n{table}<!-- /{name} -->{tail}");
        std::fs::write(path, updated).unwrap();
    } else if current != table {
        panic!(
            "docs/operations.md is stale; run: IMKS_UPDATE_DOCS=1 cargo test --lib operations_document\n{table}"
        );
    }
}

static WRITING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
