//! What every gateway costs at least: a connection, HTTP/2's handshake, a request and
//! the head of its response. Nothing is ever sent after that.

use std::net::SocketAddr;

use h2::SendStream;
use h2::server::{SendResponse, handshake};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::incoming::listen;

/// Serves each connection in a task of its own.
pub(crate) async fn serve(at: SocketAddr, tls: Option<TlsAcceptor>) -> std::io::Result<()> {
    let listener = listen(at)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // One that fails is missed by the gateway that it belongs to.
        match tls.clone() {
            None => {
                tokio::spawn(connection(socket));
            }
            Some(acceptor) => {
                tokio::spawn(async move {
                    if let Ok(socket) = acceptor.accept(socket).await {
                        let _ = connection(socket).await;
                    }
                });
            }
        }
    }
}

async fn connection(socket: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), h2::Error> {
    let mut connection = handshake(socket).await?;
    // A stream that is let go of is reset.
    let mut open = Vec::new();
    while let Some(call) = connection.accept().await {
        open.push(respond(call?)?);
    }
    Ok(())
}

type Call = (Request<h2::RecvStream>, SendResponse<bytes::Bytes>);

fn respond((_, mut respond): Call) -> Result<SendStream<bytes::Bytes>, h2::Error> {
    let mut head = Response::new(());
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("push-resume", "fresh"),
        ("push-resume-reason", "no-cursor"),
        ("push-start-cursor", "000000000000-00000000000"),
    ] {
        let value = http::HeaderValue::from_static(value);
        head.headers_mut().insert(name, value);
    }
    respond.send_response(head, false)
}
