//! What of a source is left out of its copy: fixed for an epoch, before its first pass, and
//! given up where it is not the same any more.
//!
//! Whoever reads the source compares all of it anew where something else is left out than in
//! the passes before (`node/src/transfer/left_out.rs`), so that what the record says holds for
//! all that was compared since.

use super::{Action, Agent, Record};
use blocks::SwapArea;
use keys::{BadLeftOut, LeftOut};

// What is left out can be stated.
const _: () = assert!(blocks::MAX_SWAP_AREAS <= keys::MAX_LEFT_OUT);

impl Record {
    /// The bytes that are left out of the copy of this epoch.
    ///
    /// # Errors
    /// Where these are none that could be stated. Then nothing may be.
    pub fn left_out(&self) -> Result<LeftOut, BadLeftOut> {
        let areas = self.swap.iter().flatten();
        let contents = areas.map(SwapArea::content);
        let extents = contents.filter(|content| !content.is_empty());
        LeftOut::new(
            extents
                .map(|content| (content.start, content.end - content.start))
                .collect(),
        )
    }
}

impl Agent {
    /// It is durable before a pass that relies on it begins.
    pub(super) fn leave_out(&mut self, swap: Vec<SwapArea>, out: &mut Vec<Action>) {
        if self.in_session() {
            self.record.swap = Some(swap);
            out.push(Action::Store(Box::new(self.record.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::agent::Record;
    use crate::world::JOB;
    use blocks::SwapArea;
    use keys::{BadLeftOut, Epoch, LeftOut};

    fn record(swap: Option<Vec<SwapArea>>) -> Record {
        Record {
            job: JOB,
            epoch: Epoch(1),
            replicator: None,
            barrier: 0,
            passes: vec![],
            moves: 0,
            finished: None,
            checkpoints: vec![],
            swap,
        }
    }

    fn area(offset: u64, length: u64) -> SwapArea {
        let uuid = [7; 16];
        SwapArea {
            offset,
            length,
            uuid,
        }
    }

    #[test]
    fn a_record_leaves_out_the_contents_of_its_areas_and_states_nothing_where_it_cannot() {
        let (first, small) = (area(0, 1 << 20), area(1 << 20, 70_000));
        let left_out = record(Some(vec![first, small])).left_out();
        assert_eq!(left_out, LeftOut::new(vec![(65_536, (1 << 20) - 65_536)]));
        for nothing in [None, Some(vec![]), Some(vec![small])] {
            assert_eq!(record(nothing).left_out(), Ok(LeftOut::default()));
        }
        let twice = record(Some(vec![first, first])).left_out();
        assert_eq!(twice, Err(BadLeftOut));
    }

    #[test]
    fn the_bytes_of_a_record_are_these() {
        let record = record(Some(vec![area(5, 9)]));
        let mut golden = vec![6];
        golden.extend(JOB.migration.0);
        golden.extend(JOB.volume.0);
        golden.extend([1, 0, 0, 0, 0, 0, 1, 1, 5, 9]);
        golden.extend([7; 16]);
        golden.push(0);
        assert_eq!(codec::encode(&record).unwrap(), golden);
        assert_eq!(codec::decode::<Record>(&golden).unwrap(), record);
    }
}
