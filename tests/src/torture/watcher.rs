//! A live subscriber through a bad network: checks every line against its source as it comes, and keeps none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_client::{Client, Event, Start, TailOptions};

use super::run::Register;
use super::source::{Lines, Source};
use super::verdict::number_of;

/// What a subscriber has of one file or run.
#[derive(Debug, Default)]
struct View {
    is_run: bool,
    /// What a run has said of its beginning and its end, each once.
    has_started: bool,
    has_ended: bool,
    /// Bytes of a line that is not complete.
    open: Vec<u8>,
    /// Number of the next line; `None` until the first whole line after a start in the middle.
    next: Option<u64>,
    /// The first piece was in the middle of a line.
    skips_fragment: bool,
    problem: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By path or run id.
    views: Mutex<BTreeMap<String, View>>,
    /// Why it ended, which it must not.
    ended: Mutex<Option<String>>,
}

/// How a subscriber reads.
#[derive(Debug, Clone)]
pub struct Habit {
    pub name: &'static str,
    pub start: Start,
    /// It rests this long after each block.
    pub rest: Duration,
}

#[derive(Debug)]
pub struct Watcher {
    pub habit: Habit,
    shared: Arc<Shared>,
    _task: tokio::task::JoinSet<()>,
}

impl Watcher {
    pub fn start(url: String, habit: Habit, sources: &[Arc<Source>], register: Register) -> Self {
        let shared = Arc::new(Shared::default());
        let of_files: HashMap<String, Lines> = sources
            .iter()
            .map(|source| (source.path.display().to_string(), source.lines))
            .collect();
        let lines = move |instance: &str| {
            let of_run = || register.lock().get(instance).map(|run| run.lines);
            of_files.get(instance).copied().or_else(of_run)
        };
        let mut task = tokio::task::JoinSet::new();
        task.spawn({
            let (shared, habit) = (Arc::clone(&shared), habit.clone());
            async move {
                let ended = match follow(url, &habit, &lines, &shared).await {
                    Ok(()) => "the subscription ended".to_owned(),
                    Err(error) => error.to_string(),
                };
                *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            }
        });
        Self {
            habit,
            shared,
            _task: task,
        }
    }

    /// Whether it has every line of a file or run up to `count`, and then these bytes.
    ///
    /// # Errors
    /// What is wrong with what it saw.
    pub fn has(&self, instance: &str, count: u64, fragment: &[u8]) -> Result<bool, String> {
        let named = |problem: &str| format!("subscriber {}: {problem}", self.habit.name);
        if let Some(ended) = &*self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(named(ended));
        }
        let views = self.shared.views.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = views.get(instance) else {
            return Ok(count == 0 && fragment.is_empty());
        };
        match &view.problem {
            Some(problem) => Err(named(&format!("{instance}: {problem}"))),
            None => Ok(view.next.unwrap_or(0) == count && view.open == fragment),
        }
    }
}

async fn follow(
    url: String,
    habit: &Habit,
    lines: &(impl Fn(&str) -> Option<Lines> + Sync),
    shared: &Shared,
) -> Result<(), millstream_client::Error> {
    let client = Client::connect(url.as_str()).await?;
    let options = TailOptions {
        start: habit.start.clone(),
        follow: true,
        ..TailOptions::default()
    };
    let mut subscription = client.tail(options).await?;
    while let Some(event) = subscription.next().await? {
        match event {
            Event::Lines(block) => {
                let instance = block.stream().instance.clone();
                let lines = lines(&instance);
                {
                    let mut views = shared.views.lock().unwrap_or_else(PoisonError::into_inner);
                    let view = views.entry(instance).or_insert_with(|| View {
                        is_run: block.stream().run.is_some(),
                        next: (habit.start == Start::Beginning).then_some(0),
                        skips_fragment: habit.start != Start::Beginning,
                        ..View::default()
                    });
                    for line in block.lines() {
                        if line.channel == millstream_proto::v1::Channel::Notice {
                            let text = String::from_utf8_lossy(line.text);
                            view.notice(&text);
                            continue;
                        }
                        let Some(lines) = lines else {
                            view.complain("a line of a run that nobody knows".to_owned());
                            continue;
                        };
                        view.open.extend_from_slice(line.text);
                        if !line.partial {
                            view.open.push(b'\n');
                            view.line_complete(lines);
                        }
                    }
                }
                tokio::time::sleep(habit.rest).await;
            }
            Event::Gap { gap, .. } => {
                let mut views = shared.views.lock().unwrap_or_else(PoisonError::into_inner);
                for view in views.values_mut() {
                    view.complain(format!("a gap: {gap:?}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

impl View {
    fn line_complete(&mut self, lines: Lines) {
        let line = std::mem::take(&mut self.open);
        if std::mem::take(&mut self.skips_fragment) && number_of(&line).is_none() {
            return;
        }
        let number = self.next.or_else(|| number_of(&line)).unwrap_or(0);
        let mut wanted = Vec::with_capacity(line.len());
        lines.append(number, &mut wanted);
        if wanted != line {
            let got = line.get(..40).unwrap_or(&line).escape_ascii().to_string();
            self.complain(format!("wanted line {number}, got {got:?}"));
        }
        self.next = Some(number + 1);
    }

    fn notice(&mut self, text: &str) {
        let kind = text.split_once(": ").map_or(text, |(kind, _)| kind);
        let is_expected = self.is_run
            && match kind {
                // The first thing of all, for who reads from the beginning.
                "run-started" => {
                    !std::mem::replace(&mut self.has_started, true)
                        && self.next.is_none_or(|next| next == 0)
                        && self.open.is_empty()
                }
                "run-ended" => !std::mem::replace(&mut self.has_ended, true),
                // Whether a run had to be lost is compared with what is stored; a write that its supervisor was
                // killed in may be torn. A child whose spool is full writes nothing.
                "run-lost" | "spool-damaged" | "no-output" => true,
                _ => false,
            };
        if !is_expected {
            self.complain(format!("a notice: {text}"));
        }
    }

    fn complain(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }
}
