//! `galaxy-push conformance`: judges an implementation of the contract, whoever has written it.
//!
//! | room | what is in it |
//! |---|---|
//! | `server` | gateways and a publisher that judge a server |
//! | `gateway` | a backend that misbehaves, and judges what a gateway does next |
//! | `promise` | one line of the contract, and how it is judged |
//! | `report` | what was found, as text, JSON, JUnit and HTML |
//! | `run` | from a table of promises to a report |
//! | `raw` | messages as bytes |
//!
//! The kit shares with the product what a gateway's client is made of: connections, the contract's
//! words, cursors. What is judged it sees as bytes and metadata, through tonic, and never through the
//! product's own client or server.

mod gateway;
mod promise;
mod raw;
mod report;
mod run;
mod server;

use crate::command::Failure;

/// Judge a server or a gateway by the contract between them.
///
/// The contract is a list of promises, each with a name. They have two levels: `contract` is what every
/// implementation keeps; `extras` is what a peer may ask for beside it, such as heartbeats and missed
/// revocations.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = false)]
pub(crate) struct Args {
    #[command(subcommand)]
    side: Side,
}

#[derive(Debug, clap::Subcommand)]
enum Side {
    Server(Box<server::Args>),
    Gateway(Box<gateway::Args>),
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.side {
        Side::Server(args) => server::judge(*args),
        Side::Gateway(args) => gateway::judge(*args),
    }
}
