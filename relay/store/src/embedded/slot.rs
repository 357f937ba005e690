//! The place of the engine: it can be closed and opened again under its users, which is how a store goes on after
//! a write failed. The engine refuses everything after that, because it cannot know what of the write is on disk;
//! opening reads that back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use super::EmbeddedOptions;
use super::engine::Engine;
use crate::StoreError;

#[derive(Debug)]
pub(crate) struct EngineSlot {
    path: PathBuf,
    options: EmbeddedOptions,
    /// `None` only after opening it again failed.
    engine: RwLock<Option<Engine>>,
    /// A write failed: the engine has to be opened again before the next.
    is_broken: AtomicBool,
}

impl EngineSlot {
    pub(crate) fn open(path: PathBuf, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let engine = Engine::open(&path, &options)?;
        Ok(Self {
            path,
            options,
            engine: RwLock::new(Some(engine)),
            is_broken: AtomicBool::new(false),
        })
    }

    /// Uses the engine. The lock is held meanwhile: nothing that waits for a reader may happen inside.
    pub(crate) fn with<T>(
        &self,
        job: impl FnOnce(&Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A panic of another user left the engine as it was.
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        match &*engine {
            Some(engine) => job(engine),
            None => Err(StoreError::Engine {
                what: format!("open {} again", self.path.display()),
                cause: "it failed after an earlier write had failed; check the disk (space, errors)"
                    .to_owned(),
            }),
        }
    }

    /// Writes with the engine, after opening it again if an earlier write broke it. The job is told whether that
    /// was so: what failed then may be on disk after all.
    pub(crate) fn write<T>(
        &self,
        job: impl FnOnce(&Engine, bool) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let was_broken = self.is_broken.load(Ordering::Acquire);
        if was_broken {
            self.reopen()?;
        }
        let result = self.with(|engine| job(engine, was_broken));
        if matches!(result, Err(StoreError::Write { .. })) {
            self.is_broken.store(true, Ordering::Release);
        }
        result
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: two engines cannot have the same files.
        *engine = None;
        *engine = Some(Engine::open(&self.path, &self.options)?);
        self.is_broken.store(false, Ordering::Release);
        tracing::warn!("opened the store again after a failed write");
        Ok(())
    }
}
