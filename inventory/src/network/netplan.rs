//! `/etc/netplan/*.yaml`: netplan(5).
//!
//! Of YAML it reads what netplan, cloud-init and installers write: mappings and lists in
//! blocks or in one line, and plain or quoted words. Anchors, tags and texts of several
//! lines are not understood, and what they are about is absent.

use super::ifcfg::method;
use crate::settings::unquoted;
use crdt::inventory::{Configured, ConfiguredBy};

/// Kinds of interfaces that have addresses.
const KINDS: [&str; 5] = ["ethernets", "bonds", "bridges", "vlans", "wifis"];
/// Deeper ones are nobody's.
const MAX_DEPTH: usize = 16;
/// Words of a file that are taken in.
const MAX_LEAVES: usize = 4_096;
/// Bytes of a key: names of interfaces have 15 at most.
const MAX_KEY: usize = 256;

/// A word with the keys that lead to it; the items of a list have the same keys.
type Leaf = (Vec<String>, String);

pub(super) fn parse(file: &str, text: &str) -> Vec<Configured> {
    let leaves = leaves(text);
    let mut names: Vec<(&str, &str)> = vec![];
    for (keys, _) in &leaves {
        if let [network, kind, name, ..] = &keys[..]
            && network == "network"
            && KINDS.contains(&kind.as_str())
            && !names.contains(&(kind, name))
        {
            names.push((kind, name));
        }
    }
    let configured = names.into_iter().map(|(kind, name)| {
        let all = |wanted: &[&str]| -> Vec<String> {
            let mine = leaves.iter().filter(|(keys, _)| {
                keys.len() >= 3
                    && keys[1] == kind
                    && keys[2] == name
                    && keys[3..]
                        .iter()
                        .map(String::as_str)
                        .eq(wanted.iter().copied())
            });
            mine.map(|(_, word)| word.clone()).collect()
        };
        let on = |key: &str| {
            all(&[key])
                .iter()
                .any(|word| matches!(&**word, "true" | "yes" | "on"))
        };
        let addresses = all(&["addresses"]);
        let mut gateways = all(&["gateway4"]);
        gateways.extend(all(&["gateway6"]));
        let (to, via) = (all(&["routes", "to"]), all(&["routes", "via"]));
        let is_default = |to: &str| matches!(to, "default" | "0.0.0.0/0" | "::/0" | "0/0");
        let routed = to.iter().zip(via).filter(|(to, _)| is_default(to));
        gateways.extend(routed.map(|(_, via)| via));
        let matched = all(&["match", "name"]).pop();
        Configured {
            by: ConfiguredBy::Netplan,
            file: file.to_owned(),
            interface: matched.unwrap_or_else(|| name.to_owned()),
            mac: all(&["match", "macaddress"]).join(" ").to_ascii_lowercase(),
            method: method(on("dhcp4") || on("dhcp6"), &addresses),
            dns: all(&["nameservers", "addresses"]),
            addresses,
            gateways,
        }
    });
    configured.collect()
}

/// All words of a text with their keys.
fn leaves(text: &str) -> Vec<Leaf> {
    let mut leaves = vec![];
    // Keys that are open, each with its indent.
    let mut open: Vec<(usize, String)> = vec![];
    for line in text.lines() {
        let mut rest = line.trim_start();
        if rest.is_empty() || rest.starts_with('#') || rest.starts_with("---") {
            continue;
        }
        let mut indent = line.len() - rest.len();
        // A list may stand as far left as its key: its items do not close it.
        let is_item = rest == "-" || rest.starts_with("- ");
        open.retain(|(at, _)| *at < indent || (is_item && *at == indent));
        while let Some(item) = rest.strip_prefix("- ") {
            let item_rest = item.trim_start();
            indent += rest.len() - item_rest.len();
            open.retain(|(at, _)| *at < indent);
            rest = item_rest;
        }
        let keys = || open.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>();
        match key_and_value(rest) {
            Some((key, "")) if open.len() < MAX_DEPTH => open.push((indent, key)),
            Some((key, value)) => {
                let mut keys = keys();
                keys.push(key);
                flow(keys, value, &mut leaves);
            }
            None => flow(keys(), rest, &mut leaves),
        }
    }
    leaves
}

/// `key: value` or `key:`; none where the colon is part of a word, as in an address.
fn key_and_value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with(['"', '\'']);
    let from = match quoted {
        true => 1 + text[1..].find(&text[..1])?,
        false => 0,
    };
    if text.starts_with(['[', '{']) {
        return None;
    }
    let bare = match text[from..].find(": ") {
        Some(at) => from + at,
        None => text.strip_suffix(':')?.len(),
    };
    if bare > MAX_KEY {
        return None;
    }
    let value = text[bare + 1..].trim();
    let value = if value.starts_with('#') { "" } else { value };
    Some((unquoted(&text[..bare]), value))
}

/// A value in one line: a word, `[a, b]` or `{a: b}`.
fn flow(keys: Vec<String>, value: &str, leaves: &mut Vec<Leaf>) {
    flow_at(0, keys, value, leaves);
}

fn flow_at(depth: usize, keys: Vec<String>, value: &str, leaves: &mut Vec<Leaf>) {
    let value = value.trim();
    if depth > MAX_DEPTH || keys.len() > MAX_DEPTH || leaves.len() >= MAX_LEAVES {
        return;
    }
    if let Some(list) = value.strip_prefix('[') {
        for item in apart(list.split(']').next().unwrap_or_default()) {
            flow_at(depth + 1, keys.clone(), item, leaves);
        }
    } else if let Some(map) = value.strip_prefix('{') {
        for item in apart(map.trim_end().trim_end_matches('}')) {
            if let Some((key, value)) = key_and_value(item.trim()) {
                let mut keys = keys.clone();
                keys.push(key);
                flow_at(depth + 1, keys, value, leaves);
            }
        }
    } else if !value.is_empty() {
        leaves.push((keys, unquoted(value)));
    }
}

/// Items between commas that are in no inner brackets.
fn apart(list: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let items = list.split(|c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    });
    items.filter(|item| !item.trim().is_empty()).collect()
}
