//! Shell completions and manual pages, made from the grammar.
//!
//! Not here: the user guide (`docs/`).

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::outcome::CommandError;
use super::screen::Screen;

/// Prints completions for a shell.
pub fn completions(shell: Shell, screen: &mut Screen) -> Result<(), CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dunlin", &mut text);
    screen.out(&String::from_utf8_lossy(&text))
}

/// Prints the manual page of the program, or of the command whose words are given.
pub fn man(words: &[String], screen: &mut Screen) -> Result<(), CommandError> {
    let mut root = Cli::command();
    // Names of subcommands carry those before them only once the grammar is built.
    root.build();
    let mut command = &root;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| {
            CommandError::usage(format!(
                "`{}` is no command; see `dunlin --help`",
                words.join(" ")
            ))
        })?;
    }
    let name = std::iter::once("dunlin").chain(words.iter().map(String::as_str));
    let name = name.collect::<Vec<_>>().join("-");
    let page = clap_mangen::Man::new(command.clone().display_name(name));
    let mut text = Vec::new();
    page.render(&mut text)
        .map_err(|error| CommandError::failed(format!("cannot make the manual page: {error}")))?;
    screen.out(&String::from_utf8_lossy(&text))
}
