//! Requests to the admin listener, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::{certificates, soon};

/// A connection to the admin listener.
pub struct Http {
    sender: Sender,
    /// What `host` or `:authority` is.
    pub host: String,
    /// Sent with each request.
    pub token: Option<String>,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Http {
    /// Over HTTP/1.1.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(address)).await.expect("connected");
        Self::one(stream, address.to_string()).await
    }

    /// Over HTTP/2, as a client does that knows it is there.
    pub async fn connect_h2(address: SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(address)).await.expect("connected");
        Self::two(stream, address.to_string()).await
    }

    /// Over a unix socket.
    pub async fn connect_unix(path: &Path) -> Self {
        let stream = soon(UnixStream::connect(path)).await.expect("connected");
        Self::one(stream, "any.example".to_owned()).await
    }

    /// Over TLS, by the protocol that was agreed on.
    pub async fn connect_tls(address: SocketAddr, config: &ClientConfig) -> Self {
        let stream = soon(certificates::connect(address, config)).await;
        let stream = stream.expect("a handshake");
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if is_h2 {
            Self::two(stream, address.to_string()).await
        } else {
            Self::one(stream, address.to_string()).await
        }
    }

    async fn one<S>(stream: S, host: String) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        Http {
            sender: Sender::One(sender),
            host,
            token: None,
        }
    }

    async fn two<S>(stream: S, host: String) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let executor = TokioExecutor::new();
        let (sender, connection) = http2::handshake(executor, TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Http {
            sender: Sender::Two(sender),
            host,
            token: None,
        }
    }

    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// A request with this connection's host and token, and these headers.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Request<Full<Bytes>> {
        let mut request = match self.sender {
            Sender::One(_) => Request::builder().uri(path).header("host", &self.host),
            Sender::Two(_) => Request::builder().uri(format!("http://{}{path}", self.host)),
        };
        request = request.method(method);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::default()).expect("a request")
    }

    /// The answer, whose body has not arrived.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::One(sender) => {
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await
            }
            Sender::Two(sender) => {
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await
            }
        }
    }

    pub async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.request(method, path, headers);
        let response = self.send(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: soon(body.collect()).await.expect("a body").to_bytes(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }

    /// The status alone: the body may have no end.
    pub async fn get_status(&mut self, path: &str) -> StatusCode {
        let request = self.request(Method::GET, path, &[]);
        self.send(request).await.expect("an answer").status()
    }

    pub async fn delete(&mut self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[]).await
    }

    /// Follows `/api/v1/live`.
    pub async fn live(&mut self, query: &str) -> Live {
        let request = self.request(Method::GET, &format!("/api/v1/live{query}"), &[]);
        let response = self.send(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Live {
            body: response.into_body(),
            text: String::new(),
        }
    }
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body of an answer that is well.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The error of one that is not: its status and its code.
    #[track_caller]
    pub fn error(&self) -> (u16, String) {
        let error: galaxy_push::admin::api::Error =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert!(!error.message.is_empty());
        (self.status.as_u16(), error.error)
    }
}

/// Server-sent events.
pub struct Live {
    body: Incoming,
    text: String,
}

impl Live {
    /// The next event, with its data; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (name, data) = event.split_once('\n').expect("two lines");
                let name = name.strip_prefix("event: ").expect("a name").to_owned();
                let data = data.strip_prefix("data: ").expect("data");
                let data = serde_json::from_str(data).expect("JSON");
                self.text = rest.to_owned();
                return Some((name, data));
            }
            let frame = soon(self.body.frame()).await?;
            let bytes = frame.ok()?.into_data().ok()?;
            self.text
                .push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }

    /// The data of the next event of this name.
    pub async fn find(&mut self, wanted: &str) -> Value {
        loop {
            match self.next().await {
                Some((name, data)) if name == wanted => return data,
                Some(_) => {}
                None => panic!("it ended before {wanted}"),
            }
        }
    }

    /// Reads until it ends.
    pub async fn end(mut self) {
        while self.next().await.is_some() {}
    }
}

/// What comes back for these bytes, until the server closes.
pub async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = soon(TcpStream::connect(address)).await.expect("connected");
    // The server may close before it has read all of it.
    let _ = soon(stream.write_all(request)).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A client's TLS that speaks this protocol.
pub fn speaking(config: &ClientConfig, protocol: &[u8]) -> ClientConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}
