//! The short form of the simulation, and the proof that it would notice: two runs of a seed are the same, and
//! every way to be wrong on purpose is caught.

use std::sync::Mutex;

use millstream_sim::{Mutant, Options, Outcome, run, sweep};

const THREADS: usize = 2;

#[test]
fn hundreds_of_seeds_break_no_promise() {
    let failed = Mutex::new(Vec::new());
    let note = |outcome: &Outcome| {
        if !outcome.breaches.is_empty() {
            failed.lock().unwrap().push(outcome.clone());
        }
        true
    };
    let tally = sweep(1, 300, THREADS, Options::default(), note);
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "run it again with `cargo xtask sim --seeds 1 --seed SEED --trace`: {failed:#?}"
    );
    // They did something: some hundred thousand events in hours of virtual time.
    assert!(
        tally.events > 500 * tally.seeds && tally.took.as_secs() > 30 * tally.seeds,
        "{tally:?}"
    );
}

#[test]
fn two_runs_of_a_seed_are_the_same_event_by_event() {
    sweep(1000, 30, THREADS, Options::default(), |outcome| {
        assert_eq!(*outcome, run(outcome.seed, Options::default()));
        true
    });
    let hash = |seed| run(seed, Options::default()).hash;
    assert_ne!(hash(1000), hash(1001), "another seed is another run");
}

/// Catches the mutant within so many seeds.
fn is_caught(mutant: Mutant, seeds: u64) {
    let options = Options {
        mutant: Some(mutant),
        ..Options::default()
    };
    let tally = sweep(1, seeds, THREADS, options, |outcome| outcome.breaches.is_empty());
    assert!(tally.failed > 0, "{mutant:?} is not noticed in {seeds} seeds");
}

#[test]
fn every_way_to_be_wrong_is_noticed() {
    for mutant in Mutant::ALL {
        is_caught(mutant, 100);
    }
}
