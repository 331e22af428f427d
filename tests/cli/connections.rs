//! Connections by the thousand that come and go: nothing of them is left in the process.

use std::fs;
use std::net::SocketAddr;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::frames::{self, PREFACE, kind};
use crate::support::grpc::{PUBLISH, SUBSCRIBE, publish_request, subscribe_request};
use crate::support::process::Server;
use crate::support::wire::Wire;
use crate::support::{event, soon, until};

const SUBSCRIBERS: usize = 20;
/// Every subscriber may be connected twice, and some more.
const GATEWAY_CONNECTIONS: usize = 2 * SUBSCRIBERS + 64;
const PUBLISHER_CONNECTIONS: usize = 512;

fn open_files(process: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{process}/fd"));
    files.expect("it runs").count()
}

/// Connects, sends as much as `kind` says, and is gone.
async fn come_and_go(address: SocketAddr, call: &[u8], kind: usize) {
    let mut socket = soon(TcpStream::connect(address)).await.expect("connected");
    let settings = frames::settings(&[]);
    let opening = match kind {
        0 => vec![],
        1 => PREFACE.to_vec(),
        2 => [PREFACE, &settings[..]].concat(),
        3 => [PREFACE, &settings, call].concat(),
        _ => {
            // The end is a reset.
            socket.set_zero_linger().expect("set");
            [PREFACE, &settings, call].concat()
        }
    };
    soon(socket.write_all(&opening)).await.expect("sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_quick_connects_leave_no_slot_subscription_or_descriptor() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("allowed");

    let server = Server::start(&["--max-subscribers", &SUBSCRIBERS.to_string()]);
    let process = server.process.id();
    let gateways: SocketAddr = server.gateways.parse().expect("an address");
    let publishers: SocketAddr = server.publishers.parse().expect("an address");
    // Whatever is opened once is open now.
    server.publish_small(0..1);
    let quiet = open_files(process);

    let mut connecting = Vec::new();
    for kind in 0..5 {
        connecting.push(tokio::spawn(async move {
            for n in 0..400 {
                let request = subscribe_request(&format!("gone-{kind}-{n}"), "");
                let call = frames::call(1, SUBSCRIBE, &request);
                come_and_go(gateways, &call, kind).await;
                let call = frames::call(1, PUBLISH, &publish_request(vec![event(n)]));
                come_and_go(publishers, &call, kind).await;
            }
        }));
    }
    for task in connecting {
        soon(task).await.expect("no panic");
    }
    until(|| open_files(process) <= quiet).await;

    // All but one of the slots are free: were they all taken, idle connections would be
    // cut for one another.
    let mut open = Vec::new();
    for (address, most) in [
        (gateways, GATEWAY_CONNECTIONS),
        (publishers, PUBLISHER_CONNECTIONS),
    ] {
        for _ in 1..most {
            let mut wire = Wire::connect(address).await;
            wire.find(kind::SETTINGS).await;
            open.push(wire);
        }
    }
    // So are all subscriptions, and no more.
    let first = &mut open[0];
    for n in 0..=SUBSCRIBERS {
        let stream = 2 * n as u32 + 1;
        let request = subscribe_request(&format!("gateway-{n}"), "");
        first.send(&frames::call(stream, SUBSCRIBE, &request)).await;
        let status = first.find_on(stream).await.field("grpc-status");
        let resource_exhausted = (n == SUBSCRIBERS).then(|| "8".to_owned());
        assert_eq!(status, resource_exhausted, "gateway-{n}");
    }
    for wire in &mut open {
        wire.assert_alive().await;
    }
}
