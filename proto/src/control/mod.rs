//! The control conversation inside SSH: messages, their text form, and the negotiation.
//!
//! The conversation is short: the client sends an [`Offer`], the server answers with an [`Agreement`] or a [`Refusal`];
//! while
//! the data moves, other rate settings may be wished for ([`RateTerms`]) and granted ([`RateGrant`]); after it has moved
//! the receiver tells the [`Outcome`]. Either side may [`Cancel`] at any time.

mod after;
mod codec;
mod message;
pub mod negotiation;
mod path_text;
mod rate_terms;
mod selection;
mod token;

pub use after::{AfterTransfer, MAX_STORED_RANGES, StoredFiles};
pub use codec::{LineDecoder, MAX_LINE_BYTES, encode_line, mark_frames, read_line};
pub use message::*;
pub use path_text::PathText;
pub use rate_terms::{Ceiling, RateGrant, RateTerms};
pub use selection::{
    Feature, LinkMode, MAX_FILTER_BYTES, MAX_FILTERS, MAX_SOURCES, MAX_SOURCES_BYTES, Selection, Sources,
};
pub use token::Token;
