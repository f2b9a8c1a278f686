//! A small remoting client for the command line: one connection, one request at a time.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Room made before each read.
const READ_BYTES: usize = 16 * 1024;

/// A connection to one node.
pub(crate) struct Client {
    address: String,
    socket: TcpStream,
    buffer: BytesMut,
    next_opaque: i32,
}

impl Client {
    /// Connects to `host:port`.
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let socket = connecting
            .with_context(|| format!("{address} does not answer: is a FolioMQ node running there?"))?
            .with_context(|| format!("cannot connect to {address}: is a FolioMQ node running there?"))?;
        Ok(Self { address: address.to_owned(), socket, buffer: BytesMut::new(), next_opaque: 1 })
    }

    /// Sends a request and waits for its response, whatever its code.
    pub(crate) async fn call(&mut self, mut request: Frame, patience: Duration) -> Result<Frame> {
        request.opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut out = BytesMut::new();
        request.encode(&mut out)?;
        let exchange = async {
            self.socket.write_all(&out).await?;
            self.response(request.opaque).await
        };
        timeout(patience, exchange)
            .await
            .with_context(|| format!("{} did not answer within {patience:?}", self.address))?
            .with_context(|| format!("talking to {}", self.address))
    }

    /// Sends a request; an error response becomes an error with its remark.
    pub(crate) async fn ask(&mut self, request: Frame, patience: Duration) -> Result<Frame> {
        let response = self.call(request, patience).await?;
        self.accept(response)
    }

    /// The same for a response that came before.
    pub(crate) fn accept(&self, response: Frame) -> Result<Frame> {
        if response.code == ResponseCode::Success.code() {
            return Ok(response);
        }
        let remark = response.remark.unwrap_or_default();
        if is_forbidden(response.code) {
            bail!("{} refuses: {remark}", self.address);
        }
        let name = ResponseCode::from_code(response.code).map_or("unknown code", ResponseCode::name);
        bail!("{} answered {name} ({}): {remark}", self.address, response.code);
    }

    async fn response(&mut self, opaque: i32) -> Result<Frame> {
        loop {
            while let Some(frame) = Frame::decode(&mut self.buffer)? {
                if frame.is_response() && frame.opaque == opaque {
                    return Ok(frame);
                }
            }
            self.buffer.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                bail!("it closed the connection");
            }
        }
    }
}

/// Whether a response says that the request is not accepted from here.
pub(crate) fn is_forbidden(code: i32) -> bool {
    code == ResponseCode::NoPermission.code()
}
