//! Tests of the source reader: what it blanks, and what it takes for a test.

#![allow(clippy::unwrap_used)]

use super::*;

/// The code of `text`; finding its tests must not panic either.
fn blanked(text: &str) -> String {
    Source::new(text).code
}

#[test]
fn comments_are_blanked_and_lines_stay() {
    let code = blanked("a // unsafe\n/* unsafe\n /* nested */ unsafe */ b\n");
    assert!(!code.contains("unsafe"));
    assert_eq!(code.lines().count(), 3);
    assert!(code.starts_with('a'));
    assert!(code.trim_end().ends_with('b'));
}

#[test]
fn strings_of_every_kind_are_blanked() {
    for literal in [
        r#""x unsafe""#,
        r#""quote \" unsafe""#,
        "r\"unsafe\"",
        "r#\"un\" unsafe\"#",
        "br##\"unsafe\"# unsafe\"##",
        "b\"unsafe\"",
        "c\"unsafe\"",
    ] {
        let code = blanked(&format!("let a = {literal}; end"));
        assert!(!code.contains("unsafe"), "{literal} became {code}");
        assert!(code.ends_with("; end"), "{literal} became {code}");
    }
}

#[test]
fn a_quote_as_a_character_does_not_open_a_string() {
    for literal in ["'\"'", "'\\''", "'\\\\'", "b'\"'", "'\\u{22}'", "'é'"] {
        let code = blanked(&format!("let a = {literal}; end \"unsafe\""));
        assert!(code.contains("; end"), "{literal} became {code}");
        assert!(!code.contains("unsafe"), "{literal} became {code}");
    }
}

#[test]
fn lifetimes_and_raw_identifiers_are_code() {
    let text = "fn f<'a, 'b>(r#type: &'a str) -> &'a str { r#type }";
    assert_eq!(blanked(text), text.replace('\'', " "));
}

#[test]
fn a_word_is_found_only_as_a_whole_and_with_its_line() {
    let source = Source::new("unsafe_code\nmy_unsafe\n unsafe {}\n");
    let found: Vec<usize> = source.words("unsafe").map(|at| source.line(at)).collect();
    assert_eq!(found, [3]);
}

#[test]
fn items_under_cfg_test_are_tests_and_what_follows_them_is_not() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b(x: [u8; 2]) {}\n}\nfn c() {}\n\
                #[test]\nfn d() { let _ = [0; 2]; }\n#[tokio::test(flavor = \"x\")]\nasync fn e() {}\n\
                #[cfg(not(test))]\nfn f() {}\n";
    let source = Source::new(text);
    let tests: Vec<&str> = source.test_functions().into_iter().collect();
    assert_eq!(tests, ["b", "d", "e"]);
}

#[test]
fn a_test_function_with_an_array_in_its_signature_is_a_test_to_its_end() {
    let source = Source::new("#[test]\nfn a(x: [u8; 2]) {\n sleep(x)\n}\nfn b() {}");
    assert!(source.in_test(source.words("sleep").next().unwrap()));
    assert!(!source.in_test(source.words("b").next().unwrap()));
}

#[test]
fn modules_of_tests_in_files_of_their_own_are_named() {
    let source = Source::new("mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod b;");
    let modules: Vec<&str> = source.test_modules().collect();
    assert_eq!(modules, ["tests", "b"]);
}

#[test]
fn attributes_are_found_inner_and_outer_but_not_in_text() {
    let source = Source::new("#![allow(a)]\n// #[b]\n#[cfg_attr(x, c = \"]\")]\nfn f() {}");
    let found: Vec<&str> = source.attributes().map(|(_, text)| text).collect();
    assert_eq!(found, ["#![allow(a)]", "#[cfg_attr(x, c =    )]"]);
}

#[test]
fn text_that_is_not_rust_is_read_to_its_end() {
    for text in [
        "\"open", "r#\"open", "/* open", "'", "'\\", "#[", "#[test]", "fn", "}", "r#",
    ] {
        assert!(!blanked(text).contains("open"), "{text}");
    }
}
