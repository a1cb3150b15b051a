//! A proxy between a client and a server that both keep to a script, message by message.

use std::io::Write;

use crate::fake::{Fake, messages};
use crate::raw::{self, Raw};
use crate::support::Proxy;

/// One line of a script.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Client(Vec<u8>),
    /// Kinds of the messages that the server must see.
    Seen(&'static str),
    /// See [`messages`].
    Server(&'static str),
    /// What the client must be sent, in the same words.
    Told(&'static str),
}

/// How bytes are put on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Nowhere,
    Everywhere,
    At(usize),
}

pub(crate) struct Stage {
    pub(crate) proxy: Proxy,
    pub(crate) server: Fake,
    console: Raw,
}

impl Stage {
    /// One worker: what it was asked later, it answers later.
    pub(crate) fn start() -> Self {
        let server = Fake::start();
        let user = "[[users]]\nname = \"app\"\nauth = \"trust\"\nserver_password = \"pencil\"\n";
        let session = format!("{}pooler_mode = \"session\"\nserver_user = \"app\"\n", user.replace("app", "tied"));
        let proxy = Proxy::start(&format!(
            "workers = 1\n[[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {}\n{user}{session}",
            server.port
        ));
        let console = Raw::connect(proxy.port, &[("user", "app"), ("database", "pgweir")]);
        Self { proxy, server, console }
    }

    pub(crate) fn client(&self) -> Raw {
        Raw::connect(self.proxy.port, &WHO)
    }

    /// Returns when the proxy has had its turn with whatever was sent before.
    pub(crate) fn pulse(&mut self) {
        for _ in 0..2 {
            self.console.rows("show version");
        }
    }

    /// Plays a script with a client of its own, which is handed back; also the connection that the server was used on.
    pub(crate) fn play(&mut self, script: &[Act], cut: Cut) -> (Raw, Option<usize>) {
        let mut client = self.client();
        let mut on = None;
        for act in script {
            match act {
                Act::Client(bytes) => self.put(&mut client.stream(), bytes, cut),
                Act::Seen(kinds) => on = Some(self.server.expect(kinds)),
                Act::Server(text) => {
                    let mut stream = self.server.stream(on.expect("the server was asked"));
                    self.put(&mut stream, &messages(text), cut);
                }
                Act::Told(text) => assert_told(&mut client, text, &format!("{script:?} cut {cut:?}")),
            }
        }
        (client, on)
    }

    /// Each part arrives before the next one is sent.
    fn put(&mut self, stream: &mut impl Write, bytes: &[u8], cut: Cut) {
        for (index, part) in parts(bytes, cut).iter().enumerate() {
            if index > 0 {
                self.pulse();
            }
            stream.write_all(part).unwrap();
        }
    }

    /// The client is served, and by whom.
    pub(crate) fn works(&mut self, client: &mut Raw) -> usize {
        client.send(&raw::query("select 'well'"));
        let on = self.server.expect("Q");
        self.server.say(on, &messages("T D(well) C(SELECT 1) Z(I)"));
        let reply = client.reply();
        assert_eq!((reply.kinds.as_str(), reply.rows), ("TDCZ", vec!["well".to_owned()]));
        on
    }
}

/// The next messages to a client. Of an error whose text is left out, the SQLSTATE is compared alone.
pub(crate) fn assert_told(client: &mut Raw, text: &str, whence: &str) {
    let mut wanted = &messages(text)[..];
    while !wanted.is_empty() {
        let length = 1 + u32::from_be_bytes(wanted[1..5].try_into().unwrap()) as usize;
        let (kind, body) = client.frame().unwrap_or_else(|| panic!("closed before {text}: {whence}"));
        let same = match kind {
            b'E' if raw::field(&wanted[5..length], 'M').is_empty() => {
                wanted[0] == b'E'
                    && [b'C', b'S'].iter().all(|&field| {
                        raw::field(&wanted[5..length], char::from(field)) == raw::field(&body, char::from(field))
                    })
            }
            _ => wanted[..length] == raw::message(kind, &[&body])[..],
        };
        let (got, wants) = (raw::message(kind, &[&body]), &wanted[..length]);
        assert!(same, "told {}, not {} of {text}: {whence}", got.escape_ascii(), wants.escape_ascii());
        wanted = &wanted[length..];
    }
}

fn parts(bytes: &[u8], cut: Cut) -> Vec<&[u8]> {
    match cut {
        Cut::At(place) if place < bytes.len() => vec![&bytes[..place], &bytes[place..]],
        Cut::Everywhere => bytes.chunks(1).collect(),
        Cut::Nowhere | Cut::At(_) => vec![bytes],
    }
}

pub(crate) const WHO: [(&str, &str); 2] = [("user", "app"), ("database", "shop")];
