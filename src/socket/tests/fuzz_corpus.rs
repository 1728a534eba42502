//! A test that runs every input in `fuzz/corpus` through the checks of its fuzz target.

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

use self::targets::{
    engine_legacy, engine_payload, identity_answers, socket_msgpack, socket_text, websocket,
    websocket_deflate, webtransport,
};

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 8] = [
    ("engine_legacy", engine_legacy::check),
    ("engine_payload", engine_payload::check),
    ("identity_answers", identity_answers::check),
    ("socket_msgpack", socket_msgpack::check),
    ("socket_text", socket_text::check),
    ("websocket", websocket::check),
    ("websocket_deflate", websocket_deflate::check),
    ("webtransport", webtransport::check),
];

fn corpus() -> impl Iterator<Item = std::fs::DirEntry> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    corpus.read_dir().unwrap().map(|entry| entry.unwrap())
}

#[test]
fn every_kept_input_passes_its_fuzz_target() {
    for target in corpus() {
        let name = target.file_name();
        let (_, check) = TARGETS.iter().find(|(known, _)| name == *known).expect("a target of this name");
        for input in target.path().read_dir().unwrap() {
            let input = input.unwrap().path();
            println!("{}", input.display());
            check(&std::fs::read(input).unwrap());
        }
    }
}

#[test]
fn every_fuzz_target_has_kept_inputs() {
    assert_eq!(corpus().count(), TARGETS.len());
}
