//! Why a statement on several shards did not come to its end.

use bytes::Bytes;

use super::scatter::Ended;
use crate::error::Error;
use crate::wire::Channel;

pub(super) enum Failure {
    /// An ErrorResponse frame of a server.
    Server(Bytes),
    Proxy(Error),
}

impl Failure {
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
