//! Opens connections to servers. Knows nothing of clients.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::DatabaseEntry;
use crate::error::{Error, SqlState};
use crate::wire::Startup;

/// Connects and sends the first packet.
pub async fn open(server: &DatabaseEntry, startup: &Startup) -> Result<TcpStream, Error> {
    let attempt = async {
        let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&startup.encode()).await?;
        Ok::<_, std::io::Error>(stream)
    };
    let unavailable = |detail: String| {
        let message = format!("no server available for database \"{}\"", server.name);
        Error::new(SqlState::UNAVAILABLE, message).with_detail(detail)
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(cause)) => Err(unavailable(cause.to_string())),
        Err(_) => Err(unavailable("connecting took too long".to_owned())),
    }
}

const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
