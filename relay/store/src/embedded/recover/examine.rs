//! Reading the segments: what each holds, what of it is damaged, and whose lines may be lost by it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::{Examined, Recovery};
use crate::embedded::catalog::Saying;
use crate::embedded::index::Placed;
use crate::embedded::layout::block::{BlockFacts, FLAG_LOST};
use crate::embedded::layout::footer;
use crate::embedded::layout::frame::{self, Contents, Found, Kind};
use crate::embedded::layout::notes::store_id_of;
use crate::embedded::layout::stream;
use crate::embedded::segment::{self, Segment};
use crate::embedded::volume::seed_of;

impl Recovery<'_> {
    pub(super) fn examine_all(
        &mut self,
        files: &BTreeMap<u32, std::path::PathBuf>,
        known: &Saying,
    ) -> io::Result<Vec<Examined>> {
        let folder = self.directory.log();
        let numbers: BTreeSet<u32> = files.keys().chain(known.segments.keys()).copied().collect();
        let mut all = Vec::new();
        for number in numbers {
            let segment = Segment::new(&folder, number, self.disk.clone());
            let known_bytes = known.segments.get(&number).map_or(0, |note| note.known_bytes);
            if !files.contains_key(&number) {
                self.tell(
                    &segment.path,
                    &format!("is missing; at least {known_bytes} bytes had been written to it"),
                );
                self.is_uncertain = true;
                continue;
            }
            if let Some(examined) = self.examine(segment, known_bytes)? {
                all.push(examined);
            }
        }
        for (facts, placed) in std::mem::take(&mut self.lost) {
            self.index.put_lost(&facts, &placed);
        }
        Ok(all)
    }

    /// Takes what a segment holds into the index. `None`: nothing was ever written to it.
    fn examine(
        &mut self,
        segment: std::sync::Arc<Segment>,
        known_bytes: u64,
    ) -> io::Result<Option<Examined>> {
        let file = segment.open()?;
        let bytes = file.metadata()?.len();
        if let Some(table) = segment::read_footer(&file, segment.number)?
            && bytes >= known_bytes
            && let Ok(listed) = footer::read(&table)
        {
            self.index.add_segment(segment.clone(), bytes, true);
            for listed in listed {
                let placed = Placed {
                    segment: segment.number,
                    offset: listed.offset,
                    meta_bytes: listed.meta_bytes,
                    body_bytes: listed.body_bytes,
                    body_check: listed.body_check,
                    batch: listed.batch,
                };
                self.take(listed.kind, listed.meta, &placed, || {
                    Bytes::copy_from_slice(listed.body)
                });
            }
            return Ok(Some(Examined {
                segment,
                bytes,
                is_sealed: true,
                is_damaged: false,
            }));
        }
        drop(file);
        let content = segment::read_whole(&segment.path)?;
        let known = usize::try_from(known_bytes).unwrap_or(usize::MAX);
        let contents = frame::look_through(&content, segment.number, known, seed_of);
        if contents.records.is_empty() && contents.damaged.is_empty() {
            // Its header was never finished, so nothing was.
            self.disk.remove(&segment.path)?;
            return Ok(None);
        }
        Ok(Some(self.take_all(segment, &content, &contents)))
    }

    fn take_all(
        &mut self,
        segment: std::sync::Arc<Segment>,
        content: &[u8],
        contents: &Contents,
    ) -> Examined {
        self.tell_damage(&segment, content, contents);
        if let Some(at) = contents.unfinished {
            tracing::info!(
                "{}: dropped an unfinished write at byte {at}, as after a crash",
                segment.path.display()
            );
        }
        let has_footer = contents
            .records
            .iter()
            .any(|record| record.head.kind == Kind::End);
        let is_damaged = !contents.is_sound() || has_footer;
        let bytes = contents.end() as u64;
        self.index.add_segment(segment.clone(), bytes, false);
        for record in &contents.records {
            self.take_found(&segment, content, record);
        }
        Examined {
            segment,
            bytes,
            is_sealed: false,
            is_damaged,
        }
    }

    fn tell_damage(&mut self, segment: &Segment, content: &[u8], contents: &Contents) {
        for range in &contents.damaged {
            let what = if range.end > content.len() {
                format!("is cut off at byte {}; it had {} bytes", content.len(), range.end)
            } else {
                format!("is damaged from byte {} to {}", range.start, range.end)
            };
            self.tell(
                &segment.path,
                &format!(
                    "{what}; all whole records around it are kept, and the file as it was is kept in damaged/"
                ),
            );
            // What is behind the last record of a sealed segment is only its table of contents.
            self.is_uncertain |= !is_behind_contents(contents, range);
        }
        for record in contents.records.iter().filter(|record| !record.is_body_sound) {
            let whose = match record.head.kind {
                Kind::Block => BlockFacts::from_meta(&content[record.meta.clone()]).map_or_else(
                    |_| "lines".to_owned(),
                    |facts| {
                        format!(
                            "lines {} to {} of stream {}",
                            facts.first_sequence,
                            facts.next_sequence - 1,
                            facts.stream_id
                        )
                    },
                ),
                Kind::Footer => "its table of contents, which nothing else needs".to_owned(),
                _ => "a record that the catalog has too".to_owned(),
            };
            self.tell(
                &segment.path,
                &format!(
                    "is damaged between byte {} and {}: {whose}; the file as it was is kept in damaged/",
                    record.body.start, record.body.end
                ),
            );
        }
    }

    pub(super) fn take_found(&mut self, segment: &Segment, content: &[u8], record: &Found) {
        let head = &record.head;
        let Ok(offset) = u32::try_from(record.offset) else {
            return;
        };
        let placed = Placed {
            segment: segment.number,
            offset,
            meta_bytes: head.meta_bytes,
            body_bytes: head.body_bytes,
            body_check: head.body_check,
            batch: head.batch,
        };
        let meta = &content[record.meta.clone()];
        if !record.is_body_sound {
            // Of a block its place in the stream is known all the same.
            if head.kind == Kind::Block
                && let Ok(mut facts) = BlockFacts::from_meta(meta)
            {
                facts.flags |= FLAG_LOST;
                self.last_batch = self.last_batch.max(head.batch);
                self.lost.push((facts, placed));
            }
            return;
        }
        self.take(head.kind, meta, &placed, || {
            Bytes::copy_from_slice(&content[record.body.clone()])
        });
    }

    /// Takes a sound record into the index.
    pub(super) fn take(&mut self, kind: Kind, meta: &[u8], placed: &Placed, body: impl FnOnce() -> Bytes) {
        self.last_batch = self.last_batch.max(placed.batch);
        let taken = match kind {
            Kind::Block => BlockFacts::from_meta(meta)
                .map(|facts| {
                    if facts.flags & FLAG_LOST == 0 {
                        self.index.put_block(&facts, placed);
                    } else {
                        self.lost.push((facts, *placed));
                    }
                })
                .map_err(|error| error.to_string()),
            Kind::Stream => stream::from_meta(meta)
                .map(|(stream_id, created)| self.index.put_stream(stream_id, created, *placed, body()))
                .map_err(|error| error.to_string()),
            Kind::Agent => self
                .index
                .put_agent(*placed, body())
                .map_err(|error| error.to_string()),
            Kind::Header => store_id_of(meta)
                .map(|store_id| self.store_id = Some(store_id))
                .map_err(|error| error.to_string()),
            Kind::Footer | Kind::End | Kind::Bound | Kind::Segment => Ok(()),
        };
        if let Err(error) = taken {
            // Its checksums are right, so it was written like this.
            tracing::error!(
                "store: a record of segment {} cannot be read: {error}",
                placed.segment
            );
        }
    }
}

fn is_behind_contents(contents: &Contents, range: &Range<usize>) -> bool {
    let footer = contents
        .records
        .iter()
        .find(|record| record.head.kind == Kind::Footer);
    footer.is_some_and(|footer| footer.offset < range.start)
}
