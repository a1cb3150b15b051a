//! Workers: one thread with a runtime of its own per core. As few of them work as the load needs: a client alone on its
//! worker costs a wake-up for each message, sixteen on one share them.
//!
//! A worker that is busy hands clients that are between two units on to one that is not; one with little to do hands
//! them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::session::{Registered, Session, Spill};
use crate::wire::Channel;

/// All workers, by number.
pub(super) struct Workers(Vec<Worker>);

/// One worker, as the others see it.
pub(super) struct Worker {
    pub clients: AtomicUsize,
    /// Processor time of its thread lately, in thousandths of a core.
    load: AtomicU32,
    spill: Arc<Spill>,
    handed: UnboundedSender<Handed>,
}

/// A client that a worker is to serve.
pub(super) enum Handed {
    Accepted(Accepted),
    /// In the middle of its life, between two units.
    Moved(Box<Moved>),
}

pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

pub(super) struct Moved {
    pub channel: Channel,
    pub session: Box<Session>,
    pub registered: Registered,
}

impl Workers {
    pub(super) fn new(handed: Vec<UnboundedSender<Handed>>) -> Self {
        let worker =
            |handed| Worker { clients: AtomicUsize::new(0), load: AtomicU32::new(0), spill: Arc::default(), handed };
        Self(handed.into_iter().map(worker).collect())
    }

    pub(super) fn get(&self, number: usize) -> &Worker {
        &self.0[number]
    }

    pub(super) fn hand(&self, number: usize, client: Handed) -> std::io::Result<()> {
        self.0[number].handed.send(client).map_err(|_| std::io::Error::other("a worker has ended"))
    }

    /// Where a new client goes: the first worker that is not busy, else the one with the fewest clients.
    pub(super) fn place(&self) -> usize {
        let free = self.0.iter().position(|worker| worker.load() < BUSY);
        let fewest = || (0..self.0.len()).min_by_key(|&number| self.0[number].clients.load(Ordering::Relaxed));
        free.or_else(fewest).unwrap_or(0)
    }

    /// Measures the load of the worker on whose thread this runs, and has it hand clients on or back.
    pub(super) async fn balance(&self, number: usize) {
        let own = &self.0[number];
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut then, mut used) = (Instant::now(), processor_time());
        let mut calm = 0;
        loop {
            ticks.tick().await;
            let (now, uses) = (Instant::now(), processor_time());
            let share = (uses - used).as_micros() * 1000 / (now - then).as_micros().max(1);
            own.load.store(u32::try_from(share).unwrap_or(u32::MAX), Ordering::Relaxed);
            (then, used) = (now, uses);
            calm = if self.host(number).is_some() { calm + 1 } else { 0 };
            own.spill.set(self.relief(number).or_else(|| self.host(number).filter(|_| calm > CALM_TICKS)));
        }
    }

    /// Of a busy worker: another one that is not, and how many clients it takes over.
    fn relief(&self, number: usize) -> Option<(usize, usize)> {
        let own = &self.0[number];
        let clients = own.clients.load(Ordering::Relaxed);
        if own.load() < BUSY || clients < 2 {
            return None;
        }
        let other = self.0.iter().position(|worker| worker.load() < FREE)?;
        Some((other, clients.div_ceil(4)))
    }

    /// Of a worker with little to do: one before it that can take over all its clients.
    fn host(&self, number: usize) -> Option<(usize, usize)> {
        let own = self.0[number].load();
        let host = self.0[..number].iter().position(|worker| worker.load() + own < FREE)?;
        Some((host, usize::MAX))
    }
}

impl Worker {
    pub(super) fn spill(&self) -> Arc<Spill> {
        Arc::clone(&self.spill)
    }

    fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }
}

/// That this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

const TICK: Duration = Duration::from_millis(100);
/// Thousandths of a core: from here on a worker wants relief.
const BUSY: u32 = 750;
/// Below this a worker can take clients over.
const FREE: u32 = 450;
/// For so long a worker must have little to do before it hands its clients back.
const CALM_TICKS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(loads: &[(u32, usize)]) -> Workers {
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let workers = Workers::new(vec![sender; loads.len()]);
        for (worker, &(load, clients)) in workers.0.iter().zip(loads) {
            worker.load.store(load, Ordering::Relaxed);
            worker.clients.store(clients, Ordering::Relaxed);
        }
        workers
    }

    #[test]
    fn new_clients_join_the_first_worker_that_is_not_busy() {
        assert_eq!(workers(&[(0, 900), (0, 0)]).place(), 0);
        assert_eq!(workers(&[(900, 9), (100, 99)]).place(), 1);
        assert_eq!(workers(&[(900, 9), (900, 3), (800, 5)]).place(), 1);
    }

    #[test]
    fn a_busy_worker_is_relieved_by_one_that_is_not() {
        assert_eq!(workers(&[(900, 9), (100, 1)]).relief(0), Some((1, 3)));
        assert_eq!(workers(&[(700, 9), (0, 0)]).relief(0), None);
        assert_eq!(workers(&[(900, 9), (600, 9)]).relief(0), None);
        // One client cannot be shared.
        assert_eq!(workers(&[(900, 1), (0, 0)]).relief(0), None);
    }

    #[test]
    fn workers_with_little_to_do_become_one() {
        assert_eq!(workers(&[(200, 5), (200, 5)]).host(1), Some((0, usize::MAX)));
        assert_eq!(workers(&[(200, 5), (300, 5)]).host(1), None);
        assert_eq!(workers(&[(0, 5), (0, 5)]).host(0), None);
    }
}
