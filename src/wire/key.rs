//! Keys of cancel requests (PostgreSQL documentation, 55.2.8).

use std::fmt;

use subtle::ConstantTimeEq;

use super::frame::{malformed, take_u32};
use crate::error::Error;

/// Names a running statement to CancelRequest: a number that tells sessions apart, and a secret.
#[derive(Clone, Copy)]
pub struct CancelKey {
    pub process: i32,
    secret: [u8; LONGEST],
    length: usize,
}

impl CancelKey {
    /// A key that nobody can guess, as long as this minor version of the protocol has them.
    pub fn random(process: i32, minor: u32) -> Self {
        Self { process, secret: rand::random(), length: if minor >= 2 { LONGEST } else { SHORT } }
    }

    /// From the body of BackendKeyData or the end of a CancelRequest.
    pub fn read(mut body: &[u8]) -> Result<Self, Error> {
        let process = i32::from_be_bytes(take_u32(&mut body)?.to_be_bytes());
        let mut secret = [0; LONGEST];
        if !(SHORT..=LONGEST).contains(&body.len()) {
            return Err(malformed("a cancel key of another length than any is"));
        }
        secret[..body.len()].copy_from_slice(body);
        Ok(Self { process, secret, length: body.len() })
    }

    pub fn encode(self) -> Vec<u8> {
        [&self.process.to_be_bytes()[..], self.secret()].concat()
    }

    /// Takes as long whichever byte is wrong.
    pub fn is(&self, other: &Self) -> bool {
        self.process == other.process && bool::from(self.secret().ct_eq(other.secret()))
    }

    fn secret(&self) -> &[u8] {
        &self.secret[..self.length]
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelKey({}, …)", self.process)
    }
}

/// Of protocol 3.0.
const SHORT: usize = 4;
/// Of protocol 3.2, which allows for more; PostgreSQL's are as long.
const LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_itself_alone() {
        for (minor, length) in [(0, 8), (1, 8), (2, 36)] {
            let key = CancelKey::random(7, minor);
            let bytes = key.encode();
            assert_eq!(bytes.len(), length);
            assert!(CancelKey::read(&bytes).unwrap().is(&key));
            for index in 0..bytes.len() {
                let mut other = bytes.clone();
                other[index] ^= 1;
                assert!(!CancelKey::read(&other).unwrap().is(&key), "{index}");
            }
            for other in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &bytes[..8], &bytes[..4], &[]] {
                let is_same = CancelKey::read(other).is_ok_and(|other| other.is(&key));
                assert_eq!(is_same, other == bytes, "{} bytes", other.len());
            }
            assert!(!format!("{key:?}").contains(&format!("{:?}", key.secret())));
        }
    }
}
