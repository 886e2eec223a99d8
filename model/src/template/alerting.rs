//! Templates of rule labels and annotations, as Prometheus expands them.
//!
//! Each text gets the prelude `{{$labels := .Labels}}…`, the data of the alert, and the functions of
//! [`functions::prometheus`]. A failing template never fails its alert: its place takes the text of the error.

use std::sync::{Arc, LazyLock};

use super::functions::{self};
use super::{Env, Mode, Struct, Template, TemplateError, TemplateSet, Value, labels, text};
use crate::labels::Labels;

/// What Prometheus puts before each text.
const PRELUDE: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                       {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// The type that Prometheus names in errors about unknown fields.
const DATA_TYPE: &str = "struct { Labels map[string]string; ExternalLabels map[string]string; \
                         ExternalURL string; Value interface {} }";

static EMPTY_SET: LazyLock<TemplateSet> =
    LazyLock::new(|| TemplateSet::new(Mode::Text, &functions::prometheus()));

/// A label or annotation of a rule, ready to be expanded for each alert.
#[derive(Clone, Debug)]
pub struct AlertTemplate {
    template: Template,
    name: Arc<str>,
}

/// What one alert's templates see. Made once per alert, used for all of its texts.
#[derive(Clone, Debug)]
pub struct AlertData(Value);

impl AlertData {
    /// `alert_labels` are those of the sample, without the rule's own.
    pub fn new(alert_labels: &Labels, external_labels: &Labels, external_url: &str, value: f64) -> Self {
        Self(
            Struct::new(DATA_TYPE)
                .field("Labels", "Labels", labels(alert_labels))
                .field("ExternalLabels", "ExternalLabels", labels(external_labels))
                .field("ExternalURL", "ExternalURL", text(external_url))
                .field("Value", "Value", Value::Float(value))
                .into_value(),
        )
    }
}

impl AlertTemplate {
    /// Compiles `source`, a text of alert `alert_name`.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn new(alert_name: &str, source: &str) -> Result<Self, TemplateError> {
        let name = format!("__alert_{alert_name}");
        let template = if source.contains("{{") {
            EMPTY_SET.compile(&name, &format!("{PRELUDE}{source}"))?
        } else {
            EMPTY_SET.compile(&name, source)?
        };
        Ok(Self { template, name: name.into() })
    }

    /// The text for one alert, or `Err` with the text that takes its place: `<error expanding template: …>`.
    ///
    /// # Errors
    /// When the template fails.
    pub fn expand(&self, data: &AlertData, env: &Env) -> Result<String, String> {
        self.template.execute(&data.0, env).map_err(|error| {
            format!("<error expanding template: error executing template {}: {error}>", self.name)
        })
    }
}

/// Whether `source` is a well-formed template of alert `alert_name`, for checks of rule files.
///
/// # Errors
/// Prometheus' words: `template: __alert_NAME:1: …`.
pub fn check(alert_name: &str, source: &str) -> Result<(), TemplateError> {
    AlertTemplate::new(alert_name, source).map(drop)
}

/// The path of a link into the expression browser: `/graph?g0.expr=…&g0.tab=1`; tab 0 is the graph, 1 the table.
pub fn graph_link(expr: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", functions::url_query_escape(expr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(source: &str) -> Result<String, String> {
        let series = Labels::from_pairs([("__name__", "x"), ("instance", "h:1")]);
        let external = Labels::from_pairs([("region", "eu")]);
        let mut env = Env::at(1_700_000_000_000);
        env.external_url = "http://h:9090/p".into();
        env.query = Some(Arc::new(|expr, _| match expr {
            "x" => Ok(vec![(Labels::from_pairs([("a", "2")]), 1.5), (Labels::from_pairs([("a", "1")]), 2.0)]),
            "bad" => Err("1:1: parse error".to_owned()),
            _ => Ok(Vec::new()),
        }));
        let data = AlertData::new(&series, &external, "http://h:9090/p", 1_073_741_824.5);
        AlertTemplate::new("A", source).unwrap().expand(&data, &env)
    }

    /// Expected texts are those of the real promtool on the same templates.
    #[test]
    fn expands_as_prometheus() {
        let cases = [
            ("{{ $value }}", "1.0737418245e+09"),
            ("{{ 1000000.0 }} {{ 123456.0 }}", "1e+06 123456"),
            (
                r#"{{ printf "%v %g %s %d" 1e20 1e20 $value "x" }}"#,
                "1e+20 1e+20 %!s(float64=1.0737418245e+09) %!d(string=x)",
            ),
            ("{{ $labels }}", "map[__name__:x instance:h:1]"),
            ("{{ . }}", "{map[__name__:x instance:h:1] map[region:eu] http://h:9090/p 1.0737418245e+09}"),
            (r#"{{ printf "%d" $value }}"#, "%!d(float64=1.0737418245e+09)"),
            (r#"{{ $value | printf "%.2f" }} {{ $value | humanize }}"#, "1073741824.50 1.074G"),
            ("{{ $labels.absent }}|{{ .ExternalLabels.region }}|{{ $externalLabels.region }}", "|eu|eu"),
            ("no template {", "no template {"),
            (r#"{{ range query "x" }}{{ .Labels.a }}={{ .Value }} {{ end }}"#, "2=1.5 1=2 "),
            (
                r#"{{ range query "x" | sortByLabel "a" }}{{ . | label "a" }}={{ . | value }};{{ end }}"#,
                "1=2;2=1.5;",
            ),
            (r#"{{ with query "none" }}some{{ else }}none{{ end }}"#, "none"),
            (r#"{{ query "x" | first | value }}"#, "1.5"),
            (
                r#"{{ graphLink "up > 0" }} {{ tableLink "a+b" }}"#,
                "/graph?g0.expr=up+%3E+0&g0.tab=0 /graph?g0.expr=a%2Bb&g0.tab=1",
            ),
            (
                r#"{{ reReplaceAll "(.*):.*" "$1" .Labels.instance }} {{ $labels.instance | stripPort }}"#,
                "h h",
            ),
            ("{{ externalURL }} {{ pathPrefix }} {{ .ExternalURL }}", "http://h:9090/p /p http://h:9090/p"),
            ("{{ now }} {{ now | humanizeTimestamp }}", "1.7e+09 2023-11-14 22:13:20 +0000 UTC"),
            (
                r#"{{ (1.5 | toTime).Format "15:04:05.0" }} {{ toDuration 90 }} {{ parseDuration "1m" }}"#,
                "00:00:01.5 1m30s 60",
            ),
            (
                r#"{{ define "d" }}<{{ .arg0 }}{{ .arg1 }}>{{ end }}{{ template "d" (args 1 "b") }}{{ tmpl "d" (args 2) }}"#,
                "<1b><2<no value>>",
            ),
            (r#"{{ if and (gt $value 1.0) (eq $labels.instance "h:1") }}yes{{ end }}"#, "yes"),
            (r#"{{ $x := 1 }}{{ range $i, $e := query "x" }}{{ $x = $i }}{{ end }}{{ $x }}"#, "1"),
            (
                r#"{{ humanizeDuration 3661.0 }} {{ humanizePercentage 0.123456 }} {{ humanize1024 2048.0 }}"#,
                "1h 1m 1s 12.35% 2ki",
            ),
            (
                r#"{{ title "ab cd" }} {{ "Ab" | toUpper }} {{ match "a.*" "xab" }} {{ urlQueryEscape "a b" }}"#,
                "Ab Cd AB true a+b",
            ),
            ("{{- /* note */ -}} {{ print 1 2 `a` 3.5 }}", "1 2a3.5"),
            (
                "{{ not true }} {{ len $labels }} {{ index $labels \"instance\" }} {{ slice \"abc\" 1 2 }}",
                "false 2 h:1 b",
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(expand(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn failures_say_where_as_prometheus() {
        let cases = [
            (
                "{{ query \"x\" }} {{ $labels.foo.bar }}",
                "1:138: executing \"__alert_A\" at <$labels.foo.bar>: can't evaluate field bar in type string",
            ),
            (
                "{{ humanize \"a\" }}",
                "1:115: executing \"__alert_A\" at <humanize \"a\">: error calling humanize: strconv.ParseFloat: parsing \"a\": invalid syntax",
            ),
            (
                "{{ .Foo }}",
                "1:115: executing \"__alert_A\" at <.Foo>: can't evaluate field Foo in type struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }",
            ),
            (
                "{{ template \"x\" }}",
                "1:124: executing \"__alert_A\" at <{{template \"x\"}}>: template \"x\" not defined",
            ),
            (
                "{{ index (query \"x\") 3 }}",
                "1:115: executing \"__alert_A\" at <index (query \"x\") 3>: error calling index: index out of range: 3",
            ),
            (
                "{{ \"a\" | humanizePercentage }}",
                "1:121: executing \"__alert_A\" at <humanizePercentage>: error calling humanizePercentage: strconv.ParseFloat: parsing \"a\": invalid syntax",
            ),
            (
                "{{ first (query \"nope\") }}",
                "1:115: executing \"__alert_A\" at <first (query \"nope\")>: error calling first: first() called on vector with no elements",
            ),
        ];
        for (source, expected) in cases {
            let expected = format!(
                "<error expanding template: error executing template __alert_A: template: __alert_A:{expected}>"
            );
            assert_eq!(expand(source), Err(expected), "{source}");
        }
        assert!(
            expand("{{ query \"bad\" }}").unwrap_err().ends_with("error calling query: 1:1: parse error>")
        );
    }

    #[test]
    fn check_has_gos_words() {
        let cases = [
            ("{{ if true }}x", "unexpected EOF"),
            ("{{ $x }}", "undefined variable \"$x\""),
            ("{{ break }}", "{{break}} outside {{range}}"),
            ("{{ . ) }}", "unexpected right paren"),
            ("{{ (. }}", "unclosed left paren"),
            ("{{ .x | 3 }}", "non executable command in pipeline stage 2"),
            ("{{}}", "missing value for command"),
            ("{{ foo \"a\" }}", "function \"foo\" not defined"),
            ("{{ . | foo }}", "function \"foo\" not defined"),
            ("{{ \"abc }}", "unterminated quoted string"),
            ("{{/* x }}", "unclosed comment"),
        ];
        for (source, expected) in cases {
            let error = check("A", source).unwrap_err().to_string();
            assert_eq!(error, format!("template: __alert_A:1: {expected}"), "{source}");
        }
        assert_eq!(check("A", "{{ .Foo }}{{ len 3 }}{{ template \"x\" }}"), Ok(()));
    }
}
