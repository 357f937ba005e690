//! `millstream-relay token …`: works on the file in the data directory, whether the relay runs or not.

use millstream_relay::auth::{NewToken, Role, Token, TokenError, TokenFile, TokenUse};
use millstream_relay::config::Config;

use crate::cli::{CreateToken, Lifetime, TokenCommand};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot use the data directory {path}: {cause}; name the relay's with --data-dir")]
    DataDir { path: String, cause: std::io::Error },
    #[error(
        "an agent's token is for one host: give --host HOST (globs such as build-* are allowed), or a --scope; \
         --scope host for any host"
    )]
    NoHost,
    #[error("--host and --source are for agents; narrow what a {0} may see with --scope")]
    NotForReaders(Role),
}

/// A token of a person is no longer than this valid unless it is asked for, seconds.
const DEFAULT_LIFETIME_SECS: i64 = 90 * 86400;

pub(crate) fn run(command: &TokenCommand, config: &Config) -> Result<(), Failure> {
    let file = TokenFile::in_data_dir(&config.data_dir);
    match command {
        TokenCommand::Create(wish) => {
            std::fs::create_dir_all(&config.data_dir).map_err(|cause| Failure::DataDir {
                path: config.data_dir.display().to_string(),
                cause,
            })?;
            create(&file, wish, config)
        }
        TokenCommand::List => list(&file),
        TokenCommand::Revoke { token } => {
            let revoked = file.revoke(token)?;
            eprintln!(
                "{} is revoked; a relay that runs on this data directory ends its calls within a second",
                revoked.display_name()
            );
            Ok(())
        }
    }
}

fn create(file: &TokenFile, wish: &CreateToken, config: &Config) -> Result<(), Failure> {
    let new = NewToken {
        name: wish.name.clone(),
        role: wish.role,
        scope: scope(wish)?,
        lifetime_secs: match wish.expires {
            Some(Lifetime::Seconds(seconds)) => Some(seconds),
            Some(Lifetime::Forever) => None,
            None if wish.role == Role::Agent => None,
            None => Some(DEFAULT_LIFETIME_SECS),
        },
    };
    let (token, text) = file.create(new)?;
    eprintln!(
        "{}: role {}, {}, valid {}. This is the only time that it is shown:",
        token.display_name(),
        token.role,
        scope_words(&token),
        token.expires_unix.map_or_else(
            || "until it is revoked".to_owned(),
            |at| format!("until {}", time(at))
        )
    );
    println!("{text}");
    if !config.access.asks {
        eprintln!("note: with this configuration the relay asks nobody for a token; set auth = true");
    }
    Ok(())
}

/// The scope as a selector; what `--host` and `--source` say is part of it.
fn scope(wish: &CreateToken) -> Result<String, Failure> {
    if wish.role != Role::Agent && (wish.host.is_some() || !wish.source.is_empty()) {
        return Err(Failure::NotForReaders(wish.role));
    }
    if wish.role == Role::Agent && wish.host.is_none() && wish.scope.trim().is_empty() {
        return Err(Failure::NoHost);
    }
    let host = wish.host.iter().map(|host| format!("host={host}"));
    let sources = (!wish.source.is_empty()).then(|| format!("source in ({})", wish.source.join(",")));
    let given = (!wish.scope.trim().is_empty()).then(|| wish.scope.trim().to_owned());
    Ok(host.chain(sources).chain(given).collect::<Vec<_>>().join(","))
}

fn list(file: &TokenFile) -> Result<(), Failure> {
    let tokens = file.read()?;
    if tokens.is_empty() {
        eprintln!("there are no tokens; `millstream-relay token create` makes one");
        return Ok(());
    }
    let used = TokenUse::read(file).last_used_unix;
    let now = jiff::Timestamp::now().as_second();
    let mut rows = vec![["ID", "NAME", "ROLE", "SCOPE", "VALID", "LAST USED"].map(str::to_owned)];
    for token in tokens {
        let last = used.get(&token.id).copied().filter(|at| *at > 0);
        let scope = scope_words(&token);
        let valid = validity(&token, now);
        let last = last.map_or_else(|| "never".to_owned(), time);
        rows.push([token.id, token.name, token.role.to_string(), scope, valid, last]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let line: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", line.join("  ").trim_end());
    }
    Ok(())
}

fn validity(token: &Token, now: i64) -> String {
    match (token.revoked_unix, token.expires_unix) {
        (Some(at), _) => format!("revoked {}", time(at)),
        (None, Some(at)) if at <= now => format!("expired {}", time(at)),
        (None, Some(at)) => format!("until {}", time(at)),
        (None, None) => "until revoked".to_owned(),
    }
}

fn scope_words(token: &Token) -> String {
    if token.scope.is_empty() {
        "all streams".to_owned()
    } else {
        token.scope.clone()
    }
}

fn time(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |time| time.to_string())
}
