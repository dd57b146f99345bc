use serde_json::{Value as Json, json};

use super::{
    Evaluated, EvaluationProgress, KnownValues, Language, LookedUp, Need, Query, StepSpec,
};

fn known() -> KnownValues {
    let mut known = KnownValues::default();
    let connection = |field: Option<&str>| Need::Connection {
        kind: "aws".into(),
        name: "test".into(),
        field: field.map(ToOwned::to_owned),
    };
    let all = json!({ "accessKeyID": "AKIA", "secretAccessKey": "hush" });
    known.looked_up.insert(connection(None), LookedUp::Value(all));
    known.looked_up.insert(connection(Some("accessKeyID")), LookedUp::Value(json!("AKIA")));
    known.looked_up.insert(connection(Some("nothing")), LookedUp::NoSuchField);
    let absent = Need::Connection { kind: "aws".into(), name: "absent".into(), field: None };
    known.looked_up.insert(absent, LookedUp::Nothing);
    for (name, value) in [("token", "hush"), ("regions.eu", "eu-west-1")] {
        known.looked_up.insert(Need::Secret { name: name.into() }, LookedUp::Value(json!(value)));
    }
    known.parameters.insert("region".into(), json!("eu"));
    known.parameters.insert("vars".into(), json!({ "a": [1] }));
    known.outputs.insert(("build".into(), "tag".into()), json!("v1"));
    known
}

fn evaluate(spec: &str, query: &str) -> Result<Evaluated, String> {
    let spec = StepSpec::parse(spec).map_err(|error| error.to_string())?;
    let query = Query::parse(query, Language::Path)?;
    match spec.spec.evaluate(&query, &known()).map_err(|error| error.to_string())? {
        EvaluationProgress::Done(evaluated) => Ok(evaluated),
        EvaluationProgress::Needs(needs) => Err(format!("needs {needs:?}")),
    }
}

fn value(spec: &str, query: &str) -> Json {
    let evaluated = evaluate(spec, query).unwrap();
    assert!(evaluated.complete, "{spec} {query}");
    evaluated.value
}

#[test]
fn a_connection_is_the_same_in_every_form_it_is_written_in() {
    for form in [
        "!Connection {type: aws, name: test}",
        "!Connection {name: test, type: aws}",
        "!Connection [aws, test]",
        "\n    !Connection\n    type: aws\n    name: test",
        "{$type: Connection, type: aws, name: test}",
        "${connections.aws.test}",
        "\"${connections.aws.'test'}\"",
        "${connections['aws']['te' + 'st']}",
    ] {
        let spec = format!("aws:\n  connection: {form}\n");
        let all = json!({ "accessKeyID": "AKIA", "secretAccessKey": "hush" });
        assert_eq!(value(&spec, "aws.connection"), all, "{form}");
        assert_eq!(value(&spec, "aws[\"connection\"][\"accessKeyID\"]"), json!("AKIA"), "{form}");
        assert_eq!(value(&spec, ""), json!({ "aws": { "connection": all } }), "{form}");
        let unknown = evaluate(&spec, "aws.connection.nothing").err().unwrap();
        assert_eq!(unknown, "path \"aws.connection.nothing\": unknown key nothing", "{form}");
    }
}

#[test]
fn secrets_parameters_and_outputs_keep_their_type_alone() {
    let spec = "\
a: !Secret token
b: !Secret {name: token}
c: !Secret [token]
d: {$type: Secret, name: token}
e: ${secrets.token}
f: x ${secrets.token} y
g: ${secrets['regions.' + parameters.region]}
h: !Parameter vars
i: 'all: ${parameters.vars}'
j: !Output {from: build, name: tag}
k: ${outputs.'build'.tag}
l: !Fn.concat [a, !Secret token]
m: !Fn.equals [!Parameter region, eu]
n: ${parameters.region == 'eu' && !(1 > 2)}
o: {$fn.concat: [a, b]}
p: ${parameters.vars.a[0] + 1}
q: ${coalesce(parameters.nothing, parameters.region)}
r: !!str 12
s: ['${exists(parameters.vars.b)}', 012, 0x10, null, ~, 'null']
t: '${merge(objects: [{''a'': 1}, {''b'': [2, ''x'']}])}'
u: '${path(object: parameters.vars, query: ''a[0]'')}'
v: ${'port-' + 80}
w: ${coalesce(parameters.vars.b, 'other')}
x: ${1 == 1.0 && '1' == 1 && !('a' == 'b')}
";
    let expected = json!({
        "a": "hush", "b": "hush", "c": "hush", "d": "hush", "e": "hush", "f": "x hush y", "g": "eu-west-1",
        "h": { "a": [1] }, "i": "all: {\n\t\"a\": [\n\t\t1\n\t]\n}", "j": "v1", "k": "v1", "l": "ahush", "m": true,
        "n": true, "o": "ab", "p": 2, "q": "eu", "r": "12", "s": [false, 12, 16, null, null, "null"],
        "t": { "a": 1, "b": [2, "x"] }, "u": 1, "v": "port-80", "w": "other", "x": true,
    });
    let evaluated = evaluate(spec, "").unwrap();
    assert_eq!(evaluated.value, expected);
    assert!(evaluated.complete && evaluated.unresolvable.is_empty());
}

#[test]
fn unresolved_parts_stay_and_make_the_answer_incomplete() {
    let spec = "\
a: !Connection [aws, absent]
b: ${parameters.nothing}
c: !Fn.concat [x, !Parameter nothing]
d: !Data host
e: !Fn.convertMarkdown [slack, text]
f: fine
g: !Fn.merge {objects: !Parameter nothing, mode: deep}
h: ${exists(parameters.nothing)}
i: ${'a' |> toString}
";
    let evaluated = evaluate(spec, "").unwrap();
    assert!(!evaluated.complete);
    let expected = json!({
        "a": { "$type": "Connection", "type": "aws", "name": "absent" },
        "b": "${parameters.nothing}",
        "c": { "$fn.concat": ["x", { "$type": "Parameter", "name": "nothing" }] },
        "d": { "$type": "Data", "query": "host" },
        "e": { "$fn.convertMarkdown": ["slack", "text"] },
        "f": "fine",
        "g": { "$fn.merge": {
            "objects": { "$type": "Parameter", "name": "nothing" }, "mode": "deep",
        } },
        "h": "${exists(parameters.nothing)}",
        "i": "${'a' |> toString}",
    });
    assert_eq!(evaluated.value, expected);
    assert_eq!(evaluated.unresolvable.len(), 3);
    // Only what is on the path is touched.
    assert_eq!(value(spec, "f"), json!("fine"));
    for query in ["a", "b", "c", "d", "e"] {
        let evaluated = evaluate(spec, query).unwrap();
        assert_eq!((evaluated.value, evaluated.complete), (Json::Null, false), "{query}");
    }
    assert_eq!(evaluate(spec, "f.x").err().unwrap(), "path \"f.x\": unknown key x");
    assert_eq!(evaluate(spec, "z").err().unwrap(), "path \"z\": unknown key z");
}

#[test]
fn anchors_aliases_and_merge_keys_are_written_out() {
    let spec = "\
base: &base {region: eu, connection: !Connection [aws, test]}
same: *base
more: {<<: *base, region: us}
";
    assert_eq!(value(spec, "same.connection.accessKeyID"), json!("AKIA"));
    assert_eq!(value(spec, "more.connection.accessKeyID"), json!("AKIA"));
    assert_eq!(value(spec, "more.region"), json!("us"));
}

#[test]
fn a_malformed_spec_is_refused_with_line_and_column() {
    for (spec, at, problem) in [
        ("a: [", "1:4", "unclosed bracket"),
        ("a: 1\nb: !Connection {pagerduty, mine}", "2:4", "exactly \"type\" and \"name\""),
        ("a: !Connection aws", "1:4", "exactly"),
        ("a: !Connection [aws]", "1:4", "exactly"),
        ("a: !Connection {type: aws, name: b, x: c}", "1:4", "exactly"),
        ("a: !Connection {type: aws, name: !Parameter b}", "1:4", "exactly"),
        ("a: !Secret 'x${parameters.b}'", "1:4", "exactly"),
        ("a: !Secrte b", "1:4", "unknown tag \"!Secrte\""),
        ("a:\n  b: {$type: Connection, name: b}", "2:6", "\"type\""),
        ("a: ${connections}", "1:4", "all of them at once"),
        ("a: ${connections.aws}", "1:4", "all of them at once"),
        ("a: ${secrets}", "1:4", "all of them at once"),
        ("a: x ${$} y", "1:4", "everything"),
        ("a: ${HOME}", "1:4", "not a name that a spec can use"),
        ("a: ${secrets.", "1:4", "expected"),
        ("a: 1\na: 2", "2:1", "twice"),
        ("- a", "1:1", "mapping"),
        ("a: 1\n---\nb: 2", "3:1", "second document"),
        ("a: !!binary '*'", "1:4", "Base64"),
    ] {
        let error = StepSpec::parse(spec).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(problem), "{spec}: {shown}");
        assert!(shown.starts_with(at), "{spec}: {shown}");
    }
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut spec = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        spec += &format!(
            "a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"
        );
    }
    assert!(StepSpec::parse(&spec).unwrap_err().problem.contains("larger than"));
    // Deep by aliases of aliases.
    let mut spec = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        spec += &format!("a{level}: &a{level} [[[*a{}]]]\n", level - 1);
    }
    assert!(StepSpec::parse(&spec).unwrap_err().problem.contains("deeper"));
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(StepSpec::parse(&deep).unwrap_err().problem.contains("deeper"));
}

#[test]
fn a_whole_step_is_unpacked_and_a_similar_spec_is_not() {
    let step =
        StepSpec::parse("name: s\nimage: i\nspec: {a: 1}\nenv: {B: x}\nwhen: !Fn.equals [a, a]\n")
            .unwrap();
    let everything = Query::Path(Vec::new());
    let of = |tree: &super::Tree| match tree.evaluate(&everything, &known()).unwrap() {
        EvaluationProgress::Done(evaluated) => evaluated.value,
        EvaluationProgress::Needs(_) => panic!(),
    };
    assert_eq!(of(&step.spec), json!({ "a": 1 }));
    assert_eq!(of(&step.env), json!({ "B": "x" }));
    assert_eq!(of(&step.when), json!([true]));
    let spec = StepSpec::parse("spec: {a: 1}\nother: 2\n").unwrap();
    assert_eq!(of(&spec.spec), json!({ "spec": { "a": 1 }, "other": 2 }));
    assert_eq!(of(&StepSpec::parse("").unwrap().spec), json!({}));
}

#[test]
fn only_requested_parts_of_a_spec_are_looked_up() {
    let spec =
        "a: ${coalesce(secrets.x, parameters.vars.absent, secrets.y)}\nb: ${secrets.x.deep}\n";
    let spec = StepSpec::parse(spec).unwrap();
    let mut known = known();
    let x = Need::Secret { name: "x".into() };
    for query in ["a", "b"] {
        let query = Query::parse(query, Language::Path).unwrap();
        let EvaluationProgress::Needs(needs) = spec.spec.evaluate(&query, &known).unwrap() else {
            panic!()
        };
        assert_eq!(needs, [x.clone()].into());
    }
    known.looked_up.insert(x, LookedUp::Nothing);
    let query = Query::parse("a", Language::Path).unwrap();
    let EvaluationProgress::Needs(needs) = spec.spec.evaluate(&query, &known).unwrap() else {
        panic!()
    };
    assert_eq!(needs.into_iter().collect::<Vec<_>>(), [Need::Secret { name: "y".into() }]);
}

#[test]
fn an_error_does_not_name_a_key_that_was_made_of_a_secret() {
    for spec in
        ["a: ${parameters.vars[secrets.token]}", "a: ${parameters.vars['x' + secrets.token]}"]
    {
        let error = evaluate(spec, "a").err().unwrap();
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn an_evaluation_has_a_budget_of_texts_lists_and_steps() {
    let exhausted = |spec: &str, query: &str| {
        let error = evaluate(spec, query).err().unwrap();
        assert!(error.contains("more than 4 MiB"), "{error}");
    };
    let nested = |function: &str, times: usize, inner: &str| {
        format!("a: {}{inner}{}\n", format!("!Fn.{function} [").repeat(times), "]".repeat(times))
    };
    exhausted(&nested("jsonMarshal", 26, "'\"'"), "a");
    assert!(evaluate(&nested("jsonMarshal", 12, "'\"'"), "a").is_ok());
    // Short texts in lists are paid for by what a list takes.
    let zeros = "0,".repeat(300_000);
    exhausted(&format!("a: !Fn.jsonUnmarshal ['[{zeros}0]']\n"), "a");
    let long = "x".repeat(500_000);
    exhausted(&format!("a: ${{'{long}' =~ '^x{{3}}$'}}\n"), "a");
    exhausted(&format!("a: ${{'{long}' =~ '(x*)*(x*)*y'}}\nb: 1\n"), "a");
    let several = format!("b: {{x: '{long}', y: \"${{'{long}' + 'y'}}\"}}\n");
    assert!(evaluate(&several, "b").is_ok());
    // Parts outside the query cost nothing, and a spent budget is not an absent value.
    assert_eq!(value(&format!("{}b: 1\n", nested("jsonMarshal", 26, "'\"'")), "b"), json!(1));
    let within = nested("jsonMarshal", 26, "'\"'").replace("a: ", "");
    exhausted(&format!("a: !Fn.coalesce [{}, x]\n", within.trim()), "a");
    exhausted(&format!("a: !Fn.exists [{}]\n", within.trim()), "a");
}
