//! The floor's client: messages out, numbers back.

use std::net::TcpStream;

use anyhow::Result;

use crate::peer::Peer;

pub(crate) struct Client;

impl Peer for Client {
    fn open(&mut self, _socket: &mut TcpStream) -> Result<()> {
        Ok(())
    }

    fn put(&mut self, slot: u32, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&u64::from(slot).to_le_bytes());
        out.extend_from_slice(body);
    }

    fn take(&mut self, input: &[u8], _out: &mut Vec<u8>, acked: &mut Vec<u32>) -> Result<usize> {
        let (numbers, rest) = input.as_chunks::<8>();
        acked.extend(numbers.iter().map(|number| u64::from_le_bytes(*number) as u32));
        Ok(input.len() - rest.len())
    }
}
