//! Agent id → `v1::Agent`, encoded as on the wire.

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::LayoutError;

pub(crate) fn ser_key(agent_id: &str) -> Bytes {
    Bytes::copy_from_slice(agent_id.as_bytes())
}

pub(crate) fn deser_key(key: &[u8]) -> Result<&str, LayoutError> {
    std::str::from_utf8(key).map_err(|error| LayoutError::Content {
        what: "agent key",
        cause: error.to_string(),
    })
}

pub(crate) fn ser_value(agent: &v1::Agent) -> Vec<u8> {
    agent.encode_to_vec()
}

pub(crate) fn deser_value(value: Bytes) -> Result<v1::Agent, LayoutError> {
    v1::Agent::decode(value).map_err(|error| LayoutError::Content {
        what: "agent",
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_agent_survives_the_round_trip(agent_id in ".*", host in ".*", connected in any::<i64>()) {
            let agent = v1::Agent { agent_id, host, connected_unix_us: connected, ..Default::default() };
            let key = ser_key(&agent.agent_id);
            prop_assert_eq!(deser_key(&key), Ok(agent.agent_id.as_str()));
            prop_assert_eq!(deser_value(ser_value(&agent).into()), Ok(agent));
        }
    }
}
