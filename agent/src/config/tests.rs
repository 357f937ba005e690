use super::cli::GlobalArgs;
use super::*;
use crate::plugins::catalog::Catalog;
use crate::sources::SourceKind;

fn load(text: &str) -> Result<Settings, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    Settings::load(&GlobalArgs {
        config: Some(path),
        ..GlobalArgs::default()
    })
}

fn problem(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn a_whole_file_is_understood() {
    let settings = load(
        r#"
        relay = ["http://a:7171", "http://b:7171"]
        data_dir = "/var/lib/x"
        host = "build-7"
        [labels]
        team = "infra"
        [sources.logs]
        plugin = "file"
        paths = ["/var/log/*.log"]
        exclude = ["*.gz"]
        start = "end"
        poll_interval = "250ms"
        [sources.build]
        plugin = "exec"
        command = ["make", "-j4"]
        restart = "on-failure"
        labels = { branch = "main" }
        [sources.old]
        plugin = "tail"
        path = "/var/log/messages"
        "#,
    )
    .unwrap();
    assert_eq!(settings.relays, ["http://a:7171", "http://b:7171"]);
    assert_eq!(settings.host, "build-7");
    let names: Vec<_> = settings
        .sources
        .iter()
        .map(|source| (source.name.as_str(), source.plugin()))
        .collect();
    assert_eq!(names, [("build", "exec"), ("logs", "file"), ("old", "tail")]);
    let SourceKind::File(file) = &settings.sources[1].kind else {
        panic!("logs is a file source")
    };
    assert_eq!(
        (file.start, file.poll_interval.as_millis()),
        (crate::sources::Start::End, 250)
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let error = problem("host = \"x\"\nrelais = \"http://a:1\"\n");
    assert!(
        error.contains("agent.toml:2: unknown key `relais`; did you mean `relay`?"),
        "{error}"
    );
    let error = problem("[sources.a]\nplugin = \"file\"\npath = [\"x\"]\n");
    assert!(
        error.contains(":3: unknown key `path` for plugin file; did you mean `paths`?"),
        "{error}"
    );
    let error = problem("[sources.a]\nplugin = \"fiel\"\n");
    assert!(
        error.contains(":2: unknown plugin `fiel`; did you mean `file`?"),
        "{error}"
    );
    let error = problem("[sources.a]\npaths = []\n");
    assert!(error.contains(":1: [sources.a] names no plugin"), "{error}");
}

#[test]
fn values_that_cannot_be_used_say_what_to_write() {
    let cases = [
        ("[sources.a]\nplugin = \"file\"\npaths = []", "name at least one"),
        (
            "[sources.a]\nplugin = \"file\"\npaths = [\"x\"]\npoll_interval = \"fast\"",
            "write 250ms",
        ),
        (
            "[sources.a]\nplugin = \"file\"\npaths = [\"x\"]\nstart = \"middle\"",
            "middle",
        ),
        ("[sources.a]\nplugin = \"exec\"\ncommand = \"make\"", "sources.a"),
        ("[sources.a]\nplugin = \"tail\"", "path"),
        ("relay = \"ftp://a:1\"", "http://127.0.0.1:7171"),
        ("relay = \"a:1\"", "https://a:1"),
        ("pin = \"sha256:x\"", "certs pin"),
        ("tls_cert = \"a.pem\"", "tls_key"),
        ("[labels]\nhost = \"x\"", "built-in"),
        ("relay = ", "agent.toml"),
    ];
    for (text, expected) in cases {
        let error = problem(text);
        assert!(error.contains(expected), "{text:?} gave {error:?}");
    }
}

#[test]
fn a_flag_wins_over_the_file_and_adds_sources() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    std::fs::write(
        &path,
        "relay = \"http://file:1\"\nhost = \"file\"\n[labels]\na = \"file\"\nb = \"file\"\n",
    )
    .unwrap();
    let args = GlobalArgs {
        config: Some(path),
        relay: vec!["http://flag:1".to_owned()],
        label: vec![("a".to_owned(), "flag".to_owned())],
        file: vec!["/tmp/*.log".to_owned()],
        tail: vec!["/tmp/a".to_owned(), "/tmp/b".to_owned()],
        ..GlobalArgs::default()
    };
    let settings = Settings::load(&args).unwrap();
    assert_eq!(
        (settings.relays[0].as_str(), settings.host.as_str()),
        ("http://flag:1", "file")
    );
    assert_eq!(
        (settings.labels["a"].as_str(), settings.labels["b"].as_str()),
        ("flag", "file")
    );
    let names: Vec<_> = settings
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    assert_eq!(names, ["file", "tail", "tail-2"]);
}

#[test]
fn the_environment_wins_over_a_source_in_the_file() {
    let mut table: toml::Table = toml::from_str("plugin = \"exec\"\ncommand = [\"make\"]\n").unwrap();
    settings::apply_environment("my-build", &mut table, &Catalog::default(), |name| match name {
        "MILLSTREAM_SOURCES_MY_BUILD_COMMAND" => Some("[\"ninja\"]".to_owned()),
        "MILLSTREAM_SOURCES_MY_BUILD_RESTART" => Some("always".to_owned()),
        _ => None,
    });
    let source = settings::source("my-build", table, &Catalog::default()).unwrap();
    let SourceKind::Exec(exec) = &source.kind else {
        panic!("it is an exec source")
    };
    assert_eq!(exec.command.argv, ["ninja"]);
    assert_eq!(exec.restart, crate::sources::exec::Restart::Always);
}
