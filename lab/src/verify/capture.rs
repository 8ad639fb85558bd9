//! What the segments between machines carry, heard at their bridges' ports.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use manx_linux::{LinkSocket, Netns};
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::packet::Frame;
use crate::error::{LabError, Result};
use crate::plan::BRIDGE;

/// Bytes of a frame that are kept: all headers that are looked at.
const SNAP: usize = 128;
/// Room for frames that nobody has read yet, in bytes.
const BUFFER: usize = 8 << 20;
/// How long a reader sleeps before it looks whether to stop, and how long it listens after that.
const QUIET: i64 = 50;
/// A frame on its way out of an interface, in the kernel's words (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;

/// Captures that run, one for each segment.
#[derive(Debug)]
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Vec<Frame>>>,
}

impl Capture {
    /// Starts to listen.
    pub(super) fn start(bridges: &[Netns]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for netns in bridges {
            let doing = "listen on a segment";
            let ports = ports(netns).map_err(LabError::kernel(doing))?;
            let packets = netns.run(listen).map_err(LabError::kernel(doing))?;
            let packets = packets.map_err(|errno| LabError::Probe {
                what: doing.to_owned(),
                source: errno.into(),
            })?;
            let stop = Arc::clone(&stop);
            readers.push(std::thread::spawn(move || read(&packets, &ports, &stop)));
        }
        Ok(Self { stop, readers })
    }

    /// Stops, and returns every frame that entered a segment.
    pub(super) fn stop(self) -> Vec<Frame> {
        // What was sent before now has to arrive yet.
        std::thread::sleep(Duration::from_millis(QUIET.unsigned_abs()));
        self.stop.store(true, Ordering::Relaxed);
        let frames = self.readers.into_iter().map(|reader| {
            reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        frames.flatten().collect()
    }
}

/// The indices of the bridge's ports.
fn ports(netns: &Netns) -> manx_linux::Result<Vec<usize>> {
    let mut socket = LinkSocket::open_in(netns)?;
    let Some(bridge) = socket.get(BRIDGE)? else {
        return Ok(Vec::new());
    };
    let links = socket.list()?;
    let ports = links.iter().filter(|link| link.controller == Some(bridge.index));
    Ok(ports
        .filter_map(|port| usize::try_from(port.index).ok())
        .collect())
}

fn listen() -> nix::Result<OwnedFd> {
    let packets = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    setsockopt(&packets, RcvBuf, &BUFFER)?;
    setsockopt(&packets, ReceiveTimeout, &TimeVal::milliseconds(QUIET))?;
    Ok(packets)
}

/// Every frame that enters the segment at one of its ports: each is heard once, however far it goes. A router
/// sends into its own segment from the bridge itself, so what leaves the bridge counts as well.
fn read(packets: &OwnedFd, ports: &[usize], stop: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = [0; SNAP];
    while !stop.load(Ordering::Relaxed) {
        // A timeout, or a frame of an interface that has just gone: look again.
        let Ok((length, Some(from))) = recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut buffer) else {
            continue;
        };
        let enters = ports.contains(&from.ifindex()) && from.pkttype() != OUTGOING;
        if enters {
            frames.push(buffer[..length.min(SNAP)].to_vec());
        }
    }
    frames
}
