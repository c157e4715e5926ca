//! Which folder is this node's.
//!
//! Not here: what is in it.

use std::env;
use std::path::{Path, PathBuf};

use super::Globals;
use super::outcome::CommandError;

const OF_ROOT: &str = "/var/lib/dunlin";

impl Globals {
    /// The folder of this node, absolute: what was given, or the default of this user.
    pub fn folder(&self) -> Result<PathBuf, CommandError> {
        let var = |name| env::var_os(name).map(PathBuf::from);
        let is_root = rustix::process::geteuid().is_root();
        let folder = choose(
            self.data_dir.as_deref(),
            is_root,
            var("XDG_DATA_HOME"),
            var("HOME"),
        );
        let folder = folder.ok_or_else(|| {
            CommandError::usage(
                "no data folder: neither --data-dir, DUNLIN_DATA_DIR, XDG_DATA_HOME nor HOME is set; give --data-dir DIR",
            )
        })?;
        std::path::absolute(&folder).map_err(|error| {
            let folder = folder.display();
            CommandError::usage(format!(
                "the data folder `{folder}` cannot be used: {error}; give --data-dir DIR"
            ))
        })
    }
}

/// As the XDG base directory specification has it: a relative `XDG_DATA_HOME` does
/// not count.
fn choose(
    given: Option<&Path>,
    is_root: bool,
    xdg_data_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    if is_root {
        return Some(PathBuf::from(OF_ROOT));
    }
    let data_home = xdg_data_home.filter(|path| path.is_absolute());
    let under_home = || Some(home.filter(|path| path.is_absolute())?.join(".local/share"));
    Some(data_home.or_else(under_home)?.join("dunlin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<PathBuf> {
        Some(PathBuf::from(text))
    }

    #[test]
    fn what_was_given_beats_every_default() {
        let given = Path::new("/srv/node");
        assert_eq!(choose(Some(given), true, None, None), path("/srv/node"));
        assert_eq!(
            choose(Some(given), false, path("/x"), path("/home/me")),
            path("/srv/node")
        );
    }

    #[test]
    fn root_has_the_system_folder_and_others_their_own() {
        assert_eq!(
            choose(None, true, path("/x"), path("/root")),
            path("/var/lib/dunlin")
        );
        assert_eq!(
            choose(None, false, path("/data"), path("/home/me")),
            path("/data/dunlin")
        );
        assert_eq!(
            choose(None, false, None, path("/home/me")),
            path("/home/me/.local/share/dunlin")
        );
    }

    #[test]
    fn a_relative_data_home_does_not_count_and_no_home_is_no_folder() {
        assert_eq!(
            choose(None, false, path("data"), path("/home/me")),
            path("/home/me/.local/share/dunlin")
        );
        assert_eq!(choose(None, false, None, None), None);
    }
}
