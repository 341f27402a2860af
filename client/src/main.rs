//! The `haul` program.

fn main() -> std::process::ExitCode {
    haul_client::run_cli(std::env::args_os())
}
