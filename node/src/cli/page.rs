//! Text for people: lines, labelled values and aligned tables, coloured where that is
//! wanted. What comes from other nodes cannot steer the terminal.
//!
//! Not here: what is said (`render`) and where it goes (`screen`).

/// A column is not made narrower than this to fit a terminal.
const NARROWEST_COLUMN: usize = 12;

/// Between columns.
const GAP: &str = "  ";

/// How a page is to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Seconds since the Unix epoch, for ages.
    pub now_secs: u64,
    /// Whether colours are wanted.
    pub colour: bool,
    /// Columns of the terminal; none when it is not one.
    pub width: Option<usize>,
}

/// A colour or weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// For headings.
    Bold,
    /// For what matters less.
    Dim,
    /// For what is well.
    Good,
    /// For what wants a look.
    Warn,
    /// For what is wrong.
    Bad,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// A piece of text with its paint.
#[derive(Debug, Clone)]
pub struct Piece {
    text: String,
    paint: Paint,
}

impl Piece {
    /// A piece on one line.
    pub fn new(text: impl AsRef<str>, paint: Paint) -> Self {
        let text = clean(text.as_ref()).replace('\n', " ");
        Self { text, paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn cut(&mut self, width: usize) {
        if self.width() > width {
            let kept: String = self.text.chars().take(width.saturating_sub(1)).collect();
            self.text = format!("{kept}…");
        }
    }
}

impl<T: AsRef<str>> From<T> for Piece {
    fn from(text: T) -> Self {
        Self::new(text, Paint::Plain)
    }
}

/// The text without what could steer a terminal or reorder what is read: control
/// characters but the line feed, and marks of writing direction.
pub fn clean(text: &str) -> String {
    let harmless = |c: char| {
        let steers = c.is_control() && c != '\n';
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if steers || reorders { '\u{fffd}' } else { c }
    };
    text.chars().map(harmless).collect()
}

/// A text that grows from top to bottom.
#[derive(Debug)]
pub struct Page {
    look: Look,
    text: String,
}

impl Page {
    /// An empty page.
    pub fn new(look: &Look) -> Self {
        Self {
            look: *look,
            text: String::new(),
        }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }

    /// A line of plain text; line feeds in it make more lines.
    pub fn line(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.text.push_str(&clean(text.as_ref()));
        self.text.push('\n');
        self
    }

    /// A line made of pieces.
    pub fn pieces<const N: usize>(&mut self, pieces: [Piece; N]) -> &mut Self {
        for piece in &pieces {
            self.put(piece);
        }
        self.text.push('\n');
        self
    }

    /// A heading with an empty line before it, unless it is at the top.
    pub fn heading(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.space();
        self.pieces([Piece::new(text, Paint::Bold)])
    }

    /// An empty line, unless at the top.
    pub fn space(&mut self) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self
    }

    /// Labelled values, aligned; those without a value are left out.
    pub fn labelled<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a str, Option<Piece>)>,
    ) -> &mut Self {
        let known: Vec<_> = values
            .into_iter()
            .filter_map(|(label, value)| Some((label, value?)))
            .collect();
        let width = known.iter().map(|(label, _)| label.chars().count()).max();
        let width = width.unwrap_or(0);
        for (label, value) in known {
            self.put(&Piece::new(format!("{label:<width$}{GAP}"), Paint::Dim));
            self.put(&value);
            self.text.push('\n');
        }
        self
    }

    /// A table.
    pub fn table(&mut self, mut table: Table) -> &mut Self {
        let widths = table.widths(self.look.width);
        let heads = table
            .columns
            .iter()
            .map(|c| Piece::new(c.head, Paint::Bold));
        let heads: Vec<Piece> = heads.collect();
        let rows = std::mem::take(&mut table.rows);
        for row in std::iter::once(heads).chain(rows) {
            self.row(&table.columns, &widths, row);
        }
        self
    }

    fn row(&mut self, columns: &[Column], widths: &[usize], row: Vec<Piece>) {
        let last = columns.len().saturating_sub(1);
        for (at, mut piece) in row.into_iter().enumerate() {
            piece.cut(widths[at]);
            let pad = " ".repeat(widths[at] - piece.width());
            if columns[at].right {
                self.text.push_str(&pad);
            }
            self.put(&piece);
            if at < last {
                if !columns[at].right {
                    self.text.push_str(&pad);
                }
                self.text.push_str(GAP);
            }
        }
        let end = self.text.trim_end_matches(' ').len();
        self.text.truncate(end);
        self.text.push('\n');
    }

    fn put(&mut self, piece: &Piece) {
        let code = piece.paint.code();
        if self.look.colour && !code.is_empty() && !piece.text.is_empty() {
            self.text.push_str(code);
            self.text.push_str(&piece.text);
            self.text.push_str("\x1b[0m");
        } else {
            self.text.push_str(&piece.text);
        }
    }
}

#[derive(Debug)]
struct Column {
    head: &'static str,
    right: bool,
    shrinks: bool,
}

/// Rows under heads. Columns are as wide as what they hold.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Piece>>,
}

impl Table {
    /// A table with these heads. A head that begins with `>` makes its column align
    /// right; one that begins with `~` may be cut to fit a terminal.
    pub fn new<const N: usize>(heads: [&'static str; N]) -> Self {
        let column = |head: &'static str| Column {
            head: head.trim_start_matches(['>', '~']),
            right: head.starts_with('>'),
            shrinks: head.starts_with('~'),
        };
        Self {
            columns: heads.into_iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many pieces as there are heads.
    pub fn row<const N: usize>(&mut self, row: [Piece; N]) {
        debug_assert_eq!(N, self.columns.len(), "a row fills every column");
        self.rows.push(row.into());
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let head = |column: &Column| column.head.chars().count();
        let mut widths: Vec<usize> = self.columns.iter().map(head).collect();
        for row in &self.rows {
            for (width, piece) in widths.iter_mut().zip(row) {
                *width = (*width).max(piece.width());
            }
        }
        let Some(limit) = limit else {
            return widths;
        };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        while excess > 0 {
            let widest = (0..widths.len())
                .filter(|at| self.columns[*at].shrinks && widths[*at] > NARROWEST_COLUMN)
                .max_by_key(|at| widths[*at]);
            let Some(at) = widest else {
                break;
            };
            widths[at] -= 1;
            excess -= 1;
        }
        widths
    }
}
