//! Fields of `multipart/form-data` bodies (RFC 7578), as some HTTP libraries send forms. Not a parser of uploads: parts with
//! a file name are left out, the body is in memory and bounded by whoever read it.
#![warn(clippy::indexing_slicing)]

/// Most fields that are read; no request has more than a handful.
const FIELDS_MAX: usize = 1000;

/// The boundary that a `Content-Type` names.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    parameter(content_type, "boundary").filter(|boundary| (1..=70).contains(&boundary.len()))
}

/// The fields of `body` in order. What cannot be read is left out.
pub(crate) fn fields(body: &[u8], boundary: &str) -> Vec<(String, String)> {
    let delimiter = format!("--{boundary}");
    // Delimiters stand at the beginning of a line; the first line has nothing before it.
    let mut parts = split(body, delimiter.as_bytes()).into_iter();
    parts.next();
    parts
        .take_while(|part| !part.starts_with(b"--"))
        .filter_map(|part| field(part.strip_prefix(b"\r\n")?.strip_suffix(b"\r\n")?))
        .take(FIELDS_MAX)
        .collect()
}

fn field(part: &[u8]) -> Option<(String, String)> {
    let end = find(part, b"\r\n\r\n", 0)?;
    let head = std::str::from_utf8(part.get(..end)?).ok()?;
    let value = part.get(end + 4..)?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    if parameter(disposition, "filename").is_some() {
        return None;
    }
    Some((parameter(disposition, "name")?, String::from_utf8_lossy(value).into_owned()))
}

/// `name="value"` or `name=value` among the parameters of a header. Values with a semicolon in them are not understood.
fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let is_it = key.trim().eq_ignore_ascii_case(name);
        is_it.then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// `body` cut at every delimiter that stands at the beginning of a line; the line break before it stays with the part.
fn split<'a>(body: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let (mut from, mut search) = (0, 0);
    while let Some(at) = find(body, delimiter, search) {
        search = at + delimiter.len();
        let is_line_start = at == 0 || body.get(..at).is_some_and(|before| before.ends_with(b"\r\n"));
        // A longer boundary that only begins like ours is content.
        let is_whole =
            body.get(search..).is_some_and(|after| after.starts_with(b"\r\n") || after.starts_with(b"--"));
        if is_line_start && is_whole {
            parts.push(body.get(from..at).unwrap_or_default());
            from = search;
        }
    }
    parts.push(body.get(from..).unwrap_or_default());
    parts
}

fn find(text: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let at = text.get(from..)?.windows(wanted.len()).position(|window| window == wanted)?;
    Some(from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_out_in_order() {
        let body = "preamble\r\n--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nup --b\r\n--bx\r\n--b\r\n\
            Content-Type: text/plain\r\ncontent-disposition: form-data; name=time\r\n\r\n5\r\n--b\r\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nfile\r\n--b--\r\nepilogue";
        let expected =
            [("query", "up --b\r\n--bx"), ("time", "5")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(fields(body.as_bytes(), "b"), expected);
    }

    #[test]
    fn broken_bodies_give_what_can_be_read() {
        for body in ["", "--b", "--b--", "--b\r\n", "--b\r\n\r\n--b--", "--b\r\nno head\r\n--b--", "x"] {
            assert_eq!(fields(body.as_bytes(), "b"), [], "{body:?}");
        }
        let cut = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\nContent-";
        assert_eq!(fields(cut, "b"), [("a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn boundaries_are_found() {
        assert_eq!(boundary("multipart/form-data; boundary=b").as_deref(), Some("b"));
        assert_eq!(boundary("multipart/form-data; charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }
}
