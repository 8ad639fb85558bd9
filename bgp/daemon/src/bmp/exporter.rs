//! A collector's connection: dials, writes what it is given, and dials again when the connection is lost.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use manx_bgp::wire::bmp;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Id, Request};
use crate::config::Collector;
use crate::driver::Job;
use crate::inbox::Inbox;

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(10);

/// How long a lost collector is left alone: at first, and after many failures. RFC 7854 §3.2 suggests 30 s and 12 min
/// for dumps that cost more than ours.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A connection that held so long was no failure.
const SETTLED: Duration = Duration::from_secs(60);

/// How long the last words may take to leave.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended that should not have.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no connection within {} s", DIAL.as_secs())]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("it takes too little, and will be told everything again")]
    Behind,
}

/// Keeps a collector told until `stop`.
pub(super) async fn run(id: Id, collector: Collector, inbox: Inbox, stop: CancellationToken) {
    let exporter = Exporter {
        id,
        collector,
        inbox,
        stop,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let begin = Instant::now();
        let Err(lost) = exporter.attempt().await else {
            return;
        };
        if begin.elapsed() >= SETTLED {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(collector = exporter.collector.address, %lost, again_in = ?pause, "monitoring station lost");
        let jittered = pause.mul_f64(rand::random_range(0.75..1.0));
        tokio::select! {
            () = sleep(jittered) => {}
            () = exporter.stop.cancelled() => return,
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

struct Exporter {
    id: Id,
    collector: Collector,
    inbox: Inbox,
    stop: CancellationToken,
}

impl Exporter {
    /// One connection, from its dial to its end; a loss, unless we were stopped.
    async fn attempt(&self) -> Result<(), Lost> {
        let dialled = timeout(DIAL, TcpStream::connect(self.collector.address.as_str()));
        let mut stream = tokio::select! {
            dialled = dialled => dialled.map_err(|_| Lost::Timeout)??,
            () = self.stop.cancelled() => return Ok(()),
        };
        tracing::info!(collector = self.collector.address, "monitoring station connected");
        let behind = CancellationToken::new();
        self.say(Request::Begin(self.id, behind.clone())).await;
        let (read, write) = stream.split();
        let ended = tokio::select! {
            ended = self.export(write) => ended,
            lost = closed(read) => Err(lost),
            () = behind.cancelled() => Err(Lost::Behind),
            () = self.stopped() => Ok(()),
        };
        self.say(Request::End(self.id)).await;
        if let Err(Lost::Behind) = ended {
            // What it does not take shall not stay with the kernel, either.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        ended
    }

    /// Writes all that there is to be told, and says goodbye.
    async fn export(&self, mut stream: WriteHalf<'_>) -> Result<(), Lost> {
        let begin = bmp::initiation(&self.name()?, DESCRIPTION);
        stream.write_all(&begin).await?;
        while let Some(octets) = self.next().await {
            stream.write_all(&octets).await?;
        }
        stream.write_all(&bmp::termination()).await?;
        stream.shutdown().await?;
        Ok(())
    }

    /// What to write next; none once we are stopped.
    async fn next(&self) -> Option<Bytes> {
        let (reply, octets) = oneshot::channel();
        let answer = async {
            self.say(Request::More(self.id, reply)).await;
            octets.await.ok()
        };
        tokio::select! {
            octets = answer => octets,
            () = self.stop.cancelled() => None,
        }
    }

    /// We are stopped, and have had the time to say goodbye.
    async fn stopped(&self) {
        self.stop.cancelled().await;
        sleep(LINGER).await;
    }

    /// By what name the collector knows us.
    fn name(&self) -> io::Result<String> {
        match &self.collector.name {
            Some(name) => Ok(name.clone()),
            None => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
                Ok(name.trim().to_owned())
            }
        }
    }

    async fn say(&self, request: Request) {
        self.inbox.send(Job::Monitoring(request)).await;
    }
}

/// What we are.
const DESCRIPTION: &str = concat!("Manx ", env!("CARGO_PKG_VERSION"));

/// Returns when the collector has closed. It has nothing to say (RFC 7854 §3.2).
async fn closed(mut stream: ReadHalf<'_>) -> Lost {
    let mut ignored = [0; 256];
    loop {
        match stream.read(&mut ignored).await {
            Ok(0) => return Lost::Closed,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}
