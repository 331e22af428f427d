//! HTTP/2 without a gRPC library: peers that do what no honest client does.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::net::TcpStream;
use tonic::Code;

use galaxy_push::proto::push::GatewaySubscribeRequest;

use super::soon;

pub const SUBSCRIBE: &str = "/galaxy.backend.push.v1.Push/SubscribePush";
pub const PUBLISH: &str = "/galaxy.push.publisher.v1.Publisher/Publish";
pub const PUBLISH_STREAM: &str = "/galaxy.push.publisher.v1.Publisher/PublishStream";

/// HTTP/2's client preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A message with gRPC's prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

pub fn subscribe_request(id: &str) -> Vec<u8> {
    let request = GatewaySubscribeRequest {
        gateway_client_id: id.to_owned(),
        cursor: String::new(),
    };
    framed(&request.encode_to_vec())
}

/// An HTTP/2 connection whose windows open only as the test says.
pub struct Client {
    pub streams: SendRequest<Bytes>,
    /// Drives the connection until the client is dropped.
    _driver: tokio::task::JoinHandle<()>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// `window`: how many bytes each stream may be sent before the test releases
    /// some.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let socket = soon(TcpStream::connect(address)).await.expect("connected");
        let handshake = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window.max(65_535))
            .handshake(socket);
        let (streams, connection) = soon(handshake).await.expect("a handshake");
        Client {
            streams,
            _driver: tokio::spawn(async move {
                // How it ends is seen on the streams.
                let _ = connection.await;
            }),
        }
    }

    /// Starts a call, and leaves the request's body open.
    pub async fn open(&mut self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = request(path);
        let mut streams = soon(self.streams.clone().ready())
            .await
            .expect("a free stream");
        streams.send_request(request, false).expect("sent")
    }

    /// A whole call: the request's body as it is, and all of the answer.
    pub async fn call(&mut self, path: &str, body: Vec<u8>) -> Answer {
        let (response, mut to) = self.open(path).await;
        to.send_data(body.into(), true).expect("sent");
        Answer::read(soon(response).await.expect("a response")).await
    }

    /// Subscribes, and returns the stream unread.
    pub async fn subscribe(&mut self, id: &str) -> Response<RecvStream> {
        let (response, mut to) = self.open(SUBSCRIBE).await;
        to.send_data(subscribe_request(id).into(), true)
            .expect("sent");
        soon(response).await.expect("a response")
    }
}

pub fn request(path: &str) -> Request<()> {
    Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request")
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub headers: HeaderMap,
    pub data: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Answer {
    pub async fn read(response: Response<RecvStream>) -> Self {
        let (head, mut body) = response.into_parts();
        let mut data = Vec::new();
        while let Some(piece) = soon(body.data()).await {
            let piece = piece.expect("data");
            body.flow_control()
                .release_capacity(piece.len())
                .expect("released");
            data.extend(piece);
        }
        let trailers = soon(body.trailers()).await.expect("trailers");
        Answer {
            headers: head.headers,
            data,
            trailers: trailers.unwrap_or_default(),
        }
    }

    fn either(&self, key: &str) -> Option<&str> {
        let value = self.trailers.get(key).or_else(|| self.headers.get(key))?;
        Some(value.to_str().expect("text"))
    }

    pub fn grpc_status(&self) -> Option<Code> {
        Some(Code::from_bytes(self.either("grpc-status")?.as_bytes()))
    }

    /// As it is sent: percent-encoded.
    pub fn grpc_message(&self) -> &str {
        self.either("grpc-message").unwrap_or_default()
    }
}
