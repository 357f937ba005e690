use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use regex::bytes::Regex;

use super::super::scan::Scanner;
use super::super::secrets::Secrets;
use super::BLOCK_BYTES;

const VALUES: [&str; 8] = [
    "hunter2!",
    "abcabc",
    "p@ss w\"rd/1",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    // One begins as another does, as a marker does, or within one.
    "hunterX99",
    "##value",
    "#vso[x",
    "k::add-mask",
];

const PATTERNS: [&str; 3] = ["ghp_[A-Za-z0-9]{5}", "AK(IA|IB)[0-9]", r"\bsk-[0-9]+"];

fn scanner(values: &[&str], patterns: &[&str]) -> Scanner {
    let values: BTreeSet<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    let patterns = patterns
        .iter()
        .map(|pattern| Regex::new(pattern).unwrap())
        .collect();
    Scanner::new(Arc::new(Secrets::new(&values, patterns)), true)
}

/// Of every kind: by what is looked for, and by how it is searched for.
static SCANNERS: LazyLock<Vec<Scanner>> = LazyLock::new(|| {
    let many = |count: usize| (0..count).map(|number| format!("{:08x}!", number.wrapping_mul(0x9e37_79b1)));
    let with = |others: Vec<String>| {
        let values: Vec<&str> = VALUES
            .iter()
            .copied()
            .chain(others.iter().map(String::as_str))
            .collect();
        scanner(&values, &PATTERNS)
    };
    vec![
        scanner(&[], &[]),
        scanner(&VALUES[..2], &[]),
        scanner(&VALUES, &[]),
        scanner(&VALUES, &PATTERNS),
        scanner(&VALUES, &["[0-9]x"]),
        scanner(&[], &PATTERNS),
        with(many(30).collect()),
        with(many(300).collect()),
    ]
});

#[test]
fn a_real_build_log_is_not_looked_at_closely() {
    let values = [
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "hunter2!",
        "correct horse battery staple",
        "p@ssw0rd/with?odd&characters",
    ];
    let scanner = scanner(&values, &PATTERNS);
    for log in [
        &include_bytes!("../../../../../tests/data/cpython-build-1.log")[..],
        include_bytes!("../../../../../tests/data/cpython-build-2.log"),
        include_bytes!("../../../../../tests/data/cargo-build-failed.ansi.log"),
    ] {
        let suspected = log.chunks(64 << 10).filter(|piece| scanner.suspects(piece));
        assert_eq!(suspected.count(), 0, "of {} pieces", log.len().div_ceil(64 << 10));
    }
}

/// Something that a terminal does not show, or that only looks so.
fn hidden() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "\n",
            "\n\n",
            "\r\n",
            "\r",
            "\x1b[1m",
            "\x1b[31;4m",
            "\x1b]8;;x\x07",
            "\x1b]8;;a\rb\x1b\\",
            "\x1b",
            "\x1b(",
            "\x1b[3",
            "\x1b]0;t",
        ][..],
    )
}

/// Text of what may be in the way: secrets in their forms, parts of them, hidden things at any place.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let part = (prop::sample::select(&VALUES[..]), 0_usize..40, 0_usize..40).prop_map(|(value, from, to)| {
        let from = from.min(value.len());
        value[from..to.clamp(from, value.len())].to_owned()
    });
    let encoded = (prop::sample::select(&VALUES[..]), 0_usize..3).prop_map(|(value, before)| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{}{value}", "x".repeat(before)))
    });
    let markers = ["::add-mask::hunter3!", "##vso[task.setsecret]hunter3!"];
    let whole: Vec<&str> = VALUES.into_iter().chain(markers).collect();
    let split = (
        prop::sample::select(whole),
        prop::collection::vec((0_usize..40, hidden()), 1..4),
    )
        .prop_map(|(value, seams)| split(value, &seams));
    let piece = prop_oneof![
        3 => part,
        1 => prop::sample::select(&VALUES[..]).prop_map(str::to_owned),
        1 => encoded,
        2 => split,
        3 => hidden().prop_map(str::to_owned),
        1 => "[ -~]{0,6}",
        1 => prop::sample::select(
            &["::add-mask::x", "##vso[task.setsecret]y", "##vso[", "##v", "ghp_", "16C7e", "AKIB", "7", "sk-1"][..]
        ).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

/// With something hidden in front of the characters at these places.
fn split(value: &str, seams: &[(usize, &str)]) -> String {
    let mut text = String::new();
    for (place, character) in value.chars().enumerate() {
        text.extend(
            seams
                .iter()
                .filter(|(at, _)| *at == place)
                .map(|(_, hidden)| *hidden),
        );
        text.push(character);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What is taken for clean without a closer look is clean when it is looked at closely.
    #[test]
    fn a_closer_look_finds_nothing_that_was_not_suspected(text in hostile(), last: bool) {
        for (number, scanner) in SCANNERS.iter().enumerate() {
            let suspected = scanner.suspects(&text);
            let scan = scanner.scan(&text, suspected, 0, true, last);
            prop_assert_eq!(scan, scanner.scan(&text, true, 0, true, last), "scanner {}", number);
            if !suspected {
                prop_assert_eq!(scanner.commands(&text, true, last), Vec::<Vec<u8>>::new());
            }
        }
    }

    /// However a form is split, it is suspected.
    #[test]
    fn a_secret_with_anything_hidden_in_it_is_suspected(
        value in "[!-~]{6,30}", seams in prop::collection::vec((0_usize..30, 0_usize..5), 0..6),
    ) {
        let hidden = ["\n", "\r\n", "\x1b[0m", "\x1b]0;title\x07", "\n\x1b[0m\n"];
        let seams: Vec<_> = seams.into_iter().map(|(at, kind)| (at, hidden[kind])).collect();
        let text = format!("some text {} goes on\n", split(&value, &seams));
        prop_assert!(scanner(&[&value], &[]).suspects(text.as_bytes()), "{:?}", text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A text is looked at in blocks; what lies across the border of two is seen, too.
    #[test]
    fn the_borders_of_blocks_hide_nothing(text in hostile(), before in 0..80_usize, last: bool) {
        let filler = b". ".repeat(BLOCK_BYTES);
        let text = [&filler[..BLOCK_BYTES - before], &text, b" .\n"].concat();
        for (number, scanner) in SCANNERS.iter().enumerate() {
            let scan = scanner.scan(&text, scanner.suspects(&text), 0, true, last);
            prop_assert_eq!(scan, scanner.scan(&text, true, 0, true, last), "scanner {}", number);
        }
    }
}
