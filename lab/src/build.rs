//! Carries a plan out: namespaces, links, files, datastore, processes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::link::{Veth, VethEnd};
use manx_linux::{LinkSocket, Netns, sysctl};
use manx_routes::{Hop, Target};
use manx_store::{SqliteStore, Store as _};
use nix::unistd::{User, chown};

use crate::error::{LabError, Result};
use crate::layout::{Layout, netns_path};
use crate::plan::{BRIDGE, File, Host, Plan, Process};
use crate::process;
use crate::programs;
use crate::state::Started;

/// How long a process may take to show the file that the next one needs.
const NEED_TIMEOUT: Duration = Duration::from_secs(10);
const NEED_INTERVAL: Duration = Duration::from_millis(20);

/// A host's namespace with a socket in it.
struct Seat<'a> {
    host: &'a Host,
    netns: Netns,
    socket: LinkSocket,
}

/// Makes every namespace with its links, addresses and routes.
pub(crate) fn network(plan: &Plan) -> Result<()> {
    let mut seats = Vec::with_capacity(plan.hosts.len());
    for host in &plan.hosts {
        seats.push(seat(host).map_err(LabError::kernel(format!("make namespace {}", host.netns)))?);
    }
    let namespaces: Vec<(String, Netns)> = seats
        .iter()
        .map(|seat| (seat.host.netns.clone(), seat.netns.clone()))
        .collect();
    for seat in &mut seats {
        seat.connect(&namespaces)
            .map_err(LabError::kernel(format!("connect {}", seat.host.name)))?;
    }
    for seat in &mut seats {
        seat.join_ports(&plan.hosts)
            .map_err(LabError::kernel(format!("bridge {}", seat.host.name)))?;
    }
    for seat in &mut seats {
        seat.wait_until_ready()
            .map_err(LabError::kernel(format!("connect {}", seat.host.name)))?;
    }
    Ok(())
}

fn seat(host: &Host) -> manx_linux::Result<Seat<'_>> {
    let netns = Netns::create(netns_path(&host.netns))?;
    netns.run(|| {
        host.sysctls()
            .iter()
            .try_for_each(|(name, value)| sysctl::set(name, value))
    })??;
    let mut socket = LinkSocket::open_in(&netns)?;
    if let Some(addresses) = &host.bridge {
        socket.create_bridge(BRIDGE)?;
        configure(&mut socket, BRIDGE, addresses)?;
    }
    Ok(Seat { host, netns, socket })
}

impl Seat<'_> {
    fn connect(&mut self, namespaces: &[(String, Netns)]) -> manx_linux::Result<()> {
        for interface in &self.host.interfaces {
            let bridge = namespaces
                .iter()
                .find(|(name, _)| *name == interface.bridge_netns);
            let end = VethEnd::named(&interface.name);
            let peer = VethEnd {
                netns: bridge.map(|(_, netns)| netns),
                ..VethEnd::named(&interface.port)
            };
            self.socket.create_veth(&Veth { end, peer })?;
            configure(&mut self.socket, &interface.name, &interface.addresses)?;
        }
        for gateway in &self.host.gateways {
            let everywhere: IpAddr = match gateway {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let Ok(default) = IpNetwork::new(everywhere, 0) else {
                continue;
            };
            self.socket.add_route(
                default,
                &Target::Via(vec![Hop {
                    gateway: *gateway,
                    device: None,
                }]),
            )?;
        }
        Ok(())
    }

    fn join_ports(&mut self, hosts: &[Host]) -> manx_linux::Result<()> {
        let Some(bridge) = self.socket.get(BRIDGE)? else {
            return Ok(());
        };
        for port in self.host.ports(hosts) {
            if let Some(port) = self.socket.get(port)? {
                self.socket.set_controller(port.index, Some(bridge.index))?;
                self.socket.set_up(port.index)?;
            }
        }
        Ok(())
    }

    /// Waits until packets reach the host over each of its interfaces: both ends are up by now.
    fn wait_until_ready(&mut self) -> manx_linux::Result<()> {
        self.host
            .interfaces
            .iter()
            .try_for_each(|interface| self.socket.wait_until_ready(&interface.name))
    }
}

fn configure(socket: &mut LinkSocket, name: &str, addresses: &[IpNetwork]) -> manx_linux::Result<()> {
    let Some(link) = socket.get(name)? else {
        return Ok(());
    };
    socket.set_up(link.index)?;
    addresses
        .iter()
        .try_for_each(|address| socket.add_address(link.index, *address))
}

/// Writes every host's files, and where nodes' container runtimes find the CNI plugin.
pub(crate) fn files(plan: &Plan, bin_dir: &Path) -> Result<()> {
    for host in &plan.hosts {
        let folder = plan.layout.host(&host.name);
        make(&folder)?;
        host.files.iter().try_for_each(|file| write(&folder, file))?;
    }
    let plugin = programs::own(programs::PLUGIN, bin_dir)?;
    for node in plan.nodes() {
        make(&plan.layout.state_dir(&node.name))?;
        let folder = plan.layout.cni_bin_dir(&node.name);
        make(&folder)?;
        let link = folder.join(programs::PLUGIN);
        symlink(&plugin, &link).map_err(LabError::file("link", &link))?;
    }
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(LabError::file("make", folder))
}

fn write(folder: &Path, file: &File) -> Result<()> {
    let path = folder.join(&file.path);
    path.parent().map_or(Ok(()), make)?;
    fs::write(&path, &file.text).map_err(LabError::file("write", &path))?;
    let Some(owner) = file.owner else { return Ok(()) };
    let user = User::from_name(owner)
        .ok()
        .flatten()
        .ok_or_else(|| LabError::NoProgram {
            program: owner,
            hint: format!("the machine has no user '{owner}'; `apt-get install {owner}`, or `make deps`"),
        })?;
    for path in [&path, folder] {
        chown(path, Some(user.uid), Some(user.gid))
            .map_err(|errno| LabError::file("give away", path)(errno.into()))?;
    }
    Ok(())
}

/// Fills the lab's datastore.
pub(crate) async fn resources(plan: &Plan) -> Result<()> {
    let store = SqliteStore::open(&plan.layout.store()).await?;
    for resource in &plan.resources {
        store.create(resource.clone()).await?;
    }
    Ok(())
}

/// Where every program of the plan is, before anything is made.
pub(crate) fn programs(plan: &Plan, bin_dir: &Path) -> Result<()> {
    programs::own(programs::PLUGIN, bin_dir)?;
    plan.hosts
        .iter()
        .flat_map(|host| &host.processes)
        .try_for_each(|process| process.program.find(bin_dir).map(drop))
}

/// Starts one of a host's processes.
pub(crate) fn start(layout: &Layout, host: &Host, process: &Process, bin_dir: &Path) -> Result<Started> {
    let program: PathBuf = process.program.find(bin_dir)?;
    if let Some(needed) = &process.needs {
        await_file(needed);
    }
    let netns =
        Netns::open(netns_path(&host.netns)).map_err(LabError::kernel(format!("enter {}", host.netns)))?;
    let log = layout.log(&host.name, &process.name);
    process::start(&netns, (&host.name, &process.name), &program, &process.args, &log)
}

/// Waits for a file; whoever needs it says best what is wrong when it never comes.
fn await_file(path: &Path) {
    let deadline = Instant::now() + NEED_TIMEOUT;
    while !path.exists() && Instant::now() < deadline {
        std::thread::sleep(NEED_INTERVAL);
    }
}
