use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> NamePattern {
    NamePattern::certificate(text).expect(text)
}

fn why(result: Result<NamePattern, PatternError>) -> String {
    result.expect_err("it is refused").to_string()
}

#[test]
fn a_placeholder_binds_a_segment_of_a_uri_or_a_part_of_it() {
    let pattern = uri("spiffe://galaxy/gateway/{gateway}");
    assert_eq!(pattern.placeholders(), ["gateway"]);
    assert_eq!(
        pattern.bind("spiffe://galaxy/gateway/gw-1.a_b~"),
        Some(vec!["gw-1.a_b~"])
    );
    for other in [
        "spiffe://galaxy/gateway/",
        "spiffe://galaxy/gateway/a/b",
        "spiffe://galaxy/gateway/a?b",
        "spiffe://galaxy/gateway/a%2Fb",
        "spiffe://galaxy/gateway/*",
        "spiffe://galaxy/gateway/{gateway}",
        "spiffe://galaxy/gateway/gäteway",
        "spiffe://galaxy/gateway/.",
        "spiffe://galaxy/gateway/..",
        "SPIFFE://galaxy/gateway/a",
        "spiffe://galaxy/Gateway/a",
        "xspiffe://galaxy/gateway/a",
        "",
    ] {
        assert_eq!(pattern.bind(other), None, "{other}");
    }
    let pattern = uri("urn:{site}:gw-{number}-x/{rest}");
    assert_eq!(
        pattern.bind("urn:ams:gw-7-x/y"),
        Some(vec!["ams", "7", "y"])
    );
    // A placeholder takes all that it can.
    assert_eq!(
        pattern.bind("urn:ams:gw-7-x-x/y"),
        Some(vec!["ams", "7-x", "y"])
    );
    assert_eq!(pattern.bind("urn:ams:gw--x/y"), None);
}

#[test]
fn a_placeholder_binds_a_part_of_a_label_of_a_dns_name() {
    let pattern = uri("dns:GW-{gateway}.Edge.example");
    assert_eq!(pattern.kind(), NameKind::Dns);
    assert_eq!(pattern.bind("gw-1.edge.example"), Some(vec!["1"]));
    for other in [
        "gw-.edge.example",
        "gw-1.2.edge.example",
        "gw-*.edge.example",
        "*.edge.example",
        "gw-1.edge.example.",
        "gw-1.edge.example.org",
    ] {
        assert_eq!(pattern.bind(other), None, "{other}");
    }
}

#[test]
fn a_subject_has_runs_of_any_characters_or_placeholders() {
    let any = NamePattern::subject("svc-*").expect("a pattern");
    assert_eq!(any.bind("svc-"), Some(vec![]));
    assert_eq!(any.bind("svc-a/b ü"), Some(vec![]));
    assert_eq!(any.bind("a svc-"), None);
    let bound = NamePattern::subject("system:serviceaccount:push:{gateway}").expect("a pattern");
    assert_eq!(
        bound.bind("system:serviceaccount:push:gw-1"),
        Some(vec!["gw-1"])
    );
    assert_eq!(bound.bind("system:serviceaccount:push:gw-1:x"), None);
    assert_eq!(
        NamePattern::subject("orders").expect("a pattern").exact(),
        Some("orders")
    );
    assert!(why(NamePattern::subject("*/{a}")).contains("cannot be in one pattern"));
}

#[test]
fn patterns_that_could_match_in_two_ways_or_never_are_refused() {
    for (text, part) in [
        ("", "empty"),
        (
            "spiffe://a/{x}{y}",
            "before {y} there must be a character such as / or :",
        ),
        ("spiffe://a/{x}-{y}", "before {y}"),
        ("dns:{x}-{y}.a", "before {y} there must be a dot"),
        ("spiffe://a/{x}/{x}", "{x} is in it twice"),
        ("spiffe://a/*", "* is not allowed here"),
        ("dns:*.a", "* is not allowed here"),
        ("gateway", "must be a URI"),
        ("{scheme}://a", "must be a URI"),
        ("spiffe://a b", "neither spaces"),
        ("spiffe://ä", "neither spaces"),
        ("spiffe://a\n", "control character"),
        ("spiffe://a/{x", "a { has no }"),
        ("spiffe://a/x}", "a } has no {"),
        ("spiffe://a/{}", "there must be a name"),
        ("spiffe://a/{X}", "there must be a name"),
        ("spiffe://a/{{x}}", "there must be a name"),
        ("dns:", "empty"),
        ("dns:a..b", "a label of the DNS name is empty"),
        ("dns:ä.b", "only letters of ASCII"),
        ("dns:a/b", "only letters of ASCII"),
    ] {
        let why = why(NamePattern::certificate(text));
        assert!(why.contains(part), "{text}: {why}");
    }
    let long = format!("spiffe://{}", "a".repeat(MAX_PATTERN_BYTES));
    assert!(why(NamePattern::certificate(&long)).contains("longer than 1024 bytes"));
}

#[test]
fn an_id_uses_what_was_bound_as_text() {
    let pattern = IdPattern::parse("gw-{gateway}-*", &["site", "gateway"]).expect("a pattern");
    let ids = pattern.resolve(&["ams", "7"]).expect("both are bound");
    assert!(ids.matches("gw-7-"));
    assert!(ids.matches("gw-7-a"));
    assert!(!ids.matches("gw-ams-a"));
    for value in ["*", "{site}", "}", "a*b"] {
        let ids = pattern.resolve(&["ams", value]).expect("both are bound");
        assert!(ids.matches(&format!("gw-{value}-1")), "{value}");
        assert!(!ids.matches("gw-x-1"), "{value}");
        assert!(!ids.matches("gw-axb-1"), "{value}");
        assert!(!ids.matches("gw-ams-1"), "{value}");
    }
    assert_eq!(pattern.resolve(&["ams"]), None);
    let error = IdPattern::parse("{other}", &["gateway"]).expect_err("it is not bound");
    assert_eq!(
        error.to_string(),
        "{other} is not in the principal's credential"
    );
}

#[test]
fn overlaps_are_found() {
    for (one, other, overlap) in [
        ("spiffe://g/{a}", "spiffe://g/{b}", true),
        ("spiffe://g/{a}", "spiffe://g/x", true),
        ("spiffe://g/{a}", "spiffe://g/x/y", false),
        ("spiffe://g/{a}/y", "spiffe://g/x/{b}", true),
        ("spiffe://g/a{a}", "spiffe://g/ab{b}", true),
        ("spiffe://g/a{a}", "spiffe://g/a@{b}", false),
        ("spiffe://g/{a}x", "spiffe://g/{b}y", false),
        ("spiffe://g/{a}x", "spiffe://g/x", false),
        ("spiffe://g/{a}", "spiffe://h/{a}", false),
        ("spiffe://g/{a}", "dns:g", false),
        ("dns:{a}.g", "dns:x-{b}.G", true),
        ("dns:{a}.g", "dns:{a}.{b}.g", false),
    ] {
        let (one, other) = (uri(one), uri(other));
        assert_eq!(one.overlaps(&other), overlap, "{one:?} {other:?}");
        assert_eq!(other.overlaps(&one), overlap, "{other:?} {one:?}");
    }
    let subject = |text| NamePattern::subject(text).expect("a pattern");
    assert!(subject("a*").overlaps(&subject("*b")));
    assert!(subject("*a*").overlaps(&subject("*b*")));
    assert!(subject("*").overlaps(&subject("x:{a}")));
    assert!(!subject("a*").overlaps(&subject("b*")));
    assert!(!subject("*a").overlaps(&subject("x:{a}b")));
}

/// Every way in which a name can be a pattern's, by trying each cut: what placeholders bind.
fn ways(kind: NameKind, pieces: &[Piece], name: &str) -> Vec<Vec<String>> {
    let Some((first, pieces)) = pieces.split_first() else {
        return if name.is_empty() {
            vec![Vec::new()]
        } else {
            Vec::new()
        };
    };
    let mut found = Vec::new();
    for (cut, _) in name.char_indices().chain([(name.len(), ' ')]) {
        let (value, rest) = name.split_at(cut);
        let fits = match first {
            Piece::Text(text) => value == text,
            Piece::Any => true,
            Piece::Placeholder(_) => {
                value.bytes().all(|byte| kind.binds(byte)) && !["", ".", ".."].contains(&value)
            }
        };
        if fits {
            for mut way in ways(kind, pieces, rest) {
                if matches!(first, Piece::Placeholder(_)) {
                    way.insert(0, value.to_owned());
                }
                found.push(way);
            }
        }
    }
    found
}

/// Names and patterns of few letters, so that they often meet.
fn uris() -> impl Strategy<Value = (String, String)> {
    ("[ab./:]{0,6}", "([ab./:@]|\\{x\\}|\\{y\\}|\\{z\\}){0,6}")
        .prop_map(|(name, pattern)| (format!("u:{name}"), format!("u:{pattern}")))
}

proptest! {
    #[test]
    fn a_name_matches_a_pattern_in_the_one_way_that_trying_all_finds(
        (name, pattern) in uris()
    ) {
        let Ok(pattern) = NamePattern::certificate(&pattern) else { return Ok(()) };
        let mut ways = ways(pattern.kind, &pattern.pieces, &name);
        // `.` and `..` are excluded as values, never as a shorter cut of a longer one.
        prop_assert!(ways.len() <= 1, "{ways:?}");
        let bound = pattern.bind(&name);
        let bound = bound.map(|values| values.into_iter().map(str::to_owned).collect());
        prop_assert_eq!(bound, ways.pop());
    }

    #[test]
    fn a_glob_matches_what_trying_all_cuts_finds(
        pattern in "[ab*]{0,8}", text in "[ab*]{0,10}"
    ) {
        let parts: Vec<Piece> = pattern
            .chars()
            .map(|c| if c == '*' { Piece::Any } else { Piece::Text(c.to_string()) })
            .collect();
        let expected = !ways(NameKind::Subject, &parts, &text).is_empty();
        prop_assert_eq!(Glob::new(&pattern).matches(&text), expected);
    }

    #[test]
    fn patterns_that_a_name_matches_overlap(
        (name, one) in uris(), (_, other) in uris()
    ) {
        let patterns = (NamePattern::certificate(&one), NamePattern::certificate(&other));
        let (Ok(one), Ok(other)) = patterns else { return Ok(()) };
        if one.bind(&name).is_some() && other.bind(&name).is_some() {
            prop_assert!(one.overlaps(&other));
        }
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
    }

    #[test]
    fn subjects_that_overlap_have_a_name_in_common(
        one in "[ab*]{1,4}", other in "[ab*]{1,4}"
    ) {
        let subject = |text: &str| NamePattern::subject(text).expect("a pattern");
        let (one, other) = (subject(&one), subject(&other));
        let common = names(6)
            .iter()
            .any(|name| one.bind(name).is_some() && other.bind(name).is_some());
        prop_assert_eq!(one.overlaps(&other), common);
    }

    #[test]
    fn what_is_bound_is_text_whatever_it_is(value in ".{1,8}", id in ".{1,8}") {
        let pattern = IdPattern::parse("{x}", &["x"]).expect("a pattern");
        let ids = pattern.resolve(&[&value]).expect("it is bound");
        prop_assert!(ids.matches(&value));
        prop_assert_eq!(ids.matches(&id), id == value);
    }

    #[test]
    fn no_text_makes_a_pattern_panic(text in ".{0,40}", name in ".{0,40}") {
        let patterns = [NamePattern::certificate(&text), NamePattern::subject(&text)];
        for pattern in patterns.into_iter().flatten() {
            pattern.bind(&name);
            prop_assert!(pattern.overlaps(&pattern));
        }
        if let Ok(pattern) = IdPattern::parse(&text, &["a"]) {
            let ids = pattern.resolve(&[&name]).expect("it is bound");
            ids.matches(&text);
        }
    }
}

/// All names of `a` and `b` up to a length.
fn names(length: usize) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut from = 0;
    for _ in 0..length {
        let shorter = names.split_off(from);
        from += shorter.len();
        let longer: Vec<String> = shorter
            .iter()
            .flat_map(|name| ["a", "b"].map(|letter| format!("{name}{letter}")))
            .collect();
        names.extend(shorter);
        names.extend(longer);
    }
    names
}
