//! What browsers say about where a request comes from.
//!
//! A page of somebody else must not use a relay through the browser of a person who can reach it, be it by the
//! person's session or because nobody is asked who they are. Browsers say where a request comes from in `Origin`
//! and `Sec-Fetch-Site`; programs send neither. A name that was made to point at this machine ("DNS rebinding")
//! shows in `Host`.

use http::{HeaderMap, Uri, header};

/// Which pages may call, and by which names the relay is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebPolicy {
    /// Other pages that may call with a token; also in CORS.
    pub(crate) origins: Vec<http::HeaderValue>,
    /// Where people reach the relay, when that is not the address that it sees (a proxy in front).
    pub(crate) public_url: Option<PublicUrl>,
    /// The relay speaks TLS itself.
    pub(crate) has_tls: bool,
}

/// `https://logs.example.com`: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    pub(crate) origin: String,
    pub(crate) authority: String,
}

impl PublicUrl {
    /// `None`: it is not only scheme, host and port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let origin = text.strip_suffix('/').unwrap_or(text);
        let authority = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"))?;
        let is_authority = !authority.is_empty()
            && authority
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte));
        is_authority.then(|| Self {
            origin: origin.to_ascii_lowercase(),
            authority: authority.to_ascii_lowercase(),
        })
    }
}

/// Why a request is not served; a sentence.
pub(crate) type CrossSite = String;

impl PublicUrl {
    /// Such as `https://logs.example.com`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn is_https(&self) -> bool {
        self.origin.starts_with("https://")
    }
}

impl WebPolicy {
    /// Whether the request may come from where the browser says.
    pub(crate) fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossSite> {
        if let Some(origin) = headers.get(header::ORIGIN) {
            if self.origins.contains(origin) || self.is_own(uri, headers, origin.as_bytes()) {
                return Ok(());
            }
            return Err(format!(
                "pages of {} may not call this relay; cors_origins names those that may",
                String::from_utf8_lossy(origin.as_bytes())
                    .chars()
                    .take(200)
                    .collect::<String>()
            ));
        }
        match headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes) {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) => Err("another site made the browser send this request".to_owned()),
        }
    }

    /// Whether the request comes from the relay's own pages, as far as the browser says where it comes from.
    pub(crate) fn check_own_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossSite> {
        match headers.get(header::ORIGIN) {
            Some(origin) if !self.is_own(uri, headers, origin.as_bytes()) => {
                Err("a page of another origin may call this relay with a token of its own only".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The origin by which the browser that sent this reaches the relay, for addresses that somebody else has to
    /// lead it to.
    pub(crate) fn public_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, CrossSite> {
        let said = headers
            .get(header::ORIGIN)
            .and_then(|origin| origin.to_str().ok())
            .filter(|origin| self.is_own(uri, headers, origin.as_bytes()))
            .ok_or("only the relay's own page can begin a login")?;
        match &self.public_url {
            Some(url) if url.origin.eq_ignore_ascii_case(said) => Ok(url.origin.clone()),
            Some(url) => Err(format!(
                "log in at {}: the login provider leads there",
                url.origin
            )),
            // Where nobody configured it, only names of this machine are the relay's without doubt.
            None => {
                self.check_host(uri, headers)?;
                Ok(said.to_ascii_lowercase())
            }
        }
    }

    fn is_own(&self, uri: &Uri, headers: &HeaderMap, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        let origin = origin.to_ascii_lowercase();
        if self.public_url.as_ref().is_some_and(|url| url.origin == origin) {
            return true;
        }
        let authority = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
            (Some(authority), _) => authority,
            (None, Some(authority)) if !self.has_tls => authority,
            _ => return false,
        };
        host(uri, headers).is_some_and(|host| host.eq_ignore_ascii_case(authority))
    }

    /// For a relay that asks nobody who they are: whether it was called by a name of this machine.
    pub(crate) fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossSite> {
        let Some(host) = host(uri, headers) else {
            return Err("the request does not say which host it is for".to_owned());
        };
        let is_public = self
            .public_url
            .as_ref()
            .is_some_and(|url| url.authority.eq_ignore_ascii_case(host));
        if is_public || is_local(host) {
            return Ok(());
        }
        Err(format!(
            "the request is for {}, and this relay, which asks nobody for a token, answers to names of this machine \
             only (127.0.0.1, localhost); set public_url if a proxy is in front",
            host.chars().take(200).collect::<String>()
        ))
    }
}

/// Host and port that the request is for: HTTP/2 has it in the URI, HTTP/1.1 in a header.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST)?.to_str().ok(),
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") || name == "[::1]" {
        return true;
    }
    name.parse::<std::net::Ipv4Addr>()
        .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn policy() -> WebPolicy {
        WebPolicy {
            origins: vec![http::HeaderValue::from_static("https://ci.example.com")],
            public_url: PublicUrl::parse("https://logs.example.com/"),
            has_tls: false,
        }
    }

    fn origin_is_fine(policy: &WebPolicy, pairs: &[(&'static str, &str)]) -> bool {
        policy
            .check_origin(&Uri::from_static("/x"), &headers(pairs))
            .is_ok()
    }

    #[test]
    fn programs_the_own_page_and_the_pages_that_were_named_may_call() {
        for fine in [
            &[("host", "127.0.0.1:7171")][..],
            &[("host", "127.0.0.1:7171"), ("origin", "http://127.0.0.1:7171")],
            &[
                ("host", "127.0.0.1:7171"),
                ("origin", "https://ci.example.com"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[("host", "10.0.0.1"), ("origin", "https://logs.example.com")],
            &[("host", "relay"), ("sec-fetch-site", "same-origin")],
            &[("host", "relay"), ("sec-fetch-site", "none")],
        ] {
            assert!(origin_is_fine(&policy(), fine), "{fine:?}");
        }
    }

    #[test]
    fn no_other_page_may() {
        for foreign in [
            &[("host", "relay:1"), ("origin", "https://evil.example")][..],
            &[("host", "relay:1"), ("origin", "null")],
            &[("host", "relay:1"), ("origin", "https://relay:2")],
            &[("host", "relay:1"), ("origin", "https://relay:1.evil.example")],
            &[
                ("host", "relay:1"),
                ("origin", "https://ci.example.com.evil.example"),
            ],
            &[("host", "relay:1"), ("origin", "ftp://relay:1")],
            &[("host", "relay:1"), ("sec-fetch-site", "cross-site")],
            &[("host", "relay:1"), ("sec-fetch-site", "same-site")],
            &[("host", "relay:1"), ("sec-fetch-site", "something new")],
        ] {
            assert!(!origin_is_fine(&policy(), foreign), "{foreign:?}");
        }
        let tls = WebPolicy {
            has_tls: true,
            ..policy()
        };
        assert!(!origin_is_fine(
            &tls,
            &[("host", "relay"), ("origin", "http://relay")]
        ));
        assert!(origin_is_fine(
            &tls,
            &[("host", "relay"), ("origin", "https://relay")]
        ));
    }

    #[test]
    fn only_names_of_this_machine_are_answered_to_where_nobody_is_asked() {
        let fine = |host| {
            policy()
                .check_host(&Uri::from_static("/"), &headers(&[("host", host)]))
                .is_ok()
        };
        for local in [
            "127.0.0.1",
            "127.0.0.1:7171",
            "127.8.9.1:1",
            "localhost",
            "LOCALHOST:80",
            "[::1]",
            "[::1]:7171",
            "logs.example.com",
        ] {
            assert!(fine(local), "{local}");
        }
        for other in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "10.0.0.1",
            "[::2]:1",
            "evil.example:80",
            "",
            "127.0.0.1:80:80",
        ] {
            assert!(!fine(other), "{other}");
        }
        assert!(
            policy()
                .check_host(&Uri::from_static("/"), &HeaderMap::new())
                .is_err()
        );
        let h2 = Uri::from_static("http://evil.example/x");
        assert!(
            policy()
                .check_host(&h2, &headers(&[("host", "localhost")]))
                .is_err()
        );
    }

    #[test]
    fn what_comes_along_by_itself_counts_for_own_pages_only() {
        let uri = Uri::from_static("/x");
        let check = |pairs| policy().check_own_origin(&uri, &headers(pairs));
        assert!(check(&[("origin", "https://logs.example.com")]).is_ok());
        assert!(check(&[("host", "relay"), ("origin", "https://relay")]).is_ok());
        assert!(check(&[]).is_ok());
        assert!(check(&[("origin", "https://ci.example.com")]).is_err());
    }

    #[test]
    fn a_login_leads_back_to_where_the_configuration_or_this_machine_is() {
        let uri = Uri::from_static("/x");
        let configured =
            |origin| policy().public_origin(&uri, &headers(&[("host", "relay:1"), ("origin", origin)]));
        assert_eq!(
            configured("https://logs.example.com").as_deref(),
            Ok("https://logs.example.com")
        );
        let elsewhere = configured("https://relay:1").unwrap_err();
        assert!(
            elsewhere.contains("log in at https://logs.example.com"),
            "{elsewhere}"
        );
        assert!(configured("https://evil.example").is_err());
        let bare = WebPolicy::default();
        let local = |host, origin| bare.public_origin(&uri, &headers(&[("host", host), ("origin", origin)]));
        assert_eq!(
            local("localhost:7171", "http://localhost:7171").as_deref(),
            Ok("http://localhost:7171")
        );
        assert!(
            local("evil.example", "http://evil.example").is_err(),
            "DNS rebinding"
        );
        assert!(
            bare.public_origin(&uri, &headers(&[("host", "localhost")]))
                .is_err()
        );
    }

    #[test]
    fn a_public_url_is_scheme_host_and_port() {
        for fine in [
            "https://logs.example.com",
            "http://[::1]:80/",
            "https://Logs.example.com:8443",
        ] {
            assert!(PublicUrl::parse(fine).is_some(), "{fine}");
        }
        for bad in [
            "logs.example.com",
            "https://",
            "https://a/b",
            "https://a@b",
            "ftp://a",
            "https://a b",
        ] {
            assert!(PublicUrl::parse(bad).is_none(), "{bad}");
        }
    }
}
