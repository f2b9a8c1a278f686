//! The leader. A thread a client reads messages; one writer sends what is pending to the followers, then
//! writes and syncs it; one acknowledger answers what a majority has.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use parking_lot::{Condvar, Mutex};

use super::log::{Kind, Log};
use super::{BODY_BYTES_MAX, HEAD_BYTES, READ_BYTES};

/// A message that is not acknowledged yet.
struct Waiting {
    client: usize,
    number: u64,
    /// Where it ends in the log.
    end: u64,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    messages: Vec<Waiting>,
    /// End of all that was ever pending.
    end: u64,
}

#[derive(Default)]
struct Progress {
    waiting: VecDeque<Waiting>,
    /// Durable end of the leader, then of each follower.
    durable: Vec<u64>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    has_pending: Condvar,
    progress: Mutex<Progress>,
    moved: Condvar,
    clients: Mutex<Vec<TcpStream>>,
}

impl Progress {
    fn committed(&self) -> u64 {
        let mut durable = self.durable.clone();
        durable.sort_unstable();
        durable[(durable.len() - 1) / 2]
    }
}

impl Shared {
    fn is_durable(&self, node: usize, end: u64) {
        self.progress.lock().durable[node] = end;
        self.moved.notify_one();
    }
}

pub(crate) fn run(listen: &str, data: &Path, kind: Kind, followers: &[String]) -> Result<()> {
    let log = Log::create(data, kind)?;
    let shared = Arc::new(Shared::default());
    shared.progress.lock().durable = vec![0; 1 + followers.len()];
    let mut sockets = Vec::new();
    for (index, address) in followers.iter().enumerate() {
        let socket = TcpStream::connect(address).with_context(|| format!("no follower at {address}"))?;
        socket.set_nodelay(true)?;
        let (answers, shared) = (socket.try_clone()?, Arc::clone(&shared));
        thread::spawn(move || stop_on_error(hear_follower(answers, index + 1, &shared)));
        sockets.push(socket);
    }
    let writing = Arc::clone(&shared);
    thread::spawn(move || stop_on_error(write_log(log, sockets, &writing)));
    let answering = Arc::clone(&shared);
    thread::spawn(move || answer(&answering));
    let listener = TcpListener::bind(listen)?;
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let client = {
            let mut clients = shared.clients.lock();
            clients.push(socket.try_clone()?);
            clients.len() - 1
        };
        let shared = Arc::clone(&shared);
        // A client that goes away is no error.
        thread::spawn(move || drop(hear_client(socket, client, &shared)));
    }
}

fn stop_on_error(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("peers: {error:#}");
        std::process::exit(1);
    }
}

fn hear_follower(mut socket: TcpStream, node: usize, shared: &Shared) -> Result<()> {
    let (mut buffer, mut filled) = ([0; 8192], 0);
    loop {
        let read = socket.read(&mut buffer[filled..])?;
        ensure!(read > 0, "a follower closed its connection");
        filled += read;
        let whole = filled / 8 * 8;
        // Ends only grow, so the last one says all.
        if let Some(last) = buffer[..whole].last_chunk::<8>() {
            shared.is_durable(node, u64::from_le_bytes(*last));
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}

fn write_log(mut log: Log, mut followers: Vec<TcpStream>, shared: &Shared) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        let messages = {
            let mut pending = shared.pending.lock();
            while pending.bytes.is_empty() {
                shared.has_pending.wait(&mut pending);
            }
            bytes.clear();
            std::mem::swap(&mut bytes, &mut pending.bytes);
            std::mem::take(&mut pending.messages)
        };
        shared.progress.lock().waiting.extend(messages);
        for follower in &mut followers {
            follower.write_all(&bytes)?;
        }
        let durable = log.append(&bytes)?;
        shared.is_durable(0, durable);
    }
}

fn answer(shared: &Shared) {
    loop {
        let mut answers: Vec<Vec<u8>> = Vec::new();
        {
            let mut progress = shared.progress.lock();
            loop {
                let committed = progress.committed();
                let count = progress.waiting.iter().take_while(|message| message.end <= committed).count();
                for message in progress.waiting.drain(..count) {
                    if answers.len() <= message.client {
                        answers.resize(message.client + 1, Vec::new());
                    }
                    answers[message.client].extend_from_slice(&message.number.to_le_bytes());
                }
                if count > 0 {
                    break;
                }
                shared.moved.wait(&mut progress);
            }
        }
        let mut clients = shared.clients.lock();
        for (client, answers) in clients.iter_mut().zip(&answers) {
            // A client that went away needs no answer.
            drop(client.write_all(answers));
        }
    }
}

fn hear_client(mut socket: TcpStream, client: usize, shared: &Shared) -> Result<()> {
    let (mut buffer, mut filled) = (vec![0; READ_BYTES], 0);
    let mut sizes: Vec<(u64, usize)> = Vec::new();
    loop {
        let read = socket.read(&mut buffer[filled..])?;
        ensure!(read > 0, "the client went away");
        filled += read;
        let mut whole = 0;
        sizes.clear();
        while let Some((number, size)) = first_message(&buffer[whole..filled])? {
            sizes.push((number, size));
            whole += size;
        }
        if whole == 0 {
            continue;
        }
        let mut pending = shared.pending.lock();
        pending.bytes.extend_from_slice(&buffer[..whole]);
        for (number, size) in &sizes {
            pending.end += *size as u64;
            let end = pending.end;
            pending.messages.push(Waiting { client, number: *number, end });
        }
        drop(pending);
        shared.has_pending.notify_one();
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// Number and size of the first whole message.
fn first_message(bytes: &[u8]) -> Result<Option<(u64, usize)>> {
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let Some(number) = rest.first_chunk::<8>() else { return Ok(None) };
    let size = u32::from_le_bytes(*size) as usize;
    ensure!(size <= BODY_BYTES_MAX, "a body of {size} bytes, at most {BODY_BYTES_MAX}");
    let size = HEAD_BYTES + size;
    Ok((bytes.len() >= size).then(|| (u64::from_le_bytes(*number), size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_what_two_of_three_have() {
        let progress = |durable: [u64; 3]| Progress { durable: durable.to_vec(), ..Progress::default() };
        assert_eq!(progress([9, 0, 0]).committed(), 0);
        assert_eq!(progress([9, 5, 0]).committed(), 5);
        assert_eq!(progress([3, 5, 9]).committed(), 5);
    }

    #[test]
    fn messages_are_taken_when_they_are_whole() {
        let message = [&2_u32.to_le_bytes()[..], &7_u64.to_le_bytes(), b"ab"].concat();
        assert_eq!(first_message(&message).unwrap(), Some((7, 14)));
        assert_eq!(first_message(&message[..13]).unwrap(), None);
        assert_eq!(first_message(&message[..3]).unwrap(), None);
        assert!(first_message(&[0xFF; 12]).is_err());
    }
}
