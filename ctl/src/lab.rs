//! `lab …`: clusters in network namespaces on this machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use manx_api::rpc::Method;
use manx_api::rule::NamedPort;
use manx_api::status::PeerStatus;
use manx_api::workload::{PORTS_ANNOTATION, SERVICE_ACCOUNT_ANNOTATION};
use manx_lab::{Class, Exchange, Lab, Options, Progress, Proof, Settings, Topology, Traits};

use crate::cli::{LabCommand, OutputArgs, PodCommand, TopologyKind, UpArgs};
use crate::error::{CtlError, Result};
use crate::output::{self, Format, Row};
use crate::picture;
use crate::target::{Agent, Target, ask_all};

/// `lab …`; commands that run in the lab give their own exit code.
pub(crate) async fn run(target: &Target, command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up(args) => up(target, &args).await?,
        LabCommand::Down => {
            let name = target.lab_name()?;
            Lab::down(&target.settings().base, &name)?;
            output::emit(&format!("lab '{name}' is down; nothing of it is left\n"))?;
        }
        LabCommand::Status(OutputArgs { output }) => status(&target.lab()?, output)?,
        LabCommand::Verify(OutputArgs { output }) => verify(&target.lab()?, output)?,
        LabCommand::Restart { host } => {
            target.lab()?.restart(&host, target.settings())?;
            output::emit(&format!("{host} restarted\n"))?;
        }
        LabCommand::Exec { host, command } => {
            return exec(&command, |program| {
                target.lab()?.command_on(&host, program).map_err(CtlError::from)
            });
        }
        LabCommand::Pod(command) => return pod(target, command),
    }
    Ok(ExitCode::SUCCESS)
}

fn pod(target: &Target, command: PodCommand) -> Result<ExitCode> {
    match command {
        PodCommand::Add {
            name,
            node,
            namespace,
            annotations,
            labels,
            ports,
            service_account,
        } => {
            let mut lab = target.lab()?;
            let traits = traits(annotations, labels, &ports, service_account);
            let progress = Progress::silent();
            let pod = lab.add_pod(&namespace.namespace, &name, &node, traits, &progress)?;
            output::print(std::slice::from_ref(pod), Format::Table)?;
        }
        PodCommand::List(OutputArgs { output }) => output::print(target.lab()?.pods(), output)?,
        PodCommand::Delete { name, namespace } => {
            target.lab()?.delete_pod(&namespace.namespace, &name)?;
            output::emit(&format!("pod {}/{name} deleted\n", namespace.namespace))?;
        }
        PodCommand::Exec {
            name,
            namespace,
            command,
        } => {
            return exec(&command, |program| {
                target
                    .lab()?
                    .command_in(&namespace.namespace, &name, program)
                    .map_err(CtlError::from)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the plugin is told of a pod: ports and service account by annotations of ours, for want of a convention.
fn traits(
    annotations: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    ports: &[NamedPort],
    service_account: Option<String>,
) -> Traits {
    let mut annotations: BTreeMap<String, String> = annotations.into_iter().collect();
    if !ports.is_empty() {
        annotations.insert(PORTS_ANNOTATION.to_owned(), serde_json::json!(ports).to_string());
    }
    annotations.extend(service_account.map(|name| (SERVICE_ACCOUNT_ANNOTATION.to_owned(), name)));
    Traits {
        annotations,
        labels: labels.into_iter().collect(),
    }
}

/// Runs a command with our terminal, and leaves with its exit code.
fn exec(
    command: &[OsString],
    prepare: impl FnOnce(&OsString) -> Result<std::process::Command>,
) -> Result<ExitCode> {
    let Some((program, args)) = command.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    let run = |source| CtlError::Run {
        program: program.to_string_lossy().into_owned(),
        source,
    };
    let status = prepare(program)?.args(args).status().map_err(run)?;
    // Shells say 128 and the signal's number for a command that a signal ended.
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
    let code = status.code().unwrap_or(128 + signal);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn options(target: &Target, args: &UpArgs) -> Result<Options> {
    let topology = match args.topology {
        TopologyKind::Mesh => Topology::Mesh,
        TopologyKind::Tor => Topology::Tor {
            software: args.tor.into(),
            racks: args.racks.unwrap_or_else(|| args.nodes.min(2)),
        },
        TopologyKind::Rr => Topology::Rr {
            reflectors: args.reflectors,
        },
    };
    Ok(Options {
        name: target.lab_name()?,
        nodes: args.nodes,
        topology,
        pods_per_node: args.pods_per_node,
        dual_stack: args.dual_stack,
    })
}

async fn up(target: &Target, args: &UpArgs) -> Result<()> {
    let options = options(target, args)?;
    let settings = Settings {
        timeout: Duration::from_secs(args.timeout),
        ..target.settings().clone()
    };
    let progress = Progress::new(std::io::stderr().is_terminal());
    let interrupted = progress.clone();
    let watcher = tokio::spawn(async move {
        // Without the handler the signal would end us and leave the lab half made.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let making = tokio::task::spawn_blocking(move || Lab::up(&options, &settings, &progress));
    let lab = making.await.map_err(|error| CtlError::Start(error.into()))??;
    watcher.abort();
    output::emit(&summary(&lab)?)
}

/// What a user sees first of a lab: a picture, its sessions, its pods, and what to do next.
fn summary(lab: &Lab) -> Result<String> {
    let status = lab.status();
    let nodes = status.nodes.iter();
    let agents: Vec<Agent> = nodes
        .map(|node| Agent {
            node: Some(node.name.clone()),
            socket: node.socket.clone(),
        })
        .collect();
    let (peers, outcome) = ask_all::<PeerStatus>(&agents, Method::BgpPeers);
    outcome?;
    let (peers, pods) = (
        glimpse(&peers, "bgp peers")?,
        glimpse(lab.pods(), "lab pod list")?,
    );
    let name = &status.name;
    let host = status
        .routers
        .first()
        .map(|router| &router.name)
        .or_else(|| status.nodes.first().map(|node| &node.name));
    let host = host.map_or("node1", String::as_str);
    let pod = lab.pods().first().map_or("NAME", |pod| pod.name.as_str());
    let commands = [
        (
            "lab verify".to_owned(),
            "prove it: TCP and ICMP between all pods, and what the wire carried",
        ),
        (
            "bgp routes".to_owned(),
            "or: bgp peers, route show, ipam show, node status, topology",
        ),
        (
            "get ippools -o yaml".to_owned(),
            "or: nodes, bgppeers, bgpconfigurations, ipblocks",
        ),
        (format!("lab exec {host} -- ip route"), "a command on a machine"),
        (format!("lab pod exec {pod} -- ip address"), "a command in a pod"),
        (
            "lab restart node1".to_owned(),
            "a new agent; routes and packets stay",
        ),
    ];
    let commands: String = commands
        .iter()
        .map(|(command, what)| format!("  manxctl {command:36}  # {what}\n"))
        .collect();
    let picture = picture::of_lab(lab.plan(), lab.pods());
    Ok(format!(
        "\n{picture}\n{peers}\n{pods}\nLook around:\n  export MANX_LAB={name}\n{commands}Take it down:\n  manxctl lab down --name {name}\n"
    ))
}

/// The beginning of a list, and the command that shows all of it.
fn glimpse<T: Row>(items: &[T], command: &str) -> Result<String> {
    const SHOWN: usize = 12;
    let text = output::text(&items[..items.len().min(SHOWN)], Format::Table)?;
    let more = items.len().saturating_sub(SHOWN);
    Ok(if more == 0 {
        text
    } else {
        format!("{text}and {more} more: manxctl {command}\n")
    })
}

fn status(lab: &Lab, format: Format) -> Result<()> {
    let status = lab.status();
    let text = match format {
        Format::Table | Format::Wide => {
            let mut tables = vec![output::text(&status.nodes, format)?];
            if !status.routers.is_empty() {
                tables.push(output::text(&status.routers, format)?);
            }
            tables.push(output::text(&status.pods, format)?);
            tables.join("\n")
        }
        Format::Name => crate::rows::names(&status),
        Format::Yaml => output::yaml(&status)?,
        Format::Json => output::json(&status)?,
    };
    output::emit(&text)
}

fn verify(lab: &Lab, format: Format) -> Result<()> {
    let proof = manx_lab::verify(lab)?;
    output::emit(&match format {
        Format::Table => proof_text(&proof, false),
        Format::Wide => proof_text(&proof, true),
        Format::Name => proof
            .exchanges
            .iter()
            .map(|tried| format!("{} {} {}\n", tried.protocol, tried.from, tried.to))
            .collect(),
        Format::Yaml => output::yaml(&proof)?,
        Format::Json => output::json(&proof)?,
    })?;
    if proof.proved {
        Ok(())
    } else {
        Err(CtlError::NotProved {
            logs: lab.plan().layout.root().to_owned(),
        })
    }
}

/// A matrix of who reached whom, what failed, and what was on the wire.
fn proof_text(proof: &Proof, all_lines: bool) -> String {
    let mut text = matrix(proof);
    let wrong: Vec<&Exchange> = proof
        .exchanges
        .iter()
        .filter(|tried| tried.problem.is_some())
        .collect();
    let lines = if all_lines {
        proof.exchanges.iter().collect()
    } else {
        wrong.clone()
    };
    if !lines.is_empty() {
        let columns = ["FROM", "TO", "PROTOCOL", "ADDRESS", "SEEN AS", "PROBLEM"];
        let cells = |tried: &&Exchange| {
            let seen = tried.seen.map(|seen| seen.to_string()).unwrap_or_default();
            let problem = tried.problem.clone().unwrap_or_default();
            let line = vec![
                tried.from.clone(),
                tried.to.clone(),
                tried.protocol.to_owned(),
                tried.address.to_string(),
                seen,
                problem,
            ];
            (line, tried.problem.is_none())
        };
        text += &format!("\n{}", output::table(&columns, lines.iter().map(cells)));
    }
    let (right, all) = (proof.exchanges.len() - wrong.len(), proof.exchanges.len());
    text += &format!(
        "\n{right} of {all} exchanges succeeded, and the receiver saw the sender's own address.\n\n"
    );
    let classes = [
        Class::PodToPod,
        Class::MachineToPod,
        Class::Bgp,
        Class::Neighbours,
        Class::Encapsulated,
        Class::Other,
    ];
    let counts = classes.iter().map(|class| {
        let count = proof.packets.get(class).copied().unwrap_or_default();
        (
            vec![class.to_string(), count.to_string()],
            count == 0 || !class.is_wrong(),
        )
    });
    text += &output::table(&["ON THE WIRE BETWEEN MACHINES", "PACKETS"], counts);
    for offender in &proof.offenders {
        text += &format!("  {offender}\n");
    }
    text + if proof.proved {
        "\nProved.\n"
    } else {
        "\nNot proved.\n"
    }
}

/// Senders down, receivers across; each cell says how many of the pair's exchanges succeeded.
fn matrix(proof: &Proof) -> String {
    /// Receivers in a matrix, at most: of more, no terminal shows the columns.
    const COLUMNS: usize = 8;
    let names = |end: fn(&Exchange) -> &String| -> Vec<&String> {
        let names: std::collections::BTreeSet<&String> = proof.exchanges.iter().map(end).collect();
        names.into_iter().collect()
    };
    let (senders, receivers) = (names(|tried| &tried.from), names(|tried| &tried.to));
    if receivers.len() > COLUMNS {
        return format!("{} senders, {} receivers\n", senders.len(), receivers.len());
    }
    let short = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
    let columns: Vec<String> = std::iter::once("FROM \\ TO".to_owned())
        .chain(receivers.iter().map(|name| short(name)))
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let lines = senders.iter().map(|sender| {
        let mut well = true;
        let cell = |receiver: &&String| {
            let of_pair: Vec<&Exchange> = proof
                .exchanges
                .iter()
                .filter(|tried| tried.from == **sender && tried.to == **receiver)
                .collect();
            let right = of_pair.iter().filter(|tried| tried.problem.is_none()).count();
            well &= right == of_pair.len();
            if of_pair.is_empty() {
                String::new()
            } else {
                format!("{right}/{}", of_pair.len())
            }
        };
        let mut cells = vec![short(sender)];
        cells.extend(receivers.iter().map(cell));
        (cells, well)
    });
    output::table(&columns, lines)
}
