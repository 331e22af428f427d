//! A gateway with sessions, run by the SDK: its backend, and what stands between it and its server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galaxy_push::client::{Backoff, Builder, Gateway, Item};
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{ClientEvent, PushEvent, SessionInvalidation};
use galaxy_push::cursor::Cursor;
use galaxy_push::gateway::{Application, Driver, Revocation, Router, Session, Verdict};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Harness, publish, soon};

/// What stands between a gateway and its server, and can be cut.
pub struct Relay {
    pub address: SocketAddr,
    pub is_open: watch::Sender<bool>,
}

impl Relay {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (is_open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut gateway, _)) = listener.accept().await {
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    if !*opened.borrow() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut gateway, &mut server) => {}
                        _ = opened.wait_for(|is_open| !is_open) => {}
                    }
                });
            }
        });
        Relay { address, is_open }
    }

    pub fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

/// A backend that knows which sessions are valid, and what it has been told and asked.
#[derive(Clone, Default)]
pub struct Backend {
    pub verdicts: Arc<Mutex<BTreeMap<String, Verdict>>>,
    pub asked: Arc<Mutex<Vec<String>>>,
    pub invalidated: Arc<Mutex<Vec<String>>>,
    pub processed: Arc<Mutex<Option<Cursor>>>,
    pub beginnings: Arc<Mutex<Vec<String>>>,
}

impl Application for Backend {
    async fn validate(&self, user: &str, session: &str) -> Verdict {
        let id = format!("{user} {session}");
        self.asked.lock().unwrap().push(id.clone());
        let verdict = self.verdicts.lock().unwrap().get(&id).cloned();
        match verdict {
            Some(Verdict::Unknown) => {
                // It answers the next time.
                self.verdicts.lock().unwrap().insert(id, Verdict::Valid);
                Verdict::Unknown
            }
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }

    fn invalidated(&self, user: &str, session: &str, revocation: &Revocation) {
        let text = format!("{user} {session} {}", revocation.reason);
        self.invalidated.lock().unwrap().push(text);
    }

    fn processed(&self, cursor: Cursor) {
        *self.processed.lock().unwrap() = Some(cursor);
    }

    fn happened(&self, item: &Item) {
        if let Item::Connected(start) = item {
            let text = format!("{} {}", start.resume, start.reason);
            self.beginnings.lock().unwrap().push(text);
        }
    }
}

/// A gateway that runs until it is dropped.
pub struct Running {
    pub router: Router,
    pub backend: Backend,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Of a gateway that comes back at once.
pub fn subscription(address: SocketAddr) -> Builder {
    subscription_of("gateway", address)
}

/// The same, with this id.
pub fn subscription_of(id: &str, address: SocketAddr) -> Builder {
    let millisecond = Duration::from_millis(1);
    Gateway::builder(id, address.to_string().parse().expect("an address"))
        .backoff(Backoff::new(millisecond, millisecond))
}

/// Runs a gateway with such a router, and waits until it lets sessions in.
pub async fn run(subscription: Builder, router: galaxy_push::gateway::Builder) -> Running {
    let (router, feed) = router.build();
    let backend = Backend::default();
    let driver = Driver::new(subscription, feed, backend.clone()).expect("valid");
    let driver = driver.validation_timeout(Duration::from_millis(200));
    let driver = tokio::spawn(async move {
        driver.run().await;
    });
    let running = Running {
        router,
        backend,
        driver,
    };
    soon(running.router.ready()).await;
    running
}

impl Running {
    pub fn open(&self, user: &str, session: &str) -> Session {
        let ticket = self.router.begin_authentication();
        self.router.open(ticket, user, session).expect("valid")
    }

    pub async fn until(&self, is_so: impl Fn(&Running) -> bool) {
        while !is_so(self) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub fn client_event(user: &str, session: &str, payload: &str) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: user.to_owned(),
            device_session_id: session.to_owned(),
            kind: "turn.ready".to_owned(),
            payload: payload.to_owned().into(),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

pub fn invalidation(user: &str, session: &str, reason: &str) -> PushEvent {
    PushEvent {
        kind: Some(Kind::SessionInvalidation(SessionInvalidation {
            user_id: user.to_owned(),
            device_session_id: session.to_owned(),
            reason: reason.to_owned(),
        })),
        cursor: String::new(),
    }
}

/// Publishes, and returns the last event's cursor.
pub async fn put(server: &Harness, events: Vec<PushEvent>) -> Cursor {
    let mut publisher = server.publisher().await;
    let response = soon(publish(&mut publisher, events)).await;
    let cursor = response.expect("published").last_cursor;
    Cursor::parse(cursor.as_bytes()).expect("a cursor")
}
