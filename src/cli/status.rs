//! `galaxy-push status`: a running server at a glance.

use std::io::IsTerminal;
use std::time::Duration;

use super::admin::{Admin, AdminArgs, encoded};
use crate::admin::api;
use crate::command::text::{self, Side, table, visible};
use crate::command::{Failure, print, signals, value};

/// The most gateways that the server gives at once.
const MAX_GATEWAYS: u64 = 1000;
/// So many of the last ends are shown.
const ENDS: usize = 5;
/// Clears the screen, and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show a running server: its ring, its rates, its gateways.
///
/// Gateways that are furthest behind come first. Needs `admin = "read"` where the server has
/// an access file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push status
  galaxy-push status --watch --gateways 40
  galaxy-push status --json | jq .ring
  galaxy-push status --filter eu-west --sort bytes_per_second")]
pub(super) struct Args {
    /// Show it again and again, every so often; --watch alone: every 2 seconds.
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = value::duration
    )]
    watch: Option<Duration>,

    /// Print what the server answers, as one line of JSON: the status, and with it the
    /// gateways and the last ends.
    #[arg(long)]
    json: bool,

    /// How many gateways to show.
    #[arg(long, default_value_t = 20, value_parser = |text: &str| value::within(text, 0..=MAX_GATEWAYS))]
    gateways: u64,

    /// Show only gateways with this in their id, peer, principal or state.
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,

    /// What to sort gateways by, the greatest first: a field of the JSON.
    #[arg(long, value_name = "FIELD", default_value = "lag_seconds")]
    sort: String,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Everything that is shown.
#[derive(Debug, serde::Serialize)]
struct Shown {
    #[serde(flatten)]
    status: api::Status,
    #[serde(rename = "gateway_table")]
    gateways: api::Gateways,
    #[serde(flatten)]
    ends: api::Ends,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args {
        watch,
        json,
        gateways,
        filter,
        sort,
        admin,
    } = args;
    let query = format!(
        "/api/v1/gateways?limit={gateways}&order=desc&sort={}&filter={}",
        encoded(&sort),
        encoded(&filter)
    );
    let show = async |server: &Admin| {
        let shown = Shown {
            status: server.get("/api/v1/status").await?,
            gateways: server.get(&query).await?,
            ends: server.get(&format!("/api/v1/ends?limit={ENDS}")).await?,
        };
        Ok::<String, Failure>(match json {
            true => json_line(&shown)?,
            false => page(&shown),
        })
    };
    admin.run(async |server| {
        let Some(every) = watch else {
            return print(&show(&server).await?);
        };
        let clears = !json && std::io::stdout().is_terminal();
        let stop = signals::asked_to_stop()?;
        tokio::pin!(stop);
        loop {
            // A server that goes away comes back: the page says so meanwhile.
            let page = match show(&server).await {
                Ok(page) => page,
                Err(failure) if json => return Err(failure),
                Err(failure) => format!("{}\n", failure.message),
            };
            print(&format!("{}{page}", if clears { CLEAR } else { "" }))?;
            tokio::select! {
                () = tokio::time::sleep(every.max(Duration::from_millis(100))) => {}
                () = &mut stop => return Ok(()),
            }
        }
    })
}

fn json_line(shown: &Shown) -> Result<String, Failure> {
    let line = serde_json::to_string(shown);
    let line = line.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    Ok(line + "\n")
}

fn page(shown: &Shown) -> String {
    let Shown {
        status,
        gateways,
        ends,
    } = shown;
    let mut page = summary(status);
    page.push('\n');
    page.push_str(&gateway_table(gateways));
    if !ends.ends.is_empty() {
        page.push_str("\nlast ends\n");
        page.push_str(&end_table(&ends.ends));
    }
    page
}

/// A server in a dozen lines.
fn summary(status: &api::Status) -> String {
    let api::Status {
        ring,
        rates,
        totals,
        process,
        ..
    } = status;
    let delay = |delay: Option<f64>| delay.map_or("-".to_owned(), text::seconds);
    let count = text::count;
    let mut lines = vec![
        (
            "server",
            format!(
                "galaxy-push {}, {} for {}",
                visible(&status.version),
                visible(&status.state),
                text::seconds(status.uptime_seconds)
            ),
        ),
        (
            "published",
            format!(
                "{}/s   {} client events, {} session invalidations",
                text::number(rates.published_per_second),
                count(totals.client_events_published),
                count(totals.session_invalidations_published)
            ),
        ),
        (
            "delivered",
            format!(
                "{}/s   {}/s   {} in all",
                text::number(rates.deliveries_per_second),
                text::bytes(rates.delivered_bytes_per_second),
                count(totals.deliveries)
            ),
        ),
        (
            "delay",
            format!(
                "p50 {}   p99 {}",
                delay(rates.delivery_delay_p50_seconds),
                delay(rates.delivery_delay_p99_seconds)
            ),
        ),
        (
            "ring",
            format!(
                "{} of {} events   {} of {}   {} pinned   back to {} of {}",
                count(ring.events),
                count(ring.max_events),
                text::bytes(ring.bytes as f64),
                text::bytes(ring.max_bytes as f64),
                text::bytes(ring.pinned_bytes as f64),
                text::seconds(ring.oldest_age_seconds),
                text::seconds(ring.window_seconds)
            ),
        ),
        (
            "revoked",
            format!(
                "{} of {} kept   {}   {} evicted   replays: {} complete, {} partial",
                count(status.revocations.kept),
                count(status.revocations.max),
                text::bytes(status.revocations.bytes as f64),
                count(status.revocations.evicted),
                count(status.revocations.complete_replays),
                count(status.revocations.partial_replays)
            ),
        ),
        (
            "receipts",
            format!(
                "{} reporting   {} without reports   bans waited for: {} proven, {} not",
                count(status.receipts.reporting),
                count(status.receipts.without_reports),
                count(status.receipts.waits_proven),
                count(status.receipts.waits_unproven)
            ),
        ),
        (
            "gateways",
            format!(
                "{} of {}   {} behind   {} events missed",
                count(status.gateways.subscribed),
                count(status.gateways.max),
                count(status.gateways.behind),
                count(totals.missed_events)
            ),
        ),
        (
            "process",
            format!(
                "{} resident   {} of {} files",
                text::bytes(process.resident_bytes as f64),
                count(process.open_fds),
                count(process.max_fds)
            ),
        ),
        ("head", visible(&status.head)),
    ];
    for listener in &status.listeners {
        lines.push((
            "listens",
            format!(
                "{} on {}{}   {} of {} connections",
                visible(&listener.name),
                visible(&listener.address),
                if listener.tls { " (TLS)" } else { "" },
                count(listener.connections),
                count(listener.max_connections)
            ),
        ));
    }
    for check in status.checks.iter().filter(|check| !check.ok) {
        let (name, detail) = (visible(&check.name), visible(&check.detail));
        lines.push(("not ready", format!("{name}: {detail}")));
    }
    let lines = lines.into_iter();
    lines
        .map(|(name, text)| format!("{name:<10} {text}\n"))
        .collect()
}

fn gateway_table(gateways: &api::Gateways) -> String {
    let head = [
        ("GATEWAY", Side::Left),
        ("STATE", Side::Left),
        ("LAG", Side::Right),
        ("WAITS", Side::Right),
        ("BYTES/S", Side::Right),
        ("DELIVERED", Side::Right),
        ("PEER", Side::Left),
        ("PRINCIPAL", Side::Left),
        ("SINCE", Side::Left),
    ];
    let rows: Vec<Vec<String>> = gateways
        .gateways
        .iter()
        .map(|gateway| {
            vec![
                visible(&gateway.id),
                visible(&gateway.state),
                text::count(gateway.lag_events),
                text::seconds(gateway.lag_seconds),
                text::bytes(gateway.bytes_per_second),
                text::count(gateway.delivered_events),
                visible(&gateway.peer),
                visible(&gateway.principal),
                visible(&gateway.since),
            ]
        })
        .collect();
    let mut text = table(&head, &rows);
    let shown = rows.len() as u64;
    if shown < gateways.matched {
        text.push_str(&format!(
            "and {} more (--gateways)\n",
            text::count(gateways.matched - shown)
        ));
    }
    text
}

fn end_table(ends: &[api::End]) -> String {
    let head = [
        ("AT", Side::Left),
        ("GATEWAY", Side::Left),
        ("CAUSE", Side::Left),
        ("LASTED", Side::Right),
        ("MISSED", Side::Right),
        ("DETAIL", Side::Left),
    ];
    let rows: Vec<Vec<String>> = ends
        .iter()
        .map(|end| {
            vec![
                visible(&end.at),
                visible(&end.id),
                visible(&end.cause),
                text::seconds(end.lasted_seconds),
                text::count(end.missed),
                visible(&end.detail),
            ]
        })
        .collect();
    table(&head, &rows)
}
