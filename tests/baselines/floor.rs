//! The plain TCP server, over real sockets: every event, in order, to a gateway that
//! was there before and to one that comes after.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use galaxy_push::lab::load::{Begin, Consumer, Publisher};

use crate::clients::tcp::{TcpConsumer, TcpPublisher};
use crate::peers::tcp::{Floor, Writes};
use crate::record::{Record, batch};

fn connect(at: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(at).expect("connected");
    let timeout = Some(Duration::from_secs(30));
    socket.set_read_timeout(timeout).expect("a timeout");
    socket
}

struct Gateway {
    socket: TcpStream,
    consumer: TcpConsumer,
    unread: Vec<u8>,
    record: Record,
}

impl Gateway {
    fn open(at: SocketAddr, begin: Begin) -> Self {
        let mut gateway = Gateway {
            socket: connect(at),
            consumer: TcpConsumer::default(),
            unread: Vec::new(),
            record: Record::default(),
        };
        let mut out = Vec::new();
        gateway.consumer.open(begin, &mut out);
        gateway.socket.write_all(&out).expect("written");
        while gateway.record.starts.is_empty() {
            gateway.read();
        }
        gateway
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let read = self.socket.read(&mut buffer).expect("bytes in time");
        assert!(read > 0, "the connection ended");
        self.unread.extend(&buffer[..read]);
        let taken = self
            .consumer
            .receive(&self.unread, &mut Vec::new(), &mut self.record)
            .expect("frames");
        self.unread.drain(..taken);
    }

    fn read_until(&mut self, events: usize) -> &Record {
        while self.record.events.len() < events {
            self.read();
        }
        &self.record
    }
}

#[test]
fn the_plain_tcp_server_delivers_every_event_to_every_gateway() {
    for writes in [
        Writes::Single,
        Writes::Gathered { rest: 0.0 },
        Writes::Gathered { rest: 0.5 },
    ] {
        delivers_every_event_to_every_gateway(writes);
    }
}

fn delivers_every_event_to_every_gateway(writes: Writes) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let floor = Floor::bind(any, any, writes).expect("bound");
    let [gateways, publishers] = floor.addresses().expect("addresses");
    // It ends with the process.
    std::thread::spawn(|| floor.run());

    let mut live = Gateway::open(gateways, Begin::Head);
    let mut publisher = TcpPublisher::default();
    let mut socket = connect(publishers);
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    publisher.open(&mut out);
    for first in (0..5000).step_by(100) {
        let batch = batch(first, 100);
        sent.extend(batch.events().map(<[u8]>::to_vec));
        publisher.publish(&batch, &mut out);
    }
    socket.write_all(&out).expect("written");
    let mut responses = Record::default();
    let mut unread = Vec::new();
    while responses.accepted < 50 {
        let mut buffer = [0; 64];
        let read = socket.read(&mut buffer).expect("responses in time");
        unread.extend(&buffer[..read]);
        let taken = publisher
            .receive(&unread, &mut Vec::new(), &mut responses)
            .expect("numbers");
        unread.drain(..taken);
    }
    assert_eq!(live.read_until(sent.len()).events, sent);

    let mut late = Gateway::open(gateways, Begin::Oldest);
    assert_eq!(late.read_until(sent.len()).events, sent);
    assert_eq!(late.record.cursors, live.record.cursors);

    let middle = live.record.cursors[2499].expect("a cursor");
    let mut resumed = Gateway::open(gateways, Begin::After(middle));
    assert_eq!(resumed.record.starts[0].cursor, Some(middle));
    assert_eq!(resumed.read_until(2500).events, sent[2500..]);
}
