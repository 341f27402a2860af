//! The benchmark by hand: `bench SCENARIO`, see `--help`. What it measures is in `haul_tests::bench`.

use std::process::ExitCode;

use haul_tests::bench;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{}", bench::USAGE);
        return ExitCode::SUCCESS;
    }
    match bench::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
