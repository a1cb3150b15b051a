//! A client that speaks the protocol by hand (PostgreSQL documentation, 55.2), for what drivers hide.

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use pgweir::wire::scram::{ClientExchange, Mechanism};

/// A session of a user who is trusted. Dropped, it is gone without a word.
pub(crate) struct Raw {
    stream: TcpStream,
    input: BufReader<TcpStream>,
    port: u16,
    /// Process and secret, for [`Raw::cancel`].
    pub(crate) key: Vec<u8>,
    /// What ParameterStatus messages told.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// What came up to a ReadyForQuery, or to the end of the connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Kinds of all messages in their order, runs of rows as one.
    pub(crate) kinds: String,
    /// Values by `|`, NULL as nothing.
    pub(crate) rows: Vec<String>,
    /// SQLSTATE and message of the first error.
    pub(crate) error: Option<(String, String)>,
    /// `I`, `T` or `E`; a blank where the connection ended.
    pub(crate) status: char,
    /// Names in ParameterStatus messages.
    pub(crate) told: Vec<String>,
    /// Payloads of notifications.
    pub(crate) notified: Vec<String>,
}

impl Reply {
    pub(crate) fn sqlstate(&self) -> &str {
        self.error.as_ref().map_or("", |(code, _)| code)
    }
}

impl Raw {
    /// Connects with these startup parameters. An error is in the reply.
    pub(crate) fn try_connect(port: u16, parameters: &[(&str, &str)]) -> (Self, Reply) {
        let mut client = Self::open(port);
        client.send(&startup(PROTOCOL_3_0, parameters));
        let reply = client.reply();
        (client, reply)
    }

    /// Connects to a server that asks for SCRAM-SHA-256.
    pub(crate) fn log_in(port: u16, parameters: &[(&str, &str)], password: &str) -> Self {
        let mut client = Self::open(port);
        client.send(&startup(PROTOCOL_3_0, parameters));
        assert!(client.frame().unwrap().1.starts_with(&10_u32.to_be_bytes()), "the server does not ask for SCRAM");
        let nonce = "a nonce is not a secret".replace(' ', "");
        let (exchange, first) = ClientExchange::begin(password, Mechanism::Plain { bindable: false }, &nonce);
        client.send(&sasl_initial(&first));
        let (_, challenge) = client.frame().unwrap();
        let (_, last) = exchange.respond(&challenge[4..]).unwrap();
        client.send(&message(b'p', &[last.as_bytes()]));
        assert_eq!(client.reply().error, None);
        client
    }

    /// A connection on which nothing was said.
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        // Nothing here takes so long: a test that waits in vain fails.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let input = BufReader::new(stream.try_clone().unwrap());
        Self { stream, input, port, key: Vec::new(), parameters: BTreeMap::new() }
    }

    pub(crate) fn connect(port: u16, parameters: &[(&str, &str)]) -> Self {
        let (client, reply) = Self::try_connect(port, parameters);
        assert_eq!((reply.error, reply.status), (None, 'I'));
        client
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Kind and body; `None` at the end of the connection.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (kind, length) = self.header()?;
        let mut body = vec![0; length];
        self.input.read_exact(&mut body).unwrap();
        Some((kind, body))
    }

    /// Kind and length of the next message; its body is to be read from [`Raw::input`].
    pub(crate) fn header(&mut self) -> Option<(u8, usize)> {
        let mut header = [0; 5];
        match self.input.read_exact(&mut header) {
            Ok(()) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer within {PATIENCE:?}"),
            Err(_) => return None,
        }
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        Some((header[0], length as usize - 4))
    }

    /// Gone at once, by a reset: what was on its way is lost.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn input(&mut self) -> &mut impl Read {
        &mut self.input
    }

    /// Everything up to ReadyForQuery.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = Reply { status: ' ', ..Reply::default() };
        while let Some((kind, body)) = self.frame() {
            if !(kind == b'D' && reply.kinds.ends_with('D')) {
                reply.kinds.push(char::from(kind));
            }
            self.note(&mut reply, kind, &body);
            if kind == b'Z' {
                break;
            }
        }
        reply
    }

    fn note(&mut self, reply: &mut Reply, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => reply.status = char::from(body[0]),
            b'D' => reply.rows.push(row(body)),
            b'E' => {
                reply.error.get_or_insert((field(body, 'C'), field(body, 'M')));
            }
            b'K' => self.key = body.to_vec(),
            b'S' => {
                let told = texts(body);
                reply.told.push(told[0].clone());
                self.parameters.insert(told[0].clone(), told[1].clone());
            }
            b'A' => reply.notified.push(texts(&body[4..])[1].clone()),
            _ => {}
        }
    }

    /// A text by the simple protocol.
    pub(crate) fn query(&mut self, sql: &str) -> Reply {
        self.send(&query(sql));
        self.reply()
    }

    /// As [`Raw::query`], and there must be no error.
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<String> {
        let reply = self.query(sql);
        assert_eq!(reply.error, None, "{sql}");
        reply.rows
    }

    /// The one row of a text.
    pub(crate) fn value(&mut self, sql: &str) -> String {
        let [row] = self.rows(sql).try_into().unwrap_or_else(|rows| panic!("{sql}: {rows:?}"));
        row
    }

    /// The SQLSTATE that a text is refused with.
    pub(crate) fn refusal(&mut self, sql: &str) -> String {
        let reply = self.query(sql);
        assert!(reply.error.is_some(), "{sql}: {reply:?}");
        reply.sqlstate().to_owned()
    }

    /// Messages of the extended protocol, and a Sync.
    pub(crate) fn extended(&mut self, messages: &[Vec<u8>]) -> Reply {
        self.send(&[&messages.concat()[..], &sync()].concat());
        self.reply()
    }

    /// Asks, on a connection of its own, to cancel what a session with this key runs; returns when the request was taken.
    pub(crate) fn cancel(port: u16, key: &[u8]) {
        // Closed by the other side, in whichever way.
        let _ = Self::begin_cancel(port, key).read_to_end(&mut Vec::new());
    }

    /// The connection of a cancel request that was sent.
    pub(crate) fn begin_cancel(port: u16, key: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(&packet(&[&80_877_102_u32.to_be_bytes()[..], key].concat())).unwrap();
        stream
    }
}

/// The first packet of a session.
pub(crate) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    parameters.iter().flat_map(|(name, value)| [name, value]).for_each(|value| body.extend(text(value)));
    body.push(0);
    packet(&body)
}

pub(crate) fn sasl_initial(first: &str) -> Vec<u8> {
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    message(b'p', &[b"SCRAM-SHA-256\0", &length, first.as_bytes()])
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[&text(sql)])
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[&text(name), &text(sql), &[0, 0]])
}

/// Binds the unnamed portal; values and results are texts.
pub(crate) fn bind(name: &str, values: &[&str]) -> Vec<u8> {
    bind_portal("", name, values)
}

pub(crate) fn bind_portal(portal: &str, name: &str, values: &[&str]) -> Vec<u8> {
    let mut body = [&text(portal)[..], &text(name), &[0, 0]].concat();
    body.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    message(b'B', &[&body, &[0, 0]])
}

/// Of the unnamed portal, to its end.
pub(crate) fn execute() -> Vec<u8> {
    execute_portal("", 0)
}

/// So many rows at most; 0: all.
pub(crate) fn execute_portal(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[&text(portal), &rows.to_be_bytes()])
}

pub(crate) fn describe_portal(portal: &str) -> Vec<u8> {
    message(b'D', &[b"P", &text(portal)])
}

pub(crate) fn close_portal(portal: &str) -> Vec<u8> {
    message(b'C', &[b"P", &text(portal)])
}

pub(crate) fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', &[data.as_bytes()])
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

pub(crate) fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &[&text(why)])
}

/// A FunctionCall: numbers in, a number out, as texts.
pub(crate) fn call(function: u32, arguments: &[i32]) -> Vec<u8> {
    let mut body = [&function.to_be_bytes()[..], &[0, 0]].concat();
    body.extend_from_slice(&u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments.iter().map(ToString::to_string) {
        body.extend_from_slice(&u32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend_from_slice(argument.as_bytes());
    }
    message(b'F', &[&body, &[0, 0]])
}

pub(crate) fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

pub(crate) fn describe(name: &str) -> Vec<u8> {
    message(b'D', &[b"S", &text(name)])
}

pub(crate) fn close(name: &str) -> Vec<u8> {
    message(b'C', &[b"S", &text(name)])
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub(crate) fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind][..], &packet(&parts.concat())].concat()
}

/// Length and body.
pub(crate) fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn texts(body: &[u8]) -> Vec<String> {
    body.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// A field of an ErrorResponse.
pub(crate) fn field(body: &[u8], wanted: char) -> String {
    let found = texts(body).into_iter().find_map(|text| text.strip_prefix(wanted).map(str::to_owned));
    found.unwrap_or_default()
}

fn row(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        values.push(String::from_utf8_lossy(&tail[..length]).into_owned());
        rest = &tail[length..];
    }
    values.join("|")
}

pub(crate) const PROTOCOL_3_0: u32 = 3 << 16;
const PATIENCE: Duration = Duration::from_secs(30);
