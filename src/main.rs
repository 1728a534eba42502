//! The `imks` command.

/// Gives memory back when clients have gone, as the system's does not (docs/adr/0021-the-allocator.md).
#[cfg(feature = "server")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    #[cfg(feature = "server")]
    return imks::cli::main();
    #[cfg(not(feature = "server"))]
    return std::process::ExitCode::from(EXIT_NOT_BUILT);
}

/// This build has no server in it (feature `server`).
#[cfg(not(feature = "server"))]
const EXIT_NOT_BUILT: u8 = 69;
