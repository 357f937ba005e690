//! Who an agent says that it is, and whether the caller may be that one.

use millstream_proto::v1;
use tonic::Status;

use super::check::{self, CheckError};
use crate::auth::Access;
use crate::core::CoreParts;

/// Checks what every call of an agent begins with. The caller's token must allow the agent's host, and the host
/// that the agent had before, or one host could take over the streams of another by its agent's id.
///
/// # Errors
/// The status that ends the call.
pub(crate) fn check_agent(
    parts: &CoreParts,
    access: &Access,
    protocol_version: u32,
    agent_id: &str,
    host: &str,
) -> Result<(), Status> {
    check::check_agent(protocol_version, agent_id, host).map_err(|error| match error {
        CheckError::ProtocolVersion(_) => Status::failed_precondition(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    })?;
    let not_allowed = |host: &str| {
        Status::permission_denied(format!(
            "{} may not send as agent {agent_id} of host {host}: its scope is {}; make a token for that host \
             (`millstream-relay token create --role agent --host {host}`), or set `host` at the agent",
            access.who(),
            access.scope(),
        ))
    };
    if !access.may_send_as(agent_id, host) {
        return Err(not_allowed(host));
    }
    let known: Option<v1::Agent> = parts.agents.get(agent_id);
    match known {
        Some(known) if !access.may_send_as(agent_id, &known.host) => Err(not_allowed(&known.host)),
        _ => Ok(()),
    }
}
