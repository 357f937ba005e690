//! The token that tells the relay who is calling.

use std::fmt;
use std::path::PathBuf;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::DialError;

/// Where the token is.
#[derive(Clone, Default)]
pub struct TokenSource(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    Text(String),
    /// Read for each connection.
    File(PathBuf),
}

impl TokenSource {
    /// The token itself; empty: none.
    #[must_use]
    pub fn text(token: impl Into<String>) -> Self {
        match token.into() {
            token if token.is_empty() => Self::default(),
            token => Self(Source::Text(token)),
        }
    }

    /// A file that holds the token and nothing else.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    pub(crate) fn bearer(&self) -> Result<Bearer, DialError> {
        match &self.0 {
            Source::None => Ok(Bearer(None)),
            Source::Text(token) => Bearer::new(token),
            Source::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|cause| DialError::File {
                    what: "the token file",
                    path: path.clone(),
                    cause: cause.to_string(),
                })?;
                Bearer::new(text.trim())
            }
        }
    }
}

impl fmt::Debug for TokenSource {
    /// Says where it is, never what it is.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::None => formatter.write_str("none"),
            Source::Text(_) => formatter.write_str("hidden"),
            Source::File(path) => write!(formatter, "file {}", path.display()),
        }
    }
}

/// Adds the token to every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: &str) -> Result<Self, DialError> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DialError::Token);
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| DialError::Token)?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }

    /// Whether there is a token.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for Bearer {
    /// Says whether there is a token, never which.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "Bearer(hidden)"
        } else {
            "Bearer(none)"
        })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_read_each_time_and_its_end_of_line_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let source = TokenSource::file(&path);
        assert!(source.bearer().unwrap_err().to_string().contains("token file"));
        for token in ["mst_one", "mst_two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            let mut bearer = source.bearer().unwrap();
            let request = bearer.call(Request::new(())).unwrap();
            let sent = request.metadata().get("authorization").unwrap();
            assert_eq!(sent.to_str().unwrap(), format!("Bearer {token}"));
        }
        for bad in ["", "\n", "two words", "ä", "a\nb"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(source.bearer(), Err(DialError::Token)), "{bad:?}");
        }
    }
}
