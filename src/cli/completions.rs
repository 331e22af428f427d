//! `galaxy-push completions`: scripts by which shells complete command lines.

use clap_complete::Shell;

use super::print;
use crate::command::Failure;

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
    print(&String::from_utf8_lossy(&script))
}
