//! What is a selector, what is none, and what each selects.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Labels written as `a=b c=d`.
fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn canonical_text_is_one_for_all_spellings() {
    for (text, canonical) in [
        ("", "all()"),
        (" \t", "all()"),
        ("all()", "all()"),
        ("all( )", "all()"),
        (" global() ", "global()"),
        ("a=='b'", r#"a == "b""#),
        (r#"a == "b""#, r#"a == "b""#),
        (r#"a == 'say "b"'"#, r#"a == 'say "b"'"#),
        (r#"a == "it's""#, r#"a == "it's""#),
        ("a == ''", r#"a == """#),
        ("a!='b'", r#"a != "b""#),
        ("has(a)", "has(a)"),
        ("has( a )", "has(a)"),
        ("a contains 'b'", r#"a contains "b""#),
        ("a contains'b'", r#"a contains "b""#),
        ("a startswith 'b'", r#"a starts with "b""#),
        ("a starts \t with 'b'", r#"a starts with "b""#),
        ("a endswith'b'", r#"a ends with "b""#),
        ("a in {'c','b', 'c',}", r#"a in {"b", "c"}"#),
        ("a in{}", "a in {}"),
        ("a notin {'b'}", r#"a not in {"b"}"#),
        ("a not in { 'b' }", r#"a not in {"b"}"#),
        ("! a == 'b'", r#"!a == "b""#),
        ("!!has(a)", "has(a)"),
        ("!!!has(a)", "!has(a)"),
        ("has(a)&&has(b)", "(has(a) && has(b))"),
        ("has(a) || has(b) && has(c)", "(has(a) || (has(b) && has(c)))"),
        ("(has(a) || has(b)) && has(c)", "((has(a) || has(b)) && has(c))"),
        ("!(has(a) || has(b))", "!(has(a) || has(b))"),
        ("((has(a)))", "has(a)"),
        ("in in {'in'}", r#"in in {"in"}"#),
        ("has == 'x'", r#"has == "x""#),
        ("not notin {'x'}", r#"not not in {"x"}"#),
        ("kubernetes.io/a_b-C9 == 'x'", r#"kubernetes.io/a_b-C9 == "x""#),
        ("a == 'ü'", r#"a == "ü""#),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.to_string(), canonical, "{text}");
        assert_eq!(Selector::parse(canonical), Ok(selector), "{canonical}");
    }
}

#[test]
fn what_is_no_selector_is_refused_at_its_column() {
    let long = "a".repeat(513);
    let deep = "(".repeat(65);
    for (text, column) in [
        ("b == b", 6),
        ("b contains b", 12),
        ("'b1' == b", 1),
        ("b", 2),
        ("a b", 3),
        ("!", 2),
        ("has(a) &", 8),
        ("has(a) |", 8),
        ("has(foo) &&", 12),
        ("foo != ||", 8),
        (r#"foo in """#, 8),
        ("foo in {'a' 'b'}", 13),
        ("foo in {,}", 9),
        ("foo in {'a'", 12),
        ("foo == 'a", 8),
        ("(has(a)", 8),
        ("has(a))", 7),
        ("()", 2),
        ("%", 1),
        ("has (a)", 5),
        ("has()", 5),
        ("all(a)", 5),
        ("ü == 'a'", 1),
        ("a == 'ü' ü", 10),
        ("a\n== 'b'", 2),
        (&long, 1),
        (&deep, 65),
    ] {
        let error = Selector::parse(text).unwrap_err();
        assert_eq!(error.column, column, "{error}");
        assert!(error.to_string().contains(&format!("column {column}")));
    }
}

#[test]
fn selectors_select() {
    let table: [(&str, &[&str], &[&str]); 14] = [
        ("all()", &["", "a=b"], &[]),
        ("global()", &[""], &[]),
        ("has(a)", &["a="], &["b="]),
        ("a == 'b'", &["a=b"], &["a=bb", ""]),
        ("a != 'b'", &["a=c", ""], &["a=b"]),
        ("!a == 'b'", &["a=c", ""], &["a=b"]),
        ("a contains 'b'", &["a=abc"], &["a=ac", ""]),
        ("a starts with 'ab'", &["a=abc"], &["a=cab", ""]),
        ("a ends with 'bc'", &["a=abc"], &["a=bca", ""]),
        ("a in {'b', 'c'}", &["a=c"], &["a=d", ""]),
        ("a in {}", &[], &["a=", ""]),
        ("a not in {'b'}", &["a=c", ""], &["a=b"]),
        ("has(a) || has(b) && has(c)", &["a=", "b= c="], &["b=", "c="]),
        ("(has(a) || has(b)) && !has(c)", &["a="], &["a= c=", ""]),
    ];
    for (selector, selected, others) in table {
        let parsed = Selector::parse(selector).unwrap();
        for text in selected {
            assert!(parsed.matches(&labels(text)), "{selector} selects {text:?}");
        }
        for text in others {
            assert!(
                !parsed.matches(&labels(text)),
                "{selector} does not select {text:?}"
            );
        }
    }
}

#[test]
fn what_is_required_is_what_every_operand_of_an_and_requires() {
    for (text, required) in [
        ("all()", vec![]),
        ("a == 'b' || has(c)", vec![]),
        ("!has(a)", vec![]),
        ("a != 'b' && c not in {'d'}", vec![]),
        ("a in {'b'}", vec![Requirement::Equal("a", "b")]),
        ("a in {'b', 'c'}", vec![Requirement::Has("a")]),
        (
            "a == 'b' && (has(c) && d starts with 'e')",
            vec![
                Requirement::Equal("a", "b"),
                Requirement::Has("c"),
                Requirement::Has("d"),
            ],
        ),
    ] {
        assert_eq!(Selector::parse(text).unwrap().requirements(), required, "{text}");
    }
}

fn expressions() -> impl Strategy<Value = Expression> {
    let label = "[A-Za-z0-9_./-]{1,6}";
    let literal = "[a-z\"ü ]{0,4}";
    let set = proptest::collection::btree_set(literal, 0..3);
    let comparison = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Contains),
        Just(Comparison::StartsWith),
        Just(Comparison::EndsWith),
    ];
    let leaf = prop_oneof![
        Just(Expression::All),
        Just(Expression::Global),
        label.prop_map(Expression::Has),
        (label, comparison, literal)
            .prop_map(|(label, comparison, literal)| { Expression::Compare(label, comparison, literal) }),
        (label, set.clone()).prop_map(|(label, set)| Expression::In(label, set)),
        (label, set).prop_map(|(label, set)| Expression::NotIn(label, set)),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|operand| match operand {
                Expression::Not(inner) => *inner,
                other @ (Expression::All
                | Expression::Global
                | Expression::Has(_)
                | Expression::Compare(..)
                | Expression::In(..)
                | Expression::NotIn(..)
                | Expression::And(_)
                | Expression::Or(_)) => Expression::Not(Box::new(other)),
            }),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            proptest::collection::vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_canonical_text_parses_to_what_wrote_it(expression in expressions()) {
        let text = expression.to_string();
        prop_assert_eq!(Selector::parse(&text), Ok(Selector(expression)));
    }

    #[test]
    fn what_is_selected_has_what_is_required(
        expression in expressions(),
        labels in proptest::collection::btree_map("[a-c]", "[a-c]{0,2}", 0..4),
    ) {
        let selector = Selector(expression);
        let met = selector.requirements().into_iter().all(|requirement| match requirement {
            Requirement::Equal(label, value) => labels.get(label).is_some_and(|found| found == value),
            Requirement::Has(label) => labels.contains_key(label),
        });
        prop_assert!(met || !selector.matches(&labels));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ a!()&|={}',\"ü\t]{0,24}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
