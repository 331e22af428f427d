//! `galaxy-push man`: manual pages, from the same texts as --help.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use crate::command::{Failure, print};

/// Print the manual page, or write one for each command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push man | man -l -
  galaxy-push man --out /usr/share/man/man1")]
pub(super) struct Args {
    /// Write the pages of all commands into this directory, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    match &args.out {
        None => {
            let page = page(&command).map_err(|error| Failure::failed(error.to_string()))?;
            print(&String::from_utf8_lossy(&page))
        }
        Some(directory) => fs::create_dir_all(directory)
            .and_then(|()| write_pages(&command, directory))
            .map_err(|error| {
                Failure::failed(format!("cannot write to {}: {error}", directory.display()))
            }),
    }
}

fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    let shown = command.get_subcommands().filter(|of| !of.is_hide_set());
    for subcommand in shown {
        write_pages(subcommand, directory)?;
    }
    let name = Man::new(command.clone()).get_filename();
    fs::write(directory.join(name), page(command)?)
}

/// The page of a command. What follows the flags in its help is set as it is written there.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone())
        .source(format!("galaxy-push {version}"))
        .manual("galaxy-push");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        let mut options = Vec::new();
        man.render_options_section(&mut options)?;
        for line in String::from_utf8_lossy(&options).lines() {
            let line = match line.contains("[default: ") {
                // A list may be longer than a line.
                true => line.replace(',', ",\\:"),
                false => line.to_owned(),
            };
            page.extend(line.as_bytes());
            page.push(b'\n');
        }
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let notes = command.get_after_long_help().or(command.get_after_help());
    if let Some(notes) = notes {
        page.extend(b".SH NOTES\n.nf\n");
        for line in notes.to_string().lines() {
            page.extend(roff_line(line).as_bytes());
            page.push(b'\n');
        }
        page.extend(b".fi\n");
    }
    Ok(page)
}

/// A line of text that groff takes for nothing else.
fn roff_line(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    match line.chars().next() {
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_requests() {
        for (line, roff) in [
            ("a -b", "a \\-b"),
            (".x", "\\&.x"),
            ("'x'", "\\&'x'"),
            ("\\n", "\\en"),
            ("", ""),
        ] {
            assert_eq!(roff_line(line), roff);
        }
    }
}
