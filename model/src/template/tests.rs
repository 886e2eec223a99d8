//! The facade as a whole: sets, modes, methods, bounds.

use super::*;

fn set(mode: Mode) -> TemplateSet {
    let functions = functions::alertmanager()
        .with_method("SortedPairs", |receiver, _| match receiver {
            Value::Map(entries) => Some(Ok(list(entries.iter().map(|(name, value)| {
                Struct::new("template.Pair")
                    .field("Name", "name", text(name))
                    .field("Value", "value", value.clone())
                    .into_value()
            })))),
            _ => None,
        })
        .with_method("Remove", |receiver, args| match (receiver, args) {
            (Value::Map(entries), [Value::List(names)]) => {
                let keep = |name: &str| !names.iter().any(|gone| as_text(gone) == Some(name));
                Some(Ok(map(entries
                    .iter()
                    .filter(|(name, _)| keep(name))
                    .map(|(name, value)| (name, value.clone())))))
            }
            _ => None,
        });
    TemplateSet::new(mode, &functions)
}

fn data() -> Value {
    Struct::new("template.Data")
        .field("Status", "status", text("firing"))
        .field("Labels", "labels", map([("a", text("1")), ("b", text("<2>"))]))
        .field("StartsAt", "startsAt", object(GoTime::from_ms(1_700_000_000_000)))
        .into_value()
}

fn run(source: &str) -> Result<String, String> {
    set(Mode::Text).expand(source, &data(), &Env::at(1_700_000_090_000)).map_err(|error| error.to_string())
}

#[test]
fn methods_fields_and_chains() {
    let cases = [
        ("{{ range .Labels.SortedPairs }}{{ .Name }}={{ .Value }} {{ end }}", "a=1 b=<2> "),
        (
            "{{ with .Labels.Remove (stringSlice \"a\") }}{{ range .SortedPairs }}{{ .Name }}{{ end }}{{ end }}",
            "b",
        ),
        ("{{ stringSlice \"a\" | .Labels.Remove }}", "map[b:<2>]"),
        ("{{ (.Labels.Remove (stringSlice \"a\")).b }}", "<2>"),
        (
            "{{ .StartsAt.Format \"15:04\" }} {{ .StartsAt.Unix }} {{ (.StartsAt.Add 1000000000).Second }}",
            "22:13 1700000000 21",
        ),
        (
            "{{ $d := since .StartsAt }}{{ $d }} {{ $d.Seconds }} {{ humanizeDuration $d }} {{ gt $d 5 }}",
            "1m30s 90 1m 30s true",
        ),
        ("{{ if since (now) }}some{{ else }}none{{ end }}", "none"),
        ("{{ .StartsAt | tz \"Europe/Berlin\" | date \"15:04 MST\" }}", "23:13 CET"),
        (
            "{{ toJson . }}",
            r#"{"status":"firing","labels":{"a":"1","b":"\u003c2\u003e"},"startsAt":"2023-11-14T22:13:20Z"}"#,
        ),
        ("{{ range $k, $v := .Labels }}{{ $k }}:{{ $v }},{{ end }}", "a:1,b:<2>,"),
        (
            "{{ $d := dict \"x\" (list 1 2) }}{{ $d.x }} {{ len (append $d.x 3) }} {{ join \", \" (stringSlice \"p\" \"q\") }}",
            "[1 2] 3 p, q",
        ),
        (
            "{{ if eq .Status \"x\" \"firing\" }}F{{ end }}{{ .Labels.nope }}{{ .Status | toUpper | printf \"%8s|\" }}",
            "F  FIRING|",
        ),
        (
            "{{ printf \"%5d|%-5s|%05.1f|%x|%+d|%t|%c|%U|%q|%e|%3c|%[2]s\" 42 \"ab\" 3.14159 255 7 true 65 65 \"q\" 12345.678 66 }}",
            "   42|ab   |003.1|ff|+7|true|A|U+0041|\"q\"|1.234568e+04|  B|ab",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(run(source).as_deref(), Ok(expected), "{source}");
    }
}

/// A list with a name and methods of its own, as Alertmanager's `Alerts`.
struct Alerts(Vec<Value>);

impl Object for Alerts {
    fn type_name(&self) -> &str {
        "template.Alerts"
    }

    fn field(&self, _name: &str) -> Option<Value> {
        None
    }

    fn call(&self, name: &str, _args: &[Value]) -> Option<Result<Value, String>> {
        (name == "Firing").then(|| Ok(object(Self(self.0[..1.min(self.0.len())].to_vec()))))
    }

    fn print(&self) -> String {
        format!("<{} alerts>", self.0.len())
    }

    fn json(&self) -> String {
        "[]".to_owned()
    }

    fn contents(&self) -> Option<Value> {
        Some(list(self.0.iter().cloned()))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[test]
fn objects_may_be_lists() {
    let data =
        map([("Some", object(Alerts(vec![text("a"), text("b")]))), ("None", object(Alerts(Vec::new())))]);
    let cases = [
        ("{{ range $i, $a := .Some }}{{ $i }}{{ $a }}{{ end }}", "0a1b"),
        ("{{ range .None }}x{{ else }}none{{ end }}", "none"),
        (
            "{{ len .Some }}{{ len .Some.Firing }}{{ index .Some 1 }}{{ slice .Some 1 }}{{ .Some }}",
            "21b[b]<2 alerts>",
        ),
        ("{{ if .None }}x{{ else }}empty{{ end }}{{ with .Some }}{{ len . }}{{ end }}", "empty2"),
        (
            "{{ if and .Some .None }}x{{ else }}no{{ end }}{{ if or .None .Some.Firing }}yes{{ end }}{{ not .None }}",
            "noyestrue",
        ),
    ];
    for (source, expected) in cases {
        let found = set(Mode::Text).expand(source, &data, &Env::at(0)).map_err(|error| error.to_string());
        assert_eq!(found.as_deref(), Ok(expected), "{source}");
    }
    let error = set(Mode::Text).expand("{{ .Some.Nope }}", &data, &Env::at(0)).unwrap_err();
    assert!(
        error.to_string().ends_with("<.Some.Nope>: can't evaluate field Nope in type template.Alerts"),
        "{error}"
    );
}

#[test]
fn what_does_not_exist_is_an_error_with_its_place() {
    let cases = [
        (
            "{{ .Nope }}",
            "template: :1:3: executing \"\" at <.Nope>: can't evaluate field Nope in type template.Data",
        ),
        (
            "\n {{ .Labels.a.x }}",
            "template: :2:11: executing \"\" at <.Labels.a.x>: can't evaluate field x in type string",
        ),
        (
            "{{ .Labels.a 3 }}",
            "template: :1:10: executing \"\" at <.Labels.a 3>: a is not a method but has arguments",
        ),
        (
            "{{ range .Status }}{{ end }}",
            "template: :1:9: executing \"\" at <.Status>: range can't iterate over firing",
        ),
        (
            "{{ lt 1 \"a\" }}",
            "template: :1:3: executing \"\" at <lt 1 \"a\">: error calling lt: incompatible types for comparison: int and string",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(run(source), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn later_definitions_win_and_html_is_escaped_by_context() {
    let mut html = set(Mode::Html);
    html.add("default", "{{ define \"t\" }}<b title=\"{{ .Labels.b }}\">{{ .Labels.b }}</b>{{ end }}{{ define \"u\" }}u{{ end }}").unwrap();
    let env = Env::at(0);
    let run = |html: &TemplateSet, source: &str| {
        html.expand(source, &data(), &env).map_err(|error| error.to_string())
    };
    assert_eq!(run(&html, "{{ template \"t\" . }}").as_deref(), Ok("<b title=\"&lt;2&gt;\">&lt;2&gt;</b>"));
    assert_eq!(run(&html, "{{ safeHtml .Labels.b }}{{ .Labels.b | html }}").as_deref(), Ok("<2>&lt;2&gt;"));
    assert_eq!(run(&html, "<a href=\"{{ \"javascript:x\" }}\">").as_deref(), Ok("<a href=\"#ZgotmplZ\">"));
    assert_eq!(
        run(&html, "{{ .StartsAt }} {{ .Labels }}").as_deref(),
        Ok("2023-11-14 22:13:20 &#43;0000 UTC map[a:1 b:&lt;2&gt;]")
    );
    html.add("user", "{{ define \"u\" }}mine{{ end }}{{ define \"t\" }} {{ end }}").unwrap();
    assert_eq!(run(&html, "{{ template \"u\" . }}").as_deref(), Ok("mine"));
    assert!(
        run(&html, "{{ template \"t\" . }}").unwrap().starts_with("<b"),
        "an empty definition replaces nothing"
    );
    assert_eq!(html.names().collect::<Vec<_>>(), ["t", "u"]);
    assert!(run(&html, "{{ template \"none\" . }}").unwrap_err().contains("no such template \"none\""));
    assert!(
        run(&html, "<a {{ if true }}href=\"{{ end }}>").is_err(),
        "branches that end in different contexts"
    );
}

#[test]
fn a_bad_file_adds_nothing() {
    let mut text_set = set(Mode::Text);
    let error = text_set.add("f.tmpl", "{{ define \"x\" }}a{{ end }}\n{{ nope }}").unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Parse, "template: f.tmpl:2: function \"nope\" not defined")
    );
    assert!(!text_set.has("x"));
    let error = text_set.add("f", "{{ define \"x\" }}a{{ end }}{{ define \"x\" }}b{{ end }}").unwrap_err();
    assert_eq!(error.to_string(), "template: f:1: multiple definition of template \"x\"");
}

#[test]
fn every_way_to_run_away_ends() {
    let small = Limits { output_bytes: 1000, iterations: 1000, steps: 5000 };
    let run = |source: &str| {
        let result = set(Mode::Text).with_limits(small).expand(source, &data(), &Env::at(0));
        result.map_err(|error| error.to_string())
    };
    let cases = [
        ("{{ range 1001 }}{{ end }}", "rounds of range"),
        ("{{ range 900 }}xx{{ end }}", "output exceeds 1000 bytes"),
        ("{{ $x := `ab` }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}", "text exceeds 1000 bytes"),
        ("{{ $x := list 1 }}{{ range 100 }}{{ $x = list $x }}{{ end }}", "nested too deeply"),
        ("{{ $x := list 1 }}{{ range 10 }}{{ $x = list $x $x $x $x }}{{ end }}{{ $x }}", "too large"),
        ("{{ define `r` }}{{ template `r` }}{{ end }}{{ template `r` }}", "maximum template depth"),
        (
            "{{ define `r` }}{{ if lt (len .) 20 }}{{ template `r` (print . `x`) }}{{ template `r` (print . `x`) }}{{ end }}{{ end }}{{ template `r` `` }}",
            "too many function calls",
        ),
        ("{{ printf `%5000d` 1 }}", "text exceeds 1000 bytes"),
    ];
    for (source, expected) in cases {
        let error = run(source).unwrap_err();
        assert!(error.contains(expected), "{source}: {error}");
    }
    assert_eq!(run("{{ range 1000 }}{{ end }}ok").as_deref(), Ok("ok"));
}
