//! Messages for the tests of this crate, encoded here by hand so that they do not lean on what they test.

/// A stored message with offsets 0, no properties and IPv4 hosts.
pub(crate) fn message(topic: &str, queue: u32, body: &[u8]) -> Vec<u8> {
    let total = 91 + body.len() + topic.len();
    let mut bytes = Vec::with_capacity(total);
    bytes.extend((total as u32).to_be_bytes());
    bytes.extend(0xDAA3_20A7u32.to_be_bytes());
    bytes.extend((crc32c::crc32c(body) & 0x7fff_ffff).to_be_bytes());
    bytes.extend(queue.to_be_bytes());
    bytes.extend([0; 4 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 8]);
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes.push(topic.len() as u8);
    bytes.extend(topic.as_bytes());
    bytes.extend([0, 0]);
    assert_eq!(bytes.len(), total);
    bytes
}
