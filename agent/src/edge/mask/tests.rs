#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;

use super::secrets::Secrets;
use super::strip::Clean;
use super::*;

/// What went out of one channel.
#[derive(Debug, Default)]
struct Output {
    text: [Vec<u8>; 3],
    /// For each text that went out: the input that its checkpoint covers, and the bytes out by then.
    covered: Vec<(usize, usize)>,
}

impl Output {
    fn all(&self) -> usize {
        self.text.iter().map(Vec::len).sum()
    }
}

/// Drives a masker with pieces; checkpoints are the number of bytes that were taken before.
struct Driver {
    masker: Masker,
    taken: usize,
    output: Output,
}

impl Driver {
    fn new(rules: &MaskRules, environment: &[(&str, &str)]) -> Self {
        Self::keeping(rules, environment, None)
    }

    fn keeping(
        rules: &MaskRules,
        environment: &[(&str, &str)],
        directory: Option<std::path::PathBuf>,
    ) -> Self {
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (settings, _) = MaskSettings::new(rules, &environment, directory).unwrap();
        Self {
            masker: Masker::new(Arc::new(settings), "key".to_owned(), false),
            taken: 0,
            output: Output::default(),
        }
    }

    fn hiding(values: &[&str]) -> Self {
        let environment: Vec<(String, &str)> = values
            .iter()
            .enumerate()
            .map(|(number, value)| (format!("S{number}"), *value))
            .collect();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let rules = MaskRules {
            env: vec!["S*".to_owned()],
            ..MaskRules::default()
        };
        Self::new(&rules, &environment)
    }

    fn take(&mut self, text: &[u8], channel: Channel) {
        let taken = self.taken;
        let output = &mut self.output;
        let mut after = |place: usize| Bytes::from((taken + place).to_string());
        self.masker.take(text, channel, 7, &mut after, &mut |out, after| {
            keep(output, &out, after);
        });
        self.taken += text.len();
    }

    fn flush(&mut self, last: bool) {
        let output = &mut self.output;
        self.masker
            .flush(last, &mut |out, after| keep(output, &out, after));
    }

    fn shown(&self, channel: Channel) -> String {
        String::from_utf8_lossy(&self.output.text[index(channel)]).into_owned()
    }
}

fn keep(output: &mut Output, out: &Out<'_>, after: &mut dyn FnMut(usize) -> Bytes) {
    output.text[index(out.channel)].extend_from_slice(out.text);
    let checkpoint = match &out.at {
        At::Piece(start) => after(start + out.text.len()),
        At::Fixed(checkpoint) => checkpoint.clone(),
        At::Keep => return,
    };
    let covered = std::str::from_utf8(&checkpoint).unwrap().parse().unwrap();
    output.covered.push((covered, output.all()));
}

fn mask_at_once(values: &[&str], text: &str) -> String {
    let mut driver = Driver::hiding(values);
    driver.take(text.as_bytes(), Channel::Stdout);
    driver.flush(true);
    driver.shown(Channel::Stdout)
}

#[test]
fn a_secret_is_masked_in_every_form() {
    assert_eq!(
        mask_at_once(&["hunter2!"], "user hunter2!, ok\n"),
        "user ***, ok\n"
    );
    // "user:hunter2!" in base64; the two characters before hold bits of the colon.
    assert_eq!(
        mask_at_once(&["hunter2!"], "Basic dXNlcjpodW50ZXIyIQ==\n"),
        "Basic dXNlcjp***Q==\n"
    );
    assert_eq!(mask_at_once(&["hunter2!"], "?p=hunter2%21&x\n"), "?p=***&x\n");
    assert_eq!(
        mask_at_once(&["hunter2!"], "hun\x1b[1mter\x1b[0m2!\n"),
        "***\x1b[1m\x1b[0m\n"
    );
    assert_eq!(mask_at_once(&["hunter2!"], "a hun\nter2! b\n"), "a ***\n b\n");
    assert_eq!(
        mask_at_once(&["hunter2!", "hunter2!!!"], "hunter2!!! hunter2!!.\n"),
        "*** ***!.\n"
    );
    assert_eq!(mask_at_once(&[], "hunter2!\n"), "hunter2!\n");
}

#[test]
fn text_without_secrets_goes_through_at_once_and_uncopied() {
    let mut driver = Driver::hiding(&["hunter2!"]);
    driver.take(b"one\ntwo\nthree.\n", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "one\ntwo\nthree.\n");
    assert_eq!(driver.masker.due(), None);
}

#[test]
fn the_beginning_of_a_secret_waits_and_the_rest_is_masked_even_after_the_wait() {
    let mut driver = Driver::hiding(&["hunter2!"]);
    driver.take(b"one\ngo hu", Channel::Stdout);
    assert_eq!(
        driver.shown(Channel::Stdout),
        "one\ngo hu",
        "two letters say nothing"
    );
    driver.take(b"nter2! x\n", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "one\ngo hu*** x\n");
    driver.take(b"hunter", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "one\ngo hu*** x\n");
    assert!(driver.masker.due().is_some());
    driver.flush(false);
    assert_eq!(driver.shown(Channel::Stdout), "one\ngo hu*** x\n***", "six do");
    driver.take(b"s go\n", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "one\ngo hu*** x\n***s go\n");
}

#[test]
fn a_build_asks_for_masks_and_they_outlive_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let rules = MaskRules::default();
    let open = || Driver::keeping(&rules, &[], Some(directory.path().join("masks")));
    let mut driver = open();
    for piece in [
        "x hunter2!\n::add",
        "-mask::hunt",
        "er2!\nhunter2!\n::add-mask::abc\n",
    ] {
        driver.take(piece.as_bytes(), Channel::Stdout);
    }
    let shown = driver.shown(Channel::Stdout);
    assert_eq!(shown, "x hunter2!\n::add-mask::***\n***\n::add-mask::abc\n");
    assert!(
        driver
            .shown(Channel::Notice)
            .contains("mask-refused: the output asked to mask a value of fewer than 6")
    );
    let mut next = open();
    next.take(b"hunter2!\n", Channel::Stderr);
    assert_eq!(next.shown(Channel::Stderr), "***\n");
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::read_dir(directory.path().join("masks"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    next.masker.ended();
    assert_eq!(
        std::fs::read_dir(directory.path().join("masks")).unwrap().count(),
        0
    );
}

#[test]
fn what_a_run_masks_is_masked_by_whoever_goes_on_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let rules = MaskRules {
        env: vec!["TOKEN".to_owned()],
        ..MaskRules::default()
    };
    let open = |rules: &MaskRules, outlives| {
        let environment = [("TOKEN".to_owned(), "hunter2!".to_owned())];
        let directory = Some(directory.path().to_path_buf());
        let (settings, _) = MaskSettings::new(rules, &environment, directory).unwrap();
        Masker::new(Arc::new(settings), "run".to_owned(), outlives)
    };
    drop(open(&rules, true));
    let mut next = open(&MaskRules::default(), true);
    let mut shown = Vec::new();
    next.take(
        b"hunter2!\n",
        Channel::Stdout,
        0,
        &mut |_| Bytes::new(),
        &mut |out, _| {
            shown.extend_from_slice(out.text);
        },
    );
    assert_eq!(shown, b"***\n");
    next.ended();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn an_unfinished_command_is_never_shown_however_long_it_takes() {
    let mut driver = Driver::new(&MaskRules::default(), &[]);
    driver.take(b"::add-mask::hunter", Channel::Stdout);
    assert_eq!(driver.masker.due(), None);
    driver.flush(false);
    assert_eq!(driver.shown(Channel::Stdout), "");
    driver.take(b"2!\n", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "::add-mask::***\n");
}

#[test]
fn patterns_are_masked_also_when_a_word_comes_in_parts() {
    let rules = MaskRules {
        patterns: vec!["ghp_[A-Za-z0-9]{10}".to_owned()],
        ..MaskRules::default()
    };
    let mut driver = Driver::new(&rules, &[]);
    driver.take(b"token ghp_0123", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "token ");
    driver.take(b"456789 ok\ngh\x1b[1mp_0123456789\x1b[m\n", Channel::Stdout);
    assert_eq!(driver.shown(Channel::Stdout), "token *** ok\n**\x1b[1m\x1b[m\n");
}

#[test]
fn short_values_are_refused_with_a_warning_that_does_not_show_them() {
    let rules = MaskRules {
        env: vec!["A".to_owned(), "B*".to_owned()],
        ..MaskRules::default()
    };
    let environment =
        [("A", "short"), ("BB", "long enough")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (settings, warnings) = MaskSettings::new(&rules, &environment, None).unwrap();
    assert_eq!(settings.values.len(), 1);
    assert_eq!(
        warnings,
        ["the value of the environment variable A has fewer than 6 bytes and is not masked"]
    );
}

#[test]
fn files_are_secrets_and_one_that_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("key.pem"),
        "-----BEGIN KEY-----\nQUJDREVG\n-----END KEY-----\n",
    )
    .unwrap();
    let rules = |file: &str| MaskRules {
        files: vec![directory.path().join(file).display().to_string()],
        ..MaskRules::default()
    };
    let mut driver = Driver::new(&rules("*.pem"), &[]);
    driver.take(
        b"x QUJDREVG\n-----BEGIN KEY-----\r\nQUJDREVG\r\n-----END KEY-----\nafter\n",
        Channel::Stdout,
    );
    assert_eq!(driver.shown(Channel::Stdout), "x ***\n***\r\n\r\n\nafter\n");
    assert!(
        MaskSettings::new(&rules("absent"), &[], None)
            .unwrap_err()
            .contains("absent")
    );
}

const VALUES: [&str; 5] = ["hunter2!", "hunting season", "aaaaaab", "p@ss/w=rd+", "z%41\"\\z"];

/// A part of a text: something harmless, or a secret in some form.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ahuntp@z\n :]{0,12}",
        (
            prop::sample::select(&VALUES[..]),
            "[a-z:]{0,4}",
            "[a-z]{0,4}",
            0..5
        )
            .prop_map(|(value, before, after, form)| {
                use base64::Engine as _;
                match form {
                    0 => value.to_owned(),
                    1 => base64::engine::general_purpose::STANDARD.encode(format!("{before}{value}{after}")),
                    2 => base64::engine::general_purpose::URL_SAFE_NO_PAD
                        .encode(format!("{before}{value}{after}")),
                    3 => value.bytes().map(|byte| format!("%{byte:02X}")).collect(),
                    _ => value
                        .bytes()
                        .map(|byte| {
                            if byte.is_ascii_alphanumeric() {
                                (byte as char).to_string()
                            } else {
                                format!("%{byte:02x}")
                            }
                        })
                        .collect(),
                }
            })
    ]
}

/// Something that a terminal does not show, after some of the bytes.
fn noise() -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => Just(""), 1 => Just("\x1b[31m"), 1 => Just("\x1b[0m"), 1 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\x1b]0;t\x07")]
}

/// Cuts where the lengths say, and at line ends: as sources do, a piece is whole lines or the part of one.
fn pieces(text: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut lengths = lengths.iter().cycle();
    while !rest.is_empty() {
        let length = (*lengths.next().unwrap()).clamp(1, rest.len());
        let (read, later) = rest.split_at(length);
        let lines = memchr::memrchr(b'\n', read).map_or(0, |newline| newline + 1);
        pieces.extend(
            [&read[..lines], &read[lines..]]
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .map(<[u8]>::to_vec),
        );
        rest = later;
    }
    pieces
}

fn newlines(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The promise: whatever is cut, coloured, wrapped, encoded or waited for, no secret is ever shown.
    #[test]
    fn no_secret_is_ever_shown(
        parts in prop::collection::vec(part(), 1..12),
        noise in prop::collection::vec(noise(), 1..60),
        lengths in prop::collection::vec(1_usize..40, 1..12),
        waits in prop::collection::vec(prop::bool::weighted(0.2), 1..12),
        stderr in prop::collection::vec(prop::bool::weighted(0.1), 1..12),
    ) {
        let plain = parts.concat();
        let mut text = Vec::new();
        for (byte, noise) in plain.bytes().zip(noise.iter().cycle()) {
            text.push(byte);
            text.extend_from_slice(noise.as_bytes());
        }
        let mut driver = Driver::hiding(&VALUES);
        let mut waits = waits.iter().cycle();
        let mut stderr = stderr.iter().cycle();
        for piece in pieces(&text, &lengths) {
            if *stderr.next().unwrap() {
                driver.take(b"hunter2! on stderr\n", Channel::Stderr);
            }
            driver.take(&piece, Channel::Stdout);
            if *waits.next().unwrap() {
                driver.flush(false);
            }
        }
        driver.flush(true);
        let all: BTreeSet<Vec<u8>> = VALUES.iter().map(|value| value.as_bytes().to_vec()).collect();
        let secrets = Secrets::new(&all, Vec::new());
        for shown in &driver.output.text {
            let mut clean = Clean::default();
            clean.fill(shown, true);
            let found = secrets.find(&clean.text).next();
            prop_assert!(found.is_none(), "{}", String::from_utf8_lossy(shown));
        }
        prop_assert_eq!(newlines(&driver.output.text[0]), newlines(&text), "the number of lines is the same");
    }

    /// Text that only looks like the beginning of a secret comes out as it was, in order, and a checkpoint that went
    /// out covers what went out and nothing else: a crash at any moment loses and doubles nothing.
    #[test]
    fn what_is_no_secret_is_unchanged_and_every_checkpoint_is_exact(
        text in "([az]{0,5}[a ]|\n|\x1b\\[m){0,80}a",
        lengths in prop::collection::vec(1_usize..30, 1..12),
        stderr in prop::collection::vec(any::<bool>(), 1..12),
    ) {
        let text = text.replace("zzzz", "zzaz");
        let mut driver = Driver::hiding(&["zzzzzzz", "zzaz!!zz"]);
        let mut stderr = stderr.iter().cycle();
        let mut input = Vec::new();
        for piece in pieces(text.as_bytes(), &lengths) {
            let channel = if *stderr.next().unwrap() { Channel::Stderr } else { Channel::Stdout };
            // A line of the other channel begins on a line of its own here; that is the source's affair.
            driver.take(&piece, channel);
            input.push((channel, piece));
        }
        for channel in [Channel::Stdout, Channel::Stderr] {
            driver.take(b" .x y\n", channel);
            input.push((channel, b" .x y\n".to_vec()));
        }
        driver.flush(true);
        for channel in [Channel::Stdout, Channel::Stderr] {
            let expected: Vec<u8> =
                input.iter().filter(|(of, _)| *of == channel).flat_map(|(_, piece)| piece.clone()).collect();
            prop_assert_eq!(driver.shown(channel), String::from_utf8(expected).unwrap());
        }
        for (covered, out) in &driver.output.covered {
            prop_assert_eq!(covered, out, "what is out is what is covered");
        }
    }
}
