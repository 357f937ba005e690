//! `start`, `stop`, `restart` and `set-command`.

use std::io::{self, Write};

use millstream_client::{Client, v1};

use crate::args::Command;
use crate::explain::Failure;
use crate::sanitise;

/// What a command acts on.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Source(v1::SourceTarget),
    Run(String),
}

fn target(text: &str) -> Target {
    match text.split_once('/') {
        Some((agent_id, source)) => Target::Source(v1::SourceTarget {
            agent_id: agent_id.to_owned(),
            source: source.to_owned(),
        }),
        None => Target::Run(text.to_owned()),
    }
}

/// The agent may be named by its host, where one agent only has that source, or there is one only.
async fn resolve(client: &Client, target: Target) -> Result<Target, Failure> {
    let Target::Source(mut source) = target else {
        return Ok(target);
    };
    let agents = client.list_agents().all().await?;
    if agents.iter().any(|agent| agent.agent_id == source.agent_id) {
        return Ok(Target::Source(source));
    }
    let is_of_host = |agent: &&v1::Agent| agent.host == source.agent_id;
    // A host has an agent more for each build that is wrapped there now; those report no sources.
    let has_source = |agent: &&v1::Agent| agent.sources.iter().any(|each| each.source == source.source);
    let mut of_host: Vec<&v1::Agent> = agents.iter().filter(is_of_host).filter(has_source).collect();
    if of_host.is_empty() {
        of_host = agents.iter().filter(is_of_host).collect();
    }
    let of_host: Vec<&str> = of_host.iter().map(|agent| agent.agent_id.as_str()).collect();
    match of_host.as_slice() {
        // The relay says that there is none.
        [] => {}
        [agent_id] => source.agent_id = (*agent_id).to_owned(),
        several => {
            return Err(Failure::Usage(format!(
                "host {} has several agents; name one: {}",
                sanitise::plain(&source.agent_id),
                several.join(", ")
            )));
        }
    }
    Ok(Target::Source(source))
}

fn source(target: Target, text: &str) -> Result<v1::SourceTarget, Failure> {
    match target {
        Target::Source(source) => Ok(source),
        Target::Run(_) => Err(Failure::Usage(format!(
            "`{}` names no source: write HOST/SOURCE or AGENT/SOURCE; `millstream ls agents` shows the agents",
            sanitise::plain(text)
        ))),
    }
}

/// Runs one of the control commands.
pub(crate) async fn run(client: Client, command: &Command) -> Result<(), Failure> {
    let mut control = client.control();
    let mut out = io::stdout();
    match command {
        Command::Start(args) => {
            let target = resolve(&client, target(&args.target)).await?;
            let request = v1::StartRequest {
                target: Some(source(target, &args.target)?),
            };
            let response = control.start(request).await;
            let run = response
                .map_err(|status| client.error(&status, "starting"))?
                .into_inner()
                .run;
            writeln!(out, "started {}", run_id(run))?;
        }
        Command::Stop(args) => {
            use v1::stop_request::Target as Wire;
            let target = match resolve(&client, target(&args.target)).await? {
                Target::Source(source) => Wire::Source(source),
                Target::Run(run_id) => Wire::RunId(run_id),
            };
            let response = control.stop(v1::StopRequest { target: Some(target) }).await;
            response.map_err(|status| client.error(&status, "stopping"))?;
            writeln!(out, "stopped")?;
        }
        Command::Restart(args) => {
            use v1::restart_request::Target as Wire;
            let target = match resolve(&client, target(&args.target)).await? {
                Target::Source(source) => Wire::Source(source),
                Target::Run(run_id) => Wire::RunId(run_id),
            };
            let response = control.restart(v1::RestartRequest { target: Some(target) }).await;
            let run = response
                .map_err(|status| client.error(&status, "restarting"))?
                .into_inner()
                .run;
            writeln!(out, "restarted as {}", run_id(run))?;
        }
        Command::SetArgv(args) => {
            let target = resolve(&client, target(&args.target)).await?;
            let request = v1::SetCommandRequest {
                target: Some(source(target, &args.target)?),
                argv: args.argv.clone(),
                expected_argv: args.expect.clone(),
            };
            let response = control.set_command(request).await;
            let response = response.map_err(|status| client.error(&status, "changing commands"))?;
            let previous = response.into_inner().previous_argv.join(" ");
            writeln!(out, "changed; it was: {}", sanitise::plain(&previous))?;
        }
        _ => return Err(Failure::Usage("this is not a control command".to_owned())),
    }
    Ok(())
}

fn run_id(run: Option<v1::Run>) -> String {
    run.map_or_else(|| "a run".to_owned(), |run| sanitise::plain(&run.run_id))
}
