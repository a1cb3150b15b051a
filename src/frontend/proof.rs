//! How a client proves to be the user whose name it gave.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Semaphore;

use super::demand::Way;
use super::login::Refusal;
use crate::backend::Proof;
use crate::error::{Error, SqlState};
use crate::topology::{Credential, Secret, Topology, User};
use crate::wire::frame::{client, malformed, take_text, take_u32};
use crate::wire::md5::Md5Secret;
use crate::wire::scram::{self, Mechanism, SCRAM, SCRAM_PLUS, ScramFault, ScramKeys, ServerExchange, Verifier};
use crate::wire::{AuthenticationRequest, Channel};

/// Who a client says it is.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub name: &'a str,
    /// What its proof may be bound to.
    pub end_point: Option<&'a [u8]>,
    /// How it is to prove that.
    pub way: Way,
}

/// What a client has shown of its password.
pub(super) enum Shown {
    Nothing,
    /// Enough to log in with where the same is kept.
    Proof(Proof),
    /// Whether it is right, only the servers know.
    Unproved(Secret),
}

/// What proofs are checked against.
pub(super) struct Proofs {
    /// Of names and their passwords: making one costs thousands of hashes.
    verifiers: Mutex<HashMap<Key, Verifier>>,
    /// Salts are made of it: a name has the same one all the time, whether there is such a user or not.
    secret: [u8; 32],
    /// Of the topology whose verifiers are there, or are being made.
    epoch: AtomicU64,
    /// Passwords that are told cost thousands of hashes each: a flood of them must leave the processor to others.
    hashing: Semaphore,
}

impl Default for Proofs {
    fn default() -> Self {
        let hashing = Semaphore::new(HASHED_AT_ONCE);
        Self { verifiers: Mutex::default(), secret: rand::random(), epoch: AtomicU64::new(0), hashing }
    }
}

impl Proofs {
    /// Gives what the client has shown of its password. Users that do not exist are asked as others are, and fail as
    /// with a wrong password.
    pub(super) async fn check(
        &self,
        channel: &mut Channel,
        claim: Claim<'_>,
        user: Option<&User>,
    ) -> Result<Shown, Refusal> {
        let (name, nothing) = (claim.name, Credential::Nothing);
        let credential = user.map_or(&nothing, |user| &user.password);
        match (claim.way, credential) {
            (Way::Trust | Way::Certificate, _) if user.is_some() => Ok(Shown::Nothing),
            (Way::Trust | Way::Certificate, _) => Err(unknown(name).into()),
            (Way::Md5, Credential::Passwords(passwords)) => {
                let secrets = passwords.iter().map(|password| Md5Secret::from_password(&password.0, name));
                digest(channel, name, secrets.collect()).await
            }
            (Way::Md5 | Way::Kept, Credential::Md5Hash(hash)) => {
                digest(channel, name, Md5Secret::parse(&hash.0).into_iter().collect()).await
            }
            (Way::Md5, Credential::Nothing) => digest(channel, name, Vec::new()).await,
            (Way::Told, credential) => {
                let password = told(channel, name).await?;
                if *credential == Credential::Passthrough {
                    return Ok(Shown::Unproved(Secret(password)));
                }
                self.weigh(name, credential, password.clone()).await?;
                Ok(Shown::Proof(Proof::Password(Secret(password))))
            }
            (Way::Scram | Way::Md5 | Way::Kept, credential) => {
                let verifier = self.verifier(name, credential);
                exchange(channel, claim, verifier).await.map(|keys| Shown::Proof(Proof::Scram(keys)))
            }
        }
    }

    async fn weigh(&self, name: &str, credential: &Credential, password: String) -> Result<(), Refusal> {
        if let Credential::Md5Hash(hash) = credential {
            let fits = Md5Secret::parse(&hash.0).is_some_and(|secret| secret.fits(&password, name));
            return if fits { Ok(()) } else { Err(wrong(name).into()) };
        }
        let verifier = self.verifier(name, credential);
        let _turn = self.hashing.acquire().await;
        // Not on the thread that serves others.
        let fits = tokio::task::spawn_blocking(move || verifier.fits(&password)).await;
        if fits.unwrap_or(false) { Ok(()) } else { Err(wrong(name).into()) }
    }

    fn verifier(&self, name: &str, credential: &Credential) -> Verifier {
        let passwords = match credential {
            Credential::Passwords(passwords) => passwords,
            Credential::ScramVerifier(text) => {
                return Verifier::parse(&text.0).unwrap_or_else(|| Verifier::mock(name, &self.secret));
            }
            Credential::Md5Hash(_) | Credential::Query | Credential::Passthrough | Credential::Nothing => {
                return Verifier::mock(name, &self.secret);
            }
        };
        let key = key(name, passwords);
        if let Some(verifier) = self.lock().get(&key) {
            return verifier.clone();
        }
        let salt = Verifier::salt(name, &self.secret);
        let texts = passwords.iter().map(|password| password.0.as_str());
        let verifier = Verifier::from_passwords(texts, &salt, scram::DEFAULT_ITERATIONS);
        self.lock().insert(key, verifier.clone());
        verifier
    }

    /// Makes the verifiers of a new topology, on a thread that serves nobody: a log-in that waits for one tells by its
    /// time that there is such a user.
    pub(super) fn follow(self: &Arc<Self>, topology: &Arc<Topology>) {
        if self.epoch.swap(topology.epoch, Ordering::Relaxed) == topology.epoch {
            return;
        }
        let (proofs, topology) = (Arc::clone(self), Arc::clone(topology));
        tokio::task::spawn_blocking(move || {
            let of_users = || topology.users.iter().filter_map(|user| passwords(user).map(|all| (user, all)));
            let wanted: HashSet<_> = of_users().map(|(user, passwords)| key(&user.name, passwords)).collect();
            proofs.lock().retain(|known, _| wanted.contains(known));
            of_users().for_each(|(user, _)| {
                proofs.verifier(&user.name, &user.password);
            });
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Verifier>> {
        self.verifiers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server keeps of a password, as an entry of the configuration would have it.
pub(super) fn kept(text: String) -> Option<Credential> {
    if Verifier::parse(&text).is_some() {
        return Some(Credential::ScramVerifier(Secret(text)));
    }
    Md5Secret::parse(&text).map(|_| Credential::Md5Hash(Secret(text)))
}

/// What a verifier is made of: a name and its passwords.
type Key = (String, Vec<String>);

fn key(name: &str, passwords: &[Secret]) -> Key {
    (name.to_owned(), passwords.iter().map(|password| password.0.clone()).collect())
}

fn passwords(user: &User) -> Option<&[Secret]> {
    match &user.password {
        Credential::Passwords(passwords) => Some(passwords),
        _ => None,
    }
}

/// The password itself: never where others could read it.
async fn told(channel: &mut Channel, name: &str) -> Result<String, Refusal> {
    if !channel.is_encrypted() && !channel.is_local() {
        let error = Error::new(SqlState::INVALID_AUTHORIZATION, "the password of this user is told over TLS only");
        return Err(error.with_hint("Connect with sslmode=require.").into());
    }
    AuthenticationRequest::Cleartext.put(&mut channel.output);
    let body = answer(channel).await?;
    let mut rest = &body[..];
    let password = take_text(&mut rest).map_err(|_| malformed("a password without an end"))?;
    Ok(std::str::from_utf8(password).map_err(|_| wrong(name))?.to_owned())
}

/// SCRAM, bound to the encryption below if the client wants that.
async fn exchange(channel: &mut Channel, claim: Claim<'_>, verifier: Verifier) -> Result<ScramKeys, Refusal> {
    let offered = claim.end_point.map(|_| SCRAM_PLUS).into_iter().chain([SCRAM]);
    AuthenticationRequest::Sasl(offered.map(str::to_owned).collect()).put(&mut channel.output);
    let first = answer(channel).await?;
    let mut first = &first[..];
    let mechanism = match (take_text(&mut first), claim.end_point) {
        (Ok(name), end_point) if name == SCRAM.as_bytes() => Mechanism::Plain { bindable: end_point.is_some() },
        (Ok(name), Some(end_point)) if name == SCRAM_PLUS.as_bytes() => Mechanism::Plus(end_point),
        _ => return Err(malformed("another mechanism than was offered").into()),
    };
    let length = take_u32(&mut first).map_err(|_| malformed("no SASL initial response"))?;
    if length as usize != first.len() {
        return Err(malformed("a SASL initial response of another length").into());
    }
    let begun = ServerExchange::begin(verifier, mechanism, first, &scram::nonce(&rand::random()));
    let (exchange, challenge) = begun.map_err(|fault| failed(claim.name, fault))?;
    AuthenticationRequest::SaslContinue(challenge.into_bytes()).put(&mut channel.output);
    let proof = answer(channel).await?;
    let (last, keys) = exchange.finish(&proof).map_err(|fault| failed(claim.name, fault))?;
    AuthenticationRequest::SaslFinal(last.into_bytes()).put(&mut channel.output);
    Ok(keys)
}

/// MD5 of the password, the name and a salt. Of no secret there is no right answer.
async fn digest(channel: &mut Channel, name: &str, secrets: Vec<Md5Secret>) -> Result<Shown, Refusal> {
    let salt = rand::random();
    AuthenticationRequest::Md5(salt).put(&mut channel.output);
    let body = answer(channel).await?;
    let mut rest = &body[..];
    let given = take_text(&mut rest).map_err(|_| malformed("a password without an end"))?;
    match secrets.into_iter().find(|secret| secret.accepts(salt, given)) {
        Some(secret) => Ok(Shown::Proof(Proof::Md5(secret))),
        None => Err(wrong(name).into()),
    }
}

/// As PostgreSQL says it to those who are asked for no password.
fn unknown(name: &str) -> Error {
    Error::new(SqlState::INVALID_AUTHORIZATION, format!("role \"{name}\" does not exist"))
}

/// One message for an unknown user and a wrong password.
pub(super) fn wrong(name: &str) -> Error {
    Error::new(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{name}\""))
}

fn failed(name: &str, fault: ScramFault) -> Error {
    match fault {
        ScramFault::Mismatch => wrong(name),
        ScramFault::Downgrade => {
            let error = Error::new(SqlState::INVALID_AUTHORIZATION, "SCRAM channel binding negotiation error");
            error.with_detail(
                "The client could bind its log-in to the encryption, and was not told that this can be done.",
            )
        }
        ScramFault::Binding => Error::new(SqlState::INVALID_AUTHORIZATION, "SCRAM channel binding check failed"),
        ScramFault::Malformed | ScramFault::Unsupported | ScramFault::OtherVerifier | ScramFault::Iterations => {
            malformed("bad SCRAM message")
        }
    }
}

/// The body of the client's next authentication message.
async fn answer(channel: &mut Channel) -> Result<BytesMut, Refusal> {
    channel.flush().await?;
    // Of another message there may be no end to wait for.
    while channel.input.is_empty() {
        if channel.fill().await? == 0 {
            return Err(Refusal::Gone);
        }
    }
    if channel.input[0] != client::PASSWORD {
        return Err(malformed("not an authentication message").into());
    }
    match channel.frame(MAX_AUTHENTICATION).await?? {
        Some((_, body)) => Ok(body),
        None => Err(Refusal::Gone),
    }
}

const MAX_AUTHENTICATION: usize = 16 * 1024;
const HASHED_AT_ONCE: usize = 2;
