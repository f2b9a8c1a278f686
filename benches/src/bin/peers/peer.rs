//! A system that is measured, as one connection to it.

use std::net::TcpStream;

use anyhow::Result;

/// What speaks one system's protocol on one connection. A message is known by its slot, which is used
/// again once the message is acknowledged.
pub(super) trait Peer: Send {
    /// Everything before the first message.
    fn open(&mut self, socket: &mut TcpStream) -> Result<()>;
    /// Appends the message in `slot` to what will be written.
    fn put(&mut self, slot: u32, body: &[u8], out: &mut Vec<u8>);
    /// Takes whole answers off `input`: acknowledged slots go to `acked`, what must be answered to `out`.
    /// How many bytes were taken.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, acked: &mut Vec<u32>) -> Result<usize>;
}
