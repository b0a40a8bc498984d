//! The `bandwise` command: parse, call the library, show progress, print.
#![deny(clippy::print_stdout, clippy::print_stderr)] // a closed pipe would end the program; see output.rs

#[macro_use]
mod output;

mod arguments;
mod attack_arguments;
mod commands;
mod device;
mod official;
mod progress;
mod threads;

use std::process::ExitCode;

use bandwise::{Error, Interrupt};
use clap::{Parser, Subcommand};

/// Train, attack and explain image classifiers through the frequency domain.
#[derive(Parser)]
#[command(name = "bandwise", version, arg_required_else_help = true)]
#[command(after_help = "Start with `bandwise demo`: three networks, their robustness and their frequency \
                        preference, and a report, in about two minutes.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train three networks (plain, frequency-regularized, adversarial) on built-in images, compare them, report
    Demo(commands::demo::DemoArguments),
    /// Train the network that a recipe describes
    Train(Box<commands::train::TrainArguments>),
    /// Measure accuracy, clean, under attack or under corruptions, with confidence intervals
    #[command(visible_alias = "test")]
    Evaluate(Box<commands::evaluate::EvaluateArguments>),
    /// Put the journals of evaluation shares together
    Merge(commands::merge::MergeArguments),
    /// Accuracies from a journal, or a paired comparison of two
    Table(commands::table::TableArguments),
    /// Learn which input frequencies a network needs (Fourier masks)
    Mask(Box<commands::mask::MaskArguments>),
    /// Look at what trained networks do with frequencies: heat maps, bands, perturbations, features
    Analyze(Box<commands::analyze::AnalyzeArguments>),
    /// Make one HTML report out of one or several runs
    Report(commands::report::ReportArguments),
    /// Write corrupted versions of a data set as files in the layout of CIFAR-10-C, or compare with published ones
    Corrupt(commands::corrupt::CorruptArguments),
    /// Turn weights of one file format into another
    Convert(commands::convert::ConvertArguments),
    /// List the architectures
    Models,
    /// Look at data sets
    Data(commands::data::DataArguments),
}

/// Training and attacks ask for the same large blocks over and over, which the system's allocator gives back and clears.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        Command::Mask(arguments) => commands::mask::run(&arguments, interrupt),
        Command::Analyze(arguments) => commands::analyze::run(&arguments, interrupt),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Corrupt(arguments) => commands::corrupt::run(&arguments, interrupt),
        Command::Convert(arguments) => commands::convert::run(&arguments),
        Command::Models => commands::models::run(),
        Command::Data(arguments) => commands::data::run(&arguments, interrupt),
    }
}
