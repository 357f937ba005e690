//! `millstream`: the command line for people and scripts.
//!
//! In the order in which data flows: [`args`] parses, [`when`] understands times, `tail`, `cat`, `ls`,
//! `search` and `control` are the commands, [`print`] turns lines into text, JSON or bytes by way of [`sanitise`]
//! and [`json`], and [`explain`] turns errors into what a person can act on. Everything that speaks to
//! the relay is in the library.

mod args;
mod cat;
mod control;
mod explain;
mod json;
mod ls;
mod print;
mod sanitise;
mod search;
mod table;
mod tail;
mod when;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::task::JoinSet;

use args::{Args, Command};
use explain::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("millstream: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        // On a worker, so that it also works while this thread waits for a full pipe.
        let mut interrupt = JoinSet::new();
        interrupt.spawn(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                // What a shell reports for a program that SIGINT ended.
                std::process::exit(130);
            }
        });
        run(&args).await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        // As grep has it: the status says it.
        Err(failure @ Failure::NothingFound) => ExitCode::from(failure.exit_status()),
        Err(failure) => {
            eprint!("{}", explain::message(&failure));
            ExitCode::from(failure.exit_status())
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Tail(options) => tail::run(args.client().await?, options).await,
        Command::Ls(options) => ls::run(args.client().await?, options).await,
        Command::Cat(options) => cat::run(args.client().await?, options).await,
        Command::Search(options) => search::run(args.client().await?, options).await,
        Command::Start(_) | Command::Stop(_) | Command::Restart(_) | Command::SetArgv(_) => {
            control::run(args.client().await?, &args.command).await
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "millstream", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(Failure::Output)
        }
    }
}
