//! Tests of the rules, each on a small tree in memory. All go through `check`,
//! so that a rule that is not run fails its tests.

#![allow(clippy::unwrap_used)]

use super::*;

/// The places where `rule` finds fault in a tree of these files.
fn faults(rule: &str, files: &[(&str, &str)]) -> Vec<String> {
    check(&files.iter().copied().collect())
        .into_iter()
        .filter(|fault| fault.rule == rule)
        .map(|fault| format!("{}:{}", fault.path, fault.line))
        .collect()
}

fn assert_clean(rule: &str, files: &[(&str, &str)]) {
    let tree = files.iter().copied().collect();
    let found: Vec<Fault> = check(&tree)
        .into_iter()
        .filter(|fault| fault.rule == rule)
        .collect();
    assert_eq!(found, []);
}

fn manifest(name: &str, rest: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\ndescription = \"d\"\n[lints]\nworkspace = true\n{rest}\n"
    )
}

#[test]
fn a_fault_is_printed_as_file_line_rule_and_message() {
    let tree = [("keys/src/a.rs", "fn a() {}")].into_iter().collect();
    let fault = check(&tree)
        .into_iter()
        .find(|fault| fault.rule == "opening")
        .unwrap();
    assert_eq!(
        fault.to_string(),
        "keys/src/a.rs:1: opening: does not open with `//!` and what the file is"
    );
}

#[test]
fn a_crate_without_the_workspace_lints_or_a_description_is_a_fault() {
    let bare = "[package]\nname = \"keys\"\n";
    let stub = manifest("keys", "").replace("\"d\"", "\"TODO\"");
    assert_eq!(
        faults("manifest", &[("keys/Cargo.toml", bare)]),
        ["keys/Cargo.toml:1", "keys/Cargo.toml:1"]
    );
    assert_eq!(
        faults("manifest", &[("keys/Cargo.toml", &stub)]),
        ["keys/Cargo.toml:1"]
    );
    assert_eq!(
        faults("manifest", &[("keys/Cargo.toml", "[package\n")]),
        ["keys/Cargo.toml:1"]
    );
    assert_clean(
        "manifest",
        &[
            ("keys/Cargo.toml", &manifest("keys", "")),
            ("Cargo.toml", "[workspace]\nmembers = []\n"),
        ],
    );
}

#[test]
fn a_file_of_800_lines_is_accepted_and_one_more_is_a_fault() {
    let longest = "//! a\n".repeat(800);
    assert_clean("size", &[("keys/src/a.rs", &longest)]);
    let longer = format!("{longest}//! a\n");
    assert_eq!(
        faults("size", &[("keys/src/a/tests.rs", &longer)]),
        ["keys/src/a/tests.rs:801"]
    );
}

#[test]
fn a_file_must_open_with_words_about_itself() {
    for opening in ["", "//!\n", "// a\n", "\n//! a\n", "#![forbid(x)]\n//! a\n"] {
        assert_eq!(
            faults("opening", &[("keys/build.rs", opening)]),
            ["keys/build.rs:1"],
            "{opening:?}"
        );
    }
    assert_clean("opening", &[("keys/build.rs", "//! Grants.\n")]);
}

#[test]
fn mod_rs_and_names_without_meaning_are_faults() {
    for path in [
        "keys/src/a/mod.rs",
        "keys/src/utils.rs",
        "keys/src/common.rs",
        "keys/src/types.rs",
        "keys/src/helpers.rs",
        "keys/src/manager.rs",
        "keys/tests/common/disk.rs",
    ] {
        assert_eq!(faults("name", &[(path, "")]), [format!("{path}:1")]);
    }
    assert_clean(
        "name",
        &[("keys/src/model.rs", ""), ("keys/src/commons.rs", "")],
    );
}

#[test]
fn an_arrow_that_is_not_in_the_table_is_a_fault_on_its_line() {
    for (from, to) in [
        ("codec", "keys"),
        ("keys", "crdt"),
        ("blocks", "keys"),
        ("crdt", "mesh"),
        ("mesh", "blocks"),
        ("provider", "codec"),
        ("roles", "mesh"),
        ("volumes", "provider"),
        ("provider-local", "keys"),
        ("node", "simulations"),
        ("simulations", "node"),
        ("simulations", "volumes"),
        ("xtask", "codec"),
    ] {
        for kind in [
            "dependencies",
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let text = manifest(from, &format!("[{kind}]\n{to}.workspace = true"));
            let path = format!("{from}/Cargo.toml");
            assert_eq!(
                faults("arrow", &[(&path, &text)]),
                [format!("{path}:7")],
                "{from} to {to} in {kind}"
            );
        }
    }
}

#[test]
fn every_arrow_of_the_architecture_is_allowed() {
    for (from, to) in [
        ("keys", "codec"),
        ("blocks", "codec"),
        ("crdt", "keys"),
        ("mesh", "crdt"),
        ("provider", "blocks"),
        ("roles", "provider"),
        ("volumes", "blocks"),
        ("provider-local", "volumes"),
        ("node", "provider-local"),
        ("simulations", "roles"),
    ] {
        let text = manifest(from, &format!("[dependencies]\n{to}.workspace = true"));
        assert_clean("arrow", &[(&format!("{from}/Cargo.toml"), &text)]);
    }
}

#[test]
fn an_arrow_hidden_behind_another_name_is_found() {
    let root = "[workspace.dependencies]\ndisks = { package = \"volumes\", path = \"volumes\" }\n";
    let inherits = manifest("keys", "[dependencies]\ndisks.workspace = true");
    let renames = manifest("keys", "[dependencies]\nk = { package = \"volumes\" }");
    for text in [inherits, renames] {
        assert_eq!(
            faults("arrow", &[("Cargo.toml", root), ("keys/Cargo.toml", &text)]),
            ["keys/Cargo.toml:7"]
        );
    }
}

#[test]
fn a_crate_without_a_row_in_the_table_is_a_fault() {
    let text = manifest("convert", "");
    assert_eq!(
        faults("arrow", &[("convert/Cargo.toml", &text)]),
        ["convert/Cargo.toml:1"]
    );
}

#[test]
fn packages_that_one_crate_holds_are_faults_elsewhere() {
    for (package, holder) in [
        ("bincode", "codec"),
        ("automerge", "crdt"),
        ("libp2p", "node"),
        ("libp2p-stream", "node"),
        ("redb", "node"),
    ] {
        let rest = format!("[dependencies]\n{package} = \"1\"");
        let elsewhere = manifest("simulations", &rest);
        assert_eq!(
            faults("package", &[("simulations/Cargo.toml", &elsewhere)]),
            ["simulations/Cargo.toml:7"],
            "{package}"
        );
        let path = format!("{holder}/Cargo.toml");
        assert_clean("package", &[(&path, &manifest(holder, &rest))]);
    }
}

#[test]
fn pure_crates_take_no_package_that_brings_io_or_chance() {
    for package in ["tokio", "tokio-util", "rand", "rand_core", "getrandom"] {
        let rest = format!("[dev-dependencies]\n{package} = \"1\"");
        assert_eq!(
            faults("package", &[("mesh/Cargo.toml", &manifest("mesh", &rest))]),
            ["mesh/Cargo.toml:7"],
            "{package}"
        );
        assert_clean("package", &[("node/Cargo.toml", &manifest("node", &rest))]);
    }
    let lookalike = manifest("mesh", "[dependencies]\nrandomize = \"1\"");
    assert_clean("package", &[("mesh/Cargo.toml", &lookalike)]);
}

#[test]
fn pure_sources_name_no_clock_file_socket_or_thread() {
    for code in [
        "let a = std::time::Instant::now();",
        "let a = SystemTime :: now();",
        "use std::fs;",
        "use std::fs::File;",
        "use std::{collections::{BTreeMap, BTreeSet}, net::IpAddr};",
        "std::thread::spawn(f);",
        "let a = std::env::var(b);",
        "std::process::exit(1);",
    ] {
        let text = format!("//! a\n{code}\n");
        assert_eq!(
            faults("pure", &[("roles/src/agent.rs", &text)]),
            ["roles/src/agent.rs:2"],
            "{code}"
        );
        assert_clean("pure", &[("node/src/agent.rs", &text)]);
    }
}

#[test]
fn pure_sources_may_speak_of_clocks_and_name_what_only_looks_like_io() {
    let text = "//! No std::fs here.\nuse std::{collections::BTreeMap, fmt::{self, net}};\n\
                // Instant::now is the shell's.\nlet a = \"std::thread\";\nuse crate::fs;\n\
                let now = Instant(5); f(std::mem::take(&mut a), fs);\n";
    assert_clean("pure", &[("roles/src/agent.rs", text)]);
}

#[test]
fn unsafe_outside_the_listed_files_is_a_fault() {
    let text = "//! a\n// SAFETY: not here\nfn f() { unsafe { g() } }\n#[unsafe(no_mangle)]\n";
    assert_eq!(
        faults("unsafe", &[("keys/src/a.rs", text)]),
        ["keys/src/a.rs:3", "keys/src/a.rs:4"]
    );
    let spoken = "//! unsafe\n#![forbid(unsafe_code)]\nlet a = \"unsafe\";\n";
    assert_clean("unsafe", &[("keys/src/a.rs", spoken)]);
}

#[test]
fn unsafe_in_a_listed_file_says_why_it_is_sound() {
    let path = "volumes/src/kernel.rs";
    let bare = "//! a\nfn f() {\n unsafe { g() }\n}\n";
    assert_eq!(faults("unsafe", &[(path, bare)]), [format!("{path}:3")]);
    let reasoned = "//! a\nfn f() {\n // SAFETY: g reads nothing.\n unsafe { g() }\n}\n";
    assert_clean("unsafe", &[(path, reasoned)]);
    let far = format!(
        "//! a\n// SAFETY: g\n{}fn f() {{ unsafe {{ g() }} }}\n",
        "\n".repeat(20)
    );
    assert_eq!(faults("unsafe", &[(path, &far)]), [format!("{path}:23")]);
}

#[test]
fn stubs_ignored_tests_and_kept_dead_code_are_faults() {
    for code in [
        "todo!()",
        "unimplemented!(\"later\")",
        "#[ignore]",
        "#[ignore = \"slow\"]",
        "#[cfg_attr(miri, ignore)]",
        "#[allow(dead_code)]",
        "#![allow(unused, dead_code)]",
        "#[expect(dead_code)]",
        "#[cfg_attr(test, allow(dead_code))]",
    ] {
        let text = format!("//! a\n{code}\n");
        assert_eq!(
            faults("unfinished", &[("keys/src/a.rs", &text)]),
            ["keys/src/a.rs:2"],
            "{code}"
        );
    }
    let fine = "//! a\n#![deny(dead_code)]\n#[serde(ignore)]\nlet todo = !a;\n// todo!()\n";
    assert_clean("unfinished", &[("keys/src/a.rs", fine)]);
}

#[test]
fn a_test_that_sleeps_is_a_fault_wherever_tests_stand() {
    let sleeps = [
        "std::thread::sleep(d);",
        "tokio::time::sleep(d).await;",
        "sleep(d);",
        "time::sleep_until(t).await;",
    ];
    for code in sleeps {
        let item = format!("//! a\n#[cfg(test)]\nmod tests {{\n  fn a() {{ {code} }}\n}}\n");
        let whole = format!("//! a\nfn a() {{ {code} }}\n");
        assert_eq!(
            faults("sleep", &[("node/src/a.rs", &item)]),
            ["node/src/a.rs:4"],
            "{code}"
        );
        for path in [
            "node/src/a/tests.rs",
            "node/tests/end_to_end.rs",
            "node/src/tests/a.rs",
        ] {
            assert_eq!(faults("sleep", &[(path, &whole)]), [format!("{path}:2")]);
        }
        assert_clean("sleep", &[("node/src/a.rs", &whole)]);
    }
}

#[test]
fn a_module_declared_under_cfg_test_is_a_test_in_its_own_file_too() {
    let code = "//! a\nfn a() { thread::sleep(d); }\n";
    let declares = "//! a\n#[cfg(test)]\nmod trial;\n";
    for (parent, child) in [
        ("node/src/main.rs", "node/src/trial.rs"),
        ("node/src/net.rs", "node/src/net/trial.rs"),
        ("node/src/net.rs", "node/src/net/trial/deep.rs"),
    ] {
        assert_eq!(
            faults("sleep", &[(parent, declares), (child, code)]),
            [format!("{child}:2")]
        );
        assert_clean("sleep", &[(parent, "//! a\nmod trial;\n"), (child, code)]);
    }
}

#[test]
fn a_method_called_sleep_and_one_that_is_defined_are_no_sleeping() {
    let text = "//! a\nfn sleep(a: u8) {}\nfn b() { world.sleep(1); }\n";
    assert_clean("sleep", &[("simulations/src/tests.rs", text)]);
}

const PAGE: &str = "docs/ARCHITECTURE.md";
const TESTED: (&str, &str) = (
    "keys/src/grant.rs",
    "//! a\npub fn check() {}\n#[test]\nfn an_expired_grant_moves_nothing() {}\n",
);

#[test]
fn a_tree_without_the_architecture_page_is_a_fault() {
    assert_eq!(
        faults("invariant", &[("README.md", "")]),
        ["docs/ARCHITECTURE.md:1"]
    );
}

#[test]
fn an_invariant_that_names_an_existing_test_is_accepted_in_every_form() {
    for entry in [
        "- **INV-01** a: `keys/src/grant.rs::an_expired_grant_moves_nothing`",
        "| INV-01 | a | `an_expired_grant_moves_nothing` |",
        "### INV-01\nA grant ends.\nChecked by `grant::tests::an_expired_grant_moves_nothing`.",
        "INV-01 a `Grant` ends: `keys/src/grant.rs`",
        "* INV-01: the folder `keys/src/`",
    ] {
        assert_clean("invariant", &[(PAGE, entry), TESTED]);
    }
}

#[test]
fn an_invariant_without_a_check_that_exists_is_a_fault() {
    for entry in [
        "- INV-01 nothing is named",
        "- INV-01 a type, `Grant`, is no check",
        "- INV-01 `a_test_that_is_gone`",
        "- INV-01 `keys/src/gone.rs`",
        "- INV-01 `keys/src/grant.rs::gone`, though `keys/src/grant.rs` is there",
        "- INV-01 `check` is not a test",
        "- INV-01\n\n`keys/src/grant.rs` stands after the entry",
        "- INV-01 a file without tests, `keys/src/bare.rs`",
    ] {
        let files = [(PAGE, entry), TESTED, ("keys/src/bare.rs", "//! a\n")];
        assert_eq!(
            faults("invariant", &files),
            [format!("{PAGE}:1")],
            "{entry}"
        );
    }
}

#[test]
fn what_simulations_define_counts_as_a_check() {
    let world = ("simulations/src/world.rs", "//! a\nfn one_owner() {}\n");
    for entry in ["INV-01 `one_owner`", "INV-01 `simulations/src/world.rs`"] {
        assert_clean("invariant", &[(PAGE, entry), world]);
    }
}

#[test]
fn an_invariant_defined_twice_and_one_never_defined_are_faults() {
    let page = "- INV-01 `keys/src/grant.rs`, see INV-02\n- INV-02 `keys/src/grant.rs`\n\
                - INV-01 `keys/src/grant.rs`\n";
    let files = [
        (PAGE, page),
        TESTED,
        ("docs/threats.md", "INV-02\nand INV-03\n"),
        ("mesh/src/a.rs", "//! a\n// INV-04\n"),
    ];
    assert_eq!(
        faults("invariant", &files),
        [
            "docs/ARCHITECTURE.md:3",
            "docs/threats.md:2",
            "mesh/src/a.rs:2"
        ]
    );
}

#[test]
fn a_page_that_names_a_test_which_is_gone_is_a_fault() {
    let page = "| a | `keys/src/grant.rs::an_expired_grant_moves_nothing` |\n\
                | b | `keys/src/grant.rs::gone`, `keys/src/gone.rs::a` |\n\
                `keys/src/grant.rs::check` is not a test\n";
    assert_eq!(
        faults("test-name", &[("docs/threats.md", page), TESTED]),
        [
            "docs/threats.md:2",
            "docs/threats.md:2",
            "docs/threats.md:3"
        ]
    );
}

#[test]
fn a_link_to_a_file_that_is_not_there_is_a_fault() {
    for link in [
        "[a](gone.md)",
        "![a](gone.png)",
        "[a](threats.md) and [b](gone.md#part)",
        "[a](../../outside.md)",
        "[a]: gone.md",
        "[a](decisions/0001.md/deeper)",
    ] {
        let text = format!("# Page\n\n{link}\n");
        let files = [("docs/page.md", text.as_str()), ("docs/threats.md", "")];
        assert_eq!(faults("link", &files), ["docs/page.md:3"], "{link}");
    }
}

#[test]
fn links_that_lead_somewhere_or_are_not_ours_are_accepted() {
    let text = "[a](threats.md#a) [b](../README.md) [c](./decisions/) [d](/LICENSE \"t\")\n\
                [e](https://example.org/x.md) [f](mailto:a@example.org) [g](#here)\n\
                `[h](gone.md)`\n```\n[i](gone.md)\n```\n[j]: <threats.md>\n[k](..)\n";
    assert_clean(
        "link",
        &[
            ("docs/page.md", text),
            ("docs/threats.md", ""),
            ("docs/decisions/0001.md", ""),
            ("README.md", ""),
            ("LICENSE", ""),
        ],
    );
}
