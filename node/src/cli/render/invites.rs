//! Invites.
//!
//! Not here: a new invite's secret line, which is printed as it is (`act`).

use crate::api::model::InviteView;
use crate::cli::figures::{age, short_id};
use crate::cli::page::{Look, Page, Paint, Piece, Table};

use super::or_unknown;

/// All invites.
pub fn list(invites: &[InviteView], look: &Look) -> String {
    let mut page = Page::new(look);
    if invites.is_empty() {
        page.line("no invites; make one with `dunlin invite create --role ROLE`");
        return page.finish();
    }
    let mut table = Table::new(["ID", "STATE", "ROLES", "~NAME", "~SITE", ">USED", "ENDS"]);
    for invite in invites {
        let open = invite.state == "open";
        let paint = if open { Paint::Good } else { Paint::Dim };
        table.row([
            short_id(&invite.id).into(),
            Piece::new(&invite.state, paint),
            invite.roles.join(",").into(),
            or_unknown(invite.name.as_deref()),
            or_unknown(invite.site.as_deref()),
            format!("{}/{}", invite.used, invite.uses).into(),
            age(&invite.expires_at, look.now_secs).into(),
        ]);
    }
    page.table(table);
    page.finish()
}
