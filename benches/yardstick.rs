//! What the kernel and the runtime alone cost: a relay that copies, and an echo that answers from memory.
//!
//! `yardstick relay PORT SERVER` accepts on PORT of 127.0.0.1, connects to PostgreSQL on port SERVER, copies both ways.
//! `yardstick echo PORT SERVER` does so until a client has logged in; from then on it answers each request with the
//! bytes that PostgreSQL answered to the connection's first one of the same kind. One thread; ends by a signal.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, port, server] = arguments.as_slice() else { return Err(usage()) };
    let (Ok(port), Ok(server)) = (port.parse(), server.parse()) else { return Err(usage()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    match what.as_str() {
        "relay" => runtime.block_on(LocalSet::new().run_until(serve_relay(port, server))),
        "echo" => runtime.block_on(LocalSet::new().run_until(serve_echo(port, server))),
        _ => Err(usage()),
    }
}

fn usage() -> Error {
    Error::new(ErrorKind::InvalidInput, "yardstick relay|echo PORT SERVER")
}

async fn serve_relay(port: u16, server: u16) -> Result<()> {
    let listener = TcpListener::bind((HOST, port)).await?;
    loop {
        let client = listener.accept().await?.0;
        spawn_local(relay(client, server));
    }
}

async fn relay(mut client: TcpStream, server: u16) -> Result<()> {
    client.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut connect(server).await?).await?;
    Ok(())
}

async fn serve_echo(port: u16, server: u16) -> Result<()> {
    let listener = TcpListener::bind((HOST, port)).await?;
    loop {
        let client = listener.accept().await?.0;
        spawn_local(echo(client, server));
    }
}

async fn echo(mut client: TcpStream, server: u16) -> Result<()> {
    client.set_nodelay(true)?;
    let mut server = connect(server).await?;
    log_in(&mut client, &mut server).await?;
    let mut replies = HashMap::new();
    let mut request = Vec::with_capacity(BUFFER);
    while let Some(kind) = read_request(&mut client, &mut request).await? {
        let reply = match replies.entry(kind) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(ask(&mut server, &request).await?),
        };
        client.write_all(reply).await?;
    }
    Ok(())
}

/// The kind of a whole request; `None` when the client has gone.
async fn read_request(client: &mut TcpStream, request: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    request.clear();
    while client.read_buf(request).await? > 0 {
        if let Some(kind) = kind(request) {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// Copies until the server is ready for the client's first request.
async fn log_in(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    while !answered.ends_with(READY) {
        tokio::select! {
            read = client.read_buf(&mut asked) => {
                not_closed(read?)?;
                server.write_all(&asked).await?;
                asked.clear();
            }
            read = server.read_buf(&mut answered) => {
                let new = not_closed(read?)?;
                client.write_all(&answered[answered.len() - new..]).await?;
            }
        }
    }
    Ok(())
}

async fn ask(server: &mut TcpStream, request: &[u8]) -> Result<Vec<u8>> {
    server.write_all(request).await?;
    let mut reply = Vec::new();
    while !reply.ends_with(READY) {
        not_closed(server.read_buf(&mut reply).await?)?;
    }
    Ok(reply)
}

/// The tags of the messages, once the last of them asks for an answer: Query or Sync.
fn kind(request: &[u8]) -> Option<Vec<u8>> {
    let (mut tags, mut rest) = (Vec::new(), request);
    while let Some((tag, after)) = rest.split_first() {
        let length = u32::from_be_bytes(*after.first_chunk()?) as usize;
        rest = after.get(length..)?;
        tags.push(*tag);
    }
    matches!(tags.last(), Some(b'Q' | b'S')).then_some(tags)
}

async fn connect(server: u16) -> Result<TcpStream> {
    let server = TcpStream::connect((HOST, server)).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

fn not_closed(read: usize) -> Result<usize> {
    if read == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

const HOST: &str = "127.0.0.1";
const BUFFER: usize = 8 << 10;
/// `ReadyForQuery` outside a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";
