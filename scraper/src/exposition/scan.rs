//! The tokens both text formats share.

/// End of the name that starts at `from`: `[a-zA-Z_:][a-zA-Z0-9_:]*` (colons only where `colons`). `None` when there is
/// no name.
pub(super) fn name_end(page: &[u8], from: usize, colons: bool) -> Option<usize> {
    let rest = page.get(from..)?;
    let first = *rest.first()?;
    if !(first.is_ascii_alphabetic() || first == b'_' || (colons && first == b':')) {
        return None;
    }
    let length = rest
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || (colons && **byte == b':'))
        .count();
    Some(from + length)
}

/// What a quoted string may hold unescaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotedRules {
    pub(super) newline: bool,
    pub(super) nul: bool,
}

/// Position after the closing quote of the string whose opening quote stands at `from`. An escaped line break never
/// belongs to a string.
pub(super) fn quoted_end(page: &[u8], from: usize, rules: QuotedRules) -> Option<usize> {
    let mut pos = from + 1;
    loop {
        let rest = page.get(pos..)?;
        let stop = memchr::memchr2(b'"', b'\\', rest)?;
        let run = rest.get(..stop)?;
        if (!rules.newline && memchr::memchr(b'\n', run).is_some())
            || (!rules.nul && memchr::memchr(0, run).is_some())
        {
            return None;
        }
        if rest.get(stop) == Some(&b'"') {
            return Some(pos + stop + 1);
        }
        match rest.get(stop + 1)? {
            b'\n' => return None,
            0 if !rules.nul => return None,
            _ => pos += stop + 2,
        }
    }
}

/// Position of the first byte at or after `from` that is neither space nor tab.
pub(super) fn skip_blanks(page: &[u8], from: usize) -> usize {
    from + page.get(from..).unwrap_or_default().iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Position of the next line break at or after `from`, or the end of the page.
pub(super) fn line_end(page: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', page.get(from..).unwrap_or_default()).map_or(page.len(), |length| from + length)
}
