//! People whom a reverse proxy knows: it says in a header who they are.
//!
//! The header is believed when the connection comes from an address that the configuration names, and from nobody
//! else. What the person may is decided by the rules for [`people`](super::people).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::Access;
use super::people::{Claims, People, Person, shown};

/// Groups of one person; more are not looked at.
const MAX_GROUPS: usize = 1000;

/// A person's calls end after this and have to be made anew: whom the proxy lets in may have changed.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

const TOO_OLD: &str = "the proxy said long ago who this is; call again";

/// Addresses that begin alike: `10.1.0.0/16`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address and no network; write 10.0.0.5, 10.1.0.0/16 or 2001:db8::/32")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let bad = || NotANetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| bad())?
            }
            Some(_) => return Err(bad()),
        };
        let network = Self { address, prefix };
        // 10.1.2.3/16 is a slip of the pen, and nobody can tell which part of it.
        (prefix <= bits && network.begin(address) == Some(address))
            .then_some(network)
            .ok_or_else(bad)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == bits {
            return write!(formatter, "{}", self.address);
        }
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        self.begin(address) == Some(self.address)
    }

    /// The first address of the network of this size that holds the address; `None`: it is of the other kind.
    fn begin(self, address: IpAddr) -> Option<IpAddr> {
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                Some(IpAddr::V4((address.to_bits() & mask).into()))
            }
            (IpAddr::V6(_), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                Some(IpAddr::V6((address.to_bits() & mask).into()))
            }
            _ => None,
        }
    }

    /// Whether it is the whole Internet.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.prefix == 0
    }

    /// Whether programs of this very machine are in it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback()
            || [IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()]
                .into_iter()
                .any(|local| self.contains(local))
    }
}

/// Whose header is believed, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTrust {
    pub addresses: Vec<Network>,
    pub user_header: HeaderName,
    /// Its value is a list with commas.
    pub groups_header: Option<HeaderName>,
}

/// What a request says about the person behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing.
    Nothing,
    /// It has the header and comes from an address that is not trusted; the header counts for nothing.
    ByAStranger,
    By(Forwarded),
}

/// Who it is, in the proxy's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Forwarded {
    user: String,
    groups: Vec<String>,
}

impl ProxyTrust {
    fn trusts(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| {
            let address = address.to_canonical();
            self.addresses.iter().any(|network| network.contains(address))
        })
    }

    /// # Errors
    /// A sentence: a trusted proxy sent what nobody can be sure of.
    pub(crate) fn read(&self, address: Option<IpAddr>, headers: &HeaderMap) -> Result<Said, String> {
        let groups = self.groups_header.as_ref();
        let has_any = headers.contains_key(&self.user_header)
            || groups.is_some_and(|groups| headers.contains_key(groups));
        if !has_any {
            return Ok(Said::Nothing);
        }
        if !self.trusts(address) {
            return Ok(Said::ByAStranger);
        }
        let Some(user) = single(headers, &self.user_header)? else {
            return Ok(Said::Nothing);
        };
        let groups = match groups {
            Some(name) => single(headers, name)?.unwrap_or_default(),
            None => "",
        };
        // A list of users is what proxies make of two headers.
        if user.is_empty() || user.contains([',', ' ']) {
            return Err(format!(
                "the header {} does not hold one user's name",
                self.user_header
            ));
        }
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
        Ok(Said::By(Forwarded {
            user: user.to_owned(),
            groups: groups.take(MAX_GROUPS).map(str::to_owned).collect(),
        }))
    }
}

/// The one value of a header.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!(
            "the header {name} came twice: the proxy must replace what its callers send, not add to it"
        ));
    }
    let value = value
        .to_str()
        .map_err(|_| format!("the header {name} is not plain ASCII"))?;
    Ok(Some(value.trim()))
}

/// What people may who are known by a header; the calls of one person are calls of one [`Access`].
#[derive(Debug, Default)]
pub(crate) struct ForwardedPeople {
    known: Mutex<HashMap<Forwarded, Known>>,
}

#[derive(Debug)]
struct Known {
    access: Weak<Access>,
    since: Instant,
}

impl ForwardedPeople {
    /// # Errors
    /// The person: no rule lets them in.
    pub(crate) fn access(&self, forwarded: Forwarded, people: &People) -> Result<Arc<Access>, Person> {
        let mut known = self.lock();
        if let Some(access) = known.get(&forwarded).and_then(|known| known.access.upgrade()) {
            return Ok(access);
        }
        let person = Person {
            name: format!("{} (by the proxy)", shown(&forwarded.user)),
            claims: Claims::forwarded(&forwarded.user, forwarded.groups.clone()),
        };
        let Some(access) = people.access(&person) else {
            return Err(person);
        };
        let entry = Known {
            access: Arc::downgrade(&access),
            since: Instant::now(),
        };
        known.insert(forwarded, entry);
        Ok(access)
    }

    /// Forgets who has no call any more, and ends calls that are too old.
    pub(crate) fn sweep(&self) {
        self.sweep_at(Instant::now());
    }

    fn sweep_at(&self, now: Instant) {
        self.lock().retain(|_, known| {
            let Some(access) = known.access.upgrade() else {
                return false;
            };
            let is_young = now.duration_since(known.since) < LIFETIME;
            if !is_young {
                access.withdraw_for_now(TOO_OLD);
            }
            is_young
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Forwarded, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{PersonRule, Role};

    fn trust() -> ProxyTrust {
        ProxyTrust {
            addresses: vec!["10.0.0.5".parse().unwrap(), "10.1.0.0/16".parse().unwrap()],
            user_header: HeaderName::from_static("x-forwarded-user"),
            groups_header: Some(HeaderName::from_static("x-forwarded-groups")),
        }
    }

    fn read(address: &str, pairs: &[(&'static str, &'static str)]) -> Result<Said, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        trust().read(Some(address.parse().unwrap()), &headers)
    }

    const USER: (&str, &str) = ("x-forwarded-user", "ann");

    #[test]
    fn the_header_is_believed_from_the_named_addresses_and_nobody_else() {
        let ann = Said::By(Forwarded {
            user: "ann".to_owned(),
            groups: vec!["ci".to_owned(), "web team".to_owned()],
        });
        let groups = ("x-forwarded-groups", "ci, web team,");
        for trusted in ["10.0.0.5", "10.1.0.0", "10.1.255.255", "::ffff:10.0.0.5"] {
            assert_eq!(read(trusted, &[USER, groups]).as_ref(), Ok(&ann), "{trusted}");
        }
        for stranger in [
            "10.0.0.6",
            "10.2.0.0",
            "10.0.255.255",
            "127.0.0.1",
            "::1",
            "::10.0.0.5",
        ] {
            assert_eq!(read(stranger, &[USER]), Ok(Said::ByAStranger), "{stranger}");
            assert_eq!(read(stranger, &[groups]), Ok(Said::ByAStranger), "{stranger}");
        }
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-user"),
            http::HeaderValue::from_static("ann"),
        )]);
        assert_eq!(trust().read(None, &headers), Ok(Said::ByAStranger));
        assert_eq!(read("10.0.0.5", &[groups]), Ok(Said::Nothing));
        assert_eq!(read("10.0.0.6", &[]), Ok(Said::Nothing));
    }

    #[test]
    fn a_header_that_the_proxy_added_to_the_callers_own_is_refused() {
        for doubtful in [
            &[USER, USER][..],
            &[("x-forwarded-user", "root, ann")],
            &[("x-forwarded-user", "root,ann")],
            &[("x-forwarded-user", "")],
            &[USER, ("x-forwarded-groups", "ops"), ("x-forwarded-groups", "ci")],
        ] {
            assert!(read("10.0.0.5", doubtful).is_err(), "{doubtful:?}");
        }
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-user"),
            http::HeaderValue::from_bytes(b"\xe9").unwrap(),
        )]);
        assert!(trust().read(Some([10, 0, 0, 5].into()), &headers).is_err());
    }

    #[test]
    fn calls_of_one_person_share_their_rights_until_those_are_too_old() {
        let rule = PersonRule::new(
            vec![("user".to_owned(), vec!["ann".to_owned()])],
            Role::Viewer,
            "",
        );
        let people = People::new(vec![rule.unwrap()]);
        let forwarded = |user: &str| Forwarded {
            user: user.to_owned(),
            groups: Vec::new(),
        };
        let known = ForwardedPeople::default();
        let first = known.access(forwarded("ann"), &people).unwrap();
        assert_eq!(first.who(), "ann (by the proxy)");
        assert!(Arc::ptr_eq(
            &first,
            &known.access(forwarded("ann"), &people).unwrap()
        ));
        assert!(known.access(forwarded("bob"), &people).is_err());
        known.sweep_at(Instant::now() + LIFETIME);
        assert_eq!(first.withdrawn(), Some(TOO_OLD));
        let second = known.access(forwarded("ann"), &people).unwrap();
        assert!(!Arc::ptr_eq(&first, &second) && second.withdrawn().is_none());
        drop(second);
        known.sweep();
        assert!(known.lock().is_empty());
    }

    #[test]
    fn a_network_is_an_address_or_the_first_one_and_its_length() {
        for good in [
            "10.0.0.5",
            "10.1.0.0/16",
            "0.0.0.0/0",
            "::1",
            "2001:db8::/32",
            "::/0",
        ] {
            assert_eq!(good.parse::<Network>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "proxy",
            "10.0.0",
            "10.0.0.5/33",
            "10.1.2.3/16",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "::1/64",
            "10.0.0.5:80",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        for (network, is_loopback) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("0.0.0.0/0", true),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().is_loopback(), is_loopback);
        }
    }

    proptest! {
        #[test]
        fn an_address_is_in_a_network_when_their_first_bits_are_the_same(a: u32, b: u32, prefix in 0_u8..=32) {
            let first_bits = |address: u32| format!("{address:032b}")[..usize::from(prefix)].to_owned();
            let begin = format!("{:0<32}", first_bits(a));
            let begin = std::net::Ipv4Addr::from(u32::from_str_radix(&begin, 2).unwrap());
            let network: Network = format!("{begin}/{prefix}").parse().unwrap();
            let is_in = network.contains(std::net::Ipv4Addr::from(b).into());
            prop_assert_eq!(is_in, first_bits(a) == first_bits(b));
        }
    }
}
