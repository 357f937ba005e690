//! Where a login leads back to: always a view of the relay's own web client.

/// Longest path that is remembered, in bytes.
const MAX_BYTES: usize = 2048;

/// A path of the web client, with its query and fragment, such as `/streams/7#L12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnPath(String);

impl OwnPath {
    /// The path, or the first page for whatever is none: another host in any of the spellings that browsers know
    /// (`//host`, `/\host`, a tab in between), a download, or too long.
    pub(crate) fn or_home(text: &str) -> Self {
        let path = text.split(['?', '#']).next().unwrap_or_default();
        let is_own = text.len() <= MAX_BYTES
            && text.starts_with('/')
            && !path.contains("//")
            && !path.starts_with("/api/")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        Self(if is_own { text } else { "/" }.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_view_is_kept_and_everything_else_is_the_first_page() {
        for own in [
            "/",
            "/streams/7?x=https://a//b#L12",
            "/a/b-c_d%20e",
            "/?find=%2F%2F",
        ] {
            assert_eq!(OwnPath::or_home(own).as_str(), own);
        }
        for other in [
            "",
            "x",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "///evil.example",
            "/.//evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "/é",
            "/a b",
            "/api/streams/1/raw",
            "/a\r\nset-cookie: x=y",
            &format!("/{}", "a".repeat(MAX_BYTES)),
        ] {
            assert_eq!(OwnPath::or_home(other).as_str(), "/", "{other:?}");
        }
    }

    proptest! {
        /// Judged by the parser of URLs that the login itself uses, which reads them as browsers do.
        #[test]
        fn a_browser_stays_on_the_relay(text in "[/\\\\:@?#a.\t\n%2f ]{0,12}|\\PC{0,12}") {
            let base = openidconnect::url::Url::parse("https://relay.example/api/login/oidc/callback").unwrap();
            let led_to = base.join(OwnPath::or_home(&text).as_str()).unwrap();
            prop_assert_eq!(led_to.origin(), base.origin());
        }
    }
}
