//! The `imks` command.

/// Gives memory back when clients have gone, as the system's does not (docs/adr/0021-the-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    imks::run_command_line()
}
