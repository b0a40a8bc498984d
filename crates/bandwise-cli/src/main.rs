//! The `bandwise` command: parse, call the library, show progress, print.
#![deny(clippy::print_stdout, clippy::print_stderr)] // a closed pipe would end the program; see output.rs

#[macro_use]
mod output;

mod arguments;
mod attack_arguments;
mod commands;
mod device;
mod progress;
mod threads;

use std::process::ExitCode;

use bandwise::{Error, Interrupt};
use clap::Parser;

use arguments::{Arguments, Command};

/// Training and attacks ask for the same large blocks over and over.
#[global_allocator]
static ALLOCATOR: bandwise_kernels::RecyclingAllocator = bandwise_kernels::RecyclingAllocator::new();

/// The result is there, and it is negative.
const NEGATIVE: u8 = 1;
/// Wrong usage or wrong input.
const USAGE: u8 = 2;
/// Stopped by a signal, as shells report it for SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => return output::usage(&message),
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(|| output::Log)
        .without_time()
        .init();
    if let Err(error) = threads::limit() {
        output::explain(format_args!("bandwise: {error}"));
        return ExitCode::from(USAGE);
    }
    let interrupt = Interrupt::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second signal ends the process at once; the first lets the step finish.
        let _ = signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED.into(),
            interrupt.flag().clone(),
        );
        let _ = signal_hook::flag::register(signal, interrupt.flag().clone());
    }
    let finished = run(arguments.command, &interrupt);
    match finished.and_then(|result| output::finish().map(|()| result)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NEGATIVE),
        Err(error @ Error::Interrupted(_)) => {
            output::explain(format_args!("bandwise: {error}"));
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            output::explain(format_args!("bandwise: {error}"));
            ExitCode::from(USAGE)
        }
    }
}

/// Runs one command; `false` for a negative result.
fn run(command: Command, interrupt: &Interrupt) -> bandwise::Result<bool> {
    match command {
        Command::Demo(arguments) => commands::demo::run(&arguments, interrupt),
        Command::Train(arguments) => commands::train::run(&arguments, interrupt),
        Command::Evaluate(arguments) => commands::evaluate::run(&arguments, interrupt),
        Command::Merge(arguments) => commands::merge::run(&arguments),
        Command::Table(arguments) => commands::table::run(&arguments),
        Command::Mask(arguments) => commands::mask::run(&arguments, interrupt.flag()),
        Command::Analyze(arguments) => commands::analyze::run(&arguments, interrupt.flag()),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Corrupt(arguments) => commands::corrupt::run(&arguments, interrupt.flag()),
        Command::Convert(arguments) => commands::convert::run(&arguments),
        Command::Models => commands::models::run(),
        Command::Data(arguments) => commands::data::run(&arguments, interrupt.flag()),
    }
}
