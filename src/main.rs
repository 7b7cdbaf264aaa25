//! The program: what was typed, to the part that does it, to an exit code.

use std::process::ExitCode;

use clap::Parser;
use rstscope::cli::Cli;
use rstscope::config::Config;
use rstscope::{control, explain, notice, read};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let typed = Cli::parse();
    let command = typed.command.name();
    let config = match Config::resolve(typed) {
        Ok(config) => config,
        Err(error) => {
            notice::error(format_args!("{error}\nTry 'rstscope {command} --help'."));
            return ExitCode::from(error.exit_code());
        }
    };
    let result = match config {
        Config::Read(config) => return ExitCode::from(read::run(&config)),
        Config::Explain(config) => return ExitCode::from(explain::run(&config)),
        Config::Schema(dataset) => return ExitCode::from(control::schema::run(dataset)),
        Config::Run(config) => control::run(&config),
        Config::Stats(pid) => return ExitCode::from(control::stats::run(pid)),
        Config::Checked(path) => return ExitCode::from(control::texts::checked(&path)),
        Config::Printed(text) => return ExitCode::from(control::texts::print(&text)),
        Config::Completions(shell) => return ExitCode::from(control::texts::completions(shell)),
        Config::Man(folder) => return ExitCode::from(control::texts::manual(&folder)),
        Config::Doctor(config) => return ExitCode::from(control::doctor::run(&config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            notice::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
