//! Ranges of addresses, as operators write them: `10.0.0.0/8`, `fd00::/8`, `192.0.2.7`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The addresses that begin with the same bits as one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

impl Network {
    /// This machine's own addresses.
    pub const LOOPBACK: [Network; 2] = [
        Network { first: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
        Network { first: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    ];

    /// Whether an address belongs to it. One of IPv4 is one, however a socket of IPv6 shows it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= self.prefix
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }

    /// Whether every address of its family belongs to it.
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    /// The address whose bits behind the prefix are all zero.
    fn begin(address: IpAddr, prefix: u32) -> IpAddr {
        match address {
            IpAddr::V4(ip) => {
                Ipv4Addr::from_bits(ip.to_bits() & !u32::MAX.checked_shr(prefix).unwrap_or(0)).into()
            }
            IpAddr::V6(ip) => {
                Ipv6Addr::from_bits(ip.to_bits() & !u128::MAX.checked_shr(prefix).unwrap_or(0)).into()
            }
        }
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is not an address, or not one with a number behind it.
    #[error("{0:?} is no network: write an address and its prefix, as in 10.0.0.0/8")]
    Syntax(String),
    /// The prefix is longer than the address.
    #[error("{text:?} is no network: a prefix has at most {bits} bits here")]
    Prefix {
        /// As it was written.
        text: String,
        /// Bits of an address.
        bits: u32,
    },
    /// The address has bits behind the prefix.
    #[error("{text:?} has bits behind its prefix: {network} is that network")]
    BitsBehind {
        /// As it was written.
        text: String,
        /// The network that the address belongs to.
        network: Network,
    },
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let none = || NetworkError::Syntax(text.to_owned());
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| none())?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| none())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(NetworkError::Prefix { text: text.to_owned(), bits });
        }
        let first = Network::begin(address, prefix);
        if first != address {
            let network = Network { first, prefix };
            return Err(NetworkError::BitsBehind { text: text.to_owned(), network });
        }
        Ok(Network { first, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_belongs_to_the_networks_whose_first_bits_it_has() {
        let has =
            |network_of: &str, address: &str| network(network_of).contains(address.parse().expect(address));
        assert!(has("10.0.0.0/8", "10.255.1.2") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("192.168.4.0/22", "192.168.7.255") && !has("192.168.4.0/22", "192.168.8.0"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.6"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3"), "as a socket of both families shows it");
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fe80::1"));
        assert!(!has("0.0.0.0/0", "fd00::1") && has("0.0.0.0/0", "203.0.113.9") && has("::/0", "fd00::1"));
        for address in ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"] {
            let address = address.parse().expect(address);
            assert!(Network::LOOPBACK.iter().any(|network| network.contains(address)), "{address}");
        }
        for address in ["128.0.0.1", "0.0.0.0", "10.0.0.1", "::2", "::", "fe80::1"] {
            let address = address.parse().expect(address);
            assert!(!Network::LOOPBACK.iter().any(|network| network.contains(address)), "{address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_what_is_one_reads_as_it_prints() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/x",
            "ten/8",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/8/8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let error = "10.0.0.1/8".parse::<Network>().expect_err("more bits than the prefix").to_string();
        assert!(error.contains("10.0.0.0/8"), "{error}");
        for text in ["10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "192.0.2.7/32", "::/0"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert!(network("::/0").is_everything() && !network("10.0.0.0/8").is_everything());
    }
}
