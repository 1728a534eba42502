//! The `imks` command.

fn main() {}
