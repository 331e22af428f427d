//! Calls over HTTP/2 without a gRPC library: bodies byte for byte, and windows that open
//! only as the test says.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Code;

use super::grpc::{SUBSCRIBE, subscribe_request};
use super::soon;

/// An HTTP/2 connection whose windows open only as the test says.
pub struct H2Client {
    pub streams: SendRequest<Bytes>,
    /// Drives the connection; done when that has ended.
    pub driver: tokio::task::JoinHandle<()>,
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// `window`: how many bytes each stream may be sent before the test releases
    /// some.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let socket = soon(TcpStream::connect(address)).await.expect("connected");
        Self::over(socket, window).await
    }

    pub async fn over<S>(socket: S, window: u32) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = h2::client::Builder::new()
            .initial_window_size(window)
            // Half of it is what h2 tolerates of unread small frames, before the
            // client itself would end the connection.
            .initial_connection_window_size(window.max(1 << 20))
            .handshake(socket);
        let (streams, connection) = soon(handshake).await.expect("a handshake");
        H2Client {
            streams,
            driver: tokio::spawn(async move {
                // How it ends is seen on the streams.
                let _ = connection.await;
            }),
        }
    }

    /// Starts a call, and leaves the request's body open.
    pub async fn open(&mut self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        self.open_with(path, |_| {}).await
    }

    pub async fn open_with(
        &mut self,
        path: &str,
        change: impl FnOnce(&mut HeaderMap),
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut request = request(path);
        change(request.headers_mut());
        let mut streams = soon(self.streams.clone().ready())
            .await
            .expect("a free stream");
        streams.send_request(request, false).expect("sent")
    }

    /// A whole call: the request's body as it is, and all of the response.
    pub async fn call(&mut self, path: &str, body: Vec<u8>) -> GrpcResponse {
        self.call_with(path, body, |_| {}).await
    }

    pub async fn call_with(
        &mut self,
        path: &str,
        body: Vec<u8>,
        change: impl FnOnce(&mut HeaderMap),
    ) -> GrpcResponse {
        let (response, mut to) = self.open_with(path, change).await;
        to.send_data(body.into(), true).expect("sent");
        GrpcResponse::read(soon(response).await.expect("a response")).await
    }

    /// Subscribes, and returns the stream unread.
    pub async fn subscribe(&mut self, id: &str) -> Response<RecvStream> {
        self.subscribe_after(id, "").await
    }

    pub async fn subscribe_after(&mut self, id: &str, cursor: &str) -> Response<RecvStream> {
        let (response, mut to) = self.open(SUBSCRIBE).await;
        to.send_data(subscribe_request(id, cursor).into(), true)
            .expect("sent");
        soon(response).await.expect("a response")
    }
}

/// A socket that is read from in small sips, and not at all while its `valve` is
/// shut: what arrives stays in the kernel's buffers.
pub struct Valved {
    socket: TcpStream,
    open: bool,
    changes: WatchStream<bool>,
    /// Every other time there is nothing.
    rests: bool,
}

impl Valved {
    pub fn new(socket: TcpStream, valve: &watch::Sender<bool>) -> Self {
        Valved {
            socket,
            open: true,
            changes: WatchStream::new(valve.subscribe()),
            rests: false,
        }
    }
}

impl AsyncRead for Valved {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while let Poll::Ready(Some(open)) = Pin::new(&mut self.changes).poll_next(cx) {
            self.open = open;
        }
        if !self.open {
            return Poll::Pending;
        }
        self.rests = !self.rests;
        if self.rests {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut sip = [0; 2048];
        let room = buf.remaining().min(sip.len());
        let mut sip = ReadBuf::new(&mut sip[..room]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut sip))?;
        buf.put_slice(sip.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Valved {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

pub fn request(path: &str) -> Request<()> {
    Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request")
}

/// The response to a gRPC call: headers, messages, trailers.
#[derive(Debug)]
pub struct GrpcResponse {
    pub headers: HeaderMap,
    pub data: Vec<u8>,
    pub trailers: HeaderMap,
}

impl GrpcResponse {
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
        GrpcResponse {
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

    /// The status message.
    pub fn message(&self) -> String {
        let encoded = self.either("grpc-message").unwrap_or_default();
        let mut bytes = Vec::new();
        let mut rest = encoded.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = match (first, tail) {
                (b'%', [high, low, tail @ ..]) => {
                    let digits = [*high, *low];
                    let digits = std::str::from_utf8(&digits).expect("ASCII");
                    bytes.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                    tail
                }
                _ => {
                    bytes.push(*first);
                    tail
                }
            };
        }
        String::from_utf8(bytes).expect("UTF-8")
    }
}
