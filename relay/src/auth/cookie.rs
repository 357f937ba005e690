//! The cookies that the relay gives to browsers: none of them can be read by a script.

use http::HeaderMap;
use http::header::COOKIE;

/// How the browser reaches the relay, which decides what a cookie can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieKind {
    /// The browser is on TLS. The names make browsers refuse them from anywhere but this very host over TLS.
    Tls,
    /// On this machine, which browsers trust as they trust TLS.
    Loopback,
    /// TLS was given up: whoever is on the way can copy them.
    Plain,
}

/// What a cookie is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// The secret of a session.
    Session,
    /// The secret that binds a login to the browser that began it. It has to come along when the login provider
    /// sends the browser back, which is another site, so it is `Lax`; it opens nothing.
    Login,
    /// Why the last login failed, for the login page.
    Problem,
}

impl Cookie {
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Session => ["__Host-millstream", "millstream-session"],
            Self::Login => ["__Host-millstream-login", "millstream-login"],
            Self::Problem => ["__Host-millstream-problem", "millstream-problem"],
        }
    }

    fn same_site(self) -> &'static str {
        match self {
            Self::Session | Self::Problem => "Strict",
            Self::Login => "Lax",
        }
    }
}

impl CookieKind {
    fn name(self, cookie: Cookie) -> &'static str {
        let [tls, plain] = cookie.names();
        match self {
            Self::Tls => tls,
            Self::Loopback | Self::Plain => plain,
        }
    }

    /// The value of `Set-Cookie`. The value may have no characters but those of base64url.
    pub(crate) fn set(self, cookie: Cookie, value: &str, lifetime_secs: i64) -> String {
        let secure = if self == Self::Plain { "" } else { "; Secure" };
        format!(
            "{}={value}; Path=/; Max-Age={lifetime_secs}; HttpOnly{secure}; SameSite={}",
            self.name(cookie),
            cookie.same_site()
        )
    }

    /// The value of `Set-Cookie` that makes the browser forget it.
    pub(crate) fn forget(self, cookie: Cookie) -> String {
        self.set(cookie, "", 0)
    }

    /// What a request carries.
    pub(crate) fn read(self, cookie: Cookie, headers: &HeaderMap) -> Option<&str> {
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, value)| *name == self.name(cookie) && !value.is_empty())
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_this_host_alone_and_no_script_reads_it() {
        let cookie = CookieKind::Tls.set(Cookie::Session, "secret", 60);
        for words in [
            "__Host-millstream=secret;",
            "Path=/;",
            "HttpOnly",
            "Secure",
            "SameSite=Strict",
            "Max-Age=60",
        ] {
            assert!(cookie.contains(words), "{cookie}");
        }
        assert!(!cookie.contains("Domain"));
        let set = |kind: CookieKind| kind.set(Cookie::Session, "x", 1);
        assert!(set(CookieKind::Loopback).contains("Secure"));
        assert!(!set(CookieKind::Plain).contains("Secure"));
        assert!(CookieKind::Tls.forget(Cookie::Login).contains("Max-Age=0"));
        assert!(
            CookieKind::Tls
                .set(Cookie::Login, "x", 1)
                .contains("SameSite=Lax")
        );
        let headers = |value: &str| HeaderMap::from_iter([(COOKIE, value.parse().unwrap())]);
        let read = |value: &str| {
            CookieKind::Tls
                .read(Cookie::Session, &headers(value))
                .map(str::to_owned)
        };
        assert_eq!(
            read("a=b; __Host-millstream=secret; c=d").as_deref(),
            Some("secret")
        );
        assert_eq!(read("millstream-session=secret"), None);
        assert_eq!(read("__Host-millstream-login=secret"), None);
        assert_eq!(read("__Host-millstream="), None);
        assert_eq!(read("x__Host-millstream=secret"), None);
    }
}
