//! Clients: accepts them, reads their first packet, relays bytes between them and their server.
//!
//! Session pooling: a client keeps one server connection. Authentication happens between client and server; the
//! proxy sees no password. Only this module writes to a client.

mod cancel;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backend;
use crate::config::{Config, DatabaseEntry};
use crate::error::{Error, SqlState};
use crate::wire::{self, Parameter, Startup, frame_length};
use cancel::CancelKeys;

/// Serves clients of a bound listener until the future is dropped.
pub async fn serve(listener: TcpListener, config: Arc<Config>) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(config.general.max_client_conn));
    let keys = Arc::new(CancelKeys::default());
    loop {
        let (client, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(cause) => {
                // Out of descriptors, or a client that left already: wait for better times, do not spin.
                tracing::warn!(%cause, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (places, keys, config) = (Arc::clone(&places), Arc::clone(&keys), Arc::clone(&config));
        tokio::spawn(async move {
            let place = places.try_acquire();
            if let Err(cause) = converse(client, place.is_ok(), &config, &keys).await {
                tracing::debug!(%cause, "connection ended");
            }
        });
    }
}

/// One client connection from its first byte to its last.
async fn converse(mut client: TcpStream, has_place: bool, config: &Config, keys: &CancelKeys) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let refusal = match timeout(LOGIN_TIMEOUT, first_packet(&mut client)).await {
        Err(_) => return Ok(()),
        Ok(Err(cause)) => return Err(cause),
        Ok(Ok(Err(fault))) => fault,
        Ok(Ok(Ok(Startup::Cancel(key)))) => return keys.forward(key).await,
        // `first_packet` answers those itself.
        Ok(Ok(Ok(Startup::Encryption))) => return Ok(()),
        Ok(Ok(Ok(Startup::Session { .. }))) if !has_place => {
            Error::new(SqlState::SATURATED, "too many clients").with_hint("Raise max_client_conn or retry later.")
        }
        Ok(Ok(Ok(Startup::Session { version, parameters }))) => match connect(version, parameters, config).await {
            Ok((server, stream)) => return session(client, stream, server, keys).await,
            Err(refusal) => refusal,
        },
    };
    client.write_all(&wire::fatal(&refusal)).await
}

/// Answers requests for encryption with `N` (clients send two at most: SSL, GSS) and gives the packet that follows.
async fn first_packet(client: &mut TcpStream) -> std::io::Result<Result<Startup, Error>> {
    for _ in 0..3 {
        let mut prefix = [0; 4];
        client.read_exact(&mut prefix).await?;
        let length = match frame_length(prefix) {
            Ok(length) => length,
            Err(fault) => return Ok(Err(fault)),
        };
        let mut body = vec![0; length - 4];
        client.read_exact(&mut body).await?;
        match Startup::parse(&body) {
            Ok(Startup::Encryption) => client.write_all(b"N").await?,
            other => return Ok(other),
        }
    }
    Ok(Err(Error::new(SqlState::PROTOCOL, "too many requests for encryption")))
}

/// Opens the server connection that the startup parameters ask for.
async fn connect(
    version: u32,
    mut parameters: Vec<Parameter>,
    config: &Config,
) -> Result<(&DatabaseEntry, TcpStream), Error> {
    let of = |name: &[u8]| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let user = of(b"user").ok_or_else(|| Error::new(SqlState::INVALID_AUTHORIZATION, "no user name in startup"))?;
    let wanted = of(b"database").filter(|name| !name.is_empty()).unwrap_or(user);
    let name = String::from_utf8_lossy(&wanted).into_owned();
    let unknown = || Error::new(SqlState::UNKNOWN_DATABASE, format!("database \"{name}\" is not configured"));
    let server = config.database(&name).ok_or_else(unknown)?;
    parameters.retain(|(name, _)| name != b"database");
    parameters.push((b"database".to_vec(), server.server_database().as_bytes().to_vec()));
    let stream = backend::open(server, &Startup::Session { version, parameters }).await?;
    Ok((server, stream))
}

/// Relays both directions until either side closes; memory stays bounded, a slow reader holds back its writer.
async fn session(
    mut client: TcpStream,
    mut stream: TcpStream,
    server: &DatabaseEntry,
    keys: &CancelKeys,
) -> std::io::Result<()> {
    let _registered = cancel::relay_login(&mut client, &mut stream, server, keys).await?;
    copy_bidirectional(&mut client, &mut stream).await.map(|_| ())
}

const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
