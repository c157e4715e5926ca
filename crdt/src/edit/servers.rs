//! What an operator can decide about planned servers.

use super::{Edit, EditError, Value, Write};
use crate::plan::{EntryId, ServerPlan};
use crate::schema;
use keys::ServerId;
use std::collections::BTreeMap;

impl Edit<'_> {
    /// Plans a server. `planned_by` and `conflicts` are set by the document, whatever
    /// they say.
    pub fn create_server(&mut self, server: &ServerPlan) -> Result<(), EditError> {
        if self.server(&server.id).is_some() {
            return Err(EditError::ServerExists(server.id));
        }
        let mut draft = server.clone();
        draft.planned_by = self.author;
        draft.conflicts.clear();
        sound(&draft)?;
        // Of one that this edit has just deleted there may be more to clear.
        let remade = self.plan.servers.contains_key(&draft.id);
        let fields = fields_of(&draft).into_iter();
        let fields = fields.filter(|(_, value)| remade || *value != Value::Absent);
        let fields = fields.map(|(field, value)| (field.to_owned(), value));
        let write = Write::Fields(fields.collect());
        self.writes.insert(EntryId::Server(draft.id), write);
        self.servers.insert(draft.id, Some(draft));
        Ok(())
    }

    /// Writes what `server` says otherwise than the plan does, and settles what
    /// operators set apart from each other. Other fields stay as others set them.
    pub fn change_server(&mut self, server: &ServerPlan) -> Result<(), EditError> {
        let before = self.server(&server.id);
        let before = before.ok_or(EditError::UnknownServer(server.id))?.clone();
        sound(server)?;
        let open = |field: &str| before.conflicts.iter().any(|open| open.field == field);
        let old: BTreeMap<&str, Value> = fields_of(&before).into_iter().collect();
        for (field, value) in fields_of(server) {
            if old[field] != value || open(field) {
                self.write_field(EntryId::Server(server.id), field.to_owned(), value);
            }
        }
        let mut draft = server.clone();
        draft.planned_by = before.planned_by;
        draft.conflicts.clear();
        self.servers.insert(draft.id, Some(draft));
        Ok(())
    }

    /// Plans a server no more. It is gone also for who changes it at the same time.
    pub fn delete_server(&mut self, id: ServerId) -> Result<(), EditError> {
        self.server(&id).ok_or(EditError::UnknownServer(id))?;
        self.servers.insert(id, None);
        self.writes.insert(EntryId::Server(id), Write::Delete);
        Ok(())
    }

    /// The server as this edit has it so far.
    fn server(&self, id: &ServerId) -> Option<&ServerPlan> {
        match self.servers.get(id) {
            Some(draft) => draft.as_ref(),
            None => self.plan.servers.get(id),
        }
    }
}

fn fields_of(server: &ServerPlan) -> [(&'static str, Value); 5] {
    let optional = |text: &Option<String>| text.clone().map_or(Value::Absent, Value::Text);
    [
        (schema::NAME, Value::Text(server.name.clone())),
        (schema::SITE, Value::Text(server.site.clone())),
        (schema::ADDRESS, optional(&server.address)),
        (schema::WAVE, optional(&server.wave)),
        (schema::NOTE, optional(&server.note)),
    ]
}

fn sound(server: &ServerPlan) -> Result<(), EditError> {
    server.unsound().map_or(Ok(()), |field| {
        Err(EditError::Unsound {
            entry: EntryId::Server(server.id),
            field,
        })
    })
}
