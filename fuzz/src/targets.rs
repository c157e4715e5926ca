//! Every target.

mod blocks;
mod change;
mod files;
mod signed;
mod sync;
mod texts;
mod wire;

use crate::corpus::Failed;
use crate::target::Target;

/// All of them, in the order in which they are run.
pub fn all() -> Vec<Box<dyn Target>> {
    let mut all: Vec<Box<dyn Target>> = vec![
        Box::new(change::Admission::new()),
        Box::new(signed::Statements::new()),
        Box::new(signed::ReportBodies::new()),
        Box::new(sync::Pages::new()),
        Box::new(sync::Requests::new()),
        Box::new(blocks::Extents),
        Box::new(blocks::SpeedFrames),
        Box::new(files::Tree::new()),
        Box::new(files::Notes::new()),
        Box::new(files::Snapshots::new()),
    ];
    all.extend(wire::all());
    all.extend(texts::all());
    all
}

/// One of them.
pub fn named(name: &str) -> Result<Box<dyn Target>, Failed> {
    let found = all().into_iter().find(|target| target.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = all().iter().map(|target| target.name()).collect();
        format!(
            "there is no target `{name}`; there are {}",
            names.join(", ")
        )
        .into()
    })
}
