//! A live subscriber through a bad network: checks every line against its source as it comes, and keeps none.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_client::{Client, Event, Start, TailOptions};

use super::source::{Lines, Source};
use super::verdict::number_of;

/// What a subscriber has of one source.
#[derive(Debug, Default)]
struct View {
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
    views: Mutex<BTreeMap<PathBuf, View>>,
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
    pub fn start(url: String, habit: Habit, sources: &[Arc<Source>]) -> Self {
        let shared = Arc::new(Shared::default());
        let lines: HashMap<PathBuf, Lines> = sources
            .iter()
            .map(|source| (source.path.clone(), source.lines))
            .collect();
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

    /// Whether it has every line of the source up to `count`.
    ///
    /// # Errors
    /// What is wrong with what it saw.
    pub fn has(&self, source: &Source, count: u64) -> Result<bool, String> {
        let named = |problem: &str| format!("subscriber {}: {problem}", self.habit.name);
        if let Some(ended) = &*self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(named(ended));
        }
        let views = self.shared.views.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = views.get(&source.path) else {
            return Ok(count == 0);
        };
        match &view.problem {
            Some(problem) => Err(named(&format!("{}: {problem}", source.path.display()))),
            None => Ok(view.next == Some(count)),
        }
    }
}

async fn follow(
    url: String,
    habit: &Habit,
    lines: &HashMap<PathBuf, Lines>,
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
                let path = PathBuf::from(block.stream().labels.get("path").map_or("", String::as_str));
                if let Some(lines) = lines.get(&path) {
                    let mut views = shared.views.lock().unwrap_or_else(PoisonError::into_inner);
                    let view = views.entry(path).or_insert_with(|| View {
                        next: (habit.start == Start::Beginning).then_some(0),
                        skips_fragment: habit.start != Start::Beginning,
                        ..View::default()
                    });
                    for line in block.lines() {
                        if line.channel == millstream_proto::v1::Channel::Notice {
                            let text = String::from_utf8_lossy(line.text);
                            view.complain(format!("a notice: {text}"));
                            continue;
                        }
                        view.open.extend_from_slice(line.text);
                        if !line.partial {
                            view.open.push(b'\n');
                            view.line_complete(*lines);
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

    fn complain(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }
}
