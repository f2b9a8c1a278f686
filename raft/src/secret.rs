//! The secret that the nodes of one cluster share, and what is proved with it.
//!
//! A proof is an HMAC-SHA-256, keyed with the secret, of a domain and several parts, each behind its length: no two lists of
//! parts have the same bytes, and a proof made for one domain is none in another. The secret itself is never sent and never
//! printed. It has to be random: whoever records a proof can try guesses at leisure.
//!
//! Not here: what peers prove to each other (`transport::handshake`), and where the secret is kept (the server's
//! configuration).

use std::fmt;
use std::io;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a secret, at least.
pub const SECRET_BYTES_MIN: usize = 32;
/// Bytes of a secret, at most.
pub const SECRET_BYTES_MAX: usize = 1024;
/// Random bytes of a secret that is made here.
const RANDOM_BYTES: usize = 32;

/// A proof that its maker has the secret.
pub type Proof = [u8; 32];

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It could be guessed.
    #[error("it has {0} bytes, at least {SECRET_BYTES_MIN} are needed")]
    TooShort(usize),
    /// It is some other file.
    #[error("it has {0} bytes, at most {SECRET_BYTES_MAX} are taken")]
    TooLong(usize),
    /// It is some other file.
    #[error("byte {0} is not printable ASCII")]
    NotPrintable(usize),
}

/// A cluster's secret. A clone is the same one.
#[derive(Clone)]
pub struct ClusterSecret(Arc<[u8]>);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(not shown)")
    }
}

impl ClusterSecret {
    /// The secret in a file's text; white space around it does not count.
    pub fn parse(text: &[u8]) -> Result<ClusterSecret, BadSecret> {
        let text = text.trim_ascii();
        if let Some(at) = text.iter().position(|byte| !(b' '..=b'~').contains(byte)) {
            return Err(BadSecret::NotPrintable(at));
        }
        match text.len() {
            short if short < SECRET_BYTES_MIN => Err(BadSecret::TooShort(short)),
            long if long > SECRET_BYTES_MAX => Err(BadSecret::TooLong(long)),
            _ => Ok(ClusterSecret(text.into())),
        }
    }

    /// The text of a new secret, for a file.
    pub fn random_text() -> io::Result<String> {
        let bytes: [u8; RANDOM_BYTES] = random()?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(digits + "\n")
    }

    /// The proof for these parts.
    pub fn prove(&self, domain: &str, parts: &[&[u8]]) -> Proof {
        self.code(domain, parts).finalize().into_bytes().into()
    }

    /// Whether this is the proof for these parts. Takes as long for any wrong one.
    pub fn is_proof(&self, domain: &str, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.code(domain, parts).verify_slice(proof).is_ok()
    }

    fn code(&self, domain: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let Ok(mut code) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes a key of any length");
        };
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            code.update(&(part.len() as u64).to_le_bytes());
            code.update(part);
        }
        code
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> ClusterSecret {
        ClusterSecret::parse(&[byte; 32]).unwrap()
    }

    #[test]
    fn what_could_be_guessed_or_is_another_file_is_no_secret() {
        assert_eq!(ClusterSecret::parse(&[b'x'; 31]).unwrap_err(), BadSecret::TooShort(31));
        assert_eq!(ClusterSecret::parse(b"\n \n").unwrap_err(), BadSecret::TooShort(0));
        assert_eq!(ClusterSecret::parse(&[b'x'; 1025]).unwrap_err(), BadSecret::TooLong(1025));
        assert_eq!(
            ClusterSecret::parse(&[b"xyz\x07", &[b'x'; 40][..]].concat()).unwrap_err(),
            BadSecret::NotPrintable(3)
        );
        let made = ClusterSecret::random_text().unwrap();
        assert_eq!(made.len(), 65);
        assert!(ClusterSecret::parse(made.as_bytes()).is_ok());
    }

    #[test]
    fn an_end_of_line_is_not_part_of_it() {
        let (a, b) = (secret(b'x'), ClusterSecret::parse(&[&[b'x'; 32][..], b"\r\n"].concat()).unwrap());
        assert!(b.is_proof("d", &[b"p"], &a.prove("d", &[b"p"])));
    }

    #[test]
    fn it_is_not_printed() {
        let shown = format!("{:?}", secret(b'x'));
        assert!(!shown.contains("xx") && !shown.contains("120"), "{shown}");
    }

    #[test]
    fn a_proof_is_of_its_secret_domain_and_parts_alone() {
        let secret = secret(b'x');
        let proof = secret.prove("d", &[b"ab", b"c"]);
        assert!(secret.is_proof("d", &[b"ab", b"c"], &proof));
        assert!(!secret.is_proof("d", &[b"a", b"bc"], &proof));
        assert!(!secret.is_proof("e", &[b"ab", b"c"], &proof));
        assert!(!secret.is_proof("d", &[b"ab", b"c", b""], &proof));
        assert!(!secret.is_proof("d", &[b"ab", b"c"], &proof[..31]));
        assert!(!self::secret(b'y').is_proof("d", &[b"ab", b"c"], &proof));
    }

    /// Golden: nodes of different builds have to agree.
    #[test]
    fn golden_bytes_of_a_proof() {
        let proof = secret(b'x').prove("d", &[b"ab", b"c"]);
        let digits: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, "b1edde7b9c58a845797d7367f554714a393092ade3f02a5b0a30f18c764cb97d");
    }
}
