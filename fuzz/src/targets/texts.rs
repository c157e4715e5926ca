//! Values that people pass on as text: invites, key files, ids.

use crate::sample::{Sample, identity};
use crate::target::{Target, Verdict};
use crdt::Limit;
use crdt::plan::hook::{hooks_text, parse_hooks};
use keys::invite::Token;
use keys::{Identity, Name, NodeId};

/// A text, its seeds, and what reads and writes it.
struct Text {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    /// The text of what was read; none where it was refused.
    again: fn(&str) -> Option<String>,
    /// How far two texts of one value may differ.
    normal: fn(&str) -> String,
}

impl Target for Text {
    fn name(&self) -> &'static str {
        self.name
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let Ok(text) = std::str::from_utf8(input) else {
            return Ok(Verdict::Refused);
        };
        match (self.again)(text) {
            None => Ok(Verdict::Refused),
            Some(again) if again == (self.normal)(text) => Ok(Verdict::Accepted),
            Some(_) => Err("another text of the same value was taken".into()),
        }
    }
}

pub fn all() -> Vec<Box<dyn Target>> {
    let token = Sample::make().token;
    let token = token.to_text().expect("the sample's invite is sound");
    let key = identity(3).to_file();
    vec![
        Box::new(Text {
            name: "text-invite",
            seeds: vec![token.as_bytes().to_vec()],
            again: |text| {
                let token = Token::from_text(text).ok()?;
                Some(token.to_text().ok()?.to_string())
            },
            normal: |text| text.trim().to_owned(),
        }),
        Box::new(Text {
            name: "text-key",
            seeds: vec![key.as_bytes().to_vec()],
            again: |text| Some(Identity::from_file(text).ok()?.to_file().trim().to_owned()),
            normal: |text| text.trim().to_ascii_lowercase(),
        }),
        Box::new(Text {
            name: "text-id",
            seeds: vec![NodeId([0xab; 32]).to_string().into_bytes()],
            again: |text| Some(text.parse::<NodeId>().ok()?.to_string()),
            normal: str::to_ascii_lowercase,
        }),
        Box::new(Text {
            name: "text-name",
            seeds: vec![b"web-1.example".to_vec()],
            again: |text| Some(Name::new(text).ok()?.to_string()),
            normal: str::to_owned,
        }),
        Box::new(Text {
            name: "text-limit",
            seeds: vec![
                b"20MiB/s zone=UTC".to_vec(),
                b"Mon-08:00,20MiB/s Fri-18:00,off zone=Europe/Berlin polite".to_vec(),
            ],
            // A limit can be said in several ways; its own text says it in one.
            again: |text| {
                let limit: Limit = text.parse().ok()?;
                let again: Limit = limit.to_string().parse().ok()?;
                (again == limit).then(|| text.to_owned())
            },
            normal: str::to_owned,
        }),
        Box::new(Text {
            name: "text-hooks",
            seeds: vec![
                b"none".to_vec(),
                b"before-freeze source stop-postgresql 60s stop HOOK_PORT=5432 ; after-cutover provisioner dns 5s continue".to_vec(),
            ],
            again: |text| {
                let hooks = parse_hooks(text).ok()?;
                let again = parse_hooks(&hooks_text(&hooks)).ok()?;
                (again == hooks).then(|| text.to_owned())
            },
            normal: str::to_owned,
        }),
    ]
}
