//! Addresses as a configuration has them: `host:port`.

/// The host of `host:port`, if it is that.
pub(super) fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    (port > 0 && !host.is_empty()).then_some(host)
}
