//! Options without an effect, and those that haul will never do: what `-v`, `--explain` and the refusals say of them.

use serde::Serialize;

use super::environment::Environment;
use crate::cli::names::{CipherName, FileChecksum};
use crate::cli::{Cli, Manner};
use crate::error::ClientError;

/// An option that was taken and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// As on the line.
    pub option: &'static str,
    /// Why.
    pub reason: &'static str,
}

const MEASURED: &str = "haul finds what the path can carry by itself";
const OWN_SIZES: &str = "haul chooses its sizes by itself";

/// What of this line has no effect.
pub(super) fn ignored(cli: &Cli, environment: &Environment) -> Vec<Ignored> {
    let (inert, attributes) = (&cli.inert, &cli.attributes);
    let cipher_none = cli.rates.cipher == Some(CipherName::None);
    let other_checksum =
        !matches!(attributes.file_checksum, None | Some(FileChecksum::Blake3 | FileChecksum::None));
    let haul_s_own_prompt = cli.connection.allow_password_prompt;
    let table = [
        ("-T", cli.rates.no_encryption, "the data stays encrypted"),
        ("-c none", cipher_none, "the data stays encrypted"),
        ("-r", inert.recursive, "folders are always copied with what is in them"),
        ("-w", inert.measure.is_some(), MEASURED),
        ("-K", inert.probe_rate.is_some(), MEASURED),
        ("-Z", inert.datagram_size.is_some(), "haul finds the largest datagram the path takes by itself"),
        ("-X", inert.request_size.is_some(), OWN_SIZES),
        ("-g", inert.read_block.is_some(), OWN_SIZES),
        ("-G", inert.write_block.is_some(), OWN_SIZES),
        ("-R", inert.remote_log.is_some(), "the server decides about its log"),
        ("-S", inert.remote_program.is_some(), "the server knows its program"),
        ("-f", inert.configuration.is_some(), "haul reads no configuration of ascp"),
        ("-j", inert.jpeg.is_some(), "haul's fallback is not labelled as pictures"),
        ("--crypt-threads", inert.crypt_threads.is_some(), "haul uses the processors it needs"),
        ("--multi-session-threshold", inert.multi_session_threshold.is_some(), "one session fills the path"),
        ("--skip-dir-traversal-dupes", inert.skip_dir_traversal_dupes, "duplicates are always looked for"),
        ("--apply-local-docroot", inert.apply_local_docroot, "there is no local docroot"),
        ("--faspmgr-io", inert.faspmgr_io, "it is a test aid of ascp"),
        ("--file-checksum", other_checksum, "haul compares BLAKE3 digests of each file in any case"),
        ("--fail-bad-filepass", attributes.fail_bad_filepass, "a wrong password always fails"),
        ("--preserve-creation-time", attributes.preserve_creation_time, "Linux lets nobody set it"),
        ("--allow-password-prompt", haul_s_own_prompt, "haul asks on a terminal only"),
        ("--precalculate-disable", attributes.precalculate_disable, "haul counts while it sends"),
    ];
    let options = table.into_iter().filter(|row| row.1).map(|(option, _, reason)| Ignored { option, reason });
    let variables = environment.without_meaning.iter().copied().filter(|_| cli.manner == Manner::Ascp);
    options.chain(variables.map(|(option, reason)| Ignored { option, reason })).collect()
}

/// Refuses what haul will not do, with the way out.
pub(super) fn refuse_the_impossible(cli: &Cli) -> Result<(), ClientError> {
    let inert = &cli.inert;
    for (given, message, remedy) in [
        (inert.script.is_some(), "-e: haul runs no scripts", "run the script before or after the transfer"),
        (
            inert.ws_connect,
            "--ws-connect: haul's control connection is SSH",
            "leave --ws-connect out, and give the SSH port with -P",
        ),
        (inert.no_read, "--no-read: haul reads what it sends", "leave --no-read out"),
        (
            inert.no_write,
            "--no-write: haul writes what it receives",
            "leave --no-write out; to measure a path, send into a memory file system",
        ),
    ] {
        if given {
            return Err(ClientError::usage(message, remedy));
        }
    }
    Ok(())
}
