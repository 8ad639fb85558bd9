//! Socket options that no crate wraps: TCP MD5 signatures, TCP-AO, minimum TTL, saved SYNs, ICMPv6 types. The one file of this
//! crate with `unsafe`.

#![expect(unsafe_code, reason = "the system calls of options that no crate wraps")]

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};

use ipnetwork::IpNetwork;
use manx_bgp::transport::{AoAlgorithm, AoKey, Secret};
use nix::libc;
use socket2::SockAddr;

/// Options of TCP-AO (Linux 6.7), not in `libc` yet.
const TCP_AO_ADD_KEY: c_int = 38;
const TCP_AO_DEL_KEY: c_int = 39;

/// Of `linux/icmpv6.h`, not in `libc` yet.
const ICMPV6_FILTER: c_int = 1;

/// `tcp_ao_add` and `tcp_ao_del`: the first bits after the interface.
const AO_SET_CURRENT: u32 = 1;
const AO_SET_RNEXT: u32 = 2;
const AO_DEL_ASYNC: u32 = 4;

/// `tcp_md5sig`: the prefix length counts.
const MD5_FLAG_PREFIX: u8 = 1;

/// Room for the headers of a SYN with all options and some extension headers, in octets.
const SYN_HEADERS: usize = 512;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Md5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: c_int,
    key: [u8; Secret::MAX],
}

/// `struct tcp_ao_add` of `linux/tcp.h`; its alignment to 8 comes with the address.
#[repr(C)]
struct AoAdd {
    address: libc::sockaddr_storage,
    algorithm: [u8; 64],
    interface: i32,
    bits: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    code_length: u8,
    key_flags: u8,
    key_length: u8,
    key: [u8; Secret::MAX],
}

/// `struct tcp_ao_del` of `linux/tcp.h`.
#[repr(C)]
struct AoDel {
    address: libc::sockaddr_storage,
    interface: i32,
    bits: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    current: u8,
    next: u8,
    key_flags: u8,
}

/// Signs what is exchanged with these peers (RFC 2385), with `secret` in place of any before; without, no longer.
pub(crate) fn set_md5(socket: &impl AsFd, peers: IpNetwork, secret: Option<&Secret>) -> io::Result<()> {
    let (key_length, key) = padded(secret.map_or(&[], Secret::expose));
    let option = Md5Sig {
        address: storage(peers),
        flags: MD5_FLAG_PREFIX,
        prefix_length: peers.prefix(),
        key_length: key_length.into(),
        interface: 0,
        key,
    };
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &option)
}

/// Adds a key for these peers (RFC 5925). On a connection it may be made the one to send with and to ask for;
/// listeners have no such choice.
pub(crate) fn add_ao(socket: &impl AsFd, peers: IpNetwork, key: &AoKey, current: bool) -> io::Result<()> {
    let name: &[u8] = match key.algorithm {
        AoAlgorithm::HmacSha1 => b"hmac(sha1)",
        AoAlgorithm::AesCmac => b"cmac(aes128)",
    };
    let mut algorithm = [0; 64];
    algorithm[..name.len()].copy_from_slice(name);
    let (key_length, secret) = padded(key.secret.expose());
    let option = AoAdd {
        address: storage(peers),
        algorithm,
        interface: 0,
        bits: if current { AO_SET_CURRENT | AO_SET_RNEXT } else { 0 },
        reserved: 0,
        prefix_length: peers.prefix(),
        send_id: key.send_id,
        receive_id: key.receive_id,
        code_length: 0,
        key_flags: 0,
        key_length,
        key: secret,
    };
    set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &option)
}

/// Removes a key for these peers, in favour of `instead` on a connection. A listener (none) need not wait until
/// nobody looks at it.
pub(crate) fn remove_ao(
    socket: &impl AsFd,
    peers: IpNetwork,
    key: &AoKey,
    instead: Option<&AoKey>,
) -> io::Result<()> {
    let option = AoDel {
        address: storage(peers),
        interface: 0,
        bits: instead.map_or(AO_DEL_ASYNC, |_| AO_SET_CURRENT | AO_SET_RNEXT),
        reserved: 0,
        prefix_length: peers.prefix(),
        send_id: key.send_id,
        receive_id: key.receive_id,
        current: instead.map_or(0, |key| key.send_id),
        next: instead.map_or(0, |key| key.receive_id),
        key_flags: 0,
    };
    set(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &option)
}

/// Drops packets of this connection that come with a lower TTL (hop limit): RFC 5082 §3.
pub(crate) fn set_min_ttl(socket: &impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    };
    set(socket, level, name, &c_int::from(ttl))
}

/// Has a raw ICMPv6 socket receive messages of these types only.
pub(crate) fn pass_icmpv6(socket: &impl AsFd, types: &[u8]) -> io::Result<()> {
    // `struct icmp6_filter`: a bit for each type that is blocked.
    let mut blocked = [u32::MAX; 8];
    for kind in types {
        blocked[usize::from(kind / 32)] &= !(1 << (kind % 32));
    }
    set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)
}

/// Has the listener keep each connection's SYN for [`saved_syn`].
pub(crate) fn save_syn(listener: &impl AsFd) -> io::Result<()> {
    set(listener, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1)
}

/// The IP and TCP headers of the SYN that an accepted connection began with; empty where none was kept, as for
/// one that a SYN cookie stood for.
pub(crate) fn saved_syn(connection: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut headers = [0_u8; SYN_HEADERS];
    let mut length = libc::socklen_t::try_from(headers.len()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` octets, which is what `headers` has, and sets `length` to how many.
    let result = unsafe {
        libc::getsockopt(
            connection.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            headers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(headers.iter().take(length as usize).copied().collect())
}

/// A secret as the kernel's structures hold it.
fn padded(secret: &[u8]) -> (u8, [u8; Secret::MAX]) {
    let mut key = [0; Secret::MAX];
    key[..secret.len()].copy_from_slice(secret);
    (u8::try_from(secret.len()).unwrap_or(u8::MAX), key)
}

/// An address as the kernel's structures hold it; the port has to be 0.
fn storage(peers: IpNetwork) -> libc::sockaddr_storage {
    let address: IpAddr = peers.network();
    let address = SockAddr::from(SocketAddr::new(address, 0));
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // SAFETY: both are valid for `len` octets, which `SockAddr` keeps within a `sockaddr_storage`; all zeroes are
    // a valid one, whatever part of it the copy replaces.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            storage.as_mut_ptr().cast::<u8>(),
            address.len() as usize,
        );
        storage.assume_init()
    }
}

fn set<T>(socket: &impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: `value` is valid for reads of the size that is given with it, and the kernel keeps no reference.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

// The kernel refuses, or misreads, what has another shape.
const _: () = assert!(size_of::<Md5Sig>() == 216 && size_of::<AoAdd>() == 288 && size_of::<AoDel>() == 144);
