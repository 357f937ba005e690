//! How bad a line looks, told by its text alone: what the relay does when somebody looks at lines of which nobody
//! said it, and what an agent does where it is told to say it.
//!
//! A guess for people who look for trouble in a long log. It prefers to miss a line over crying wolf: a level
//! that a logger wrote decides; without one, only forms count that tools print when something is wrong, not the
//! words themselves ("0 errors", "-Werror", "error.rs"). Everything is a regular expression in linear time over
//! the first [`LOOKED_AT_BYTES`] of a line, and [`next_candidate`] skips the text that cannot hold a trouble.
//! Nothing here knows of blocks or streams.

use std::borrow::Cow;
use std::sync::LazyLock;

use millstream_proto::v1;
use regex::bytes::{Captures, Regex};

/// What tells stands at the beginning of a line; some put an object of many KiB behind it.
const LOOKED_AT_BYTES: usize = 1024;

/// How far from its beginning a line's level may stand: behind a time, a host, a process and a thread.
const LEVEL_WITHIN_BYTES: usize = 160;

/// How bad, from nothing to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    None,
    Warning,
    Error,
}

impl Severity {
    /// The severity of a line's text. Escape sequences in it do not matter.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        if next_candidate(text).is_none() {
            return Self::None;
        }
        let head = &text[..text.len().min(LOOKED_AT_BYTES)];
        let plain = without_escapes(head);
        let line = plain.trim_ascii();
        annotation(line)
            .or_else(|| level(line))
            .or_else(|| phrase(line))
            .unwrap_or(Self::None)
    }
}

impl From<Severity> for v1::Severity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::None => Self::None,
            Severity::Warning => Self::Warning,
            Severity::Error => Self::Error,
        }
    }
}

impl TryFrom<v1::Severity> for Severity {
    type Error = ();

    fn try_from(severity: v1::Severity) -> Result<Self, ()> {
        match severity {
            v1::Severity::Unspecified => Err(()),
            v1::Severity::None => Ok(Self::None),
            v1::Severity::Warning => Ok(Self::Warning),
            v1::Severity::Error => Ok(Self::Error),
        }
    }
}

/// Every text below contains one of these: whole words would be more to compare and find no more.
static NEEDLES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"rror|RROR|ERR|warn|Warn|WARN|atal|FATAL|FAIL|anic|PANIC|crit|Crit|CRIT|severe|SEVERE|EMERG|emerg|",
        r"ALERT|alert|xception|raceback|segfault|egmentation fault|core dumped|undefined reference|: \*\*\* |not ok|",
        r"aused by|uild failed|uild stopped|buildProblem|testFailed|Failed|xit code|xit status|xited with|\nE[01]|\nW[01]|\nF[01]",
    ))
});

/// A place within the first line of `text` that may be a warning or an error; `None`: no line of it is. `text`
/// begins at the beginning of a line.
#[must_use]
pub fn next_candidate(text: &[u8]) -> Option<usize> {
    if let [b'E' | b'W' | b'F', b'0' | b'1', ..] = text {
        return Some(0);
    }
    let found = NEEDLES.find(text)?;
    // What begins with a line end belongs to the line after it.
    Some(found.start() + usize::from(text[found.start()] == b'\n'))
}

/// Commands and annotations of CI systems: the whole line is one, whatever words it holds.
fn annotation(line: &[u8]) -> Option<Severity> {
    static COMMAND: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            // The time that GitHub and Azure put before each line of a downloaded log.
            r"^(?:\d{4}-\d\d-\d\dT[\d:.]+Z\s+)?",
            r"(?:",
            r"::(?P<github>[a-z-]+)[ :]",
            r"|\#\#\[(?P<azure>[a-z-]+)\]",
            r"|\#\#vso\[task\.(?P<vso>[a-z]+)\s?(?P<properties>[^\]]*)\]",
            r"|\#\#teamcity\[(?P<teamcity>[A-Za-z]+)\s?(?P<attributes>.*)",
            r")",
        ))
    });
    static ISSUE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|;)\s*type=(error|warning)\s*(?:;|$)"));
    static STATUS: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"status='(?:(?P<error>ERROR|FAILURE)|(?P<warning>WARNING))'"));
    let found = COMMAND.captures(line)?;
    let by_word = |word: &[u8]| match word {
        b"error" => Severity::Error,
        b"warning" => Severity::Warning,
        _ => Severity::None,
    };
    if let Some(word) = found.name("github").or_else(|| found.name("azure")) {
        return Some(by_word(word.as_bytes()));
    }
    if let Some(command) = found.name("vso") {
        let issue = ISSUE.captures(&found["properties"]);
        let is_issue = command.as_bytes() == b"logissue";
        return Some(match issue {
            Some(issue) if is_issue => by_word(&issue[1]),
            _ => Severity::None,
        });
    }
    Some(match &found["teamcity"] {
        b"buildProblem" | b"testFailed" => Severity::Error,
        b"message" => match STATUS.captures(&found["attributes"]) {
            Some(status) if status.name("error").is_some() => Severity::Error,
            Some(_) => Severity::Warning,
            None => Severity::None,
        },
        _ => Severity::None,
    })
}

/// The level that a logger wrote. The first one on the line is the line's own; the message behind it may speak of
/// others.
fn level(line: &[u8]) -> Option<Severity> {
    static LEVEL: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            // glog: E0804 12:30:01.123456 7 file.go:12] text
            r"^(?P<glog>[EWFI])\d{4} \d\d:\d\d:\d\d",
            // key and value: level=error, "severity": "WARNING"
            r#"|\b(?i:level|severity|lvl|levelname|log\.level)"?\s?[=:]\s?"?(?P<value>[A-Za-z]+)\b"#,
            // bracketed in any case: [error], [ WARN ]
            r"|\[\s?(?P<bracket>(?i:trace|debug|info|notice|warn|warning|err|error|fatal|crit|critical|severe|panic|emerg|alert))\s?\]",
            // a word of its own in capitals
            r"|(?:^|[\s\[(<|\x22:])(?P<word>TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|FATAL|CRITICAL|CRIT|SEVERE|PANIC|EMERG|ALERT)(?:[\s\])>|:,\x22!]|$)",
        ))
    });
    let head = &line[..line.len().min(LEVEL_WITHIN_BYTES)];
    let found = LEVEL.captures(head)?;
    if let Some(letter) = found.name("glog") {
        return Some(match letter.as_bytes() {
            b"I" => Severity::None,
            b"W" => Severity::Warning,
            _ => Severity::Error,
        });
    }
    let word = ["value", "bracket", "word"]
        .into_iter()
        .find_map(|name| found.name(name))?;
    if denies(&head[..word.start()], &line[word.end()..]) {
        return Some(Severity::None);
    }
    match word.as_bytes().to_ascii_lowercase().as_slice() {
        b"trace" | b"debug" | b"info" | b"information" | b"notice" => Some(Severity::None),
        b"warn" | b"warning" => Some(Severity::Warning),
        b"err" | b"error" | b"fatal" | b"crit" | b"critical" | b"severe" | b"panic" | b"emerg"
        | b"emergency" | b"alert" => Some(Severity::Error),
        _ => None,
    }
}

/// What compilers, test runners, build tools and crashing programs print.
fn phrase(line: &[u8]) -> Option<Severity> {
    static COLON: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            // error: …, fatal error: …, error[E0425]: …, error TS2322: …, warning(core): …
            r"(?:^|[\s:(\[\])>\x22'])(?i:(?P<error>(?:fatal )?error|fatal)|(?P<warning>warning))",
            r"(?:\[[\w:-]+\]|\([\w:-]+\)| [A-Z]{1,5}\d{2,6})?\s?:",
        ))
    });
    static ERROR: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            // Exceptions by name, at the beginning or behind what leads to them.
            r"^(?:E\s+|Caused by:\s|Uncaught\s|Unhandled\s(?:exception\.\s)?|Exception in thread\s.*\s|\# ?)?",
            r"(?:[\w$]+\.)*[A-Z]\w*(?:Error|Exception)\b(?::|$)",
            r"|^Traceback \(most recent call last\)|^Exception in thread\s",
            r"|\bpanicked at\b|^panic:\s|^fatal:\s|^Error:\s|^Fatal Python error",
            r"|\b[Ss]egmentation fault\b|\bsegfault at\b|\bcore dumped\b|\bKernel panic\b",
            r"|^CMake Error\b|\bundefined reference to\b|\bld returned \d+ exit status\b",
            r"|^(?:\S*make(?:\[\d+\])?|ninja):\s(?:\*\*\*\s|build stopped:)",
            r"|\bnpm (?:ERR!|error)\s|^\d+:\d+\s+error\s",
            r"|^FAIL(?:ED|URE)?(?:[\s:]|$)|\bFAILED$|^--- FAIL:|^=+ FAILURES =+$|\bBUILD FAILED\b|^Build failed\b|^not ok \d",
            r"|\b[Ee]xit(?:ed)?(?: with)? (?:code|status):?\s[1-9]",
        ))
    });
    static WARNING: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^CMake (?:Deprecation )?Warning\b|\b[A-Z]\w*Warning:\s|\bnpm warn\s|^\d+:\d+\s+warning\s")
    });
    let by_colon = COLON.captures_iter(line).find(|found| {
        let name = colon_word(found);
        !denies(&line[..name.start()], &line[found.get_match().end()..])
    });
    if ERROR.is_match(line)
        || by_colon
            .as_ref()
            .is_some_and(|found| found.name("error").is_some())
    {
        return Some(Severity::Error);
    }
    if by_colon.is_some() || WARNING.is_match(line) {
        return Some(Severity::Warning);
    }
    None
}

fn colon_word<'h>(found: &Captures<'h>) -> regex::bytes::Match<'h> {
    found
        .name("error")
        .or_else(|| found.name("warning"))
        .unwrap_or_else(|| found.get_match())
}

/// Whether what stands around a word says that there is none of it: "no error: …", "error: 0", "warning: none".
fn denies(before: &[u8], after: &[u8]) -> bool {
    static BEFORE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?i)(?:^|[\s(:,])(?:no|0|zero|without|non|last|any|on|if|an)[\s-]?$"));
    static AFTER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(?i)^[\s:=]*(?:0|none|no|null|nil|false|off|n/a|success)\s?(?:[,;.)\]}]|$)")
    });
    BEFORE.is_match(before) || AFTER.is_match(after)
}

/// The text without escape sequences, so that colours do not stand between the letters.
fn without_escapes(text: &[u8]) -> Cow<'_, [u8]> {
    static ESCAPE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)"));
    if memchr::memchr(0x1b, text).is_none() {
        return Cow::Borrowed(text);
    }
    ESCAPE.replace_all(text, &b""[..])
}

/// The patterns of this file are on bytes and are tested by whoever calls anything here.
fn pattern(text: &str) -> Regex {
    regex::bytes::RegexBuilder::new(text)
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .expect("the patterns of this file are valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_all(expected: Severity, lines: &[&str]) {
        for line in lines {
            assert_eq!(Severity::of(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn errors_as_tools_print_them() {
        assert_all(
            Severity::Error,
            &[
                // Compilers and linkers.
                "error[E0425]: cannot find value `x` in this scope",
                "error: could not compile `demo` (bin \"demo\") due to 2 previous errors",
                "\x1b[1m\x1b[38;5;9merror[E0308]\x1b[0m\x1b[1m: mismatched types\x1b[0m",
                "main.c:12:5: error: expected ';' before 'return'",
                "main.c:1:10: fatal error: missing.h: No such file or directory",
                "foo.cpp(12): error C2065: 'x': undeclared identifier",
                "src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.",
                "/usr/bin/ld: main.o: undefined reference to `frobnicate'",
                "collect2: error: ld returned 1 exit status",
                "make[2]: *** [Makefile:12: all] Error 1",
                "ninja: build stopped: subcommand failed.",
                "CMake Error at CMakeLists.txt:3 (find_package):",
                "npm ERR! code ELIFECYCLE",
                "npm error code E404",
                "  3:5  error  'x' is not defined  no-undef",
                // Programs that fail.
                "Traceback (most recent call last):",
                "ValueError: invalid literal for int() with base 10: 'x'",
                "requests.exceptions.ConnectionError: refused",
                "Exception in thread \"main\" java.lang.NullPointerException",
                "Caused by: java.io.IOException: broken pipe",
                "thread 'main' (4711) panicked at src/main.rs:2:5:",
                "panic: runtime error: index out of range [5] with length 3",
                "Segmentation fault (core dumped)",
                "kernel: app[77]: segfault at 0 ip 0000 sp 0000 error 4 in app",
                "fatal: not a git repository (or any of the parent directories): .git",
                "exited with code 137",
                // Test runners.
                "test tests::it_works ... FAILED",
                "FAILED tests/test_x.py::test_y - assert 1 == 2",
                "--- FAIL: TestX (0.00s)",
                "E   AssertionError: assert 1 == 2",
                "not ok 3 - adds numbers",
                // Loggers.
                "2015-07-29 19:04:12,394 - ERROR [main:Server@12] - Cannot open channel",
                "[ERROR] Failed to execute goal org.apache.maven.plugins",
                "[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6",
                "time=\"2024-01-01T00:00:00Z\" level=error msg=\"no such host\"",
                "{\"ts\":1,\"level\":\"fatal\",\"msg\":\"bye\"}",
                "E0804 12:30:01.123456       7 reflector.go:12] Failed to watch",
                // CI systems.
                "::error file=app.js,line=1::Missing semicolon",
                "2024-01-01T00:00:00.1234567Z ##[error]Process completed with exit code 1.",
                "##vso[task.logissue type=error;sourcepath=a.cs;linenumber=1]broken",
                "##teamcity[buildProblem description='x']",
                "##teamcity[message text='x' status='ERROR']",
            ],
        );
    }

    #[test]
    fn warnings_as_tools_print_them() {
        assert_all(
            Severity::Warning,
            &[
                "warning: unused variable: `x`",
                "\x1b[1m\x1b[33mwarning\x1b[0m\x1b[1m: `demo` (bin) generated 1 warning\x1b[0m",
                "main.c:3:9: warning: unused variable 'x' [-Wunused-variable]",
                "foo.cpp(12): warning C4996: 'strcpy': may be unsafe",
                "configure: WARNING: no pkg-config",
                "CMake Warning (dev) at CMakeLists.txt:3:",
                "npm warn deprecated har-validator@5.1.5: no longer supported",
                "a.py:3: DeprecationWarning: the imp module is deprecated",
                "  7:1  warning  Unexpected console statement  no-console",
                "2015-07-29 17:41:44,747 - WARN  [SendWorker:188978561024:Worker@688] - Interrupted",
                "2024-01-01 WARNING root: error: 5 of 6",
                "level=warn msg=\"error in peer\"",
                "W0804 12:30:01.123456       7 x.go:1] error ahead",
                "::warning::careful, an error: is near",
                "##[warning]Node.js 12 actions are deprecated",
                "##vso[task.logissue type=warning]careful",
                "##teamcity[message text='x' status='WARNING']",
            ],
        );
    }

    #[test]
    fn lines_that_only_speak_of_errors_are_none() {
        assert_all(
            Severity::None,
            &[
                "",
                "0 errors, 0 warnings",
                "Errors: 0, Warnings: 0",
                "test result: ok. 12 passed; 0 failed; 0 ignored",
                "gcc -Wall -Werror -Wno-error=format -c error.c -o error.o",
                "   Compiling thiserror v2.0.1",
                "   Compiling error.rs (src/error.rs)",
                "checking for library containing strerror... none required",
                "checking whether gcc supports -Werror=... yes",
                "install -m 644 ./Lib/test/test_warnings/__init__.py /usr/lib",
                "Parser/pegen_errors.o Python/errors.o Python/_warnings.o",
                "no error: all is well",
                "last error: none",
                "error: 0",
                "exit code 0",
                "exited with code: 0",
                "2015-07-29 INFO org.apache.Retry: error: retrying, FAILED before",
                "nova-api.log 2017-05-16 00:00:00.008 25746 INFO nova.osapi [req-1] GET /errors status: 200",
                "[info] ERROR handler installed",
                "level=info msg=\"exit status 1\"",
                "I0804 12:30:01.123456       7 x.go:1] ERROR",
                "##[group]Run error: check",
                "::group::FAILED tests",
                "::stop-commands::error",
                "##teamcity[testStarted name='error: x']",
                "##vso[task.setvariable variable=x;type=error]",
                "warning signs of spring",
                "fail-fast: true",
                "warn_unused_result",
            ],
        );
    }

    #[test]
    fn a_real_build_has_the_lines_that_a_person_would_point_at() {
        let count = |log: &[u8], severity| {
            log.split(|byte| *byte == b'\n')
                .filter(|line| Severity::of(line) == severity)
                .count()
        };
        let cargo = include_bytes!("../../tests/data/cargo-build-failed.ansi.log");
        assert_eq!(count(cargo, Severity::Error), 2);
        assert_eq!(count(cargo, Severity::Warning), 0);
        let python = include_bytes!("../../tests/data/cpython-build-1.log");
        assert_eq!(count(python, Severity::Error), 0);
        assert_eq!(count(python, Severity::Warning), 75);
    }

    proptest! {
        #[test]
        fn looking_through_a_text_finds_every_line_that_is_one(
            lines in prop::collection::vec(
                prop_oneof!["[a-z ]{0,30}", "[ -~]{0,12}(error: |WARN |level=crit|E0101 10:10:10|panicked at)[ -~]{0,12}"],
                0..20,
            ),
        ) {
            let text: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            let mut found = Vec::new();
            let mut at = 0;
            while at < text.len() {
                let Some(offset) = next_candidate(&text[at..]) else { break };
                let start = memchr::memrchr(b'\n', &text[..at + offset]).map_or(0, |end| end + 1);
                let end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |end| start + end);
                found.push(Severity::of(&text[start..end]));
                at = end + 1;
            }
            found.retain(|severity| *severity != Severity::None);
            let mut expected: Vec<_> = lines.iter().map(|line| Severity::of(line.as_bytes())).collect();
            expected.retain(|severity| *severity != Severity::None);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_have_a_severity(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Severity::of(&text);
        }
    }
}
