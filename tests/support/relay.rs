//! What stands between the proxy and a server, or a client and the proxy: passes on what is said, until it is to hold
//! something back, or everything.

#![allow(clippy::unwrap_used, dead_code)]

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A step of a commit on several shards, as it is seen on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Prepare,
    Decide,
    CommitPrepared,
}

/// That a server is asked to take a step, or has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Asked(Step),
    Answered(Step),
    /// Something for the client.
    Reply,
}

/// What the relays of a cluster have in common.
pub(crate) struct Stage {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    /// Which hold it is.
    turn: u64,
    /// Nothing: all passes.
    held: Option<fn(Seen, &[Seen]) -> bool>,
    passed: Vec<Seen>,
    /// What is being held back.
    waiting: Vec<Seen>,
}

impl Stage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(State::default()) })
    }

    /// From now on `held` says what is held back, by what has passed before.
    pub(crate) fn hold(&self, held: fn(Seen, &[Seen]) -> bool) {
        let turn = self.state.borrow().turn + 1;
        self.state.send_replace(State { turn, held: Some(held), ..State::default() });
    }

    /// Lets everything go.
    pub(crate) fn release(&self) {
        self.state.send_modify(|state| state.held = None);
    }

    /// Returns when what has passed and what is held back is what was waited for.
    pub(crate) async fn reached(&self, reached: fn(&[Seen], &[Seen]) -> bool) {
        let mut state = self.state.subscribe();
        state.wait_for(|state| reached(&state.passed, &state.waiting)).await.unwrap();
    }

    async fn pass(&self, seen: Seen) {
        let (mut held, mut turn) = (false, 0);
        self.state.send_modify(|state| {
            turn = state.turn;
            held = state.held.is_some_and(|held| held(seen, &state.passed));
            if held { state.waiting.push(seen) } else { state.passed.push(seen) }
        });
        if held {
            self.state.subscribe().wait_for(|state| state.held.is_none() || state.turn != turn).await.unwrap();
        }
    }
}

/// In front of one port.
pub(crate) struct Relay {
    pub(crate) port: u16,
    cut: watch::Sender<bool>,
}

#[derive(Clone)]
struct Way {
    stage: Arc<Stage>,
    cut: watch::Receiver<bool>,
    /// The way is to the proxy, not from it.
    of_client: bool,
}

impl Relay {
    /// In front of a server.
    pub(crate) async fn to_server(port: u16, stage: &Arc<Stage>) -> Self {
        Self::start(port, stage, false).await
    }

    /// In front of the proxy.
    pub(crate) async fn to_proxy(port: u16, stage: &Arc<Stage>) -> Self {
        Self::start(port, stage, true).await
    }

    async fn start(to: u16, stage: &Arc<Stage>, of_client: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        let way = Way { stage: Arc::clone(stage), cut: cut.subscribe(), of_client };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let way = way.clone();
                tokio::spawn(way.relay(stream, to));
            }
        });
        Self { port, cut }
    }

    /// Nothing comes through, and nobody is told.
    pub(crate) fn blackhole(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Way {
    /// Returns while something comes through.
    async fn open(&mut self) {
        self.cut.wait_for(|cut| !cut).await.unwrap();
    }

    async fn relay(mut self, near: TcpStream, to: u16) {
        self.open().await;
        // A server that is away closes what comes.
        let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
        let (asked, asks) = tokio::sync::mpsc::unbounded_channel();
        let (asking, answering) = (self.clone(), self.clone());
        // Whichever side ends first ends the other.
        tokio::select! {
            _ = asking.ask(&mut from_near, &mut to_far, asked) => {}
            _ = answering.answer(&mut from_far, &mut to_near, asks) => {}
        }
        // An end does not come through either.
        self.clone().open().await;
    }

    async fn ask(
        mut self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        asked: tokio::sync::mpsc::UnboundedSender<Step>,
    ) -> Result<()> {
        let mut startup = true;
        loop {
            let message = read(from, startup).await?;
            startup = false;
            if let Some(step) = step(&message).filter(|_| !self.of_client) {
                self.stage.pass(Seen::Asked(step)).await;
                asked.send(step).map_err(|_| Error::from(ErrorKind::BrokenPipe))?;
            }
            self.open().await;
            to.write_all(&message).await?;
        }
    }

    async fn answer(
        mut self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        mut asks: tokio::sync::mpsc::UnboundedReceiver<Step>,
    ) -> Result<()> {
        let mut step = None;
        loop {
            let message = read(from, false).await?;
            step = step.or_else(|| asks.try_recv().ok());
            if self.of_client {
                self.stage.pass(Seen::Reply).await;
            } else if message[0] == b'Z'
                && let Some(step) = step.take()
            {
                self.stage.pass(Seen::Answered(step)).await;
            }
            self.open().await;
            to.write_all(&message).await?;
        }
    }
}

/// A whole message; the first of a connection has no kind.
async fn read(from: &mut OwnedReadHalf, startup: bool) -> Result<Vec<u8>> {
    let head = if startup { 4 } else { 5 };
    let mut message = vec![0; head];
    from.read_exact(&mut message).await?;
    let length: [u8; 4] = message[head - 4..].try_into().unwrap();
    let length = u32::from_be_bytes(length) as usize;
    message.resize(head + length - 4, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

fn step(message: &[u8]) -> Option<Step> {
    let text = String::from_utf8_lossy(message.strip_prefix(b"Q")?);
    let has = |part: &str| text.contains(part);
    match () {
        () if has("ROLLBACK PREPARED") => None,
        () if has("COMMIT PREPARED 'pgweir:") => Some(Step::CommitPrepared),
        () if has("PREPARE TRANSACTION 'pgweir:") => Some(Step::Prepare),
        () if has("SELECT pgweir.decide(") => Some(Step::Decide),
        () => None,
    }
}
