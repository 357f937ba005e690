//! What an agent may say: names, labels and sizes.

use std::collections::BTreeMap;

use millstream_proto::limits::{
    MAX_CHECKPOINT_BYTES, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS,
};
use millstream_proto::{PROTOCOL_VERSION, v1};

/// Labels that the relay sets itself.
const BUILT_IN: [&str; 5] = ["host", "agent", "source", "path", "run"];

/// Longest instance (a path, mostly), in bytes: the longest path that Linux allows.
const MAX_INSTANCE_BYTES: usize = 4096;

/// Why an agent's words were not accepted; the message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CheckError {
    #[error(
        "the agent speaks protocol version {0}, this relay speaks {PROTOCOL_VERSION}; upgrade the relay or \
         run an agent of the same release"
    )]
    ProtocolVersion(u32),
    #[error("agent id {0:?} is not 1 to 64 characters of A-Z a-z 0-9 _ -")]
    AgentId(String),
    #[error("{what} {value:?} must have 1 to {limit} bytes and no control characters")]
    Name {
        what: &'static str,
        value: String,
        limit: usize,
    },
    #[error("label {0:?} is set by the relay; choose another name")]
    BuiltInLabel(String),
    #[error(
        "label name {0:?} must begin with a letter and have at most {MAX_LABEL_NAME_BYTES} characters of \
         A-Z a-z 0-9 _ . / -"
    )]
    LabelName(String),
    #[error("the value of label {0:?} has more than {MAX_LABEL_VALUE_BYTES} bytes or control characters")]
    LabelValue(String),
    #[error("{0} labels; the limit is {MAX_LABELS}")]
    TooManyLabels(usize),
    #[error("the checkpoint has {0} bytes; the limit is {MAX_CHECKPOINT_BYTES}")]
    Checkpoint(usize),
}

/// Checks what every call of an agent begins with.
pub(super) fn check_agent(protocol_version: u32, agent_id: &str, host: &str) -> Result<(), CheckError> {
    if protocol_version != PROTOCOL_VERSION {
        return Err(CheckError::ProtocolVersion(protocol_version));
    }
    let is_id_character = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if agent_id.is_empty() || agent_id.len() > 64 || !agent_id.bytes().all(is_id_character) {
        return Err(CheckError::AgentId(shortened(agent_id)));
    }
    check_name("host name", host, 255)
}

/// Composes a stream's labels: the user's, those of the stream over those of the agent, and the built-in
/// ones over all.
pub(super) fn compose_labels(
    hello: &v1::Hello,
    open: &v1::OpenStream,
) -> Result<BTreeMap<String, String>, CheckError> {
    check_name("source", &open.source, 255)?;
    check_name("instance", &open.instance, MAX_INSTANCE_BYTES)?;
    check_labels(&open.labels)?;
    let mut labels = hello.labels.clone();
    labels.extend(open.labels.clone());
    labels.insert("host".to_owned(), hello.host.clone());
    labels.insert("agent".to_owned(), hello.agent_id.clone());
    labels.insert("source".to_owned(), open.source.clone());
    if !open.path.is_empty() {
        check_name("path", &open.path, MAX_INSTANCE_BYTES)?;
        labels.insert("path".to_owned(), open.path.clone());
    }
    if let Some(run) = &open.run {
        check_name("run id", &run.run_id, 255)?;
        labels.insert("run".to_owned(), run.run_id.clone());
    }
    if labels.len() > MAX_LABELS {
        return Err(CheckError::TooManyLabels(labels.len()));
    }
    Ok(labels)
}

pub(super) fn check_checkpoint(checkpoint: &[u8]) -> Result<(), CheckError> {
    if checkpoint.len() > MAX_CHECKPOINT_BYTES {
        return Err(CheckError::Checkpoint(checkpoint.len()));
    }
    Ok(())
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), CheckError> {
    if labels.len() > MAX_LABELS {
        return Err(CheckError::TooManyLabels(labels.len()));
    }
    for (name, value) in labels {
        if BUILT_IN.contains(&name.as_str()) {
            return Err(CheckError::BuiltInLabel(name.clone()));
        }
        let is_name = name.len() <= MAX_LABEL_NAME_BYTES
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte));
        if !is_name {
            return Err(CheckError::LabelName(shortened(name)));
        }
        if value.len() > MAX_LABEL_VALUE_BYTES || value.chars().any(char::is_control) {
            return Err(CheckError::LabelValue(name.clone()));
        }
    }
    Ok(())
}

fn check_name(what: &'static str, value: &str, limit: usize) -> Result<(), CheckError> {
    if value.is_empty() || value.len() > limit || value.chars().any(char::is_control) {
        return Err(CheckError::Name {
            what,
            value: shortened(value),
            limit,
        });
    }
    Ok(())
}

/// A message must not carry megabytes of what was wrong.
fn shortened(value: &str) -> String {
    value.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_hello(hello: &v1::Hello) -> Result<(), CheckError> {
        check_agent(hello.protocol_version, &hello.agent_id, &hello.host)?;
        check_labels(&hello.labels)
    }

    fn hello() -> v1::Hello {
        v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            agent_id: "a-1".to_owned(),
            host: "build-7".to_owned(),
            labels: [("team".to_owned(), "core".to_owned())].into(),
            agent_version: "1".to_owned(),
        }
    }

    #[test]
    fn a_newer_protocol_is_refused_with_both_versions() {
        let error = check_hello(&v1::Hello {
            protocol_version: 9,
            ..hello()
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("version 9") && error.contains("speaks 1"),
            "{error}"
        );
    }

    #[test]
    fn hostile_names_are_refused() {
        for agent_id in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(
                check_hello(&v1::Hello {
                    agent_id: agent_id.to_owned(),
                    ..hello()
                })
                .is_err()
            );
        }
        for host in ["", "a\u{1b}[31m", "a\nb"] {
            assert!(
                check_hello(&v1::Hello {
                    host: host.to_owned(),
                    ..hello()
                })
                .is_err()
            );
        }
        for name in ["host", "run", "", "1a", "a b", "ä"] {
            let labels = [(name.to_owned(), String::new())].into();
            assert!(check_hello(&v1::Hello { labels, ..hello() }).is_err(), "{name}");
        }
    }

    #[test]
    fn the_labels_of_the_stream_win_over_those_of_the_agent() {
        let open = v1::OpenStream {
            source: "app".to_owned(),
            instance: "/var/log/app.log".to_owned(),
            path: "/var/log/app.log".to_owned(),
            labels: [("team".to_owned(), "web".to_owned())].into(),
            ..v1::OpenStream::default()
        };
        let labels = compose_labels(&hello(), &open).unwrap();
        let expected = [
            ("agent", "a-1"),
            ("host", "build-7"),
            ("path", "/var/log/app.log"),
            ("source", "app"),
            ("team", "web"),
        ];
        assert!(
            labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .eq(expected)
        );
    }
}
