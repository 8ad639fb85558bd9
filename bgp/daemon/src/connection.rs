//! One TCP connection: a reader that frames and decodes, a writer that drains a queue, and their end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{self, Action, Context, Message, Problem};
use manx_bgp::{ConnId, Fault, Input};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::driver::Job;
use crate::inbox::{Inbox, PORTION, Room, Share};

/// How many chunks leave in one write.
const WRITE_BATCH: usize = 64;

/// Room made in the input buffer before each read, in bytes: a message of the usual maximum, of a peer that says little.
const READ_LITTLE: usize = 4 * 1024;

/// The same, where the last read has filled the room that there was.
const READ_MUCH: usize = 64 * 1024;

/// How long a closed connection waits for its last bytes to leave and for the peer to close its side.
/// Closing earlier, with input unread, would reset the connection and lose our NOTIFICATION on its way; after it,
/// the connection is reset: the kernel cannot end it in order with a peer that takes nothing, or whose
/// acknowledgements GTSM drops, and the peer would think that it stands.
const LINGER: Duration = Duration::from_secs(2);

/// How many of a connection's malformed attributes are an operator's business; who looks closer sees all.
const COMPLAINTS: u32 = 10;

/// Decodes one framed message; a parameter so that a test can hand in a broken one.
pub(crate) type Decode = fn(&Bytes, &Context, Report<'_>) -> Result<Message, wire::Error>;

/// Told of what was wrong with a message short of ending the session, and what it cost.
pub(crate) type Report<'a> = &'a mut dyn FnMut(Problem, Action);

/// What decodes outside of tests.
pub(crate) fn decode(frame: &Bytes, context: &Context, report: Report<'_>) -> Result<Message, wire::Error> {
    wire::decode_with(frame, context, report)
}

/// The driver's end of a connection. Dropping it closes the connection once what was sent has left.
#[derive(Debug)]
pub(crate) struct Link {
    context: watch::Sender<Arc<Context>>,
    /// Bounded by the speaker, which knows what may be dropped: it stops announcing with `SEND_BUDGET` bytes
    /// under way and ends a session whose queue never empties.
    outbox: mpsc::UnboundedSender<Bytes>,
}

impl Link {
    /// Further messages decode with this context. Takes effect before anything sent later can be answered.
    pub(crate) fn set_context(&self, context: Context) {
        self.context.send_replace(Arc::new(context));
    }

    /// Queues whole messages for writing.
    pub(crate) fn send(&self, bytes: Bytes) {
        // Fails when the connection is lost; that news is on its way to the driver.
        self.outbox.send(bytes).unwrap_or_default();
    }
}

/// Splits a connected stream into the driver's link and the future that serves it.
pub(crate) fn open(
    conn: ConnId,
    stream: TcpStream,
    decode: Decode,
    inbox: Inbox,
) -> (Link, impl Future<Output = ()> + Send + 'static) {
    let (outbox, queue) = mpsc::unbounded_channel();
    let (context, current) = watch::channel(Arc::<Context>::default());
    (
        Link { context, outbox },
        serve(conn, stream, decode, inbox, queue, current),
    )
}

/// Runs both halves until one of them or the driver gives the connection up.
async fn serve(
    conn: ConnId,
    stream: TcpStream,
    decode: Decode,
    inbox: Inbox,
    queue: mpsc::UnboundedReceiver<Bytes>,
    context: watch::Receiver<Arc<Context>>,
) {
    let socket = SockRef::from(&stream).try_clone();
    let (stream, write_half) = stream.into_split();
    let reader = Reader {
        conn,
        stream,
        buffer: BytesMut::new(),
        filled: false,
        context: context.clone(),
        inbox: inbox.clone(),
        share: Share::default(),
        decode,
        complaints: Complaints::default(),
    };
    // Tasks of their own: a panic over hostile bytes ends the reader and nothing else.
    let mut halves = JoinSet::new();
    halves.spawn(reader.run());
    halves.spawn(write(conn, write_half, queue, inbox.clone()));
    let lost = tokio::select! {
        biased;
        () = link_dropped(context) => false,
        Some(ended) = halves.join_next() => match ended {
            Ok(Ok(())) => false,
            Ok(Err(error)) => {
                tracing::debug!(?conn, %error, "connection lost");
                true
            }
            Err(panic) => {
                tracing::error!(?conn, %panic, "closing a connection that nobody serves any more");
                true
            }
        },
    };
    if lost {
        halves.shutdown().await;
        inbox.tell(Input::Closed { conn }).await;
        return;
    }
    let over = async { while halves.join_next().await.is_some() {} };
    if timeout(LINGER, over).await.is_err() {
        tracing::debug!(?conn, "the peer did not close its side");
        let reset = socket.and_then(|socket| socket.set_linger(Some(Duration::ZERO)));
        reset.unwrap_or_else(|error| tracing::debug!(?conn, %error, "closing without a reset"));
    }
}

/// Returns when the driver has dropped its end.
async fn link_dropped(mut context: watch::Receiver<Arc<Context>>) {
    while context.changed().await.is_ok() {}
}

/// Writes until the driver has dropped its end. After a failure the reader gets the time to find why the peer
/// has left: its NOTIFICATION may lie unread.
async fn write(
    conn: ConnId,
    mut stream: OwnedWriteHalf,
    queue: mpsc::UnboundedReceiver<Bytes>,
    inbox: Inbox,
) -> io::Result<()> {
    let written = write_queue(conn, &mut stream, queue, inbox).await;
    if written.is_err() {
        sleep(LINGER).await;
    }
    written
}

/// Writes the queue until its sender is gone, then closes our side of the connection.
async fn write_queue(
    conn: ConnId,
    stream: &mut OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    inbox: Inbox,
) -> io::Result<()> {
    let mut chunks = Vec::with_capacity(WRITE_BATCH);
    while queue.recv_many(&mut chunks, WRITE_BATCH).await > 0 {
        match &mut chunks[..] {
            [one] => stream.write_all_buf(one).await?,
            several => stream.write_all(&several.concat()).await?,
        }
        chunks.clear();
        if queue.is_empty() && !queue.is_closed() {
            inbox.tell(Input::Drained { conn }).await;
        }
    }
    stream.shutdown().await
}

struct Reader {
    conn: ConnId,
    stream: OwnedReadHalf,
    buffer: BytesMut,
    /// The last read took all the room that there was.
    filled: bool,
    context: watch::Receiver<Arc<Context>>,
    inbox: Inbox,
    share: Share,
    decode: Decode,
    complaints: Complaints,
}

/// Counts what was wrong with a connection's messages.
#[derive(Debug, Default)]
struct Complaints(u32);

impl Complaints {
    /// Whether the next one is for the operator.
    fn are_news(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 <= COMPLAINTS
    }

    /// Logs a problem and what it cost (RFC 7606 §6).
    fn log(&mut self, stream: &OwnedReadHalf, problem: &Problem, action: Action) {
        let peer = stream.peer_addr().ok();
        if self.are_news() {
            tracing::warn!(?peer, %problem, cost = ?action, "malformed UPDATE");
        } else {
            tracing::debug!(?peer, %problem, cost = ?action, "malformed UPDATE");
        }
    }
}

/// What the driver is handed at once.
struct Portion {
    inputs: Vec<Input>,
    /// An OPEN that is among them.
    open: Option<Bytes>,
    /// No further message counts.
    last: bool,
    room: Option<Room>,
}

impl Reader {
    /// Reads until the peer closes, which is an error; what follows an undecodable message, or our own
    /// close, is discarded.
    async fn run(mut self) -> io::Result<()> {
        self.messages().await?;
        loop {
            self.buffer.clear();
            self.fill().await?;
        }
    }

    /// Hands on portion after portion; returns when no further one counts, fails when none will come.
    ///
    /// The speaker gives a context when it sends its OPEN and another one when it has the peer's, and what is
    /// to be read in it waits for it. None comes to a connection that is refused.
    async fn messages(&mut self) -> io::Result<()> {
        if self.context.changed().await.is_err() {
            return Ok(());
        }
        loop {
            let context = self.context.borrow().clone();
            let frame = match wire::frame(&mut self.buffer, context.max_message) {
                Ok(Some(frame)) => Ok(frame),
                Ok(None) => {
                    self.fill().await?;
                    continue;
                }
                Err(error) => Err(error),
            };
            let portion = self.portion(frame, &context).await;
            let opens = portion.open.is_some();
            if let Some(open) = portion.open {
                self.inbox.send(Job::Opened(self.conn, open)).await;
            }
            self.inbox.hand(portion.inputs, portion.room).await;
            if portion.last || (opens && self.context.changed().await.is_err()) {
                return Ok(());
            }
        }
    }

    /// Decodes a message, and as many UPDATEs as lie behind it and fit in a portion.
    async fn portion(&mut self, frame: Result<Bytes, wire::Error>, context: &Context) -> Portion {
        let octets = frame.as_ref().map_or(0, Bytes::len);
        let limit = octets.max(PORTION.min(octets + self.buffer.len()));
        let mut portion = Portion {
            inputs: Vec::new(),
            open: None,
            last: false,
            room: self.inbox.room(&self.share, limit).await,
        };
        let (mut left, mut next) = (limit - octets, Some(frame));
        while let Some(frame) = next.take() {
            self.decode(frame, context, &mut portion);
            if portion.open.is_none() && !portion.last {
                let frame = wire::frame_update(&mut self.buffer, context.max_message, left);
                left -= frame.as_ref().map_or(0, Bytes::len);
                next = frame.map(Ok);
            }
        }
        portion
    }

    /// Adds what a message says, and before it what was wrong with it.
    fn decode(&mut self, frame: Result<Bytes, wire::Error>, context: &Context, portion: &mut Portion) {
        let (mut faults, conn) = (Vec::new(), self.conn);
        let (stream, complaints) = (&self.stream, &mut self.complaints);
        let mut report = |problem, action| {
            complaints.log(stream, &problem, action);
            faults.push(Fault::new(&problem, action));
        };
        let message = frame.and_then(|frame| {
            let message = (self.decode)(&frame, context, &mut report);
            if let Ok(Message::Open(_)) = message {
                // A copy: what is kept shall not keep all that was read with it.
                portion.open = Some(Bytes::copy_from_slice(&frame));
            }
            message
        });
        if !faults.is_empty() {
            portion.inputs.push(Input::Faulty { conn, faults });
        }
        portion.last = message.is_err();
        let message = message.map_err(|error| {
            tracing::debug!(?conn, %error, "the peer broke the protocol");
            error.into()
        });
        portion.inputs.push(Input::Received { conn, message });
    }

    async fn fill(&mut self) -> io::Result<()> {
        if !self.filled && self.buffer.is_empty() && self.buffer.capacity() > READ_LITTLE {
            // There was much to read once.
            self.buffer = BytesMut::new();
        }
        self.buffer
            .reserve(if self.filled { READ_MUCH } else { READ_LITTLE });
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            1.. => {
                self.filled = self.buffer.len() == self.buffer.capacity();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::Interest;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection served with `decode`, the peer's end, and what reaches the driver.
    async fn served(decode: Decode) -> (Link, TcpStream, mpsc::Receiver<Job>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (inbox, jobs) = Inbox::new();
        let (link, service) = open(ConnId(7), stream, decode, inbox);
        tokio::spawn(service);
        (link, peer, jobs)
    }

    async fn next_input(jobs: &mut mpsc::Receiver<Job>) -> Input {
        loop {
            match timeout(Duration::from_secs(30), jobs.recv()).await.unwrap() {
                Some(Job::Inputs(mut inputs, _)) if inputs.len() == 1 => return inputs.remove(0),
                Some(Job::Opened(ConnId(7), _)) => {}
                other => panic!("not an input: {other:?}"),
            }
        }
    }

    /// RFC 7606 §6: logged, and no flood of it.
    #[test]
    fn an_operator_hears_of_a_connections_first_problems_only() {
        let mut complaints = Complaints::default();
        let news = (0..100).filter(|_| complaints.are_news()).count();
        assert_eq!(news, 10);
    }

    #[tokio::test]
    async fn a_panic_over_input_closes_the_connection() {
        let (link, mut peer, mut jobs) = served(|_, _, _| panic!("hostile input")).await;
        link.set_context(Context::default());
        peer.write_all(&wire::encode(&Message::Keepalive, &Context::default()))
            .await
            .unwrap();
        let input = next_input(&mut jobs).await;
        assert!(matches!(input, Input::Closed { conn: ConnId(7) }), "{input:?}");
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "closed");
    }

    #[tokio::test]
    async fn what_follows_an_open_waits_for_its_context() {
        let decode: Decode = |frame, context, _| match frame[18] {
            1 => Ok(Message::Open(wire::Open {
                asn: 1,
                hold_time: 90,
                router_id: std::net::Ipv4Addr::LOCALHOST,
                capabilities: Vec::new(),
            })),
            _ if context.four_octet_as => Ok(Message::Keepalive),
            _ => panic!("decoded without its context"),
        };
        let (link, mut peer, mut jobs) = served(decode).await;
        link.set_context(Context::default());
        let open = [&[0xff; 16][..], &[0, 29, 1], &[0; 10]].concat();
        let keepalive = wire::encode(&Message::Keepalive, &Context::default());
        peer.write_all(&[&open[..], &keepalive].concat()).await.unwrap();
        let input = next_input(&mut jobs).await;
        assert!(
            matches!(
                input,
                Input::Received {
                    message: Ok(Message::Open(_)),
                    ..
                }
            ),
            "{input:?}"
        );
        link.set_context(Context {
            four_octet_as: true,
            ..Context::default()
        });
        let input = next_input(&mut jobs).await;
        assert!(
            matches!(
                input,
                Input::Received {
                    message: Ok(Message::Keepalive),
                    ..
                }
            ),
            "{input:?}"
        );
    }

    /// The first UPDATE is decoded whatever lies behind it, and no UPDATE waits for what is not one.
    #[tokio::test]
    async fn updates_come_by_the_portion() {
        let (link, mut peer, mut jobs) = served(decode).await;
        link.set_context(Context::default());
        let update = wire::update::end_of_rib(manx_bgp::Family::Ipv4Unicast);
        let keepalive = wire::encode(&Message::Keepalive, &Context::default());
        let many = update.repeat(PORTION / update.len() + 1);
        peer.write_all(&[&many[..], &keepalive, &update].concat())
            .await
            .unwrap();
        let mut kinds = Vec::new();
        while kinds.len() < PORTION / update.len() + 3 {
            let Some(Job::Inputs(inputs, _room)) = jobs.recv().await else {
                panic!("the connection ended");
            };
            assert!(inputs.len() <= PORTION / update.len(), "{}", inputs.len());
            kinds.extend(inputs.into_iter().map(|input| {
                let Input::Received {
                    message: Ok(message), ..
                } = input
                else {
                    panic!("{input:?}")
                };
                matches!(message, Message::Keepalive)
            }));
        }
        let keepalive = kinds.iter().position(|is_keepalive| *is_keepalive);
        assert_eq!(keepalive, Some(kinds.len() - 2), "in order");
    }

    #[tokio::test]
    async fn a_peer_that_never_closes_is_reset() {
        let (link, peer, _jobs) = served(decode).await;
        // More than both kernels hold: the end of our side cannot reach the peer.
        link.send(Bytes::from(vec![0; 64 << 20]));
        drop(link);
        let reset = timeout(LINGER * 10, peer.ready(Interest::ERROR)).await.unwrap();
        assert!(reset.unwrap().is_error());
        let error = peer.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_was_sent_leaves_before_the_close() {
        let (link, mut peer, _jobs) = served(decode).await;
        for byte in 0..=99 {
            link.send(Bytes::copy_from_slice(&[byte; 10_000]));
        }
        drop(link);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), 1_000_000);
    }
}
