//! From the options to the plan: defaults, old spellings, contradictions.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use clap::ValueEnum;

use super::*;
use crate::cli::names::{CarrierName, DigestName, Fallback};
use crate::cli::values::RateWish;
use crate::operands::Listing;
use crate::sanitize;

/// Drivers pad or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn plan(cli: &Cli, environment: Environment) -> Result<Plan, ClientError> {
    notes::refuse_the_impossible(cli)?;
    let old = OldOptions::of(cli)?;
    let mut ignored = notes::ignored(cli, &environment);
    let rates = rates(cli, &mut ignored)?;
    let (route, host, user) = route(cli)?;
    let connection = &cli.connection;
    Ok(Plan {
        manner: cli.manner,
        peer: Peer {
            host,
            user,
            ssh_port: connection.ssh_port,
            udp_port: connection.udp_port,
            ipv6_only: connection.ipv6,
        },
        route,
        rates,
        selection: selection(cli, &old)?,
        resume: resume(cli, &old),
        attributes: attributes(cli),
        around: around(cli)?,
        manifest: manifest(cli)?,
        file_crypt: cli.attributes.file_crypt,
        carrier: carrier(cli)?,
        login: login(cli, &environment),
        application: application(cli, &environment)?,
        management: management(cli),
        environment,
        dry_run: cli.selection.dry_run,
        ignored,
    })
}

/// The operands, with what stands for them in other options.
fn route(cli: &Cli) -> Result<(PlannedRoute, String, Option<String>), ClientError> {
    let (connection, selection) = (&cli.connection, &cli.selection);
    let mut paths = cli.paths.clone();
    if selection.dest64
        && let Some(last) = paths.last_mut()
    {
        *last = decoded("--dest64", &last.to_string_lossy())?;
    }
    let prefix = match (&selection.source_prefix, &selection.source_prefix64) {
        (Some(prefix), _) => Some(prefix.clone()),
        (None, Some(text)) => Some(decoded("--source-prefix64", text)?),
        (None, None) => None,
    };
    let listing = match (&selection.file_list, &selection.file_pair_list, cli.output.keepalive) {
        (Some(path), ..) => Listing::List(path.clone()),
        (None, Some(path), _) => Listing::Pairs(path.clone()),
        (None, None, true) => Listing::Managed,
        (None, None, false) => Listing::Operands,
    };
    operands::sort(&Operands {
        paths: &paths,
        program: cli.manner.program(),
        host: connection.host.as_deref(),
        user: connection.user.as_deref(),
        mode: connection.mode,
        listing,
        prefix: prefix.as_deref(),
    })
}

/// Text in base64, for names that no shell or program shall touch.
fn decoded(option: &'static str, text: &str) -> Result<OsString, ClientError> {
    BASE64.decode(text.trim()).map(OsString::from_vec).map_err(|_| {
        let shown = sanitize::text(text);
        ClientError::usage(format!("{option}: `{shown}` is not base64"), "encode it, as `base64 -w0` does")
    })
}

/// `-o NAME=VALUE`.
#[derive(Debug, Default)]
struct OldOptions {
    overwrite: Option<Overwrite>,
    precalculate: Option<bool>,
}

impl OldOptions {
    fn of(cli: &Cli) -> Result<Self, ClientError> {
        let mut options = Self::default();
        for old in &cli.inert.old {
            let wrong = |known: &str| {
                let shown = sanitize::text(&format!("{}={}", old.name, old.value));
                ClientError::usage(format!("-o {shown} is not known"), format!("known are {known}"))
            };
            match old.name.as_str() {
                "overwrite" => {
                    let value = Overwrite::from_str(&old.value, true);
                    options.overwrite = Some(value.map_err(|_| wrong("never, always, diff, older"))?);
                }
                "precalculatejobsize" => {
                    options.precalculate = match old.value.to_ascii_lowercase().as_str() {
                        "yes" => Some(true),
                        "no" => Some(false),
                        _ => return Err(wrong("yes and no")),
                    }
                }
                _ => return Err(wrong("Overwrite and PreCalculateJobSize")),
            }
        }
        Ok(options)
    }
}

fn rates(cli: &Cli, ignored: &mut Vec<Ignored>) -> Result<Rates, ClientError> {
    let options = &cli.rates;
    let mut bits = |option, wish: Option<RateWish>| match wish {
        None => Ok(None),
        Some(RateWish::Bits(rate)) => Ok(Some(rate).filter(|rate| *rate > Rate::ZERO)),
        Some(RateWish::Percent(100.0)) if option == "-l" => {
            let reason = "the whole path is what haul takes without -l";
            ignored.push(Ignored { option: "-l 100%", reason });
            Ok(None)
        }
        Some(RateWish::Percent(_)) => Err(ClientError::usage(
            format!("{option}: haul does not take a share of the path's capacity"),
            "give a rate, for example -l 300m; or --policy low, which leaves the path to others",
        )),
    };
    let (target, minimum) = (bits("-l", options.target_rate)?, bits("-m", options.min_rate)?);
    let policy = match (options.policy, options.adaptive) {
        (Some(policy), _) => policy.into(),
        (None, 0 | 1) => RatePolicy::Fair,
        (None, _) => RatePolicy::Low,
    };
    if policy == RatePolicy::Fixed && target.is_none() {
        return Err(ClientError::usage(
            "policy fixed needs a rate",
            "add the target rate, for example -l 300m",
        ));
    }
    if minimum.zip(target).is_some_and(|(minimum, target)| minimum > target) {
        return Err(ClientError::usage(
            "the minimum rate -m is above the target rate -l",
            "lower -m or raise -l",
        ));
    }
    let cipher = options.cipher.and_then(crate::cli::names::CipherName::cipher);
    let digest = options.digest.map_or(Digest::Blake3, |name: DigestName| name.into());
    Ok(Rates { policy, target, minimum, dscp: options.dscp, cipher, digest })
}

fn selection(cli: &Cli, old: &OldOptions) -> Result<Selection, ClientError> {
    let options = &cli.selection;
    let src_base = match (&options.src_base, &options.src_base64) {
        (Some(base), _) => Some(base.clone()),
        (None, Some(text)) => Some(decoded("--src-base64", text)?),
        (None, None) => None,
    };
    let filter = |filter: &crate::cli::Filter| {
        let pattern = PathText::new(filter.pattern.as_bytes());
        if filter.include { FilterRule::Include(pattern) } else { FilterRule::Exclude(pattern) }
    };
    let moment = |seconds: i64| match u64::try_from(seconds) {
        Ok(seconds) => Moment::SinceEpoch(seconds),
        Err(_) => Moment::SecondsAgo(seconds.unsigned_abs()),
    };
    let listed = options.file_list.is_some() || options.file_pair_list.is_some();
    let attributes = &cli.attributes;
    let asked = (attributes.precalculate_job_size || attributes.precalculate_disable)
        .then_some(attributes.precalculate_job_size);
    Ok(Selection {
        // Lists make their destination, as ascp's do.
        create_destination: options.create_destination || listed,
        src_base: src_base.map(|base| PathText::new(base.into_vec())),
        filters: cli.filters.iter().map(filter).collect(),
        exclude_newer_than: options.exclude_newer_than.map(moment),
        exclude_older_than: options.exclude_older_than.map(moment),
        symbolic_links: options.symbolic_links.unwrap_or_default(),
        skip_special_files: options.skip_special_files,
        byte_range: cli.rates.byte_range,
        session_share: cli.rates.session_share,
        precalculate: asked.or(old.precalculate),
    })
}

fn resume(cli: &Cli, old: &OldOptions) -> Resume {
    let options = &cli.resume;
    let (level, retry) = match cli.manner {
        Manner::Haul => (ResumeLevel::Digest, !options.no_retry),
        Manner::Ascp => (ResumeLevel::StartOver, options.retry),
    };
    Resume {
        level: options.resume.unwrap_or(level),
        overwrite: options.overwrite.or(old.overwrite).unwrap_or_default(),
        save_before_overwrite: options.save_before_overwrite,
        partial_file_suffix: options.partial_file_suffix.clone().filter(|suffix| !suffix.is_empty()),
        retry,
        retry_timeout: options.retry_timeout,
    }
}

fn attributes(cli: &Cli) -> Attributes {
    let options = &cli.attributes;
    Attributes {
        modification_time: options.preserve_times || options.preserve_modification_time,
        access_time: options.preserve_times || options.preserve_access_time,
        source_access_time: options.preserve_source_access_time,
        owner: options.preserve_file_owner_uid,
        group: options.preserve_file_owner_gid,
        acls: options.preserve_acls.unwrap_or_default(),
        xattrs: options.preserve_xattrs.unwrap_or_default(),
        remote_acls: options.remote_preserve_acls.unwrap_or_default(),
        remote_xattrs: options.remote_preserve_xattrs.unwrap_or_default(),
    }
}

fn around(cli: &Cli) -> Result<Around, ClientError> {
    let options = &cli.attributes;
    if options.remove_after_transfer && options.move_after_transfer.is_some() {
        return Err(ClientError::usage(
            "sources can be removed or moved after the transfer, not both",
            "leave out --remove-after-transfer or --move-after-transfer",
        ));
    }
    Ok(Around {
        delete_before: options.delete_before_transfer,
        remove_after: options.remove_after_transfer,
        move_after: options.move_after_transfer.clone(),
        remove_empty_directories: options.remove_empty_directories,
        remove_empty_source_directory: options.remove_empty_source_directory,
        remove_skipped: options.remove_skipped,
    })
}

fn manifest(cli: &Cli) -> Result<Option<FileManifest>, ClientError> {
    let options = &cli.attributes;
    match options.file_manifest {
        Some(ManifestKind::Text) => Ok(Some(FileManifest {
            directory: options.file_manifest_path.clone(),
            in_progress_suffix: options.file_manifest_inprogress_suffix.clone(),
            checksum: options.file_checksum,
        })),
        Some(ManifestKind::None) => Ok(None),
        None if options.file_manifest_path.is_some() => {
            Err(ClientError::usage("--file-manifest-path without a manifest", "add --file-manifest=text"))
        }
        None => Ok(None),
    }
}

/// ascp's `-y` and our `--carrier` are two words for one thing; ours is the finer one.
fn carrier(cli: &Cli) -> Result<CarrierPlan, ClientError> {
    let options = &cli.carrier;
    let choice = match (options.carrier, options.fallback, cli.manner) {
        (Some(CarrierName::Udp), ..) | (None, Some(Fallback::Off), _) => CarrierChoice::Udp,
        (Some(CarrierName::Https), ..) | (None, Some(Fallback::Force), _) => CarrierChoice::Https,
        (Some(CarrierName::Ssh), ..) => CarrierChoice::Ssh,
        (Some(CarrierName::Auto), ..) | (None, _, _) => CarrierChoice::Auto,
    };
    if options.proxy.as_deref().is_some_and(|proxy| proxy.starts_with("dnat")) {
        return Err(ClientError::usage(
            "--proxy: haul does not speak the protocol of Aspera's forward proxy (dnat)",
            "give an HTTP proxy, as --proxy http://proxy:3128",
        ));
    }
    Ok(CarrierPlan {
        choice,
        port: options.fallback_port,
        streams: options.fallback_streams,
        proxy: options.proxy.clone(),
        fallback_proxy: options.fallback_proxy.clone(),
        tls_key: options.fallback_key.clone(),
        tls_certificate: options.fallback_certificate.clone(),
    })
}

fn login(cli: &Cli, environment: &Environment) -> LoginPlan {
    let options = &cli.connection;
    let text = |argument: &OsString| PathText::new(argument.as_bytes());
    LoginPlan {
        identities: options.identity.iter().map(|path| path_text(path)).collect(),
        fingerprint: options.check_sshfp.clone(),
        strict_host_key: options.strict_host_key,
        ignore_host_key: options.ignore_host_key,
        ssh_command: options
            .ssh_command
            .clone()
            .or_else(|| (!options.ssh_arg.is_empty()).then(|| OsStr::new("ssh").to_owned()))
            .or_else(|| environment.ssh_command.clone()),
        ssh_arguments: options.ssh_arg.iter().map(text).collect(),
    }
}

fn management(cli: &Cli) -> Option<Management> {
    let (port, keepalive) = (cli.output.management_port, cli.output.keepalive);
    (port.is_some() || keepalive).then_some(Management { port, keepalive })
}

fn application(cli: &Cli, environment: &Environment) -> Result<Application, ClientError> {
    let options = &cli.connection;
    let wrong = |option: &str| {
        ClientError::usage(format!("{option} holds no JSON"), "give one JSON object, in base64 to --tags64")
    };
    let tags = match (&options.tags, &options.tags64) {
        (Some(text), _) => Some(serde_json::from_str(text).map_err(|_| wrong("--tags"))?),
        (None, Some(text)) => {
            let text = decoded("--tags64", text)?;
            Some(serde_json::from_slice(text.as_bytes()).map_err(|_| wrong("--tags64"))?)
        }
        (None, None) => None,
    };
    let token = options.token.as_ref().map(|token| Secret::new(token.clone().into_bytes()));
    Ok(Application {
        token: token.or_else(|| environment.token.clone()),
        user_string: options.user_string.clone(),
        cookie: environment.cookie.clone(),
        tags,
    })
}
