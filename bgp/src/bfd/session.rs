//! One session: its variables (RFC 5880 §6.8.1), what a packet and what time do to them.

use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::packet::{Diagnostic, Packet};
use super::state::{State, Step};
use super::{Output, SessionConfig, SessionSnapshot};

/// Nobody sends faster before the session is Up (§6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// The unit of all intervals on the wire.
const SHORTEST: Duration = Duration::from_micros(1);

/// What a step works with.
pub(super) struct Cx<'a> {
    pub(super) now: Instant,
    pub(super) rng: &'a mut StdRng,
    pub(super) out: &'a mut VecDeque<Output>,
}

/// The intervals that we name in our packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intervals {
    desired_min_tx: Duration,
    required_min_rx: Duration,
}

/// A Poll Sequence (§6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    /// Our packets carry P until F comes.
    Running,
    /// The intervals changed meanwhile: the next F may answer what was said before, so another one has to
    /// follow.
    Again,
}

/// What the neighbour's last packet said.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: NonZeroU32,
    state: State,
    desired_min_tx: Duration,
    required_min_rx: Duration,
    multiplier: NonZeroU8,
    demand: bool,
    heard: Instant,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    config: SessionConfig,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    /// Nothing while nothing is heard.
    remote: Option<Remote>,
    announced: Intervals,
    /// What we keep to: that which was announced, once the neighbour can know it where that matters.
    used: Intervals,
    poll: Poll,
    sent: Instant,
    /// The time between periodic packets, before jitter; none are sent where it is absent.
    pace: Option<Duration>,
    next_send: Option<Instant>,
    /// When a removed session has been told to the neighbour long enough.
    gone_at: Option<Instant>,
    /// The entry in the machine's table of deadlines.
    pub(super) scheduled: Option<Instant>,
}

impl Session {
    /// A session in state Down; its first packet leaves at once.
    pub(super) fn new(config: SessionConfig, discriminator: NonZeroU32, cx: &mut Cx<'_>) -> Self {
        let intervals = announced(&config, State::Down);
        let mut session = Self {
            config,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: None,
            announced: intervals,
            used: intervals,
            poll: Poll::Idle,
            sent: cx.now,
            pace: None,
            next_send: None,
            gone_at: None,
            scheduled: None,
        };
        session.pace = session.interval();
        session.send(false, cx);
        session
    }

    pub(super) fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// Takes new settings; the session stays as it is.
    pub(super) fn reconfigure(&mut self, config: SessionConfig, cx: &mut Cx<'_>) {
        self.config = config;
        if self.state == State::AdminDown {
            self.gone_at = None;
            self.enter(State::Down, Diagnostic::None);
        }
        self.negotiate();
        self.keep_pace(cx);
    }

    /// Takes the session down on our side, and says so for as long as the neighbour may take to hear of it
    /// (§6.8.16): it is not to believe that the path has failed.
    pub(super) fn remove(&mut self, cx: &mut Cx<'_>) {
        if self.gone_at.is_some() {
            return;
        }
        let heard_within = self.remote.map_or(Duration::ZERO, |remote| {
            let interval = SLOW.max(self.config.min_tx).max(remote.required_min_rx);
            interval * u32::from(self.config.multiplier.get())
        });
        self.gone_at = Some(cx.now + heard_within);
        self.enter(State::AdminDown, Diagnostic::AdministrativelyDown);
        if self.remote.is_some() {
            self.send(false, cx);
        }
    }

    /// Takes a packet that was found to be this session's (§6.8.6).
    pub(super) fn receive(&mut self, packet: &Packet, cx: &mut Cx<'_>) {
        let before = self.state;
        let step = before.on(packet.state);
        if step == Step::Discard {
            return;
        }
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: packet.multiplier,
            demand: packet.demand,
            heard: cx.now,
        });
        if packet.finish {
            self.finish_poll();
        }
        let key = self.config.key;
        match step {
            Step::Discard | Step::Stay => {}
            Step::Rise(state) => {
                self.enter(state, Diagnostic::None);
                cx.out.extend((state == State::Up).then_some(Output::Up(key)));
            }
            Step::Fail => self.fail(Diagnostic::NeighborSignaledSessionDown, cx),
            Step::Suspend => {
                self.enter(State::Down, Diagnostic::NeighborSignaledSessionDown);
                cx.out
                    .extend((before == State::Up).then_some(Output::NeighborAdminDown(key)));
            }
        }
        self.keep_pace(cx);
        if packet.poll || self.state != before {
            self.send(packet.poll, cx);
        }
    }

    /// Lets time pass. Whether the session is over.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.gone_at.is_some_and(|at| at <= cx.now) {
            return true;
        }
        if self.silent_at().is_some_and(|at| at <= cx.now) {
            self.remote = None;
            if self.state > State::Down {
                self.fail(Diagnostic::ControlDetectionTimeExpired, cx);
                self.send(false, cx);
            }
            self.keep_pace(cx);
        }
        if self.next_send.is_some_and(|at| at <= cx.now) {
            self.send(false, cx);
        }
        false
    }

    /// When [`expire`](Self::expire) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.next_send, self.silent_at(), self.gone_at]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn snapshot(&self) -> SessionSnapshot {
        SessionSnapshot {
            key: self.config.key,
            state: self.state,
            remote_state: self.remote.map(|remote| remote.state),
            diagnostic: self.diagnostic,
            transmit_interval: self.pace,
            detection_time: self.detection_time(),
        }
    }

    fn fail(&mut self, diagnostic: Diagnostic, cx: &mut Cx<'_>) {
        let was_up = self.state == State::Up;
        self.enter(State::Down, diagnostic);
        let down = Output::Down(self.config.key, diagnostic);
        cx.out.extend(was_up.then_some(down));
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic) {
        self.state = state;
        self.diagnostic = diagnostic;
        self.negotiate();
    }

    /// Announces what settings and state ask for. While Up, the neighbour is polled: until it has answered we
    /// neither send more slowly nor expect it to send faster (§6.8.3).
    fn negotiate(&mut self) {
        let wanted = announced(&self.config, self.state);
        if self.state != State::Up {
            self.poll = Poll::Idle;
            self.used = wanted;
        } else if wanted != self.announced {
            self.poll = match self.poll {
                Poll::Idle => Poll::Running,
                Poll::Running | Poll::Again => Poll::Again,
            };
            self.used = Intervals {
                desired_min_tx: self.used.desired_min_tx.min(wanted.desired_min_tx),
                required_min_rx: self.used.required_min_rx.max(wanted.required_min_rx),
            };
        }
        self.announced = wanted;
    }

    fn finish_poll(&mut self) {
        self.poll = match self.poll {
            Poll::Idle => return,
            Poll::Again => Poll::Running,
            Poll::Running => {
                self.used = self.announced;
                Poll::Idle
            }
        };
    }

    /// Nothing may be heard until then (§6.8.4); nothing while nothing was heard.
    fn silent_at(&self) -> Option<Instant> {
        Some(self.remote?.heard + self.detection_time()?)
    }

    fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        let interval = self.used.required_min_rx.max(remote.desired_min_tx);
        Some(interval * u32::from(remote.multiplier.get()))
    }

    /// The time between our periodic packets; none where the neighbour wants none (§6.8.7).
    fn interval(&self) -> Option<Duration> {
        let Some(remote) = self.remote else {
            return Some(self.used.desired_min_tx);
        };
        let demanded = remote.demand && (self.state, remote.state) == (State::Up, State::Up);
        if remote.required_min_rx.is_zero() || demanded && self.poll == Poll::Idle {
            return None;
        }
        Some(self.used.desired_min_tx.max(remote.required_min_rx))
    }

    /// Honours a new interval from the last packet on, not only from the next (§6.8.3).
    fn keep_pace(&mut self, cx: &mut Cx<'_>) {
        let pace = self.interval();
        if pace != self.pace {
            self.pace = pace;
            self.next_send = pace.map(|pace| self.sent + self.jittered(pace, cx.rng));
        }
    }

    /// `pace`, shortened at random to no less than three quarters; by a tenth at least where the loss of a
    /// single packet is a failure (§6.8.7).
    fn jittered(&self, pace: Duration, rng: &mut StdRng) -> Duration {
        let most = if self.config.multiplier == NonZeroU8::MIN {
            0.9
        } else {
            1.0
        };
        pace.mul_f64(rng.random_range(0.75..=most))
    }

    fn send(&mut self, finish: bool, cx: &mut Cx<'_>) {
        let packet = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: !finish && self.poll != Poll::Idle,
            finish,
            control_plane_independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: self.announced.desired_min_tx,
            required_min_rx: self.announced.required_min_rx,
            required_min_echo_rx: Duration::ZERO,
        };
        cx.out.push_back(Output::Send {
            key: self.config.key,
            from: self.config.local,
            bytes: packet.encode(),
        });
        self.sent = cx.now;
        self.pace = self.interval();
        self.next_send = self.pace.map(|pace| cx.now + self.jittered(pace, cx.rng));
    }
}

/// What a session with these settings announces in `state`. Zero is no interval (§4.1).
fn announced(config: &SessionConfig, state: State) -> Intervals {
    let fastest = if state == State::Up { SHORTEST } else { SLOW };
    Intervals {
        desired_min_tx: config.min_tx.max(fastest),
        required_min_rx: config.min_rx.max(SHORTEST),
    }
}
