//! Who may do what.
//!
//! In the order in which a request meets them: [`guard`] is the layer in front of everything that the relay
//! serves, [`rules`] the table of what each call needs, [`authority`] decides, by what browsers say about
//! where a request comes from ([`origin`]) and by whose token it carries ([`book`], from the [`token_file`]).
//! People [`login`] with a browser for a [`sessions`] [`cookie`], by a token or by a login provider ([`oidc`]), or
//! are known to a proxy in front ([`forwarded`]); what those may who have no token is a matter of the rules for
//! [`people`]. The [`audit`] says who did what and who was refused.
//! What the caller may see is an [`access`], which a service gets with the call; [`cut`] ends calls when the
//! right to make them ends. Services know `Access` and nothing else of this.

mod access;
mod audit;
mod authority;
mod book;
mod cookie;
mod cut;
mod forwarded;
mod guard;
mod login;
mod oidc;
mod origin;
mod people;
mod role;
pub mod rules;
mod secret;
mod sessions;
mod token_file;

use std::sync::Arc;

use tower::util::MapRequestLayer;

pub use access::Access;
pub use book::TokenUse;
pub use forwarded::{Network, NotANetwork, ProxyTrust};
pub use oidc::{CALLBACK, OidcOptions};
pub use origin::PublicUrl;
pub use people::{PersonRule, RuleError, USER};
pub use role::{Role, UnknownRole};
pub use rules::Rule;
pub use secret::NoRandomness;
pub use token_file::{NewToken, TOKEN_PREFIX, Token, TokenError, TokenFile};

pub(crate) use access::Refusal;
pub(crate) use audit::{Audit, AuditQueue, Event, Trail, from};
pub(crate) use authority::{AuthOptions, Authority};
pub(crate) use cookie::CookieKind;
pub(crate) use guard::{Guard, Report, Side};
pub(crate) use oidc::{Callback, is_this_machine};
pub(crate) use origin::WebPolicy;
pub(crate) use secret::random_id;

/// A layer that lets everybody do everything: for tests and simulations that put a core without a port behind a
/// transport of their own.
#[must_use]
pub fn admit_everybody<B>() -> MapRequestLayer<impl Fn(http::Request<B>) -> http::Request<B> + Clone> {
    let everybody = Access::unrestricted("everybody");
    MapRequestLayer::new(move |mut request: http::Request<B>| {
        request.extensions_mut().insert(Arc::clone(&everybody));
        request
    })
}
