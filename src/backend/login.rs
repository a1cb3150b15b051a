//! Opens a connection to a server: TCP, TLS, startup, authentication, until ReadyForQuery.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::tls;
use crate::error::{Error, SqlState};
use crate::topology::{Secret, Server, ServerTls, TlsNegotiation};
use crate::wire::binding;
use crate::wire::frame::{put, server};
use crate::wire::md5::Md5Secret;
use crate::wire::message::{error_field, put_password, put_sasl_initial, put_sasl_response};
use crate::wire::scram::{
    self, ClientExchange, ClientSecret, Mechanism, SCRAM, SCRAM_PLUS, ScramFault, ScramKeys, ServerSignature,
};
use crate::wire::{AuthenticationRequest, CancelKey, Channel, Startup, Stream};

/// Who the proxy is towards a server.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    /// Tried in their order: while a password is being changed, some servers may have one and some another.
    pub passwords: Vec<Secret>,
    /// Filled by the user's own log-ins, where no password is configured.
    pub learnt: Learnt,
}

/// What a client's last log-in has shown, for connections in its name.
pub type Learnt = Arc<Mutex<Option<Proof>>>;

/// A password, or what stands for it.
#[derive(Clone)]
pub enum Proof {
    Password(Secret),
    Scram(ScramKeys),
    Md5(Md5Secret),
}

/// Where a server was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection that has just become ready.
pub(super) struct Opened {
    pub channel: Channel,
    pub address: Address,
    /// The server has asked for a proof.
    pub is_proved: bool,
    /// Some poolers give none: then nothing can be cancelled.
    pub key: Option<CancelKey>,
    pub parameters: Vec<(String, String)>,
    /// NoticeResponse frames, behind the proof of who one is.
    pub remarks: Bytes,
}

/// Why there is no connection.
enum Fault {
    /// The server takes another password than this.
    Password(Error),
    /// It does not let this user in, whatever the password.
    User(Error),
    Other(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Connects and logs in.
pub(super) async fn open(
    server: &Server,
    login: &Login,
    parameters: &[(String, String)],
    keepalive: Duration,
) -> Result<Opened, Error> {
    let mut refusal = None;
    for proof in login.proofs() {
        match attempt(server, (&login.user, proof), parameters, keepalive).await {
            Ok(opened) => return Ok(opened),
            // The first password is the one that should be good: its refusal is what is told.
            Err(Fault::Password(error)) => refusal = refusal.or(Some(error)),
            Err(Fault::User(error) | Fault::Other(error)) => {
                let is_words = error.sqlstate == SqlState::PROTOCOL;
                return Err(if is_words { refused(server, &error.message) } else { error });
            }
        }
    }
    Err(refusal.unwrap_or_else(|| no_password(&login.user)))
}

/// Whether a server takes this password from a user, and nothing less.
pub(super) async fn takes(server: &Server, user: &str, password: Secret, keepalive: Duration) -> Result<bool, Error> {
    match attempt(server, (user, Some(Proof::Password(password))), &[], keepalive).await {
        Ok(opened) if opened.is_proved => Ok(true),
        Ok(_) => Err(refused(server, "it asks for no password, and so cannot say whether one is right")),
        Err(Fault::Password(_) | Fault::User(_)) => Ok(false),
        Err(Fault::Other(error)) => Err(error),
    }
}

async fn attempt(
    server: &Server,
    (user, proof): (&str, Option<Proof>),
    parameters: &[(String, String)],
    keepalive: Duration,
) -> Result<Opened, Fault> {
    let connected = connect(server, keepalive).await;
    let (stream, address) = connected.map_err(|cause| unavailable(server, &cause))?;
    let mut channel = Channel::new(stream);
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let own = [pair("user", user), pair("database", &server.database_name)];
    let more = parameters.iter().map(|(name, value)| pair(name, value));
    let startup = Startup::Session { version: 3 << 16, parameters: own.into_iter().chain(more).collect() };
    channel.output.extend_from_slice(&startup.encode());
    let is_proved = authenticate(&mut channel, server, (user, proof)).await?;
    let mut remarks = BytesMut::new();
    let (key, parameters) = become_ready(&mut channel, server, &mut remarks).await?;
    channel.relax();
    Ok(Opened { channel, address, is_proved, key, parameters, remarks: remarks.freeze() })
}

/// Opens a stream as the server's `tls` says, without logging in: for cancel requests.
pub(super) async fn dial(server: &Server, address: &Address) -> std::io::Result<Stream> {
    match address {
        Address::Tcp(address) => encrypt(TcpStream::connect(address).await?, server).await,
        Address::Unix(socket) => UnixStream::connect(socket).await.map(Stream::Unix),
    }
}

async fn connect(server: &Server, keepalive: Duration) -> std::io::Result<(Stream, Address)> {
    if let Some(socket) = server.unix_socket() {
        let stream = UnixStream::connect(&socket).await?;
        return Ok((Stream::Unix(stream), Address::Unix(socket)));
    }
    // Resolved anew for every connection: an address that moved is found at once.
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.set_nodelay(true)?;
    if !keepalive.is_zero() {
        let probes = socket2::TcpKeepalive::new().with_time(keepalive).with_interval(keepalive);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    }
    let address = Address::Tcp(stream.peer_addr()?);
    Ok((encrypt(stream, server).await?, address))
}

async fn encrypt(mut stream: TcpStream, server: &Server) -> std::io::Result<Stream> {
    if server.tls == ServerTls::Disable {
        return Ok(Stream::Tcp(stream));
    }
    if server.tls_negotiation == TlsNegotiation::Direct {
        return tls::connect(stream, server).await.map(|stream| Stream::ServerTls(Box::new(stream)));
    }
    stream.write_all(&Startup::Tls.encode()).await?;
    match stream.read_u8().await? {
        b'S' => tls::connect(stream, server).await.map(|stream| Stream::ServerTls(Box::new(stream))),
        b'N' if server.tls == ServerTls::Prefer => Ok(Stream::Tcp(stream)),
        b'N' => Err(std::io::Error::other("the server does not support TLS")),
        _ => Err(std::io::Error::other("the server did not understand the request for TLS")),
    }
}

/// Gives whether the server has asked for a proof.
async fn authenticate(
    channel: &mut Channel,
    server: &Server,
    (user, proof): (&str, Option<Proof>),
) -> Result<bool, Fault> {
    let mut is_asked = false;
    let mut exchange: Option<ClientExchange> = None;
    let mut signature: Option<ServerSignature> = None;
    loop {
        let body = expect(channel, server, server::AUTHENTICATION).await?;
        let proof = || proof.as_ref().ok_or_else(|| no_password(user));
        match AuthenticationRequest::read(&body)? {
            // A server that has not proved to know the password yet is not the server.
            AuthenticationRequest::Ok if exchange.is_some() || signature.is_some() => {
                return Err(refused(server, "it ended the log-in early").into());
            }
            AuthenticationRequest::Ok => return Ok(is_asked),
            AuthenticationRequest::Cleartext if channel.is_encrypted() || channel.is_local() => {
                put_password(&mut channel.output, proof()?.told().ok_or_else(|| no_password(user))?);
                is_asked = true;
            }
            AuthenticationRequest::Md5(salt) => {
                let secret = proof()?.md5(user).ok_or_else(|| no_password(user))?;
                put_password(&mut channel.output, &secret.answer(salt));
                is_asked = true;
            }
            AuthenticationRequest::Sasl(offered) => {
                let end_point = channel.peer_certificate().and_then(binding::end_point);
                let mechanism = mechanism(&offered, end_point.as_deref());
                let mechanism = mechanism.ok_or_else(|| refused(server, OTHER_METHOD))?;
                let secret = proof()?.scram().ok_or_else(|| no_password(user))?;
                let (begun, first) = ClientExchange::begin(secret, mechanism, &scram::nonce(&rand::random()));
                exchange = Some(begun);
                put_sasl_initial(&mut channel.output, mechanism.name(), first.as_bytes());
            }
            AuthenticationRequest::SaslContinue(challenge) => {
                let begun = exchange.take().ok_or_else(|| refused(server, "it continued what had not begun"))?;
                let (expected, response) = begun.respond(&challenge).map_err(|fault| match fault {
                    ScramFault::OtherVerifier => refused(server, OTHER_VERIFIER),
                    _ => refused(server, "bad SCRAM data"),
                })?;
                signature = Some(expected);
                put_sasl_response(&mut channel.output, response.as_bytes());
            }
            AuthenticationRequest::SaslFinal(proof) => {
                let expected = signature.take().ok_or_else(|| refused(server, "it ended what had not begun"))?;
                expected.verify(&proof).map_err(|_| refused(server, "the server does not know the password"))?;
                is_asked = true;
            }
            AuthenticationRequest::Cleartext => {
                return Err(refused(server, "it asks for a cleartext password on an unencrypted connection").into());
            }
            AuthenticationRequest::Other(_) => return Err(refused(server, OTHER_METHOD).into()),
        }
    }
}

/// Bound to the encryption where both sides can. A server that does not offer that is told that we could: if its offer
/// got lost on the way, it knows. `None`: it offers nothing that is known here.
fn mechanism<'a>(offered: &[String], end_point: Option<&'a [u8]>) -> Option<Mechanism<'a>> {
    let offers = |wanted: &str| offered.iter().any(|name| name == wanted);
    match end_point {
        Some(end_point) if offers(SCRAM_PLUS) => Some(Mechanism::Plus(end_point)),
        end_point => offers(SCRAM).then_some(Mechanism::Plain { bindable: end_point.is_some() }),
    }
}

impl Address {
    pub fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.ip().to_string(),
            Self::Unix(_) => "unix".to_owned(),
        }
    }

    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(socket) => socket.display().fmt(f),
        }
    }
}

async fn become_ready(
    channel: &mut Channel,
    server: &Server,
    remarks: &mut BytesMut,
) -> Result<(Option<CancelKey>, Vec<(String, String)>), Fault> {
    let mut key = None;
    let mut parameters = Vec::new();
    loop {
        let (kind, body) = next(channel, server, remarks).await?;
        match kind {
            server::PARAMETER_STATUS => parameters.push(read_parameter(&body)?),
            server::BACKEND_KEY_DATA => key = Some(CancelKey::read(&body)?),
            server::READY => return Ok((key, parameters)),
            _ => return Err(refused(server, "an unexpected message after authentication").into()),
        }
    }
}

/// Name and value of a ParameterStatus.
/// Name and value of a ParameterStatus body.
pub fn read_parameter(mut body: &[u8]) -> Result<(String, String), Error> {
    let mut text = || crate::wire::frame::take_text(&mut body).map(|text| String::from_utf8_lossy(text).into_owned());
    Ok((text()?, text()?))
}

async fn expect(channel: &mut Channel, server: &Server, wanted: u8) -> Result<BytesMut, Fault> {
    match next(channel, server, &mut BytesMut::new()).await? {
        (kind, body) if kind == wanted => Ok(body),
        _ => Err(refused(server, "an unexpected message during authentication").into()),
    }
}

/// The next message that is neither a remark, which is kept, nor says that the server would rather speak protocol 3.0.
async fn next(channel: &mut Channel, server: &Server, remarks: &mut BytesMut) -> Result<(u8, BytesMut), Fault> {
    let lost = |cause: std::io::Error| unavailable(server, &cause);
    channel.flush().await.map_err(lost)?;
    let frame = loop {
        let frame = channel.frame(MAX_LOGIN_FRAME).await.map_err(lost)??;
        match frame {
            Some((server::NOTICE, body)) => put(remarks, server::NOTICE, |out| out.extend_from_slice(&body)),
            Some((server::NEGOTIATE, _)) => {}
            frame => break frame,
        }
    };
    match frame {
        None => Err(refused(server, "it closed the connection").into()),
        Some((server::ERROR, body)) => {
            let code = error_field(&body, b'C').unwrap_or_default();
            let message = error_field(&body, b'M').unwrap_or_default();
            let error = refused(server, &format!("{message} (SQLSTATE {code})"));
            Err(match code {
                code if code == SqlState::INVALID_PASSWORD.0 => Fault::Password(error),
                code if code == SqlState::INVALID_AUTHORIZATION.0 => Fault::User(error),
                _ => Fault::Other(error),
            })
        }
        Some(frame) => Ok(frame),
    }
}

impl Login {
    /// What to try, in this order.
    fn proofs(&self) -> Vec<Option<Proof>> {
        if self.passwords.is_empty() {
            return vec![self.learnt.lock().unwrap_or_else(PoisonError::into_inner).clone()];
        }
        self.passwords.iter().map(|password| Some(Proof::Password(password.clone()))).collect()
    }
}

impl Proof {
    fn told(&self) -> Option<&str> {
        match self {
            Self::Password(Secret(password)) => Some(password),
            Self::Scram(_) | Self::Md5(_) => None,
        }
    }

    fn md5(&self, user: &str) -> Option<Md5Secret> {
        match self {
            Self::Password(Secret(password)) => Some(Md5Secret::from_password(password, user)),
            Self::Md5(secret) => Some(secret.clone()),
            Self::Scram(_) => None,
        }
    }

    fn scram(&self) -> Option<ClientSecret> {
        match self {
            Self::Password(Secret(password)) => Some(ClientSecret::Password(password.clone())),
            Self::Scram(keys) => Some(ClientSecret::Keys(keys.clone())),
            Self::Md5(_) => None,
        }
    }
}

fn no_password(user: &str) -> Error {
    let message = format!("the server asks for a password, and none is configured for \"{user}\"");
    Error::new(SqlState::UNAVAILABLE, message).with_hint("Give [[users]] a password or server_password.")
}

pub(super) fn unavailable(server: &Server, cause: &std::io::Error) -> Error {
    refused(server, &cause.to_string())
}

/// No connection to `server`, and why.
pub(super) fn refused(server: &Server, detail: &str) -> Error {
    let message = format!("no server available for shard {} of database \"{}\"", server.shard.0, server.database);
    Error::new(SqlState::UNAVAILABLE, message).with_detail(format!("{}:{}: {detail}", server.host, server.port))
}

const OTHER_METHOD: &str = "it asks for a method other than a password, md5 or SCRAM-SHA-256";
const OTHER_VERIFIER: &str = "it keeps another SCRAM verifier of the password than the one that the client logged in by; \
    copy rolpassword from one server to the others, or give server_password";
const MAX_LOGIN_FRAME: usize = 64 * 1024;
