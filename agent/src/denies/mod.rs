//! The denies task: packets that policies deny or want logged, remembered and told to whoever follows them.
//!
//! Rules log denied packets while somebody follows, and at all times where `policy.logDenied` says so; otherwise no
//! rule does, and nobody listens to the kernel. Who follows asks again and again: when nobody has for
//! [`PATIENCE`], the policy task is asked to take the logging out of the rules. So each follower may end as it likes.
//!
//! Bounds: each rule logs a number of packets a second at most, in the kernel; [`PACKETS`] a second are read, what
//! comes to more is lost in the kernel's queue; [`record`] bounds what is kept and how much is told.

mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use jiff::Timestamp;
use manx_api::denied::{DeniedPacket, Denies, DeniesCall};
use manx_api::rule::Protocol;
use manx_linux::nflog::{self, Listener};
use manx_linux::{LinkSocket, Netns};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use self::record::{Alike, Gathered, Gatherer, Memory};
use crate::ask::{answer, ask};
use crate::{blocking, convert, policy};

/// How long after a follower last asked packets are still logged for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer waits for something new.
const WAIT: Duration = Duration::from_secs(1);

/// How long the rules may take to log.
const WRITING: Duration = Duration::from_secs(8);

/// Packets that are read each second, at most.
const PACKETS: u32 = 2000;

/// Packets that are taken in at once, at most.
const BATCH: usize = 256;

/// A question to the task, and where its answer goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub call: DeniesCall,
    /// The answer, or why denied packets cannot be followed.
    pub reply: oneshot::Sender<Result<Denies, String>>,
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// This node's name.
    pub node: String,
    /// Whose kernel logs.
    pub netns: Netns,
    /// To which group.
    pub group: u16,
    /// Whether rules log at all times.
    pub always: bool,
    /// Who writes rules, and knows what they say.
    pub policy: mpsc::Sender<policy::Request>,
    /// Questions.
    pub requests: mpsc::Receiver<Request>,
}

/// Runs until nobody can ask any more.
pub async fn run(inbox: &mut Inbox) {
    let mut task = Task::new();
    if inbox.always {
        task.try_listen(inbox);
    }
    // Rules of an earlier life of this task may still log.
    task.unfollow(inbox).await;
    loop {
        let deadline = task.deadline();
        tokio::select! {
            request = inbox.requests.recv() => match request {
                Some(request) => task.take(request, inbox).await,
                None => return,
            },
            heard = next(&mut task.listener), if task.read.1 < PACKETS => task.hear(heard),
            Some(()) = OptionFuture::from(deadline.map(sleep_until)) => {}
        }
        task.follow(inbox).await;
    }
}

/// A follower that waits for something new.
struct Waiting {
    after: u64,
    until: Instant,
    reply: oneshot::Sender<Result<Denies, String>>,
}

struct Task {
    life: u64,
    listener: Option<Listener>,
    gatherer: Gatherer,
    memory: Memory,
    waiting: Vec<Waiting>,
    /// Until when rules log for followers, if they do.
    followed: Option<Instant>,
    /// The second that packets are counted in, and how many it has had.
    read: (Instant, u32),
}

impl Task {
    fn new() -> Self {
        Self {
            life: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            listener: None,
            gatherer: Gatherer::default(),
            memory: Memory::default(),
            waiting: Vec::new(),
            followed: None,
            read: (Instant::now(), 0),
        }
    }

    async fn take(&mut self, Request { call, reply }: Request, inbox: &Inbox) {
        if call.follow
            && let Err(reason) = self.record(inbox).await
        {
            return answer(reply, Err(reason));
        }
        match call.after {
            Some(after) if call.follow => self.waiting.push(Waiting {
                after,
                until: Instant::now() + WAIT,
                reply,
            }),
            after => {
                let everything = after.unwrap_or_default();
                let since = if call.follow {
                    self.memory.next()
                } else {
                    everything
                };
                answer(reply, Ok(self.answer(since, inbox)));
            }
        }
    }

    /// Has packets logged and listens to them, for a follower.
    async fn record(&mut self, inbox: &Inbox) -> Result<(), String> {
        self.listen(inbox)?;
        if self.followed.is_none() {
            let log = |reply| policy::Request::Log(true, reply);
            let written = timeout(WRITING, ask(&inbox.policy, log)).await;
            let written = written.unwrap_or_else(|_| Ok(Err("nothing was heard of them".to_owned())));
            if let Err(reason) = written.map_err(|gone| gone.to_string()).and_then(|done| done) {
                self.unfollow(inbox).await;
                return Err(format!("the rules that log cannot be written: {reason}"));
            }
        }
        self.followed = Some(Instant::now() + PATIENCE);
        Ok(())
    }

    fn listen(&mut self, inbox: &Inbox) -> Result<(), String> {
        if self.listener.is_none() {
            let group = inbox.group;
            let listener = Listener::open_in(&inbox.netns, group).map_err(|error| {
                format!(
                    "{error}: if another program listens to NFLOG group {group}, give Manx one of its own with \
                     policy.logGroup in manxd.yaml"
                )
            })?;
            self.listener = Some(listener);
        }
        Ok(())
    }

    fn try_listen(&mut self, inbox: &Inbox) {
        if let Err(error) = self.listen(inbox) {
            tracing::warn!(%error, "logged packets are not remembered until somebody follows them");
        }
    }

    /// Nobody follows any more.
    async fn unfollow(&mut self, inbox: &Inbox) {
        self.followed = None;
        if !inbox.always {
            self.listener = None;
        }
        // Nobody waits for that.
        let (reply, _) = oneshot::channel();
        if inbox
            .policy
            .send(policy::Request::Log(false, reply))
            .await
            .is_err()
        {
            tracing::debug!("the policy task has ended");
        }
    }

    /// Takes in a packet, and those that came with it.
    fn hear(&mut self, heard: manx_linux::Result<nflog::Logged>) {
        let mut heard = Some(heard);
        let mut count = 0;
        while let Some(packet) = heard {
            match packet {
                Ok(packet) => self.gatherer.see(packet, Timestamp::now()),
                Err(error) => {
                    tracing::warn!(%error, "logged packets are not heard any more until somebody follows them");
                    self.listener = None;
                    return;
                }
            }
            count += 1;
            let more = self.listener.as_mut().filter(|_| count < BATCH);
            heard = more.and_then(|listener| listener.next().now_or_never());
            self.read.1 += 1;
        }
    }

    /// Tells what is due, answers who waits, and ends what nobody wants any more.
    async fn follow(&mut self, inbox: &Inbox) {
        let now = Instant::now();
        if self.read.0 + Duration::from_secs(1) <= now {
            self.read = (now, 0);
        }
        let due = self.gatherer.due(now);
        if !due.is_empty() {
            for entry in name(due, inbox).await {
                self.memory.put(entry);
            }
        }
        let next = self.memory.next();
        let ready = |waiting: &mut Waiting| waiting.after != next || waiting.until <= now;
        for Waiting { after, reply, .. } in self.waiting.extract_if(.., ready).collect::<Vec<_>>() {
            answer(reply, Ok(self.answer(after, inbox)));
        }
        if self.followed.is_some_and(|until| until <= now) {
            self.unfollow(inbox).await;
        }
    }

    fn answer(&self, since: u64, inbox: &Inbox) -> Denies {
        let (entries, lost) = self.memory.since(since);
        Denies {
            node: inbox.node.clone(),
            recording: self.listener.is_some(),
            life: self.life,
            next: self.memory.next(),
            lost,
            omitted: self.gatherer.omitted(),
            entries,
        }
    }

    /// When there is something to do, whatever comes.
    fn deadline(&self) -> Option<Instant> {
        let again = (self.read.1 >= PACKETS).then_some(self.read.0 + Duration::from_secs(1));
        let waiting = self.waiting.iter().map(|waiting| waiting.until).min();
        let gathered = self.gatherer.deadline(Instant::now());
        [again, waiting, gathered, self.followed]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Entries for logged packets; none for those that no rule of ours logged.
async fn name(due: Vec<(Alike, Gathered)>, inbox: &Inbox) -> Vec<DeniedPacket> {
    let names = interfaces(&inbox.netns);
    let interface = |index: Option<u32>| names.get(&index?).cloned();
    let logged: Vec<manx_policy::Logged> = due
        .iter()
        .map(|(alike, _)| {
            let [from, to] = alike.interfaces.map(interface);
            manx_policy::Logged {
                prefix: alike.prefix.clone(),
                from,
                to,
                source: alike.source,
                destination: alike.destination.ip(),
            }
        })
        .collect();
    let question = |reply| policy::Request::Name(logged.clone(), reply);
    let Ok(named) = ask(&inbox.policy, question).await else {
        return Vec::new();
    };
    let entry = |((named, logged), (alike, gathered)): ((Option<policy::Named>, _), (Alike, Gathered))| {
        let ports = [gathered.source_port, alike.destination.port()];
        let packet = convert::denied(named?, logged, (Protocol(alike.protocol), ports));
        Some(DeniedPacket {
            time: convert::milliseconds(gathered.last),
            node: inbox.node.clone(),
            count: gathered.count,
            ..packet
        })
    };
    named.into_iter().zip(logged).zip(due).filter_map(entry).collect()
}

/// The names of interfaces by their indices.
fn interfaces(netns: &Netns) -> BTreeMap<u32, String> {
    let listed = blocking::in_place(|| LinkSocket::open_in(netns)?.list());
    let listed =
        listed.inspect_err(|error| tracing::warn!(%error, "interfaces of logged packets have no names"));
    listed
        .into_iter()
        .flatten()
        .map(|link| (link.index, link.name))
        .collect()
}

/// The next logged packet; none comes where nobody listens.
async fn next(listener: &mut Option<Listener>) -> manx_linux::Result<nflog::Logged> {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}
