//! A follower: whatever arrived is written and synced at once, and its end is told.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use anyhow::Result;

use super::READ_BYTES;
use super::log::{Kind, Log};

pub(crate) fn run(listen: &str, data: &Path, kind: Kind) -> Result<()> {
    let mut log = Log::create(data, kind)?;
    let listener = TcpListener::bind(listen)?;
    let (mut leader, _) = listener.accept()?;
    leader.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = leader.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let durable = log.append(&buffer[..read])?;
        leader.write_all(&durable.to_le_bytes())?;
    }
}
