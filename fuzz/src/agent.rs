//! Bodies of the targets that feed the agent: what plugins print and what authors write.
//!
//! A file of its own, because `lib.rs` knows the relay and this knows the agent. `agent/tests/fuzz_seeds.rs`
//! includes it and runs it on every `cargo test`.

use millstream_agent::plugins::manifest::Manifest;
use millstream_agent::plugins::protocol::{self, Message};

/// A line of a plugin's output. What is taken keeps the limits; what is not is told in words.
pub fn plugin_message(data: &[u8]) {
    match protocol::parse(data) {
        Ok(Message::Line(line)) => {
            assert!(!line.text.contains(&b'\n'), "a line is one line");
            assert!(line.stream.len() <= 255);
            assert!(
                line.checkpoint
                    .is_none_or(|checkpoint| checkpoint.len() <= protocol::MAX_CHECKPOINT_BYTES)
            );
        }
        Ok(Message::Checkpoint { checkpoint, .. }) => {
            assert!((1..=protocol::MAX_CHECKPOINT_BYTES).contains(&checkpoint.len()));
        }
        Ok(Message::Status { message, .. }) => assert!(!message.chars().any(char::is_control)),
        Ok(Message::End { .. }) => {}
        Err(problem) => assert!(!problem.is_empty()),
    }
}

/// Text as a manifest. What is good makes a command, with the defaults of its settings.
pub fn plugin_manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Manifest::parse(text) {
        Ok(manifest) => {
            if let Ok(values) = manifest.settings.values(&toml::Table::new()) {
                assert!(
                    !manifest.argv(&values, None).is_empty(),
                    "a command has a program"
                );
                let _ = manifest.argv(&values, Some("resume"));
                let _ = manifest.stream(&values);
                let _ = manifest.environment(&values);
            }
        }
        Err(problem) => assert!(!problem.is_empty()),
    }
}
