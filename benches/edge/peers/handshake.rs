//! What every gateway costs at least: a connection, HTTP/2's handshake, a request and
//! the head of its response. Nothing is ever sent after that.

use std::net::SocketAddr;

use h2::SendStream;
use h2::server::{SendResponse, handshake};
use http::{Request, Response};
use tokio::net::{TcpSocket, TcpStream};

/// As long as systems allow by default. What does not fit is tried again by the client's
/// system a second later.
const BACKLOG: u32 = 4096;

/// Serves each connection in a task of its own.
pub(crate) async fn serve(at: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // One that fails is missed by the gateway that it belongs to.
        tokio::spawn(connection(socket));
    }
}

async fn connection(socket: TcpStream) -> Result<(), h2::Error> {
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
