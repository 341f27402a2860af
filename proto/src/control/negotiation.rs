//! Offer and policy make an agreement, or a refusal that says why and what to do. Pure: opening the port and making
//! the secrets is the caller's.

use super::message::{
    Agreement, Cipher, HttpsEndpoint, Offer, RatePolicy, Refusal, SecretHalf, Trouble, UdpEndpoint,
};
use super::rate_terms::{Ceiling, RateGrant};
use super::selection::Feature;
use crate::constants::PROTOCOL_VERSION;
use crate::dscp::Dscp;
use crate::units::Rate;

/// What the offer allows to be chosen before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    version: u32,
    cipher: Cipher,
}

/// What the server brings to the agreement.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Name of the session: 16 hexadecimal digits.
    pub session: String,
    /// Program and version.
    pub program: String,
    /// Connection id, 48 random bits.
    pub connection_id: u64,
    /// The server's random half.
    pub secret: SecretHalf,
    /// Where its socket is.
    pub udp: UdpEndpoint,
    /// The most the session may send or receive now.
    pub ceiling: Option<Ceiling>,
    /// Features that the server does not have here, whatever this crate knows.
    pub without: Vec<Feature>,
    /// Where TLS connections go.
    pub https: Option<HttpsEndpoint>,
    /// What the server sends carries this, whatever the client asks for.
    pub dscp: Option<Dscp>,
    /// The receiver will say what it needs of each file.
    pub verdicts: bool,
    /// The single source gets the destination's name.
    pub renamed: bool,
}

/// Whether the client speaks this crate's version.
///
/// # Errors
/// A [`Refusal`] naming what both sides speak.
pub fn check_versions(versions: &[u32]) -> Result<(), Refusal> {
    if versions.contains(&PROTOCOL_VERSION) {
        return Ok(());
    }
    Err(Refusal {
        trouble: Trouble::Incompatible,
        message: format!("the client speaks protocol versions {versions:?}, the server {PROTOCOL_VERSION}"),
        remedy: "install versions of haul and hauld that fit together".to_owned(),
    })
}

/// Chooses version and cipher.
///
/// # Errors
/// A [`Refusal`] naming what both sides speak.
pub fn choose(offer: &Offer) -> Result<Terms, Refusal> {
    let refuse = |message, remedy: &str| {
        Err(Refusal { trouble: Trouble::Incompatible, message, remedy: remedy.to_owned() })
    };
    check_versions(&offer.versions)?;
    if offer.target_rate == Some(Rate::ZERO) {
        return refuse(
            "the client asks for a target rate of zero".to_owned(),
            "leave -l away, or give a rate",
        );
    }
    // Only ciphers known here are read from an offer; the client's order rules.
    match offer.ciphers.first() {
        Some(&cipher) => Ok(Terms { version: PROTOCOL_VERSION, cipher }),
        None => refuse("the client offers no cipher that the server knows".to_owned(), "leave --cipher away"),
    }
}

/// Checks an agreement against the offer that it answers: a server may lower what was asked for, not raise or swap it.
///
/// # Errors
/// A [`Refusal`] naming what does not fit.
pub fn check(offer: &Offer, agreement: &Agreement) -> Result<(), Refusal> {
    let lowered = |wish: Option<Rate>, got: Option<Rate>| match (wish, got) {
        (Some(wish), Some(got)) => got <= wish && got > Rate::ZERO,
        (Some(_), None) => false,
        (None, got) => got != Some(Rate::ZERO),
    };
    let wrong = if !offer.versions.contains(&agreement.version) || agreement.version != PROTOCOL_VERSION {
        "a protocol version"
    } else if !offer.ciphers.contains(&agreement.cipher) {
        "a cipher"
    } else if agreement.digest != offer.digest {
        "a digest"
    } else if !lowered(offer.target_rate, agreement.target_rate) {
        "a target rate"
    } else if agreement.min_rate.is_some_and(|got| offer.min_rate.is_none_or(|wish| got > wish)) {
        "a minimum rate"
    } else if agreement.policy != offer.policy && agreement.policy != RatePolicy::Fair {
        "a rate policy"
    } else if agreement.verdicts && !offer.verdicts {
        "verdicts"
    } else if agreement.session.len() != 16 || !agreement.session.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        "a session name"
    } else if agreement.connection_id >= 1 << 48 {
        "a connection id"
    } else if !agreement.features.iter().all(|feature| offer.features.contains(feature)) {
        "a feature"
    } else {
        return Ok(());
    };
    Err(Refusal {
        trouble: Trouble::Protocol,
        message: format!("the server chose {wrong} that was not offered"),
        remedy: "install versions of haul and hauld that fit together".to_owned(),
    })
}

/// Builds the agreement, clipping rates to what the server allows and saying so.
#[must_use]
pub fn agree(offer: &Offer, terms: Terms, grant: Grant) -> Agreement {
    let RateGrant { policy, target_rate, min_rate, mut changes } =
        offer.rate().granted(grant.ceiling.as_ref());
    // Classes of network control (RFC 4594) are not for a client to choose.
    let wished = offer.dscp.filter(|dscp| dscp.is_for_users());
    let dscp = grant.dscp.or(wished).filter(|&dscp| dscp != Dscp::BEST_EFFORT);
    if let Some(wish) = offer.dscp.filter(|&wish| wish != dscp.unwrap_or_default()) {
        let forced = dscp.unwrap_or_default();
        changes.push(format!("the server marks what it sends with DSCP {forced}, not {wish}"));
    }
    if let Some(wish) = offer.udp_port.filter(|&wish| wish != grant.udp.port) {
        changes.push(format!("UDP port {wish} is not to be had; {} is used", grant.udp.port));
    }
    let mut features = Feature::common(&offer.features);
    features.retain(|feature| !grant.without.contains(feature));
    Agreement {
        version: terms.version,
        program: grant.program,
        session: grant.session,
        connection_id: grant.connection_id,
        cipher: terms.cipher,
        digest: offer.digest,
        udp: grant.udp,
        policy,
        target_rate,
        min_rate,
        dscp,
        https: grant.https.filter(|_| features.contains(&Feature::HttpsCarrier)),
        verdicts: grant.verdicts && offer.verdicts,
        renamed: grant.renamed,
        features,
        changes,
        secret: grant.secret,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Digest, Direction, Overwrite, ResumeCheck};
    use super::*;

    fn offer() -> Offer {
        Offer {
            versions: vec![7, PROTOCOL_VERSION],
            program: "test".into(),
            direction: Direction::Upload,
            sources: Vec::new(),
            source_count: 1,
            destination: super::super::PathText::default(),
            create_destination: false,
            preserve_times: false,
            policy: RatePolicy::Fair,
            target_rate: None,
            min_rate: None,
            ciphers: vec![Cipher::Aes256Gcm, Cipher::Aes128Gcm],
            digest: Digest::Blake3,
            udp_port: None,
            dscp: None,
            overwrite: Overwrite::default(),
            resume: ResumeCheck::default(),
            verdicts: false,
            renamed: false,
            names: Vec::new(),
            features: Vec::new(),
            selection: None,
            token: None,
            after: None,
            secret: SecretHalf::new([1; 32]),
        }
    }

    fn grant() -> Grant {
        Grant {
            session: "0123456789abcdef".into(),
            program: "test".into(),
            connection_id: 1,
            secret: SecretHalf::new([2; 32]),
            udp: UdpEndpoint { port: 33001, addresses: Vec::new() },
            ceiling: None,
            without: Vec::new(),
            https: None,
            dscp: None,
            verdicts: false,
            renamed: false,
        }
    }

    #[test]
    fn a_dscp_is_granted_as_asked_unless_the_server_forces_one() {
        let dscp = |text| Some(Dscp::parse(text).unwrap());
        // asked, forced -> agreed, changes
        let table = [
            (None, None, None, 0),
            (dscp("EF"), None, dscp("EF"), 0),
            (dscp("0"), None, None, 0),
            (dscp("EF"), dscp("CS1"), dscp("CS1"), 1),
            (dscp("EF"), dscp("0"), None, 1),
            (None, dscp("CS1"), dscp("CS1"), 0),
            (dscp("CS1"), dscp("CS1"), dscp("CS1"), 0),
        ];
        for (row, (asked, forced, agreed, changes)) in table.into_iter().enumerate() {
            let offer = Offer { dscp: asked, ..offer() };
            let agreement = agree(&offer, choose(&offer).unwrap(), Grant { dscp: forced, ..grant() });
            assert_eq!((agreement.dscp, agreement.changes.len()), (agreed, changes), "row {row}");
        }
    }

    #[test]
    fn an_agreement_that_was_not_offered_is_refused() {
        let offer = Offer { target_rate: Some(Rate::from_bps(9)), ..offer() };
        let good = agree(&offer, choose(&offer).unwrap(), grant());
        assert_eq!(check(&offer, &good), Ok(()));
        let changes: [fn(&mut Agreement); 8] = [
            |agreement| agreement.version = 2,
            |agreement| agreement.cipher = Cipher::Chacha20Poly1305,
            |agreement| agreement.digest = Digest::None,
            |agreement| agreement.target_rate = Some(Rate::from_bps(10)),
            |agreement| agreement.target_rate = None,
            |agreement| agreement.min_rate = Some(Rate::from_bps(1)),
            |agreement| agreement.policy = RatePolicy::Fixed,
            |agreement| agreement.session = "../../../etc/abc".into(),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut agreement = good.clone();
            change(&mut agreement);
            assert!(check(&offer, &agreement).is_err(), "row {row}");
        }
    }

    #[test]
    fn a_version_unknown_here_is_refused_with_both_named() {
        let refusal = choose(&Offer { versions: vec![8, 9], ..offer() }).unwrap_err();
        assert_eq!(refusal.trouble, Trouble::Incompatible);
        assert!(refusal.message.contains("[8, 9]") && refusal.message.contains('1'), "{}", refusal.message);
        assert!(choose(&Offer { ciphers: Vec::new(), ..offer() }).is_err());
    }
}
