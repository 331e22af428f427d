//! `galaxy-push completions`: scripts by which shells complete command lines.

use clap_complete::Shell;

use crate::command::{Failure, print};

/// Print a script by which a shell completes the commands and their flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push completions bash > /usr/share/bash-completion/completions/galaxy-push
  galaxy-push completions zsh > /usr/share/zsh/vendor-completions/_galaxy-push
  galaxy-push completions fish > ~/.config/fish/completions/galaxy-push.fish")]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::command(),
        "galaxy-push",
        &mut script,
    );
    let script = String::from_utf8_lossy(&script);
    match args.shell {
        // Where a program's name has a hyphen, one half of the script calls the commands
        // otherwise than the other half does (clap-rs/clap#6421).
        Shell::Bash => print(&script.replace("galaxy__subcmd__push", "galaxy__push")),
        _ => print(&script),
    }
}
