//! The plugin: from the runtime's call to what goes on standard output.

use std::io::Read;
use std::time::Duration;

use manx_api::rpc::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{self, Absence, CallError};
use crate::config::{self, Document};
use crate::runtime::Wishes;
use crate::{Call, Code, Command, Error, NetConf, SpecVersion, Success, tombstone};

/// The longest configuration taken, in bytes.
const MAX_INPUT: u64 = 1 << 20;

/// What the runtime gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done; where there is something to say, this is for standard output.
    Done(Option<Value>),
    /// It is not: this is for standard output, and the exit status is 1.
    Failed(Value),
}

/// Serves one call, given the environment and standard input.
pub fn run(variable: impl Fn(&str) -> Option<String>, input: impl Read) -> Answer {
    let mut version = SpecVersion::NEWEST;
    match serve(variable, input, &mut version) {
        Ok(result) => Answer::Done(result),
        Err(error) => Answer::Failed(error.render(version)),
    }
}

/// Serves one call; `version` becomes the caller's as soon as it is known.
fn serve(
    variable: impl Fn(&str) -> Option<String>,
    input: impl Read,
    version: &mut SpecVersion,
) -> Result<Option<Value>, Error> {
    let command = Command::parse(&variable("CNI_COMMAND").unwrap_or_default())?;
    let input = read(input)?;
    let mut config = || configuration(command, &input, version);
    let call = |config| Call::from_environment(command, variable, config);
    match command {
        Command::Add => add(&call(config()?)?).map(Some),
        Command::Del => del(&call(config()?)?),
        Command::Check => {
            let call = call(config()?)?;
            confirm(Method::CniCheck, &call, &call.config, Code::TryAgainLater)
        }
        Command::Status => {
            let (config, _) = config()?;
            confirm(Method::CniStatus, &config, &config, Code::NotAvailable)
        }
        Command::Gc => {
            let (config, _) = config()?;
            confirm(Method::CniGc, &config, &config, Code::TryAgainLater)
        }
        Command::Version => versions(&input).map(Some),
    }
}

fn read(input: impl Read) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let read = input.take(MAX_INPUT + 1).read_to_end(&mut text);
    read.map_err(|error| Error::new(Code::Io, "standard input cannot be read").with_details(error))?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_INPUT) {
        return Ok(text);
    }
    Err(Error::new(
        Code::Decode,
        format!("the configuration on standard input exceeds {MAX_INPUT} bytes"),
    ))
}

/// Answers VERSION: the caller's version back, and what is supported. Works without an agent.
fn versions(input: &[u8]) -> Result<Value, Error> {
    // Runtimes before 0.3.1 sent nothing.
    let asked = if input.is_empty() {
        None
    } else {
        config::object(input)?.remove("cniVersion")
    };
    Ok(json!({
        "cniVersion": asked.unwrap_or_else(|| json!(SpecVersion::NEWEST)),
        "supportedVersions": SpecVersion::ALL,
    }))
}

/// Requires a field that only some verbs' configurations have.
fn require(present: bool, command: Command, field: &str) -> Result<(), Error> {
    if present {
        return Ok(());
    }
    let message = format!(
        "{} needs '{field}' in the network configuration",
        command.as_str()
    );
    Err(Error::new(Code::InvalidConfig, message))
}

/// The configuration, as far as it is the verb's, and what it wishes for the attachment.
fn configuration(
    command: Command,
    input: &[u8],
    version: &mut SpecVersion,
) -> Result<(NetConf, Wishes), Error> {
    let document = Document::parse(input)?;
    *version = document.version;
    if *version < command.since() {
        let message = format!(
            "{} came with CNI {}; the network configuration has cniVersion {version}",
            command.as_str(),
            command.since()
        );
        return Err(Error::new(Code::IncompatibleVersion, message));
    }
    let config = NetConf::from_document(&document)?;
    match command {
        // Only what makes something: a DEL has to go through with whatever configuration there is.
        Command::Add | Command::Status => document.refuse_unsupported()?,
        Command::Check => require(config.prev_result.is_some(), command, "prevResult")?,
        Command::Gc => require(
            config.valid_attachments.is_some(),
            command,
            "cni.dev/valid-attachments",
        )?,
        Command::Del | Command::Version => {}
    }
    let wishes = match command {
        Command::Add | Command::Check => Wishes::of(&document)?,
        Command::Del | Command::Status | Command::Gc | Command::Version => Wishes::default(),
    };
    Ok((config, wishes))
}

/// Passes ADD on. Behind other plugins of a chain, the answer is theirs with ours added.
fn add(call: &Call) -> Result<Value, Error> {
    let previous = call.config.previous()?.unwrap_or_default();
    let result = ask(Method::CniAdd, call, &call.config);
    let result = result.map_err(|problem| failure(problem, Code::TryAgainLater, &call.config))?;
    let success = Success::deserialize(result).map_err(|error| {
        Error::new(
            Code::Decode,
            "the agent's answer is no CNI result: are manx and manxd of one version?",
        )
        .with_details(error)
    })?;
    Ok(previous.with(success).render(call.config.cni_version))
}

/// Passes DEL on, or leaves it for the agent to find.
fn del(call: &Call) -> Result<Option<Value>, Error> {
    let absence = match ask(Method::CniDel, call, &call.config) {
        Ok(_) => return Ok(None),
        Err(CallError::Refused(error)) => return Err(error.into()),
        Err(CallError::Absent(absence)) => absence,
    };
    tombstone::write(&call.config.state_dir, &call.attachment).map_err(|error| {
        let directory = tombstone::directory(&call.config.state_dir);
        let message = format!(
            "the Manx agent is absent, and no tombstone can be left in {}",
            directory.display()
        );
        Error::new(Code::Io, message).with_details(format!("{error}; agent: {absence}"))
    })?;
    Ok(None)
}

/// Asks the agent for what has no result; without an answer, the error is `absent`.
fn confirm(
    method: Method,
    params: &impl Serialize,
    config: &NetConf,
    absent: Code,
) -> Result<Option<Value>, Error> {
    let confirmed = ask(method, params, config);
    confirmed
        .map(|_| None)
        .map_err(|problem| failure(problem, absent, config))
}

fn ask(method: Method, params: &impl Serialize, config: &NetConf) -> Result<Value, CallError> {
    let params = serde_json::to_value(params).map_err(|error| Absence::Broken(error.into()))?;
    client::call(
        &config.socket,
        method,
        params,
        Duration::from_secs(config.timeout_seconds),
    )
}

/// The agent's own error, or, where there was no answer, an error with the code `absent`.
fn failure(problem: CallError, absent: Code, config: &NetConf) -> Error {
    match problem {
        CallError::Refused(error) => error.into(),
        CallError::Absent(absence) => {
            let socket = config.socket.display();
            let message = format!(
                "the Manx agent does not answer at {socket}: see that manxd runs on this node, and what its log says"
            );
            Error::new(absent, message).with_details(absence)
        }
    }
}
