//! The binary `kontiki`: a node (`serve`), its command line (`append`, `read`, `tail`, `status`), what makes a cluster
//! (`init`), and one to play with (`demo`).
//!
//! Data goes to standard output, everything else to standard error; the exit code comes from the one table of
//! [`kontiki::Code`].

mod admission;
mod api;
mod append;
mod base64;
mod cli;
mod client;
mod config_file;
mod demo;
mod failure;
mod frames;
mod http;
mod init;
mod input;
mod interrupts;
mod json_lines;
mod lines;
mod logging;
mod nearest;
mod output;
mod pieces;
mod range;
mod read;
mod serve;
mod status;
mod tail;
mod units;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use failure::{Failure, Stop};
use kontiki::Code;
use output::say;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let Cli { command, log } = Cli::parse();
    let Some(command) = command else { return help() };
    let level = if matches!(command, Command::Serve(_)) {
        LevelFilter::INFO
    } else {
        LevelFilter::OFF
    };
    if let Err(failure) = logging::start(log, level) {
        say!("kontiki: {failure}");
        return ExitCode::from(failure.code.exit_code());
    }
    let code = match run(&command) {
        Ok(()) | Err(Stop::ReaderGone) => ExitCode::SUCCESS,
        Err(Stop::Said(code)) => ExitCode::from(code.exit_code()),
        Err(Stop::Failed(failure)) => {
            tell(&command, &failure);
            ExitCode::from(failure.code.exit_code())
        }
    };
    logging::finish();
    code
}

/// Says why a command failed. A node that ends does not wait for the reader of standard error; any other command does.
fn tell(command: &Command, failure: &Failure) {
    match command {
        Command::Serve(_) => logging::put(&format!("kontiki: {failure}")),
        _ => say!("kontiki: {failure}"),
    }
}

fn run(command: &Command) -> Result<(), Stop> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => wait(demo::run(args)),
        Command::Append(args) => wait(append::run(args)),
        Command::Read(args) => wait(while_read(read::read(args))),
        Command::Tail(args) => wait(while_read(tail::tail(args))),
        Command::Status(args) => wait(status::run(args)),
    }
}

/// Runs a command that waits for others.
fn wait(command: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Code::Io, format!("cannot start: {error}")))?;
    let ended = runtime.block_on(command);
    // A thread that reads standard input may never come back.
    runtime.shutdown_background();
    ended
}

/// Runs a command whose only use is its output: it ends with the reader of standard output.
async fn while_read(command: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    tokio::select! {
        ended = command => ended,
        () = output::reader_gone() => Err(Stop::ReaderGone),
    }
}

fn help() -> ExitCode {
    match Cli::command().print_help() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
