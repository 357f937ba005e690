//! Records that are dropped or sampled, and how many.

use serde::Deserialize;

use super::super::pattern::LinePattern;

const MAX_RULES: usize = 64;

/// One of `drop` of a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRule {
    /// Records that match are dropped.
    pattern: String,
    /// But the first of each so many.
    keep_one_in: Option<u64>,
}

/// Rules, checked.
#[derive(Debug)]
pub struct DropSettings {
    rules: Vec<(LinePattern, u64)>,
}

impl DropSettings {
    /// `None` when there is nothing to drop.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn new(rules: &[DropRule]) -> Result<Option<Self>, String> {
        if rules.len() > MAX_RULES {
            return Err(format!("drop: {} rules; the limit is {MAX_RULES}", rules.len()));
        }
        let rules = rules.iter().map(|rule| {
            let pattern = LinePattern::new(&rule.pattern).map_err(|error| format!("drop: {error}"))?;
            match rule.keep_one_in {
                Some(0 | 1) => {
                    Err("drop: keep_one_in has to be at least 2; leave it out to drop all".to_owned())
                }
                keep => Ok((pattern, keep.unwrap_or(0))),
            }
        });
        let rules = rules.collect::<Result<Vec<_>, String>>()?;
        Ok((!rules.is_empty()).then_some(Self { rules }))
    }

    /// What finds lines that a rule may match.
    pub(super) fn scans(&self) -> impl Iterator<Item = impl Fn(&[u8]) -> Option<usize>> {
        self.rules
            .iter()
            .map(|(pattern, _)| |text: &[u8]| pattern.next_candidate(text))
    }

    /// Whether the record is dropped; counts it then.
    pub(super) fn drops(&self, record: &[u8], counts: &mut Counts) -> bool {
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        for ((pattern, keep_one_in), count) in self.rules.iter().zip(&mut counts.rules) {
            if pattern.is_match(record) {
                let number = count.matched;
                count.matched += 1;
                if *keep_one_in > 0 && number.is_multiple_of(*keep_one_in) {
                    return false;
                }
                count.dropped += 1;
                return true;
            }
        }
        false
    }
}

#[derive(Debug, Default, Clone)]
struct Count {
    /// Ever, for sampling.
    matched: u64,
    /// Since it was said.
    dropped: u64,
}

/// What was dropped.
#[derive(Debug, Default)]
pub(super) struct Counts {
    rules: Vec<Count>,
}

impl Counts {
    pub(super) fn new(settings: Option<&DropSettings>) -> Self {
        Self {
            rules: vec![Count::default(); settings.map_or(0, |settings| settings.rules.len())],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.iter().all(|count| count.dropped == 0)
    }

    /// The counts as the end of a sentence; they begin anew.
    pub(super) fn take_words(&mut self, settings: Option<&DropSettings>) -> String {
        let mut words = Vec::new();
        for ((pattern, _), count) in settings
            .iter()
            .flat_map(|settings| &settings.rules)
            .zip(&mut self.rules)
        {
            let dropped = std::mem::take(&mut count.dropped);
            if dropped > 0 {
                words.push(format!("{dropped} that match {:?}", pattern.as_str()));
            }
        }
        format!("not sent, as configured: {}", words.join(", "))
    }
}
