//! The `galaxy-push` command: a command line in, an exit code out.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    galaxy_push::cli::main(std::env::args_os())
}
