//! The first packet of a connection, which has a length but no type byte (chapter 55.7, "StartupMessage").

use crate::error::{Error, SqlState};

/// What a client opens a connection for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    /// SSLRequest.
    Tls,
    /// GSSENCRequest.
    Gssapi,
    /// The key that a server gave in BackendKeyData: process id and secret.
    Cancel(Vec<u8>),
    /// The same, passed on by an instance of pgweir which does not serve the client.
    PassedCancel(Vec<u8>),
    Session {
        version: u32,
        parameters: Vec<Parameter>,
    },
}

/// A startup parameter's name and value, in the client's encoding.
pub type Parameter = (Vec<u8>, Vec<u8>);

/// The whole packet's length in bytes from its first four, checked before anything is allocated for it.
pub fn frame_length(prefix: [u8; 4]) -> Result<usize, Error> {
    match usize::try_from(i32::from_be_bytes(prefix)) {
        Ok(length) if (8..=MAX_STARTUP_BYTES).contains(&length) => Ok(length),
        _ => Err(protocol("invalid length of startup packet")),
    }
}

impl Startup {
    /// Reads what follows the length.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let (code, rest) = body.split_first_chunk::<4>().ok_or_else(|| protocol("startup packet is too short"))?;
        match u32::from_be_bytes(*code) {
            SSL_REQUEST if rest.is_empty() => Ok(Self::Tls),
            GSSENC_REQUEST if rest.is_empty() => Ok(Self::Gssapi),
            CANCEL_REQUEST if rest.len() >= 8 => Ok(Self::Cancel(rest.to_vec())),
            PASSED_CANCEL if rest.len() >= 8 => Ok(Self::PassedCancel(rest.to_vec())),
            version if version >> 16 == 3 => Ok(Self::Session { version, parameters: parameters(rest)? }),
            version => Err(protocol(format!("unsupported protocol {}.{}", version >> 16, version & 0xffff))),
        }
    }

    /// The packet's bytes, length included.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Tls => body.extend_from_slice(&SSL_REQUEST.to_be_bytes()),
            Self::Gssapi => body.extend_from_slice(&GSSENC_REQUEST.to_be_bytes()),
            Self::Cancel(key) => {
                body.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
                body.extend_from_slice(key);
            }
            Self::PassedCancel(key) => {
                body.extend_from_slice(&PASSED_CANCEL.to_be_bytes());
                body.extend_from_slice(key);
            }
            Self::Session { version, parameters } => {
                body.extend_from_slice(&version.to_be_bytes());
                for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
                    body.extend_from_slice(text);
                    body.push(0);
                }
                body.push(0);
            }
        }
        let length = u32::try_from(body.len() + 4).expect("at most MAX_STARTUP_BYTES came in");
        [&length.to_be_bytes()[..], &body].concat()
    }
}

/// Name and value pairs up to an empty name, which must be the last byte.
fn parameters(mut rest: &[u8]) -> Result<Vec<Parameter>, Error> {
    let mut pairs = Vec::new();
    loop {
        let name = text(&mut rest)?;
        if name.is_empty() {
            break;
        }
        pairs.push((name, text(&mut rest)?));
    }
    if rest.is_empty() { Ok(pairs) } else { Err(protocol("bytes after the end of the startup packet")) }
}

fn text(rest: &mut &[u8]) -> Result<Vec<u8>, Error> {
    let end = memchr::memchr(0, rest).ok_or_else(|| protocol("unterminated text in the startup packet"))?;
    let found = rest[..end].to_vec();
    *rest = &rest[end + 1..];
    Ok(found)
}

fn protocol(message: impl Into<String>) -> Error {
    Error::new(SqlState::PROTOCOL, message)
}

/// PostgreSQL's own MAX_STARTUP_PACKET_LENGTH.
const MAX_STARTUP_BYTES: usize = 10_000;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Of no server's: 1234 and pgweir's port, as PostgreSQL makes its own.
const PASSED_CANCEL: u32 = (1234 << 16) | 6432;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again() {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let session = Startup::Session { version: 3 << 16, parameters: vec![pair("user", "app"), pair("options", "")] };
        let cancels = [Startup::Cancel(vec![7; 8]), Startup::PassedCancel(vec![8; 8])];
        for startup in [Startup::Tls, Startup::Gssapi, session].into_iter().chain(cancels) {
            let bytes = startup.encode();
            let (prefix, body) = bytes.split_first_chunk::<4>().unwrap();
            assert_eq!(frame_length(*prefix), Ok(bytes.len()));
            assert_eq!(Startup::parse(body), Ok(startup));
        }
    }

    #[test]
    fn bad_packets_are_refused() {
        for length in [-1, 0, 7, 10_001, i32::MAX, i32::MIN] {
            assert!(frame_length(length.to_be_bytes()).is_err(), "length {length}");
        }
        let bodies: [&[u8]; 5] = [b"", b"\0\x02\0\0", b"\0\x03\0\0user", b"\0\x03\0\0\0x", b"\0\x03\0\0user\0"];
        for body in bodies {
            assert!(Startup::parse(body).is_err(), "{body:?}");
        }
    }
}
