//! Tests of the decoder: round trips in any portions, bounds, foreign bytes.

use proptest::prelude::*;

use super::*;
use crate::collector::resp::payload_hash;

/// The inverse of the decoder, for replies within its bounds.
fn encode(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Status(bytes) => {
            out.push(b'+');
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Error(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
        Reply::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        Reply::Bulk(bytes) => {
            out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
        Reply::Array(elements) => {
            out.extend_from_slice(format!("*{}\r\n", elements.len()).as_bytes());
            for element in elements {
                encode(element, out);
            }
        }
        Reply::Oversized { .. } | Reply::Dropped => unreachable!("not encodable"),
    }
}

fn deep() -> Limits {
    Limits { keep_depth: 16, ..Limits::default() }
}

fn decode_all(mut input: &[u8], limits: Limits) -> Result<Vec<Reply>, DecodeError> {
    let mut decoder = Decoder::new(limits);
    let mut replies = Vec::new();
    while let Some(reply) = decoder.decode(&mut input)? {
        replies.push(reply);
    }
    Ok(replies)
}

fn reply() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>().prop_filter("no line end", |b| !b"\r\n".contains(b)), 0..20)
            .prop_map(Reply::Status),
        "[^\r\n]{0,20}".prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Reply::Bulk),
        Just(Reply::Nil),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Reply::Array))
}

proptest! {
    #[test]
    fn decodes_what_was_encoded_in_any_portions(replies in prop::collection::vec(reply(), 1..5), cuts in prop::collection::vec(1usize..9, 1..40)) {
        let mut bytes = Vec::new();
        for reply in &replies {
            encode(reply, &mut bytes);
        }
        prop_assert_eq!(&decode_all(&bytes, deep()).unwrap(), &replies);

        let mut decoder = Decoder::new(deep());
        let mut decoded = Vec::new();
        let mut rest = &bytes[..];
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (mut portion, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = after;
            while let Some(reply) = decoder.decode(&mut portion).unwrap() {
                decoded.push(reply);
            }
        }
        prop_assert_eq!(decoded, replies);
        prop_assert!(decoder.is_idle());
    }

    #[test]
    fn any_bytes_end_in_a_reply_an_error_or_more_wanted(bytes in prop::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'1'), Just(b'-'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)) {
        let whole = decode_all(&bytes, Limits::default());
        // Byte by byte gives the same, so that no error depends on how the bytes arrive.
        let mut decoder = Decoder::new(Limits::default());
        let mut single = Ok(Vec::new());
        'bytes: for byte in &bytes {
            let mut portion = std::slice::from_ref(byte);
            loop {
                match decoder.decode(&mut portion) {
                    Ok(Some(reply)) => single.as_mut().unwrap().push(reply),
                    Ok(None) => break,
                    Err(error) => {
                        single = Err(error);
                        break 'bytes;
                    }
                }
            }
        }
        prop_assert_eq!(single.is_err(), whole.is_err());
        if let (Ok(single), Ok(whole)) = (single, whole) {
            prop_assert_eq!(single, whole);
        }
    }
}

#[test]
fn every_split_of_a_real_answer_gives_the_same() {
    let bytes = b"*3\r\n$4\r\nlag\n\r\n*2\r\n:6\r\n*-1\r\n-NOPERM no\r\n";
    let expected = [Reply::Array(vec![
        Reply::Bulk(b"lag\n".to_vec()),
        Reply::Array(vec![Reply::Integer(6), Reply::Nil]),
        Reply::Error("NOPERM no".to_owned()),
    ])];
    for cut in 0..=bytes.len() {
        let mut decoder = Decoder::new(Limits::default());
        let mut replies = Vec::new();
        for mut portion in [&bytes[..cut], &bytes[cut..]] {
            while let Some(reply) = decoder.decode(&mut portion).unwrap() {
                replies.push(reply);
            }
        }
        assert_eq!(replies, expected, "cut at {cut}");
    }
}

#[test]
fn long_strings_are_hashed_and_deep_lists_dropped() {
    let limits = Limits { bulk_keep_bytes: 4, ..Limits::default() };
    let decoded = decode_all(b"$5\r\nabcde\r\n", limits).unwrap();
    assert_eq!(decoded, [Reply::Oversized { len: 5, hash: payload_hash(b"abcde") }]);
    // An XRANGE answer: the entry's id stays, its fields go, whatever is in them.
    let entry = b"*1\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$1\r\nn\r\n*1\r\n$6\r\nsecret\r\n*0\r\n:3\r\n+next\r\n";
    let decoded = decode_all(entry, limits).unwrap();
    assert_eq!(
        decoded,
        [
            Reply::Array(vec![Reply::Array(vec![Reply::Bulk(b"1-0".to_vec()), Reply::Dropped])]),
            Reply::Status(b"next".to_vec())
        ]
    );
}

#[test]
fn bounds_hold_before_anything_is_allocated() {
    let limits =
        Limits { line_bytes_max: 16, elements_max: 3, depth_max: 2, reply_bytes_max: 1000, ..deep() };
    let error = |bytes: &[u8]| decode_all(bytes, limits).unwrap_err();
    assert_eq!(error(b"$1001\r\n"), DecodeError::TooLarge { limit: 1000 });
    assert_eq!(error(b"$9223372036854775807\r\n"), DecodeError::LineTooLong { limit: 16 });
    assert_eq!(
        decode_all(b"*9223372036854775807\r\n", Limits::default()).unwrap_err(),
        DecodeError::TooManyElements { limit: 1 << 18 }
    );
    assert_eq!(error(b"*4\r\n"), DecodeError::TooManyElements { limit: 3 });
    assert_eq!(error(b"*2\r\n*2\r\n"), DecodeError::TooManyElements { limit: 3 });
    assert_eq!(error(b"*1\r\n*1\r\n*1\r\n"), DecodeError::TooDeep { limit: 2 });
    assert_eq!(error(b"+0123456789abcdefgh"), DecodeError::LineTooLong { limit: 16 });
    let dropping = Limits { keep_depth: 0, reply_bytes_max: 30, ..limits };
    assert_eq!(
        decode_all(b"*99\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n", dropping).unwrap_err(),
        DecodeError::TooLarge { limit: 30 }
    );
}

#[test]
fn other_protocols_and_broken_lengths_are_refused() {
    for (bytes, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], DecodeError::UnknownKind(b'H')),
        (b"H", DecodeError::UnknownKind(b'H')),
        (b"%1\r\n", DecodeError::UnknownKind(b'%')),
        (b"$-2\r\n", DecodeError::BadNumber),
        (b"*-9\r\n", DecodeError::BadNumber),
        (b":12a\r\n", DecodeError::BadNumber),
        (b":99999999999999999999\r\n", DecodeError::BadNumber),
        (b":1\n", DecodeError::MissingLineEnd),
        (b"$1\r\nabc\r\n", DecodeError::MissingLineEnd),
    ] {
        assert_eq!(decode_all(bytes, Limits::default()).unwrap_err(), expected);
    }
}
