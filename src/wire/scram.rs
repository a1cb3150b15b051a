//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677; PostgreSQL documentation, 55.3.1).
//!
//! Pure: messages in, messages out. Nonces and salts are given by the caller.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a server keeps of a password; or of several that are all good, with one salt.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    /// Of each password; never empty.
    keys: Vec<VerifierKeys>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct VerifierKeys {
    stored: Key,
    server: Key,
}

/// Why an exchange ended; never says more to a peer than that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramFault {
    /// Not what the RFC allows.
    Malformed,
    /// The client asks for another binding than is offered, or an authorization identity.
    Unsupported,
    /// The client believes that nothing can be bound: somebody took the offer out of the conversation.
    Downgrade,
    /// The client is bound to another encryption than this: somebody is in between.
    Binding,
    /// The proof or signature is wrong.
    Mismatch,
    /// The server has another salt or iteration count than the keys were made with.
    OtherVerifier,
    /// An iteration count that would cost us too much or the password its protection.
    Iterations,
}

/// Whether the exchange is bound to the encryption below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism<'a> {
    /// SCRAM-SHA-256. `bindable`: this side could have bound it.
    Plain { bindable: bool },
    /// SCRAM-SHA-256-PLUS, with the encryption's [`end_point`](super::binding::end_point).
    Plus(&'a [u8]),
}

type Key = [u8; 32];

impl Mechanism<'_> {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain { .. } => SCRAM,
            Self::Plus(_) => SCRAM_PLUS,
        }
    }

    /// Says in front of a client's first message what is bound.
    fn header(self) -> &'static str {
        match self {
            Self::Plain { bindable: false } => "n,,",
            Self::Plain { bindable: true } => "y,,",
            Self::Plus(_) => "p=tls-server-end-point,,",
        }
    }

    fn bound(&self) -> &[u8] {
        match self {
            Self::Plain { .. } => b"",
            Self::Plus(end_point) => end_point,
        }
    }
}

impl Verifier {
    /// Costs `iterations` hashes for each password.
    pub fn from_passwords<'a>(passwords: impl IntoIterator<Item = &'a str>, salt: &[u8], iterations: u32) -> Self {
        let keys = passwords.into_iter().map(|password| VerifierKeys::new(password, salt, iterations)).collect();
        Self { iterations, salt: salt.to_vec(), keys }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>` (`pg_authid.rolpassword`).
    pub fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        Some(Self {
            iterations: iterations.parse().ok().filter(|&count| count > 0)?,
            salt: STANDARD.decode(salt).ok()?,
            keys: vec![VerifierKeys { stored: key(stored_key)?, server: key(server_key)? }],
        })
    }

    /// Whether it is this password's. Costs `iterations` hashes.
    pub fn fits(&self, password: &str) -> bool {
        self.keys_of(&VerifierKeys::new(password, &self.salt, self.iterations).stored).is_some()
    }

    fn keys_of(&self, stored: &Key) -> Option<&VerifierKeys> {
        self.keys.iter().find(|keys| keys.stored.ct_eq(stored).into())
    }

    /// The salt that stays the same for a name.
    pub fn salt(user: &str, secret: &[u8]) -> [u8; 16] {
        let hash = hmac(secret, user.as_bytes());
        std::array::from_fn(|index| hash[index])
    }

    /// For a user that does not exist: answers as a real one would, with a salt that stays the same for a name,
    /// and no password fits.
    pub fn mock(user: &str, secret: &[u8]) -> Self {
        let salt = Self::salt(user, secret).to_vec();
        Self { iterations: DEFAULT_ITERATIONS, salt, keys: vec![VerifierKeys { stored: [0; 32], server: [0; 32] }] }
    }
}

impl VerifierKeys {
    fn new(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        Self { stored: Sha256::digest(client_key).into(), server: hmac(&salted, b"Server Key") }
    }
}

/// A nonce of the shape both sides use, made of random bytes.
pub fn nonce(random: &[u8; 18]) -> String {
    STANDARD.encode(random)
}

/// What a client proved to know: enough to log in wherever the same verifier is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    iterations: u32,
    salt: Vec<u8>,
    client_key: Key,
    server_key: Key,
}

/// What a client logs in with.
pub enum ClientSecret {
    Password(String),
    Keys(ScramKeys),
}

impl From<&str> for ClientSecret {
    fn from(password: &str) -> Self {
        Self::Password(password.to_owned())
    }
}

impl ClientSecret {
    /// Client key and server key for a verifier of this salt.
    fn keys(&self, salt: &[u8], iterations: u32) -> Result<(Key, Key), ScramFault> {
        match self {
            Self::Password(password) => {
                let salted = salted_password(password, salt, iterations);
                Ok((hmac(&salted, b"Client Key"), hmac(&salted, b"Server Key")))
            }
            Self::Keys(keys) if keys.salt == salt && keys.iterations == iterations => {
                Ok((keys.client_key, keys.server_key))
            }
            Self::Keys(_) => Err(ScramFault::OtherVerifier),
        }
    }
}

/// A server that has sent its first message.
pub struct ServerExchange {
    verifier: Verifier,
    nonce: String,
    /// What must be repeated in the proof: header and end point, in base64.
    binding: String,
    is_bound: bool,
    /// `client-first-message-bare,server-first-message`
    signed: String,
}

impl ServerExchange {
    /// Answers the client's first message. `nonce`: at least 18 random bytes in base64.
    pub fn begin(
        verifier: Verifier,
        mechanism: Mechanism<'_>,
        client_first: &[u8],
        nonce: &str,
    ) -> Result<(Self, String), ScramFault> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramFault::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (flag, identity) = (parts.next().unwrap_or(""), parts.next().ok_or(ScramFault::Malformed)?);
        let bare = parts.next().ok_or(ScramFault::Malformed)?;
        match (flag, mechanism) {
            ("n", Mechanism::Plain { .. }) | ("y", Mechanism::Plain { bindable: false }) => {}
            ("p=tls-server-end-point", Mechanism::Plus(_)) => {}
            ("y", Mechanism::Plain { bindable: true }) => return Err(ScramFault::Downgrade),
            _ if flag.starts_with("p=") => return Err(ScramFault::Unsupported),
            _ => return Err(ScramFault::Malformed),
        }
        if !identity.is_empty() {
            return Err(ScramFault::Unsupported);
        }
        // An extension that must be understood.
        if attribute(bare, 'm').is_some() {
            return Err(ScramFault::Unsupported);
        }
        let client_nonce = attribute(bare, 'r').filter(|nonce| is_printable(nonce) && nonce.len() <= LONGEST_NONCE);
        let client_nonce = client_nonce.ok_or(ScramFault::Malformed)?;
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let signed = format!("{bare},{server_first}");
        let binding = STANDARD.encode([format!("{flag},,").as_bytes(), mechanism.bound()].concat());
        let is_bound = matches!(mechanism, Mechanism::Plus(_));
        Ok((Self { verifier, nonce, binding, is_bound, signed }, server_first))
    }

    /// Checks the client's proof; gives the server's final message, and what the client has shown with its proof.
    pub fn finish(self, client_final: &[u8]) -> Result<(String, ScramKeys), ScramFault> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramFault::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramFault::Malformed)?;
        let binding = attribute(without_proof, 'c').ok_or(ScramFault::Malformed)?;
        if binding != self.binding {
            return Err(if self.is_bound { ScramFault::Binding } else { ScramFault::Malformed });
        }
        if attribute(without_proof, 'r') != Some(&self.nonce) {
            return Err(ScramFault::Malformed);
        }
        let proof: Key = decode(proof)?;
        let signed = format!("{},{without_proof}", self.signed);
        let shown = self.verifier.keys.iter().find_map(|keys| {
            let client_key = xor(proof, hmac(&keys.stored, signed.as_bytes()));
            let stored: Key = Sha256::digest(client_key).into();
            bool::from(stored.ct_eq(&keys.stored)).then_some((client_key, keys.server))
        });
        let (client_key, server_key) = shown.ok_or(ScramFault::Mismatch)?;
        let last = format!("v={}", STANDARD.encode(hmac(&server_key, signed.as_bytes())));
        let Verifier { iterations, salt, .. } = self.verifier;
        Ok((last, ScramKeys { iterations, salt, client_key, server_key }))
    }
}

/// A client that has sent its first message.
pub struct ClientExchange {
    secret: ClientSecret,
    nonce: String,
    /// Header and end point, in base64.
    binding: String,
}

impl ClientExchange {
    /// Gives the first message. `nonce`: at least 18 random bytes in base64.
    pub fn begin(secret: impl Into<ClientSecret>, mechanism: Mechanism<'_>, nonce: &str) -> (Self, String) {
        let header = mechanism.header();
        let binding = STANDARD.encode([header.as_bytes(), mechanism.bound()].concat());
        let first = format!("{header}{}", bare(nonce));
        (Self { secret: secret.into(), nonce: nonce.to_owned(), binding }, first)
    }

    /// Answers the server's first message; the signature is what the server's final message must prove.
    pub fn respond(self, server_first: &[u8]) -> Result<(ServerSignature, String), ScramFault> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramFault::Malformed)?;
        let nonce = attribute(text, 'r').filter(|nonce| nonce.len() > self.nonce.len() && is_printable(nonce));
        let nonce = nonce.filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() <= LONGEST_NONCE);
        let nonce = nonce.ok_or(ScramFault::Malformed)?;
        let salt = attribute(text, 's').and_then(|salt| STANDARD.decode(salt).ok()).ok_or(ScramFault::Malformed)?;
        let iterations = attribute(text, 'i').and_then(|count| count.parse().ok()).ok_or(ScramFault::Malformed)?;
        if !ITERATIONS.contains(&iterations) {
            return Err(ScramFault::Iterations);
        }
        let (client_key, server_key) = self.secret.keys(&salt, iterations)?;
        let stored_key: Key = Sha256::digest(client_key).into();
        let without_proof = format!("c={},r={nonce}", self.binding);
        let signed = format!("{},{text},{without_proof}", bare(&self.nonce));
        let proof = xor(client_key, hmac(&stored_key, signed.as_bytes()));
        let signature = hmac(&server_key, signed.as_bytes());
        Ok((ServerSignature(signature), format!("{without_proof},p={}", STANDARD.encode(proof))))
    }
}

/// What the server's final message must carry.
pub struct ServerSignature(Key);

impl ServerSignature {
    /// A server that cannot prove it knows the verifier is not the server.
    pub fn verify(self, server_final: &[u8]) -> Result<(), ScramFault> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramFault::Malformed)?;
        let given: Key = decode(attribute(text, 'v').ok_or(ScramFault::Mismatch)?)?;
        if bool::from(given.ct_eq(&self.0)) { Ok(()) } else { Err(ScramFault::Mismatch) }
    }
}

fn bare(nonce: &str) -> String {
    // PostgreSQL takes the name from the startup packet and ignores this one.
    format!("n=,r={nonce}")
}

fn attribute(text: &str, name: char) -> Option<&str> {
    text.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn is_printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

fn decode(text: &str) -> Result<Key, ScramFault> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(ScramFault::Malformed)
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Key {
    // A password that is not valid for SASLprep is used as it is, as PostgreSQL does.
    let prepared = stringprep::saslprep(password).unwrap_or(password.into());
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations)
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn xor(left: Key, right: Key) -> Key {
    std::array::from_fn(|index| left[index] ^ right[index])
}

/// Of both sides together; PostgreSQL's have 48 bytes.
const LONGEST_NONCE: usize = 1024;
pub const SCRAM: &str = "SCRAM-SHA-256";
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// PostgreSQL's `scram_iterations`.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// Below, a password is not protected; above, a server could keep us busy for minutes.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Mechanism<'_> = Mechanism::Plain { bindable: false };

    #[test]
    fn both_sides_agree_on_a_password_and_on_nothing_else() {
        let verifier = Verifier::from_passwords(["pencil"], b"0123456789abcdef", 4096);
        for (password, expected) in
            [("pencil", Ok(())), ("Pencil", Err(ScramFault::Mismatch)), ("", Err(ScramFault::Mismatch))]
        {
            let (client, first) = ClientExchange::begin(password, PLAIN, "clientnonce");
            let begun = ServerExchange::begin(verifier.clone(), PLAIN, first.as_bytes(), "servernonce");
            let (server, first) = begun.unwrap();
            let (signature, last) = client.respond(first.as_bytes()).unwrap();
            let outcome = server.finish(last.as_bytes()).map(|(last, _)| signature.verify(last.as_bytes()).unwrap());
            assert_eq!(outcome, expected, "{password}");
        }
    }

    /// What the client has shown is of the password it gave.
    #[test]
    fn each_of_several_passwords_is_good() {
        let verifier = Verifier::from_passwords(["old", "new"], b"0123456789abcdef", 4096);
        for (password, is_good) in [("old", true), ("new", true), ("older", false), ("", false)] {
            let (client, first) = ClientExchange::begin(password, PLAIN, "clientnonce");
            let (server, first) =
                ServerExchange::begin(verifier.clone(), PLAIN, first.as_bytes(), "servernonce").unwrap();
            let (signature, last) = client.respond(first.as_bytes()).unwrap();
            let shown = server.finish(last.as_bytes()).map(|(last, keys)| {
                signature.verify(last.as_bytes()).unwrap();
                ClientSecret::Keys(keys).keys(b"0123456789abcdef", 4096).unwrap()
            });
            let own = ClientSecret::from(password).keys(b"0123456789abcdef", 4096).unwrap();
            assert_eq!(shown, if is_good { Ok(own) } else { Err(ScramFault::Mismatch) }, "{password}");
            assert_eq!(verifier.fits(password), is_good);
        }
    }

    #[test]
    fn who_is_in_between_is_found_out() {
        const COULD: Mechanism<'_> = Mechanism::Plain { bindable: true };
        let verifier = Verifier::from_passwords(["pencil"], b"0123456789abcdef", 4096);
        let outcome = |client: Mechanism<'_>, server: Mechanism<'_>| {
            let (client, first) = ClientExchange::begin("pencil", client, "clientnonce");
            let begun = ServerExchange::begin(verifier.clone(), server, first.as_bytes(), "servernonce")?;
            let (signature, last) = client.respond(begun.1.as_bytes())?;
            signature.verify(begun.0.finish(last.as_bytes())?.0.as_bytes())
        };
        let (own, other) = (Mechanism::Plus(b"this certificate"), Mechanism::Plus(b"another one"));
        for (client, server, expected) in [
            (own, own, Ok(())),
            (own, other, Err(ScramFault::Binding)),
            (COULD, COULD, Err(ScramFault::Downgrade)),
            (COULD, PLAIN, Ok(())),
            (PLAIN, COULD, Ok(())),
            (PLAIN, own, Err(ScramFault::Malformed)),
            (COULD, own, Err(ScramFault::Malformed)),
            (own, PLAIN, Err(ScramFault::Unsupported)),
            (own, COULD, Err(ScramFault::Unsupported)),
        ] {
            assert_eq!(outcome(client, server), expected, "{client:?} {server:?}");
        }
    }

    /// The exchange of RFC 7677, section 3; its client names a user, which changes only what is signed.
    #[test]
    fn the_server_accepts_the_exchange_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::from_passwords(["pencil"], &salt, 4096);
        let (server, first) = ServerExchange::begin(
            verifier,
            PLAIN,
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
        assert_eq!(first, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let told = server.finish(last).map(|(told, _)| told);
        assert_eq!(told, Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned()));
    }

    #[test]
    fn messages_outside_the_rfc_are_refused() {
        let verifier = Verifier::mock("nobody", b"secret");
        let check = |first: &[u8], expected| {
            assert_eq!(ServerExchange::begin(verifier.clone(), PLAIN, first, "x").err(), Some(expected), "{first:?}");
        };
        check(b"", ScramFault::Malformed);
        check(b"n,,n=", ScramFault::Malformed);
        check(b"n,,r=", ScramFault::Malformed);
        check(b"p=tls-server-end-point,,n=,r=a", ScramFault::Unsupported);
        check(b"n,a=root,n=,r=a", ScramFault::Unsupported);
        check(b"n,,m=x,n=,r=a", ScramFault::Unsupported);
        check(b"\xff,,n=,r=a", ScramFault::Malformed);
        for server_first in ["r=other,s=AAAA,i=4096", "r=nonce,s=AAAA,i=4096", "r=noncex,s=AAAA", "r=noncex,s=?,i=4096"]
        {
            let (client, _) = ClientExchange::begin("p", PLAIN, "nonce");
            assert_eq!(client.respond(server_first.as_bytes()).err(), Some(ScramFault::Malformed), "{server_first}");
        }
        for iterations in ["1", "4095", "1000001", "2147483647"] {
            let (client, _) = ClientExchange::begin("p", PLAIN, "nonce");
            let first = format!("r=noncex,s=AAAA,i={iterations}");
            assert_eq!(client.respond(first.as_bytes()).err(), Some(ScramFault::Iterations));
        }
    }
}
