//! Who answers a look at a folder: the node that runs on it, or what is stored there.
//!
//! Not here: the answers (`api::client`, `offline`).

use super::Offline;
use crate::api::client::{Client, ClientError};
use crate::api::model::ErrorKind;
use crate::cli::outcome::CommandError;
use crate::store::StoreError;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a node may have its stored state open before it answers, or after.
const BEGINS: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Who answers.
pub enum Answering {
    /// The running node.
    Node(Client),
    /// Stored state: no node runs.
    Stored(Box<Offline>),
}

/// Finds who answers for `folder`. A node that is about to answer is waited for.
pub async fn answering(folder: &Path) -> Result<Answering, CommandError> {
    answering_within(BEGINS, folder).await
}

async fn answering_within(begins: Duration, folder: &Path) -> Result<Answering, CommandError> {
    let until = Instant::now() + begins;
    loop {
        match Client::connect(&folder.join("run")).await {
            Ok(client) => return Ok(Answering::Node(client)),
            Err(ClientError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match Offline::open(folder) {
            Ok(offline) => return Ok(Answering::Stored(Box::new(offline))),
            Err(error) if !is_open_elsewhere(&error) => {
                return Err(error.into());
            }
            Err(_) if Instant::now() >= until => {
                return Err(CommandError::new(
                    ErrorKind::NotRunning,
                    format!(
                        "the node of {} is starting, or stopping, and does not answer yet: try again in a few seconds; its log says what it does",
                        folder.display()
                    ),
                ));
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// Whether another process has the stored state open.
fn is_open_elsewhere(error: &anyhow::Error) -> bool {
    let stored = error.downcast_ref::<StoreError>();
    matches!(stored, Some(StoreError::Locked { .. }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::client::SOCKET;
    use crate::local::{Init, init};
    use crate::store::Store;
    use keys::{Name, Roles};
    use tempfile::TempDir;
    use tokio::net::UnixListener;

    fn founded(folder: &TempDir) -> std::path::PathBuf {
        let path = folder.path().join("data");
        let wanted = Init {
            mesh: Name::new("mesh").unwrap(),
            node: Name::new("node").unwrap(),
            roles: Roles::default(),
            site: None,
            root_key_out: None,
        };
        init(&path, wanted).unwrap();
        path
    }

    #[tokio::test]
    async fn a_look_at_a_stopped_node_makes_nothing_in_its_folder() {
        let folder = TempDir::new().unwrap();
        let path = founded(&folder);
        std::fs::remove_dir(path.join("copies")).unwrap();
        let stopped = answering(&path).await.unwrap();
        assert!(matches!(stopped, Answering::Stored(_)));
        assert!(!path.join("copies").exists());
    }

    #[tokio::test]
    async fn a_node_that_starts_is_waited_for_and_then_said_to_start() {
        let folder = TempDir::new().unwrap();
        let path = founded(&folder);
        let stopped = answering(&path).await.unwrap();
        assert!(matches!(stopped, Answering::Stored(_)));
        drop(stopped);

        let (_open, _) = Store::open(&path.join("dunlin.redb")).unwrap();
        let refused = answering_within(LOOK, &path).await.err().unwrap();
        assert_eq!(refused.kind(), Some(ErrorKind::NotRunning));
        assert!(refused.to_string().contains("is starting"), "{refused}");

        let socket = path.join("run").join(SOCKET);
        let (asked, answered) = tokio::join!(answering(&path), async {
            UnixListener::bind(socket).unwrap()
        });
        assert!(matches!(asked.unwrap(), Answering::Node(_)));
        drop(answered);
    }
}
