#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;

use super::*;

fn bundled(name: &str) -> Manifest {
    let (_, text) = BUNDLED
        .iter()
        .find(|(file, _)| *file == format!("{name}.toml"))
        .unwrap();
    Manifest::parse(text).unwrap()
}

fn argv(name: &str, settings: &str, resume: Option<&str>) -> Vec<String> {
    let manifest = bundled(name);
    let values = manifest
        .settings
        .values(&toml::from_str(settings).unwrap())
        .unwrap();
    manifest.argv(&values, resume)
}

#[test]
fn every_bundled_manifest_is_good_and_named_as_its_file() {
    for (file, text) in BUNDLED {
        let manifest = Manifest::parse(text).unwrap_or_else(|problem| panic!("{file}: {problem}"));
        assert_eq!(format!("{}.toml", manifest.name), *file);
        assert!(!manifest.doc.is_empty());
        let undocumented = manifest
            .settings
            .settings
            .iter()
            .find(|(_, spec)| spec.doc.is_empty());
        assert_eq!(undocumented.map(|(name, _)| name), None, "{file}");
    }
}

#[test]
fn the_commands_of_the_bundled_manifests() {
    assert_eq!(
        argv(
            "journald",
            "units = ['a.service', 'b.service']\npriority = 'err'",
            None
        ),
        [
            "journalctl",
            "--follow",
            "--output=json",
            "--all",
            "--quiet",
            "--no-pager",
            "--priority",
            "err",
            "--unit",
            "a.service",
            "--unit",
            "b.service",
            "--lines",
            "10"
        ]
    );
    let resumed = argv("journald", "", Some("s=1;i=2"));
    assert_eq!(resumed[resumed.len() - 2..], ["--after-cursor", "s=1;i=2"]);
    assert_eq!(
        argv("docker", "container = 'web-1'", None),
        [
            "docker",
            "logs",
            "--follow",
            "--timestamps",
            "--tail",
            "all",
            "--",
            "web-1"
        ]
    );
    assert_eq!(
        argv("podman", "container = 'web-1'", Some("2026-11-25T09:00:00.5Z")),
        [
            "podman",
            "logs",
            "--follow",
            "--timestamps",
            "--since",
            "2026-11-25T09:00:00.5Z",
            "--",
            "web-1"
        ]
    );
    assert_eq!(
        argv("kubectl", "pod = 'api-7f'\nnamespace = 'shop'", None),
        [
            "kubectl",
            "--namespace",
            "shop",
            "logs",
            "--follow",
            "--timestamps",
            "--tail",
            "-1",
            "--",
            "api-7f"
        ]
    );
    assert_eq!(
        argv(
            "ssh-tail",
            "host = 'ops@web-1'\npath = '/var/log/app.log'\nport = 2222",
            None
        )
        .join(" "),
        "ssh -T -o BatchMode=yes -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -p 2222 -- ops@web-1 tail -n 0 -F -- \
         /var/log/app.log"
    );
    assert_eq!(
        argv("dmesg", "levels = 'err,warn'", Some("1.5")).last().unwrap(),
        "err,warn"
    );
}

#[test]
fn no_setting_of_a_bundled_manifest_reaches_a_shell_or_an_option() {
    for (name, settings) in [
        ("docker", "container = '--privileged'"),
        ("docker", "container = 'a b'"),
        ("ssh-tail", "host = 'h'\npath = '/var/log/a;reboot'"),
        ("ssh-tail", "host = 'h'\npath = '/var/log/$(reboot)'"),
        ("ssh-tail", "host = '-oProxyCommand=reboot'\npath = '/a'"),
        ("kubectl", "pod = '--all'"),
        ("journald", "identifier = '-x'"),
    ] {
        let refused = bundled(name).settings.values(&toml::from_str(settings).unwrap());
        assert!(refused.is_err(), "{name}: {settings}");
    }
}

const GOOD: &str = "name = 'x'\nversion = '1'\ncommand = ['x']\n";

#[test]
fn an_author_is_told_what_is_wrong() {
    for (change, expected) in [
        ("name = 'X'", "1 to 64 of a-z"),
        ("comand = ['x']", "unknown field `comand`"),
        ("command = []", "the first element is the program's name"),
        ("command = 'x | y'", "only with shell = true"),
        ("shell = true", "with shell = true it is one text"),
        ("stream = '${y}'", "there is no setting `y`"),
        ("[settings.a]\ntype = 'text'", "unknown variant `text`"),
        (
            "[output]\ntime = 'rfc3339'\n[resume]\nby = 'time'",
            "resume.args is empty",
        ),
        (
            "[resume]\nby = 'time'\nargs = ['${resume}']",
            "needs lines with times",
        ),
        (
            "[resume]\nby = 'checkpoint'\nargs = ['${resume}']",
            "needs a field that holds it",
        ),
        ("[restart]\ndelay = 'soon'", "restart.delay"),
        ("[restart]\npolicy = 'maybe'", "unknown variant `maybe`"),
        (
            "[output]\nstderr = 'lines'\n[output.json]\ntext = 'a'",
            "stderr can only be",
        ),
    ] {
        let key = change.split([' ', '=']).next().unwrap();
        let kept: String = GOOD
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let problem = Manifest::parse(&format!("{kept}{change}\n")).unwrap_err();
        assert!(problem.contains(expected), "{change}: {problem}");
    }
}

#[test]
fn a_shell_gets_settings_as_variables_only() {
    let manifest = Manifest::parse(
        "name = 'x'\nversion = '1'\nshell = true\ncommand = 'journal | grep -- \"$MILLSTREAM_SETTING_WORD\"'\n\
         [settings.word]\ntype = 'string'\n",
    )
    .unwrap();
    let values = manifest
        .settings
        .values(&toml::from_str("word = '\"; reboot'").unwrap())
        .unwrap();
    assert_eq!(
        manifest.argv(&values, None),
        ["sh", "-c", "journal | grep -- \"$MILLSTREAM_SETTING_WORD\""]
    );
    assert_eq!(
        manifest.environment(&values),
        [("MILLSTREAM_SETTING_WORD".to_owned(), "\"; reboot".to_owned())]
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn what_nearly_is_a_manifest_never_panics(which in 0_usize..6, at in 0_usize..2000, with in "\\PC{0,3}") {
        let (_, text) = BUNDLED[which];
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let end = (at + 2..text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
        let _ = Manifest::parse(&format!("{}{with}{}", &text[..at], &text[end.max(at)..]));
    }
}
