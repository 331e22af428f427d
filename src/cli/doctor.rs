//! `galaxy-push doctor`: says in words what is wrong with a running server.

mod examination;

use std::time::SystemTime;

use self::examination::{Finding, Level, Seen, examine};
use super::admin::AdminArgs;
use crate::admin::api;
use crate::command::text::visible;
use crate::command::{Failure, print};

/// So many gateways are looked at, those that are furthest behind.
const GATEWAYS: usize = 1000;
/// And so many ends.
const ENDS: usize = 1000;

/// Examine a running server, and say in words what is wrong.
///
/// It looks at the checks of readiness, at gateways that lag and at those that were cut, at
/// the ring against the times for which gateways were away, at memory, files, connections and
/// certificates. Each finding says what to do. Needs `admin = "read"` where the server has an
/// access file.
///
/// Exit code 0: nothing is wrong. Exit code 1: something is, or the server does not answer.
/// Notes alone are no failure.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push doctor
  galaxy-push doctor --json | jq -r '.[] | select(.level == \"problem\") | .what'")]
pub(super) struct Args {
    /// Print the findings as one JSON array, each with its level, what was found, and what to
    /// do.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { json, admin } = args;
    admin.run(async |server| {
        let gateways = format!("/api/v1/gateways?limit={GATEWAYS}&sort=lag_seconds&order=desc");
        let seen = Seen {
            status: server.get("/api/v1/status").await?,
            gateways: server.get::<api::Gateways>(&gateways).await?.gateways,
            ends: server
                .get::<api::Ends>(&format!("/api/v1/ends?limit={ENDS}"))
                .await?
                .ends,
            now: SystemTime::now(),
        };
        let findings = examine(&seen);
        match json {
            true => print(&json_line(&findings)?)?,
            false => print(&text(&findings))?,
        }
        let problems = findings.iter().filter(|of| of.level == Level::Problem);
        match problems.count() {
            0 => Ok(()),
            1 => Err(Failure::failed("1 problem")),
            n => Err(Failure::failed(format!("{n} problems"))),
        }
    })
}

fn json_line(findings: &[Finding]) -> Result<String, Failure> {
    let line = serde_json::to_string(findings);
    let line = line.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    Ok(line + "\n")
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let Finding {
            level,
            what,
            advice,
            ..
        } = finding;
        text.push_str(&format!("{level}: {}\n", visible(what)));
        text.push_str(&format!("    {}\n", visible(advice)));
    }
    text
}
