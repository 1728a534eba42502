//! The `imks` command.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "server")]
    return imks::cli::main();
    #[cfg(not(feature = "server"))]
    return std::process::ExitCode::from(EXIT_NOT_BUILT);
}

/// This build has no server in it (feature `server`).
#[cfg(not(feature = "server"))]
const EXIT_NOT_BUILT: u8 = 69;
