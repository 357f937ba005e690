//! The fuzz targets without a fuzzer: every seed, and seeded random changes of it, on every `cargo test`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use millstream_proto::block::{BlockBuilder, Compressor, OpenBlock};
use millstream_proto::v1::{self, Channel};
use millstream_relay::{Cursor, CursorScope};
use prost::Message;

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a library where it comes from")]
mod targets;

/// Changes tried of each seed.
const ROUNDS: u32 = 300;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Splitmix64 (<https://prng.di.unimi.it/splitmix64.c>): a failure names seed file and round, and comes
/// again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % end.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn change(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(data.len());
            match self.below(5) {
                0 if at < data.len() => data[at] = self.byte(),
                1 if at < data.len() => data[at] ^= 1 << self.below(8),
                2 if at < data.len() => {
                    data.remove(at);
                }
                3 => data.truncate(at),
                _ => data.insert(at, self.byte()),
            }
        }
    }
}

fn run(name: &str, target: fn(&[u8])) {
    let mut seeds: Vec<_> = std::fs::read_dir(root().join("fuzz/seeds").join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "there are seeds");
    for path in seeds {
        let seed = std::fs::read(&path).unwrap();
        target(&seed);
        for round in 0..ROUNDS {
            let mut data = seed.clone();
            Random(round.into()).change(&mut data);
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{} in round {round}", path.display());
        }
    }
}

#[test]
fn no_block_that_is_nearly_a_real_one_breaks_a_promise() {
    run("block_open", targets::block_open);
}

#[test]
fn no_text_that_is_nearly_a_selector_breaks_a_promise() {
    run("selector", targets::selector);
}

#[test]
fn no_bytes_that_are_nearly_a_filter_break_a_promise() {
    run("line_filter", targets::line_filter);
}

#[test]
fn no_text_that_is_looked_through_hides_a_line_or_invents_one() {
    run("scan", targets::scan);
}

#[test]
fn no_token_that_is_nearly_a_cursor_breaks_a_promise() {
    run("cursor", targets::cursor);
}

#[test]
fn no_path_shows_anybody_what_is_not_theirs() {
    run("http_path", targets::http_path);
}

/// Some lines from the middle of a real log.
fn excerpt(name: &str, lines: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let log = std::fs::read(root().join("tests/data").join(name)).unwrap();
    let all = log.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    all.skip(lines.start).take(lines.len()).collect()
}

#[test]
#[ignore = "writes fuzz/seeds anew from the logs in tests/data"]
fn make_seeds() {
    let seeds = root().join("fuzz/seeds");
    let write = |target: &str, name: &str, data: &[u8]| {
        std::fs::create_dir_all(seeds.join(target)).unwrap();
        std::fs::write(seeds.join(target).join(name), data).unwrap();
    };

    let build = |lines: &[Vec<u8>]| {
        let mut builder = BlockBuilder::new();
        for (number, line) in lines.iter().enumerate() {
            let time = 1_700_000_000_000_000 + i64::try_from(number * number * 700).unwrap();
            let channel = match number % 7 {
                5 => Channel::Stderr,
                6 => Channel::Notice,
                _ => Channel::Stdout,
            };
            assert!(builder.push_line(line, time, channel, number % 11 == 10));
        }
        builder.finish(40).unwrap()
    };
    let configure = build(&excerpt("cpython-build-1.log", 100..124));
    let colours = build(&excerpt("cargo-build-failed.ansi.log", 0..20));
    let progress = build(&excerpt("pip-progress.ansi.log", 0..20));
    let one_line = build(&excerpt("cpython-build-2.log", 0..1));
    let filtered = OpenBlock::open(&configure)
        .unwrap()
        .filter(|line| line.sequence % 4 != 1)
        .remove(0);
    let packed = Compressor::new(3).compress(build(&excerpt("cpython-build-2.log", 500..600)));
    let empty_lines = Compressor::new(3).compress(build(&vec![Vec::new(); 3000]));
    let unterminated = v1::Block {
        text: "no end".into(),
        ..one_line.clone()
    };
    for (name, block) in [
        ("configure", configure),
        ("colours", colours),
        ("progress", progress),
        ("one-line", one_line),
        ("filtered", filtered),
        ("packed", packed),
        ("empty-lines", empty_lines),
        ("unterminated", unterminated),
    ] {
        write("block_open", name, &block.encode_to_vec());
    }

    for (name, text) in [
        ("example", "host=build-*,source in (cargo,npm),branch!=main,job"),
        ("sets", "a notin (x, \"y, z\"), !b ,c== d"),
        ("quotes", r#"path="/var/log/a \"b\" \\ (c).log",run"#),
        ("globs", "path=/srv/[x]{y}?\\*.log,host!=*"),
        ("empty-values", "a=,b in (,),c!="),
        ("unicode", "host=böse-*,job=\"\u{3000}\u{7f}\""),
        ("wrong", "a b"),
    ] {
        write("selector", name, text.as_bytes());
    }

    let python = excerpt("cpython-build-1.log", 100..110).join(&b'\n');
    let cargo = excerpt("cargo-build-failed.ansi.log", 100..118).join(&b'\n');
    let levels: &[u8] =
        b"E0101 10:10:10 x\n[error] y\nlevel=warn\n##vso[task.logissue type=error]\n0 errors\n";
    for (name, choices, substring, regex, lines) in [
        ("literal", 0_u8, "gcc", "", &python[..]),
        ("regex", 1, "", "^CHECKING .*(yes|no)$", &python),
        ("over-lines", 0, "", "c[^g]*\\s|\\Ach", &python),
        ("inverted", 2, "checking", "x*", &python),
        ("errors", 16, "", "", &cargo),
        ("levels", 8 | 16 | 32, "", "", levels),
        ("none", 4, "e", "", levels),
    ] {
        let data = [
            &[choices][..],
            substring.as_bytes(),
            &[0],
            regex.as_bytes(),
            &[0],
            lines,
        ]
        .concat();
        write("scan", name, &data);
    }

    // After the choices: whole tokens (0), or what stands behind a head that fits (1): watermark, then pairs of
    // step and next sequence.
    let scope = CursorScope::new("store", "host=a", "", &[1, 2]);
    let whole = |cursor: &Cursor| [&[0][..], &cursor.encode(scope)].concat();
    let cursor = Cursor {
        watermark: 300,
        positions: [(1, 0), (2, 70_000), (290, u64::MAX)].into(),
    };
    let elsewhere = CursorScope::new("store", "host=b", "", &[]);
    for (name, data) in [
        ("empty", whole(&Cursor::default())),
        ("positions", whole(&cursor)),
        ("elsewhere", [&[0][..], &cursor.encode(elsewhere)].concat()),
        (
            "inside",
            b"\x01\xac\x02\x01\x00\x01\xf0\xa2\x04\xa0\x02\x05".to_vec(),
        ),
        ("beyond-watermark", b"\x01\x02\x03\x07".to_vec()),
        ("no-step", b"\x01\x02\x01\x07\x00\x07".to_vec()),
        (
            "overflow",
            [&b"\x01"[..], &[0xff; 9], b"\x01\x01\x01", &[0xff; 9], b"\x01\x02"].concat(),
        ),
    ] {
        write("cursor", name, &data);
    }

    // After the choices: method in the lowest two bits, and 4 for a relay that asks nobody for a token.
    for (name, choices, target) in [
        ("page", 0_u8, "/runs/1?line=7"),
        ("asset", 4, "/assets/../index.html"),
        ("raw", 4, "/api/streams/1/raw?from=1&to=3"),
        ("raw-all", 4, "/api/streams/1/raw"),
        ("raw-encoded", 4, "/api/streams/%31/raw?from=%30&to=2"),
        ("raw-nobody", 0, "/api/streams/1/raw"),
        ("raw-twice", 0, "/api/streams/1/raw/../../1/raw"),
        ("raw-head", 5, "/api/streams/1/raw?from=5"),
        (
            "raw-wrong",
            4,
            "/api/streams/x/raw?from=-1&to=99999999999999999999",
        ),
        ("double-slash", 0, "//api/streams/1/raw"),
        ("metrics", 0, "/metrics"),
        ("session", 2, "/api/session"),
        ("settings", 4, "/api/settings"),
        ("logout", 3, "/api/session"),
        ("login", 2, "/api/login/oidc"),
        ("callback", 0, "/api/login/oidc/callback?code=x&state=y&iss=z"),
    ] {
        write("http_path", name, &[&[choices][..], target.as_bytes()].concat());
    }

    let warning = excerpt("cargo-build-failed.ansi.log", 8..9).concat();
    let checking = excerpt("cpython-build-1.log", 10..11).concat();
    for (name, choices, substring, regex, line) in [
        ("substring", 0_u8, "gcc", "", &checking),
        ("regex", 0, "", "^checking for (\\w+)\\.{3}", &checking),
        ("both-inverted", 2, "checking", "[0-9]+$", &checking),
        ("folded", 1, "ERROR", "", &warning),
        ("folded-regex", 3, "", "(?-u:\\xff)|warning|ſ", &warning),
        ("channel", 12 | 1 << 5, "e", "", &warning),
        ("large", 0, "", "(a{90}){90}", &warning),
    ] {
        let data = [
            &[choices][..],
            substring.as_bytes(),
            &[0],
            regex.as_bytes(),
            &[0],
            line.as_slice(),
        ]
        .concat();
        write("line_filter", name, &data);
    }
}
