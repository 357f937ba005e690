//! What the uplink does next: opens first, then one block of each stream in turn.

use bytes::Bytes;
use millstream_proto::v1;

use super::State;
use super::slot::{Slot, Stage};

/// Blocks of at least this much text are worth compressing, bytes.
const COMPRESS_FROM_BYTES: usize = 16 << 10;

/// What the session allows at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Text beyond what was acknowledged, bytes; one block may always be in flight.
    pub max_in_flight_bytes: usize,
    /// The relay reads zstd and the settings want it.
    pub compress: bool,
    /// The compressor is free.
    pub compressor_free: bool,
    /// The relay asked to wait; streams may still be opened.
    pub throttled: bool,
}

/// One thing to do.
#[derive(Debug)]
pub enum Action {
    Send(v1::push_request::Message),
    Compress(CompressJob),
    /// Nothing until something changes.
    Wait,
}

/// A block on its way to and from the compressor.
#[derive(Debug)]
pub struct CompressJob {
    pub(super) slot: u64,
    pub(super) seal: u64,
    pub block: v1::Block,
}

pub(super) fn next_action(state: &mut State, limits: &Limits) -> Action {
    if !state.connected {
        return Action::Wait;
    }
    while let Some(id) = state.to_open.pop_front() {
        let handle = state.next_handle;
        let Some(slot) = state.slots.get_mut(&id) else {
            continue;
        };
        if slot.handle.is_some() || slot.dead.is_some() {
            continue;
        }
        slot.handle = Some(handle);
        let message = open_message(slot, handle);
        state.next_handle += 1;
        state.handles.insert(handle, id);
        return Action::Send(v1::push_request::Message::OpenStream(message));
    }
    if limits.throttled {
        return Action::Wait;
    }
    // Each ready stream is looked at once; those that cannot go on now keep their place in the round.
    for _ in 0..state.ready.len() {
        let Some(id) = state.ready.pop_front() else {
            break;
        };
        let window = window_left(state, limits);
        let seal = state.next_seal + 1;
        let Some(slot) = state.slots.get_mut(&id) else {
            continue;
        };
        let before = slot.in_flight_bytes;
        let action = step(slot, id, seal, limits, window);
        let sent = slot.in_flight_bytes - before;
        slot.queued = slot.has_work();
        if slot.queued {
            state.ready.push_back(id);
        }
        state.next_seal = seal;
        state.in_flight_bytes += sent;
        if let Some(action) = action {
            return action;
        }
    }
    Action::Wait
}

/// Text that may be sent now, bytes; `None`: any one block.
fn window_left(state: &State, limits: &Limits) -> Option<usize> {
    (state.in_flight_bytes > 0).then(|| limits.max_in_flight_bytes.saturating_sub(state.in_flight_bytes))
}

fn step(slot: &mut Slot, id: u64, seal: u64, limits: &Limits, window: Option<usize>) -> Option<Action> {
    let fits = |bytes: usize| window.is_none_or(|left| bytes <= left);
    let unsent = slot.held.iter().position(|held| held.stage != Stage::Sent);
    let next = match unsent {
        Some(index) => index,
        None if slot.builder.is_empty() => return end_message(slot).map(Action::Send),
        None => {
            // The block goes on growing while it could not leave anyway.
            let large = limits.compress && slot.builder.text_bytes() >= COMPRESS_FROM_BYTES;
            if !fits(slot.builder.text_bytes()) || (large && !limits.compressor_free) {
                return None;
            }
            slot.seal(seal);
            slot.held.len() - 1
        }
    };
    let first = &slot.held[next];
    if first.stage == Stage::Ready || (first.stage == Stage::Sealed && !wants_compression(first, limits)) {
        if !fits(first.window_bytes()) {
            return None;
        }
        let handle = slot.handle?;
        let held = &mut slot.held[next];
        held.stage = Stage::Sent;
        slot.in_flight_bytes += held.window_bytes();
        let message = v1::PushBlock {
            handle,
            block: Some(held.block.clone()),
            checkpoint: held.checkpoint.clone(),
        };
        return Some(Action::Send(v1::push_request::Message::Block(message)));
    }
    if !limits.compressor_free {
        return None;
    }
    // While a block is being compressed the one behind it is looked at, so that the compressor never
    // idles for a round trip.
    let sealed = slot
        .held
        .iter_mut()
        .skip(next)
        .take(4)
        .find(|held| held.stage == Stage::Sealed)?;
    if !wants_compression(sealed, limits) {
        sealed.stage = Stage::Ready;
        return None;
    }
    sealed.stage = Stage::Compressing;
    Some(Action::Compress(CompressJob {
        slot: id,
        seal: sealed.seal,
        block: sealed.block.clone(),
    }))
}

fn wants_compression(held: &super::slot::Held, limits: &Limits) -> bool {
    limits.compress && held.window_bytes() >= COMPRESS_FROM_BYTES
}

fn end_message(slot: &mut Slot) -> Option<v1::push_request::Message> {
    let handle = slot.handle?;
    let next_sequence = slot.next_sequence;
    let end = slot.end.as_mut().filter(|end| !end.sent)?;
    end.sent = true;
    let message = v1::EndStream {
        handle,
        next_sequence,
        end: Some(end.end.clone()),
    };
    Some(v1::push_request::Message::EndStream(message))
}

fn open_message(slot: &Slot, handle: u32) -> v1::OpenStream {
    v1::OpenStream {
        handle,
        source: slot.spec.source.clone(),
        instance: slot.spec.instance.clone(),
        labels: slot.spec.labels.clone(),
        run: slot.spec.run.clone(),
        path: slot.spec.path.clone().unwrap_or_default(),
        only_if_known: slot.is_lifting(),
    }
}

/// A checkpoint of a source that has none.
pub(super) const NO_CHECKPOINT: Bytes = Bytes::new();
