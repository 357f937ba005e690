//! What is wrong with a copy of a source, told line by line.

use std::collections::BTreeMap;

use super::source::Lines;

/// How a copy differs from its source.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Lines with other bytes than they had.
    pub garbled: u64,
    /// The number of the first line that is wrong.
    pub first: Option<u64>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        *self == Self::default()
    }
}

/// Number of a line, from its first bytes.
pub fn number_of(line: &[u8]) -> Option<u64> {
    let digits = line.get(..8).filter(|_| line.get(8) == Some(&b' '))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Compares a copy with the first `count` lines of its source.
pub fn compare(got: &[u8], lines: Lines, count: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut wanted = Vec::new();
    let mut is_same = true;
    let mut next = 0;
    // As long as it is right nothing has to be remembered.
    let mut rest = got;
    while next < count {
        wanted.clear();
        lines.append(next, &mut wanted);
        match rest.strip_prefix(wanted.as_slice()) {
            Some(after) => rest = after,
            None => {
                is_same = false;
                break;
            }
        }
        next += 1;
    }
    if is_same && rest.is_empty() {
        return verdict;
    }
    verdict.first = Some(next);
    let good = next;
    let mut highest = good.checked_sub(1);
    for line in rest.split_inclusive(|byte| *byte == b'\n') {
        let Some(number) = number_of(line) else {
            verdict.garbled += 1;
            continue;
        };
        wanted.clear();
        lines.append(number, &mut wanted);
        if wanted != line {
            verdict.garbled += 1;
        }
        let times = seen.entry(number).or_insert(u64::from(number < good));
        *times += 1;
        if *times > 1 || number >= count {
            verdict.doubled += 1;
        } else if highest.is_some_and(|highest| number < highest) {
            verdict.reordered += 1;
        }
        highest = highest.max(Some(number));
    }
    verdict.lost = (good..count).filter(|number| !seen.contains_key(number)).count() as u64;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: Lines = Lines { seed: 3 };

    fn copy(numbers: &[u64]) -> Vec<u8> {
        let mut text = Vec::new();
        for number in numbers {
            LINES.append(*number, &mut text);
        }
        text
    }

    #[test]
    fn a_true_copy_is_good() {
        assert!(compare(&copy(&[0, 1, 2, 3]), LINES, 4).is_good());
        assert!(compare(b"", LINES, 0).is_good());
    }

    #[test]
    fn loss_doubling_reordering_and_other_bytes_are_told_apart() {
        let cases: [(&[u64], Verdict); 4] = [
            (
                &[0, 1, 3],
                Verdict {
                    lost: 1,
                    first: Some(2),
                    ..Verdict::default()
                },
            ),
            (
                &[0, 1, 1, 2, 3],
                Verdict {
                    doubled: 1,
                    first: Some(2),
                    ..Verdict::default()
                },
            ),
            (
                &[0, 2, 1, 3],
                Verdict {
                    reordered: 1,
                    first: Some(1),
                    ..Verdict::default()
                },
            ),
            (
                &[0, 1, 2],
                Verdict {
                    lost: 1,
                    first: Some(3),
                    ..Verdict::default()
                },
            ),
        ];
        for (numbers, verdict) in cases {
            assert_eq!(compare(&copy(numbers), LINES, 4), verdict, "{numbers:?}");
        }
        let mut garbled = copy(&[0, 1, 2, 3]);
        let at = garbled.len() - 3;
        garbled[at] ^= 1;
        assert_eq!(compare(&garbled, LINES, 4).garbled, 1);
    }
}
