//! The `imks` command.

/// Returns memory after clients have disconnected, unlike the system allocator
/// (docs/adr/0021-the-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    imks::run_command_line()
}
