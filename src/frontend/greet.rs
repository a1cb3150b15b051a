//! The first packets of a connection: requests for encryption, a cancel request, or the startup packet.

use std::sync::Arc;

use bytes::Buf;

use super::tls::Acceptor;
use crate::error::{Error, SqlState};
use crate::wire::frame::malformed;
use crate::wire::{ALPN, CancelKey, Channel, Parameter, Startup, Stream, frame_length};

pub(super) enum Greeted {
    Cancel {
        /// Closed when the request has been carried out: until then its client sends nothing that it could hit.
        channel: Channel,
        key: CancelKey,
        /// By another instance, which does not know the key.
        passed_on: bool,
    },
    Session(Channel, Opening),
    Refused(Channel, Error),
    Gone,
}

/// A startup packet.
pub(super) struct Opening {
    pub minor: u32,
    pub parameters: Vec<(String, String)>,
    /// What log-ins over this encryption can be bound to.
    pub end_point: Option<Arc<[u8]>>,
}

pub(super) async fn greet(mut channel: Channel, tls: Option<&Acceptor>) -> std::io::Result<Greeted> {
    let (mut end_point, mut asked_tls, mut asked_gssapi) = (None, false, false);
    if let Some(tls) = tls
        && channel.first_byte().await? == Some(HANDSHAKE)
    {
        channel = match direct(channel, tls).await? {
            Some(channel) => channel,
            None => return Ok(Greeted::Gone),
        };
        end_point.clone_from(&tls.end_point);
        asked_tls = true;
    }
    // SSLRequest and GSSENCRequest, each once, and what follows.
    loop {
        let startup = match packet(&mut channel).await? {
            Ok(Some(startup)) => startup,
            Ok(None) => return Ok(Greeted::Gone),
            Err(error) => return Ok(Greeted::Refused(channel, error)),
        };
        channel = match startup {
            Startup::Gssapi if !std::mem::replace(&mut asked_gssapi, true) => decline(channel).await?,
            Startup::Tls if !std::mem::replace(&mut asked_tls, true) => match answer(channel, tls).await? {
                Some(channel) => {
                    end_point = tls.filter(|_| channel.is_encrypted()).and_then(|tls| tls.end_point.clone());
                    channel
                }
                None => return Ok(Greeted::Gone),
            },
            Startup::Gssapi | Startup::Tls => {
                return Ok(Greeted::Refused(channel, malformed("too many requests for encryption")));
            }
            Startup::Cancel(key) => return Ok(cancel(channel, &key, false)),
            Startup::PassedCancel(key) => return Ok(cancel(channel, &key, true)),
            Startup::Session { .. } if tls.is_some_and(|tls| tls.required) && is_in_the_clear(&channel) => {
                let error = Error::new(SqlState::INVALID_AUTHORIZATION, "connections must be encrypted");
                return Ok(Greeted::Refused(channel, error.with_hint("Connect with sslmode=require.")));
            }
            Startup::Session { version, parameters } => {
                let minor = version & 0xffff;
                return Ok(match texts(parameters) {
                    Ok(parameters) => Greeted::Session(channel, Opening { minor, parameters, end_point }),
                    Err(error) => Greeted::Refused(channel, error),
                });
            }
        };
    }
}

fn cancel(channel: Channel, key: &[u8], passed_on: bool) -> Greeted {
    CancelKey::read(key).map_or(Greeted::Gone, |key| Greeted::Cancel { channel, key, passed_on })
}

/// Whether others could listen in. PostgreSQL, too, offers no encryption on UNIX sockets.
fn is_in_the_clear(channel: &Channel) -> bool {
    !channel.is_encrypted() && !channel.is_local()
}

/// One packet without a kind byte.
async fn packet(channel: &mut Channel) -> std::io::Result<Result<Option<Startup>, Error>> {
    loop {
        if let Some((prefix, _)) = channel.input.split_first_chunk::<4>() {
            // Whoever this is speaks no protocol to be answered in; PostgreSQL says nothing either.
            let Ok(length) = frame_length(*prefix) else { return Ok(Ok(None)) };
            if channel.input.len() >= length {
                let packet = channel.input.split_to(length);
                return Ok(Startup::parse(&packet[4..]).map(Some));
            }
        }
        if channel.fill().await? == 0 {
            return Ok(Ok(None));
        }
    }
}

/// `S` and a handshake, or `N`. `None`: the client sent bytes ahead of the handshake, as an attacker in between would.
async fn answer(mut channel: Channel, tls: Option<&Acceptor>) -> std::io::Result<Option<Channel>> {
    let Some(tls) = tls.filter(|_| is_in_the_clear(&channel)) else {
        return decline(channel).await.map(Some);
    };
    if channel.input.has_remaining() {
        return Ok(None);
    }
    channel.output.extend_from_slice(b"S");
    channel.flush().await?;
    let Stream::Tcp(stream) = channel.into_stream() else { return Ok(None) };
    let stream = tls.accept(stream).await?;
    Ok(Some(Channel::new(Stream::ClientTls(Box::new(stream)))))
}

/// A handshake without a word before it (PostgreSQL documentation, 55.2.11). `None`: the client does not say that it means
/// PostgreSQL, so that somebody may have bent another protocol's way to here.
async fn direct(channel: Channel, tls: &Acceptor) -> std::io::Result<Option<Channel>> {
    let Stream::Tcp(stream) = channel.into_stream() else { return Ok(None) };
    let stream = tls.accept(stream).await?;
    let is_meant = stream.get_ref().1.alpn_protocol() == Some(ALPN);
    Ok(is_meant.then(|| Channel::new(Stream::ClientTls(Box::new(stream)))))
}

async fn decline(mut channel: Channel) -> std::io::Result<Channel> {
    channel.output.extend_from_slice(b"N");
    channel.flush().await?;
    Ok(channel)
}

fn texts(parameters: Vec<Parameter>) -> Result<Vec<(String, String)>, Error> {
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| malformed("a startup parameter that is not UTF-8"));
    parameters.into_iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect()
}

/// What a TLS record begins with that begins a handshake: no startup packet is so long.
const HANDSHAKE: u8 = 0x16;
