//! The way to NATS, and what publishers are told while there is none.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::queue::Queue;
use super::{Lost, OpenError, Options};
use crate::backbone::AppendError;

/// How long one attempt may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a server is asked whether it is there.
const PING: Duration = Duration::from_secs(2);
/// How long a request of JetStream's API may take.
const REQUEST: Duration = Duration::from_secs(5);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(250);
/// How long there may be no connection before publishers are refused: a server that is replaced
/// by another is gone for less.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is a connection.
pub(super) struct Monitor {
    is_connected: watch::Receiver<bool>,
}

pub(super) async fn open(options: &Options) -> Result<(Client, Monitor), OpenError> {
    let servers: Vec<ServerAddr> = options
        .servers
        .iter()
        .map(|server| {
            server.parse().map_err(|error| OpenError::Option {
                what: format!("the address {:?}", without_secrets(server)),
                reason: format!("{error}"),
            })
        })
        .collect::<Result<_, _>>()?;
    let (sender, is_connected) = watch::channel(true);
    let mut how = ConnectOptions::new()
        .name("galaxy-push")
        .connection_timeout(CONNECT)
        .request_timeout(Some(REQUEST))
        // The third that is not answered ends a connection.
        .ping_interval(PING)
        .reconnect_delay_callback(|attempts| match attempts {
            0 | 1 => Duration::ZERO,
            _ => AGAIN,
        })
        .event_callback(move |event| {
            let sender = sender.clone();
            async move { heard(&event, &sender) }
        });
    if let Some(file) = &options.credentials {
        let credentials = how.credentials_file(file).await;
        how = credentials.map_err(|error| OpenError::Option {
            what: format!("the credentials in {}", file.display()),
            reason: error.to_string(),
        })?;
    }
    if let Some(file) = &options.tls_ca {
        how = how.add_root_certificates(file.clone()).require_tls(true);
    }
    let client = how.connect(servers).await;
    let client = client.map_err(|error| OpenError::Connect {
        servers: servers_text(&options.servers),
        reason: error.to_string(),
    })?;
    Ok((client, Monitor { is_connected }))
}

fn heard(event: &Event, is_connected: &watch::Sender<bool>) {
    match event {
        Event::Connected => {
            is_connected.send_replace(true);
            tracing::info!("backbone: connected to NATS");
        }
        Event::Disconnected => {
            is_connected.send_replace(false);
            tracing::warn!("backbone: the connection to NATS is lost");
        }
        other => tracing::warn!("backbone: NATS: {other}"),
    }
}

impl Monitor {
    /// Refuses publishers while there is no connection.
    pub(super) async fn run(mut self, queue: &Queue) -> Lost {
        loop {
            let away = self.is_connected.wait_for(|is_connected| !is_connected);
            if away.await.is_err() {
                break;
            }
            let back = self.is_connected.wait_for(|is_connected| *is_connected);
            match timeout(PATIENCE, back).await {
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => break,
                Err(_) => {}
            }
            queue.refuse(AppendError::Unavailable {
                reason: "there is no connection to NATS".to_owned(),
            });
            let back = self.is_connected.wait_for(|is_connected| *is_connected);
            if back.await.is_err() {
                break;
            }
            queue.open();
        }
        // The client has ended by itself, which it does not while it may try again.
        loop {
            sleep(Duration::from_secs(3600)).await;
        }
    }
}

/// The addresses, for people.
fn servers_text(servers: &[String]) -> String {
    let servers = servers.iter().map(|server| without_secrets(server));
    servers.collect::<Vec<_>>().join(",")
}

/// An address without the user's name and password that may be in it.
fn without_secrets(server: &str) -> String {
    let (scheme, rest) = match server.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), server),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_is_secret() {
        let servers = ["nats://me:pass@a:4222", "b", "tok@en@c:1"].map(str::to_owned);
        assert_eq!(servers_text(&servers), "nats://a:4222,b,c:1");
    }
}
