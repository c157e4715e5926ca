//! Marks by a program of BPF at the kernel's block events, which stores them itself: for
//! kernels from 5.5 on, of whose maps memory can be shared.

use std::io;
use std::ops::Range;

use blocks::DirtySet;
use blocks::tracking::Recent;

use super::assembler::Word;
use super::format::{Event, Stream};
use super::kernel::{Attached, Program, Seen, Told};
use super::layout::Layout;
use super::program::{self, Maps};
use super::{Disk, Marker, NoTracker, refused};

/// Programs that mark, and what they share with us.
#[derive(Debug)]
pub(super) struct Bpf {
    layout: Layout,
    control: Told,
    marks: Seen,
    sums: Seen,
    maps: Maps,
    /// The program runs as long as these are there.
    pub(super) _attached: Vec<Attached>,
}

impl Bpf {
    /// Has a program run at the events of these streams, and store this mark.
    pub(super) fn start(disk: &Disk, streams: &[Stream], mark: u16) -> Result<Self, NoTracker> {
        let layout = Layout::of(disk.sectors());
        let maps = Maps::of(&layout).map_err(refused("make maps for a BPF program"))?;
        let sharing = "share memory with a BPF program";
        let control = Told::new(&maps.control, 8).map_err(refused(sharing))?;
        let marks = Seen::new(&maps.marks, layout.bytes()).map_err(refused(sharing))?;
        let sums = Seen::new(&maps.sums, maps.bytes_of_sums());
        let sums = sums.map_err(refused(sharing))?;
        control.set_half(0, mark);
        let attached = streams.iter().map(|stream| {
            run_at(*stream, |event| {
                program::marking((event, *stream), disk.device(), &maps, &layout)
            })
        });
        Ok(Self {
            _attached: attached.collect::<Result<_, _>>()?,
            layout,
            control,
            marks,
            sums,
            maps,
        })
    }
}

impl Marker for Bpf {
    fn begin(&self, mark: u16) {
        self.control.set_half(0, mark);
    }

    fn seen(&self, stream: Stream) -> u64 {
        let places = self.maps.sums_of(stream);
        places.map(|place| self.sums.double(place)).sum()
    }

    fn collect(&self, what: (Recent, Range<u64>), into: &mut DirtySet) -> bool {
        self.layout.collect(|at| self.marks.half(at), what, into)
    }

    /// What a program could not store it has not counted either.
    fn has_lost(&self) -> bool {
        false
    }

    /// Programs run wherever there is an event.
    fn over(&self) -> Option<io::Error> {
        None
    }
}

/// Has a program run at the events of a stream, as this kernel lays them out.
pub(super) fn run_at(
    stream: Stream,
    program: impl FnOnce(&Event) -> Vec<Word>,
) -> Result<Attached, NoTracker> {
    let event = stream.event();
    let format = Event::of(stream)?;
    let loaded = Program::load(&program(&format));
    let loaded = loaded.map_err(|(source, says)| NoTracker::Program {
        event,
        source,
        says,
    })?;
    loaded
        .attach(format.id)
        .map_err(refused("follow the kernel's block events"))
}
