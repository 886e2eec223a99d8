//! JSON by hand for what answers are made of: strings, label sets, points. Large results never become a tree first.

use std::fmt::Write as _;

use model::float::{write_api, write_timestamp};
use model::{FloatHistogram, Labels};

/// Writes a JSON string.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[from..index]);
        from = index + 1;
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("writing to a string cannot fail");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// Writes a JSON string into a new string.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

/// Writes `["a","b"]`.
pub fn write_strings<'a>(out: &mut String, texts: impl IntoIterator<Item = &'a str>) {
    write_list(out, texts, write_string);
}

/// Writes a list with `write` for each item.
pub fn write_list<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

/// Writes a label set as an object.
pub fn write_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        write_string(out, value);
    }
    out.push('}');
}

/// Writes `[t,"v"]`.
pub fn write_point(out: &mut String, t: i64, v: f64) {
    out.push('[');
    write_timestamp(out, t);
    out.push_str(",\"");
    write_api(out, v);
    out.push_str("\"]");
}

/// Writes `[t,{histogram}]`.
pub fn write_histogram_point(out: &mut String, t: i64, histogram: &FloatHistogram) {
    out.push('[');
    write_timestamp(out, t);
    out.push(',');
    write_histogram(out, histogram);
    out.push(']');
}

/// Writes `{"count":"…","sum":"…","buckets":[[rule,"lo","hi","count"],…]}`; empty buckets are left out.
fn write_histogram(out: &mut String, histogram: &FloatHistogram) {
    out.push_str("{\"count\":\"");
    write_api(out, histogram.count);
    out.push_str("\",\"sum\":\"");
    write_api(out, histogram.sum);
    out.push('"');
    let buckets: Vec<_> = histogram.all_buckets().into_iter().filter(|bucket| bucket.count != 0.0).collect();
    if !buckets.is_empty() {
        out.push_str(",\"buckets\":");
        write_list(out, buckets, |out, bucket| {
            let rule = match (bucket.lower_inclusive, bucket.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            write!(out, "[{rule},\"").expect("writing to a string cannot fail");
            write_api(out, bucket.lower);
            out.push_str("\",\"");
            write_api(out, bucket.upper);
            out.push_str("\",\"");
            write_api(out, bucket.count);
            out.push_str("\"]");
        });
    }
    out.push('}');
}

/// An object written field by field.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Object<'a> {
    /// Begins an object.
    pub fn begin(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    /// Writes a key; the value must follow through the returned string.
    pub fn key(&mut self, key: &str) -> &mut String {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        write_string(self.out, key);
        self.out.push(':');
        self.out
    }

    /// A text.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        write_string(self.key(key), value);
        self
    }

    /// Something whose `Display` is JSON: numbers and booleans.
    pub fn raw(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        write!(self.key(key), "{value}").expect("writing to a string cannot fail");
        self
    }

    /// A finite number, 0 for others (JSON has none for them).
    pub fn number(&mut self, key: &str, value: f64) -> &mut Self {
        self.raw(key, if value.is_finite() { value } else { 0.0 })
    }

    /// A label set.
    pub fn labels(&mut self, key: &str, value: &Labels) -> &mut Self {
        write_labels(self.key(key), value);
        self
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back_the_same() {
        for text in ["", "plain", "q\"b\\s\n\r\t\u{1}\u{1f}\u{7f}é\u{2028}🦀", "<script>"] {
            let back: String = serde_json::from_str(&string(text)).unwrap();
            assert_eq!(back, text);
        }
    }

    #[test]
    fn objects_and_points_have_prometheus_form() {
        let mut out = String::new();
        let mut object = Object::begin(&mut out);
        object
            .text("a", "x")
            .raw("b", 1)
            .labels("c", &Labels::from_pairs([("l", "v")]))
            .number("d", f64::NAN);
        object.end();
        write_point(&mut out, 1_500, f64::INFINITY);
        assert_eq!(out, r#"{"a":"x","b":1,"c":{"l":"v"},"d":0}[1.500,"+Inf"]"#);
    }
}
