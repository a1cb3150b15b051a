//! A server that says what a test wants it to say, over a real socket.
//!
//! It logs everybody in, answers the proxy's own connections (probes, catalog, what a log-in asks) as an empty database
//! would, and hands all else to the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::raw::message;

/// What the connections that serve clients bring.
#[derive(Debug)]
pub(crate) enum Seen {
    Opened(TcpStream),
    Message(u8, Vec<u8>),
    Closed,
}

pub(crate) struct Fake {
    pub(crate) port: u16,
    events: Receiver<(usize, Seen)>,
    /// What has been opened, by number, until it is closed.
    open: Vec<(usize, TcpStream)>,
    greeting: Arc<Mutex<Greeting>>,
    cancels: Cancels,
}

/// Whom to hand the connections of cancel requests; nobody: they are closed at once.
type Cancels = Arc<Mutex<Option<Sender<TcpStream>>>>;

/// How a server conducts a log-in: it sends each text when the client has sent one more message.
pub(crate) type Greeting = Vec<Vec<u8>>;

/// Trust.
pub(crate) fn welcome() -> Greeting {
    vec![messages("R0 S(server_version=15.0) S(client_encoding=UTF8) S(TimeZone=UTC) K Z(I)")]
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, events) = channel();
        let greeting = Arc::new(Mutex::new(welcome()));
        let greets = Arc::clone(&greeting);
        let cancels = Cancels::default();
        let hands = Arc::clone(&cancels);
        // Ends with the process: it waits for connections that nobody makes any more.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (sender, greets, hands) = (sender.clone(), Arc::clone(&greets), Arc::clone(&hands));
                thread::spawn(move || {
                    // A connection that breaks is one that the proxy, or the test, has closed.
                    let _ = serve(stream.unwrap(), number, &sender, &greets, &hands);
                });
            }
        });
        Self { port, events, open: Vec::new(), greeting, cancels }
    }

    /// For connections to come.
    pub(crate) fn greet_with(&self, greeting: Greeting) {
        *self.greeting.lock().unwrap() = greeting;
    }

    /// Cancel requests from now on: each is taken for carried out when its connection is dropped.
    pub(crate) fn keep_cancels(&self) -> Receiver<TcpStream> {
        let (sender, kept) = channel();
        *self.cancels.lock().unwrap() = Some(sender);
        kept
    }

    /// The next message on any connection, and which; `None`: a connection was closed.
    pub(crate) fn next(&mut self) -> (usize, Option<(u8, Vec<u8>)>) {
        loop {
            let (number, seen) = self.events.recv_timeout(PATIENCE).expect("the server sees something");
            match seen {
                Seen::Opened(stream) => self.open.push((number, stream)),
                Seen::Message(kind, body) => return (number, Some((kind, body))),
                Seen::Closed => {
                    self.open.retain(|(known, _)| *known != number);
                    return (number, None);
                }
            }
        }
    }

    /// The kinds of the next messages, which must all come on one connection: its number.
    pub(crate) fn expect(&mut self, kinds: &str) -> usize {
        let (mut seen, mut on) = (String::new(), None);
        while seen.len() < kinds.len() {
            let (number, message) = self.next();
            // Another connection may be given up at any time.
            let Some((kind, _)) = message else {
                assert_ne!(on, Some(number), "closed after {seen}, {kinds} expected");
                continue;
            };
            // The farewell of one that is closed.
            if kind == b'X' && !kinds[seen.len()..].starts_with('X') {
                continue;
            }
            assert_eq!(*on.get_or_insert(number), number, "one connection");
            seen.push(char::from(kind));
        }
        assert_eq!(seen, kinds);
        on.expect("something is expected")
    }

    /// Returns when the proxy has closed this connection; it says nothing before, but farewell.
    pub(crate) fn expect_closed(&mut self, wanted: usize) {
        loop {
            match self.next() {
                (number, None) if number == wanted => return,
                (number, Some((kind, _))) if number == wanted => assert_eq!(char::from(kind), 'X'),
                _ => {}
            }
        }
    }

    pub(crate) fn stream(&self, number: usize) -> TcpStream {
        let (_, stream) = self.open.iter().find(|(known, _)| *known == number).expect("it is open");
        stream.try_clone().unwrap()
    }

    pub(crate) fn say(&self, number: usize, bytes: &[u8]) {
        self.stream(number).write_all(bytes).unwrap();
    }

    pub(crate) fn hang_up(&self, number: usize) {
        self.stream(number).shutdown(Shutdown::Both).unwrap();
    }
}

/// One connection to its end.
fn serve(
    mut stream: TcpStream,
    number: usize,
    sender: &Sender<(usize, Seen)>,
    greeting: &Mutex<Greeting>,
    cancels: &Cancels,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut startup = packet(&mut stream)?;
    if startup == TLS {
        stream.write_all(b"N")?;
        startup = packet(&mut stream)?;
    }
    if startup.starts_with(&CANCEL) {
        if let Some(keeper) = &*cancels.lock().unwrap() {
            let _ = keeper.send(stream);
        }
        return Ok(());
    }
    let is_control = startup.windows(CONTROL.len()).any(|text| text == CONTROL);
    let greeting = if is_control { welcome() } else { greeting.lock().unwrap().clone() };
    let mut said = Vec::new();
    for (index, text) in greeting.iter().enumerate() {
        if index > 0 {
            said = read(&mut stream)?.1;
        }
        stream.write_all(&with_nonce(text, &said))?;
    }
    let tell = |seen| _ = sender.send((number, seen));
    if !is_control {
        tell(Seen::Opened(stream.try_clone()?));
    }
    loop {
        match read(&mut stream) {
            Ok((b'Q', body)) if is_control || body.starts_with(b"SHOW ") => stream.write_all(&answer(&body))?,
            Ok((kind, body)) if !is_control => tell(Seen::Message(kind, body)),
            Ok(_) => {}
            Err(_) => {
                tell(Seen::Closed);
                return Ok(());
            }
        }
    }
}

/// The first message with the nonce that the client has just said in the place of `{nonce}`, and what follows it.
fn with_nonce(text: &[u8], said: &[u8]) -> Vec<u8> {
    let said = String::from_utf8_lossy(said);
    let Some((_, nonce)) = said.rsplit_once(",r=") else { return text.to_vec() };
    let length = u32::from_be_bytes(text[1..5].try_into().unwrap()) as usize + 1;
    let body = String::from_utf8_lossy(&text[5..length]).replace("{nonce}", nonce);
    [&message(text[0], &[body.as_bytes()])[..], &text[length..]].concat()
}

fn packet(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn read(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok((kind[0], packet(stream)?))
}

/// What the proxy asks on its own behalf.
fn answer(sql: &[u8]) -> Vec<u8> {
    let sql = String::from_utf8_lossy(sql);
    let row: &[Option<&str>] = if sql.contains("pg_is_in_recovery") {
        &[Some("f"), Some("0/10"), Some("0/10"), None, Some("1")]
    } else if sql.contains("concat_ws") {
        &[Some("1")]
    } else if sql.contains("datcollate") {
        &[Some("t")]
    } else if sql.contains("search_path") {
        &[Some("public")]
    } else if sql.contains("default_transaction_isolation") {
        &[Some("read committed")]
    } else {
        return messages("T C(SELECT 0) Z(I)");
    };
    [columns(row.len()), data_row(row), messages("C(SELECT 1) Z(I)")].concat()
}

fn columns(count: usize) -> Vec<u8> {
    let mut body = u16::try_from(count).unwrap().to_be_bytes().to_vec();
    for _ in 0..count {
        body.extend_from_slice(b"x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    }
    message(b'T', &[&body])
}

fn data_row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend_from_slice(&[0xff; 4]),
            Some(text) => {
                body.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    message(b'D', &[&body])
}

/// Messages of a server, by kind, with their content in brackets: `T D(1) C(SELECT 1) Z(I)`; `R0` is AuthenticationOk,
/// `R(11 r=…)` a SASL challenge, `E(22012 no)` an error, `F(57P01 bye)` a fatal one, `S(name=value)`, `A(channel payload)`.
pub(crate) fn messages(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(kind) = rest.chars().next() {
        rest = &rest[1..];
        let content = match rest.strip_prefix('(') {
            Some(behind) => {
                let (content, behind) = behind.split_once(')').expect("a closing bracket");
                rest = behind;
                content
            }
            None => "",
        };
        rest = rest.strip_prefix('0').unwrap_or(rest).trim_start();
        out.extend(one(kind, content));
    }
    out
}

fn one(kind: char, content: &str) -> Vec<u8> {
    let byte = u8::try_from(kind).unwrap();
    let ended = |text: &str| [text.as_bytes(), b"\0"].concat();
    let two = |separator| content.split_once(separator).unwrap_or((content, ""));
    let error = |severity: &str, code: &str, what: &str| {
        let fields = [format!("S{severity}"), format!("V{severity}"), format!("C{code}"), format!("M{what}")];
        fields.iter().flat_map(|field| ended(field)).chain([0]).collect::<Vec<u8>>()
    };
    match kind {
        '1' | '2' | '3' | 'n' | 's' | 'I' | 'c' => message(byte, &[]),
        'R' if content.is_empty() => message(byte, &[&[0; 4]]),
        'R' => message(byte, &[&two(' ').0.parse::<u32>().unwrap().to_be_bytes(), two(' ').1.as_bytes()]),
        'v' => message(byte, &[&(3_u32 << 16).to_be_bytes(), &[0; 4]]),
        'K' => message(byte, &[&7_u32.to_be_bytes(), &8_u32.to_be_bytes()]),
        'T' => columns(1),
        't' => message(byte, &[&[0, 0]]),
        'D' => data_row(&[Some(content)]),
        'Z' | 'd' => message(byte, &[content.as_bytes()]),
        'C' => message(byte, &[&ended(content)]),
        'V' => message(byte, &[&[0, 0, 0, 1], content.as_bytes()]),
        'G' | 'H' => message(byte, &[&[0, 0, 1, 0, 0]]),
        'E' => message(byte, &[&error("ERROR", two(' ').0, two(' ').1)]),
        'F' => message(b'E', &[&error("FATAL", two(' ').0, two(' ').1)]),
        'N' => message(byte, &[&error("NOTICE", "00000", content)]),
        'S' => message(byte, &[&ended(two('=').0), &ended(two('=').1)]),
        'A' => message(byte, &[&[0, 0, 0, 9], &ended(two(' ').0), &ended(two(' ').1)]),
        other => panic!("no message {other}"),
    }
}

const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();
const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
const CONTROL: &[u8] = b"application_name\0pgweir\0";
const PATIENCE: Duration = Duration::from_secs(10);
