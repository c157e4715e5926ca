//! Who can answer a look at the mesh. A running node does, through its local API.
//!
//! Not here: what is asked (`task`) and how answers look (`render`).

use crate::api::client::{Client, percent_encoded};
use crate::api::model::{
    EventQuery, EventView, InviteView, LimitView, MigrationView, NodeView, PlanView, ServerView,
    StatusView, VerifyView, VolumeView,
};

use super::outcome::CommandError;

/// Answers looks at the mesh. Things are named by id, prefix of an id, or name.
pub trait Reader {
    /// This node and its mesh.
    async fn status(&self) -> Result<StatusView, CommandError>;
    /// Every invite.
    async fn invites(&self) -> Result<Vec<InviteView>, CommandError>;
    /// Every node.
    async fn nodes(&self) -> Result<Vec<NodeView>, CommandError>;
    /// One node.
    async fn node(&self, which: &str) -> Result<NodeView, CommandError>;
    /// Every source.
    async fn servers(&self) -> Result<Vec<ServerView>, CommandError>;
    /// One source.
    async fn server(&self, which: &str) -> Result<ServerView, CommandError>;
    /// Every source disk.
    async fn volumes(&self) -> Result<Vec<VolumeView>, CommandError>;
    /// Every migration.
    async fn migrations(&self) -> Result<Vec<MigrationView>, CommandError>;
    /// One migration.
    async fn migration(&self, which: &str) -> Result<MigrationView, CommandError>;
    /// The roots of one migration.
    async fn verify(&self, which: &str) -> Result<VerifyView, CommandError>;
    /// Every limit.
    async fn limits(&self) -> Result<Vec<LimitView>, CommandError>;
    /// The plan as it is edited.
    async fn plan(&self) -> Result<PlanView, CommandError>;
    /// What happened, oldest first.
    async fn events(&self, query: &EventQuery) -> Result<Vec<EventView>, CommandError>;
}

impl Reader for Client {
    async fn status(&self) -> Result<StatusView, CommandError> {
        Ok(self.get("/v1/status").await?)
    }

    async fn invites(&self) -> Result<Vec<InviteView>, CommandError> {
        Ok(self.get("/v1/invites").await?)
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, CommandError> {
        Ok(self.get("/v1/nodes").await?)
    }

    async fn node(&self, which: &str) -> Result<NodeView, CommandError> {
        Ok(self.get(&one("nodes", which)).await?)
    }

    async fn servers(&self) -> Result<Vec<ServerView>, CommandError> {
        Ok(self.get("/v1/servers").await?)
    }

    async fn server(&self, which: &str) -> Result<ServerView, CommandError> {
        Ok(self.get(&one("servers", which)).await?)
    }

    async fn volumes(&self) -> Result<Vec<VolumeView>, CommandError> {
        Ok(self.get("/v1/volumes").await?)
    }

    async fn migrations(&self) -> Result<Vec<MigrationView>, CommandError> {
        Ok(self.get("/v1/migrations").await?)
    }

    async fn migration(&self, which: &str) -> Result<MigrationView, CommandError> {
        Ok(self.get(&one("migrations", which)).await?)
    }

    async fn verify(&self, which: &str) -> Result<VerifyView, CommandError> {
        Ok(self
            .get(&format!("{}/verify", one("migrations", which)))
            .await?)
    }

    async fn limits(&self) -> Result<Vec<LimitView>, CommandError> {
        Ok(self.get("/v1/limits").await?)
    }

    async fn plan(&self) -> Result<PlanView, CommandError> {
        Ok(self.patient().get("/v1/plan").await?)
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<EventView>, CommandError> {
        Ok(self.get(&events_route(query)).await?)
    }
}

/// The route of one thing.
pub fn one(kind: &str, which: &str) -> String {
    format!("/v1/{kind}/{}", percent_encoded(which))
}

fn events_route(query: &EventQuery) -> String {
    let migration = query.migration.as_deref().map(percent_encoded);
    let parts = [
        ("migration", migration),
        ("since", query.since.map(|secs| secs.to_string())),
        ("after", query.after.map(|seq| seq.to_string())),
    ];
    let given = parts
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let given: Vec<String> = given.collect();
    if given.is_empty() {
        "/v1/events".to_owned()
    } else {
        format!("/v1/events?{}", given.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_any_characters_stays_one_segment_of_a_route() {
        assert_eq!(
            one("nodes", "a/b?c#d e%é"),
            "/v1/nodes/a%2Fb%3Fc%23d%20e%25%C3%A9"
        );
    }

    #[test]
    fn an_event_query_carries_what_was_given_and_nothing_else() {
        assert_eq!(events_route(&EventQuery::default()), "/v1/events");
        let query = EventQuery {
            migration: Some("web & db".to_owned()),
            since: Some(7),
            after: Some(9),
        };
        assert_eq!(
            events_route(&query),
            "/v1/events?migration=web%20%26%20db&since=7&after=9"
        );
    }
}
