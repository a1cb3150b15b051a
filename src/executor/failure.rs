//! Why a statement on several shards did not come to its end.

use bytes::{Bytes, BytesMut};

use super::scatter::Ended;
use crate::error::Error;
use crate::wire::Channel;
use crate::wire::frame::{put, server};

pub(super) enum Failure {
    /// An ErrorResponse frame of a server.
    Server(Bytes),
    Proxy(Error),
}

impl Failure {
    /// From the body of a server's ErrorResponse.
    pub(super) fn server(body: &[u8]) -> Self {
        let mut frame = BytesMut::new();
        put(&mut frame, server::ERROR, |out| out.extend_from_slice(body));
        Self::Server(frame.freeze())
    }

    /// A server's error goes to the client.
    pub(super) fn tell(self, client: &mut Channel) -> Ended {
        match self {
            Self::Proxy(error) => Ended::Refused(error),
            Self::Server(frame) => {
                client.output.extend_from_slice(&frame);
                Ended::Failed(frame)
            }
        }
    }
}
