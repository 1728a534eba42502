//! What a hostile core, key set, login hook or client can send: it is read or refused. No key accepts a signature that
//! nobody made, and no login is larger than allowed.

use imks::testing::auth::{self, Login};
use imks::testing::pb;

/// The kinds of input, by its first byte: the answer of a core, a key set, a key file, the answer of a hook, a token.
pub fn check(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind {
        b'c' => assert!(auth::fuzzing::read_core_keys(pb::fuzzing::read_core_answer(data)) <= 64),
        b's' => assert!(auth::fuzzing::read_key_set(data) <= 64),
        b'f' => assert!(auth::fuzzing::read_key_file(data) <= 8),
        b'h' => check_login(auth::fuzzing::read_hook_answer(data, NOW)),
        b't' => check_token(data),
        _ => {}
    }
}

/// The header and the claims stand in two lines.
fn check_token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (header, claims) = text.split_once('\n').unwrap_or((text, ""));
    let token = format!("{}.{}.c2ln", base64_url(header.as_bytes()), base64_url(claims.as_bytes()));
    for token in [text, &token] {
        check_login(auth::fuzzing::read_own_token(token, NOW));
        let ends_at = auth::fuzzing::read_core_token(token, NOW);
        assert!(ends_at.is_none_or(|at| at > NOW - 5_000_000), "an expired token is good");
    }
}

fn check_login(login: Option<(Login, i64)>) {
    let Some((login, ends_at)) = login else { return };
    assert!((1..=255).contains(&login.subject().len()));
    assert!((1..=64).contains(&login.name().chars().count()), "{:?}", login.name());
    assert!(!login.name().chars().any(char::is_control));
    assert!(ends_at > NOW - 5_000_000 && ends_at <= NOW + 32 * 86_400_000_000);
}

/// Base64url without padding (RFC 4648).
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for sextet in 0..=three.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * sextet) & 63) as usize]));
        }
    }
    text
}

/// The time of the checks, in microseconds since 1970.
const NOW: i64 = 1_800_000_000_000_000;
