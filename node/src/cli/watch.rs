//! `migration watch` and `--wait`: looks at a migration again and again until it is
//! where it should be.
//!
//! Not here: where that is (`awaited`).

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::api::model::{ErrorKind, MigrationView};

use super::awaited::{Goal, News, Verdict, failure, is_over, judge};
use super::bars::Bars;
use super::outcome::CommandError;
use super::reader::Reader;
use super::render;
use super::screen::{Progress, Screen};
use super::task::Verb;

/// How often to look, and how long to put up with what may pass.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From look to look.
    pub every: Duration,
    /// A failure counts once it has stood so long: what was reported before a restart
    /// or a new start is replaced within this time.
    pub failed_for: Duration,
    /// A node may be away so long, as it is while it restarts.
    pub away_for: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(500),
            failed_for: Duration::from_secs(5),
            away_for: Duration::from_secs(60),
        }
    }
}

/// Waits for what the verb asks for, then prints the migration. `first` is the answer
/// to the verb.
pub async fn wait(
    verb: Verb,
    first: MigrationView,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    wait_at(Pace::default(), verb, first, reader, screen).await
}

/// As `wait`, at another pace.
pub async fn wait_at(
    pace: Pace,
    verb: Verb,
    first: MigrationView,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let mut display = Display::new(screen.progress(), false);
    let mut look = Looking::new(pace, reader, first.id.clone());
    let mut view = first;
    let mut failing = Failing::new(pace);
    let goal = Goal::from(verb);
    loop {
        display.show(&view, screen)?;
        match judge(goal, &view) {
            Verdict::Reached => break,
            Verdict::Waiting => failing.passed(),
            Verdict::Failed { volume, why } => {
                if failing.stands() {
                    display.end();
                    return Err(failed(&view, &volume, why.as_deref()));
                }
            }
            Verdict::Overruled { desired } => {
                display.end();
                return Err(overruled(verb, &view, &desired));
            }
        }
        match look.again(&mut display, screen).await? {
            Some(next) => view = next,
            None if goal == Goal::Deleted => break,
            None => {
                display.end();
                return Err(gone(&view));
            }
        }
    }
    display.end();
    screen.result(&view, |view, look| {
        render::migrations::reached(goal, view, look)
    })
}

/// Shows a migration until it is cut over or deleted.
pub async fn watch(
    which: &str,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    watch_at(Pace::default(), which, reader, screen).await
}

/// As `watch`, at another pace.
pub async fn watch_at(
    pace: Pace,
    which: &str,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let mut view = reader.migration(which).await?;
    let mut display = Display::new(screen.watching(), true);
    let mut look = Looking::new(pace, reader, view.id.clone());
    let mut failing = Failing::new(pace);
    loop {
        display.show(&view, screen)?;
        if is_over(&view) {
            break;
        }
        match failure(&view) {
            Some((volume, why)) if failing.stands() => {
                display.end();
                return Err(failed(&view, &volume, why.as_deref()));
            }
            Some(_) => {}
            None => failing.passed(),
        }
        match look.again(&mut display, screen).await? {
            Some(next) => view = next,
            None => break,
        }
    }
    display.end();
    if screen.json() {
        return Ok(());
    }
    screen.result(&view, render::migrations::over)
}

/// Looks at one migration, at a pace.
struct Looking<'a, R> {
    reader: &'a R,
    id: String,
    ticks: Interval,
    away_for: Duration,
}

impl<'a, R: Reader> Looking<'a, R> {
    fn new(pace: Pace, reader: &'a R, id: String) -> Self {
        let mut ticks = interval(pace.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is due at once, and what is due now was just looked at.
        ticks.reset();
        Self {
            reader,
            id,
            ticks,
            away_for: pace.away_for,
        }
    }

    /// The migration at the next tick; none when it is no longer there.
    async fn again(
        &mut self,
        display: &mut Display,
        screen: &mut Screen,
    ) -> Result<Option<MigrationView>, CommandError> {
        let mut away_since = None;
        loop {
            self.ticks.tick().await;
            let error = match self.reader.migration(&self.id).await {
                Ok(view) => return Ok(Some(view)),
                Err(error) => error,
            };
            match error.kind() {
                Some(ErrorKind::NotFound) => return Ok(None),
                Some(ErrorKind::NotRunning) => {}
                _ => return Err(error),
            }
            if away_since.is_none() {
                display.tell("the node does not answer; still trying", screen);
            }
            let since = *away_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.away_for {
                display.end();
                return Err(error);
            }
        }
    }
}

/// How long a failure has stood.
struct Failing {
    since: Option<Instant>,
    for_long: Duration,
}

impl Failing {
    fn new(pace: Pace) -> Self {
        Self {
            since: None,
            for_long: pace.failed_for,
        }
    }

    fn passed(&mut self) {
        self.since = None;
    }

    fn stands(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() >= self.for_long
    }
}

/// How work under way is shown.
enum Display {
    Bars(Bars),
    /// As the result of the command, or else as notes.
    Lines {
        news: News,
        as_result: bool,
    },
    /// Each view that differs from the one before in more than that time has passed.
    Json {
        last: String,
    },
    Silent,
}

impl Display {
    fn new(progress: Progress, as_result: bool) -> Self {
        match progress {
            Progress::Bars => Self::Bars(Bars::new()),
            Progress::Lines => Self::Lines {
                news: News::default(),
                as_result,
            },
            Progress::Json => Self::Json {
                last: String::new(),
            },
            Progress::Silent => Self::Silent,
        }
    }

    fn show(&mut self, view: &MigrationView, screen: &mut Screen) -> Result<(), CommandError> {
        match self {
            Self::Bars(bars) => bars.show(view),
            Self::Lines { news, as_result } => {
                for line in news.lines(view) {
                    if *as_result {
                        screen.out(&format!("{}\n", super::page::clean(&line)))?;
                    } else {
                        screen.note(line);
                    }
                }
            }
            Self::Json { last } => {
                let now = screen.json_text(&without_time(view))?;
                if *last != now {
                    screen.json_line(view)?;
                    *last = now;
                }
            }
            Self::Silent => {}
        }
        Ok(())
    }

    fn tell(&self, text: &str, screen: &mut Screen) {
        match self {
            Self::Bars(bars) => bars.tell(text),
            Self::Lines { .. } | Self::Json { .. } => screen.note(text),
            Self::Silent => {}
        }
    }

    fn end(&self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}

/// A view without what only grows older.
fn without_time(view: &MigrationView) -> MigrationView {
    let mut view = view.clone();
    for job in &mut view.volumes {
        if let Some(counters) = &mut job.counters {
            (counters.lag_secs, counters.barrier_age_secs) = (None, None);
        }
        if let Some(forecast) = &mut job.forecast {
            (forecast.behind_bytes, forecast.converges_in_secs) = (None, None);
            forecast.pass_left_secs = None;
        }
    }
    view
}

fn failed(view: &MigrationView, volume: &str, why: Option<&str>) -> CommandError {
    let name = &view.name;
    let why = why.unwrap_or("its node gives no reason");
    CommandError::failed(format!(
        "volume {volume} of migration {name} failed: {why}; see `dunlin migration log {name}`, put it right, then `dunlin migration start {name}`"
    ))
}

fn overruled(verb: Verb, view: &MigrationView, desired: &str) -> CommandError {
    let (name, verb) = (&view.name, verb.word());
    CommandError::refused(format!(
        "the {verb} of migration {name} was overruled: the plan now wants `{desired}`; see `dunlin migration show {name}`"
    ))
}

fn gone(view: &MigrationView) -> CommandError {
    let name = &view.name;
    CommandError::new(
        ErrorKind::NotFound,
        format!(
            "migration {name} is no longer there: it was deleted meanwhile; see `dunlin events`"
        ),
    )
}
