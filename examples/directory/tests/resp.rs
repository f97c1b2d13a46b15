//! RESP2: what is parsed does not depend on how the bytes are cut, and no bytes do harm.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use mainstay_directory::resp::{
    ARGUMENTS_MAX, BULK_BYTES_MAX, COMMAND_BYTES_MAX, CommandParser, INLINE_BYTES_MAX,
    ProtocolError, Reply, ReplyError, ReplyParser, write,
};
use proptest::prelude::*;

type Words = Vec<Vec<u8>>;

/// Feeds the pieces and gives the commands, and how it ended.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Words>, Option<ProtocolError>) {
    let mut parser = CommandParser::new();
    let mut commands = Vec::new();
    for piece in pieces {
        parser.feed(piece);
        loop {
            match parser.next_command() {
                Ok(Some(command)) => {
                    commands.push(command.arguments().map(<[u8]>::to_vec).collect())
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(parser.next_command(), Err(error), "an error stays");
                    return (commands, Some(error));
                }
            }
        }
        assert!(parser.buffered() < COMMAND_BYTES_MAX);
    }
    (commands, None)
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn encoded(commands: &[Words]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        write::command(&mut bytes, &words);
    }
    bytes
}

#[test]
fn arrays_and_lines_are_commands() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n\r\n*0\r\n*-1\r\n  set k  \"a\\x41\\n b\" 'it\\'s'\n";
    let (commands, error) = parse([&bytes[..]]);
    assert_eq!(error, None);
    assert_eq!(
        commands,
        [words(&["GET", "k"]), words(&["PING"]), words(&["set", "k", "aA\n b", "it's"])]
    );
}

#[test]
fn garbage_is_an_error() {
    let error = |bytes: &[u8]| parse([bytes]).1;
    assert_eq!(error(b"*x\r\n"), Some(ProtocolError::Count));
    assert_eq!(error(b"*\r\n"), Some(ProtocolError::Count));
    assert_eq!(error(b"*99999999999999999999\r\n"), Some(ProtocolError::Count));
    assert_eq!(error(b"*1\r\n:1\r\n"), Some(ProtocolError::Dollar(b':')));
    assert_eq!(error(b"*1\r\n$-1\r\n"), Some(ProtocolError::Length));
    assert_eq!(error(b"*1\r\n$1\rx"), Some(ProtocolError::Length));
    assert_eq!(error(b"*1\r\n$1\r\nabc"), Some(ProtocolError::BulkEnd));
    assert_eq!(error(b"get \"k\n"), Some(ProtocolError::Quotes));
    assert_eq!(error(b"get \"k\"x\n"), Some(ProtocolError::Quotes));
    let zeros = [&b"*"[..], &[b'0'; 100]].concat();
    assert_eq!(error(&zeros), Some(ProtocolError::Count));
}

#[test]
fn sizes_are_bounded() {
    let fits = vec![b'x'; BULK_BYTES_MAX];
    assert_eq!(parse([&encoded(&[vec![fits.clone()]])[..]]).0.len(), 1);
    let error = |bytes: &[u8]| parse([bytes]).1;
    let length = format!("*1\r\n${}\r\n", BULK_BYTES_MAX + 1);
    assert_eq!(error(length.as_bytes()), Some(ProtocolError::Length));
    assert_eq!(error(&encoded(&[vec![fits.clone(), fits]])), Some(ProtocolError::Command));
    let count = format!("*{}\r\n", ARGUMENTS_MAX + 1);
    assert_eq!(error(count.as_bytes()), Some(ProtocolError::Count));
    assert_eq!(parse([&encoded(&[vec![b"k".to_vec(); ARGUMENTS_MAX]])[..]]).0.len(), 1);
    assert_eq!(error(&vec![b'x'; INLINE_BYTES_MAX]), None);
    assert_eq!(error(&vec![b'x'; INLINE_BYTES_MAX + 1]), Some(ProtocolError::Inline));
}

#[test]
fn what_comes_before_an_error_is_a_command() {
    let (commands, error) = parse([&b"PING\r\n*x\r\nPING\r\n"[..]]);
    assert_eq!(commands, [words(&["PING"])]);
    assert_eq!(error, Some(ProtocolError::Count));
}

/// Feeds the pieces and gives the replies, and how it ended.
fn replies<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<ReplyError>) {
    let mut parser = ReplyParser::new();
    let mut replies = Vec::new();
    for piece in pieces {
        parser.feed(piece);
        loop {
            match parser.next_reply() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

fn put(into: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Simple(text) => write::simple(into, text),
        Reply::Error(text) => write::error(into, text),
        Reply::Integer(number) => write::integer(into, *number),
        Reply::Bulk(Some(bytes)) => write::bulk(into, bytes),
        Reply::Bulk(None) => write::null(into),
        Reply::Array(Some(elements)) => {
            write::array(into, elements.len());
            elements.iter().for_each(|element| put(into, element));
        }
        Reply::Array(None) => into.extend(b"*-1\r\n"),
    }
}

fn some_reply() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        "[a-zA-Z ]{0,20}".prop_map(Reply::Simple),
        "[a-zA-Z ]{0,20}".prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        any::<Option<Vec<u8>>>().prop_map(|bytes| Reply::Bulk(bytes.map(Into::into))),
        Just(Reply::Array(None)),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|elements| Reply::Array(Some(elements)))
    })
}

#[test]
fn replies_are_bounded() {
    let error = |bytes: &[u8]| replies([bytes]).1;
    assert_eq!(error(b"?"), Some(ReplyError::Kind(b'?')));
    assert_eq!(error(b":x\r\n"), Some(ReplyError::Number));
    assert_eq!(error(b"$-2\r\n"), Some(ReplyError::Number));
    assert_eq!(error(b"$1\r\nxyz"), Some(ReplyError::End));
    assert_eq!(error(b"+x\n"), Some(ReplyError::End));
    assert_eq!(error(b"$99999999999\r\n"), Some(ReplyError::TooLarge));
    assert_eq!(error(b"*99999999999\r\n"), Some(ReplyError::TooLarge));
    assert_eq!(error(&b"*1\r\n".repeat(9)), Some(ReplyError::TooLarge));
    assert_eq!(error(&[b'+'; 70_000]), Some(ReplyError::TooLarge));
    assert_eq!(replies([&b"*0\r\n*1\r\n*0\r\n"[..]]).0.len(), 2);
}

proptest! {
    #[test]
    fn commands_do_not_depend_on_the_cuts(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..5), 0..5),
        line in "[a-z]{1,5}( [a-z\"]{1,4}){0,2}\r\n",
    ) {
        let mut bytes = encoded(&commands);
        bytes.extend(line.bytes());
        bytes.extend(encoded(&commands));
        let whole = parse([&bytes[..]]);
        prop_assert_eq!(&whole.0[..commands.len()], &commands[..]);
        for cut in 0..=bytes.len() {
            prop_assert_eq!(&parse([&bytes[..cut], &bytes[cut..]]), &whole);
        }
        prop_assert_eq!(&parse(bytes.chunks(1)), &whole);
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes: Vec<u8>, shaped in "([*$][0-9]{0,3}(\r\n)?|[a-z\"'\\\\]{0,3}|\r\n){0,20}") {
        for bytes in [&bytes[..], shaped.as_bytes()] {
            let whole = parse([bytes]);
            prop_assert_eq!(&parse(bytes.chunks(1)), &whole);
            prop_assert_eq!(replies(bytes.chunks(1)), replies([bytes]));
        }
    }

    #[test]
    fn replies_do_not_depend_on_the_cuts(all in prop::collection::vec(some_reply(), 0..4)) {
        let mut bytes = Vec::new();
        all.iter().for_each(|reply| put(&mut bytes, reply));
        for cut in 0..=bytes.len() {
            prop_assert_eq!(&replies([&bytes[..cut], &bytes[cut..]]), &(all.clone(), None));
        }
        prop_assert_eq!(&replies(bytes.chunks(1)), &(all, None));
    }
}

/// A command that comes in pieces has its room at once when its length is known: room that doubles is touched and copied several times.
#[test]
fn room_for_a_large_argument_grows_once() {
    let command = encoded(&[vec![b"SET".to_vec(), b"k".to_vec(), vec![b'x'; BULK_BYTES_MAX]]]);
    let mut parser = CommandParser::new();
    let mut grown = Vec::new();
    for piece in command.chunks(16 << 10) {
        assert!(parser.next_command().unwrap().is_none());
        grown.push(parser.feed(piece));
    }
    assert_eq!(parser.next_command().unwrap().unwrap().argument(2).unwrap().len(), BULK_BYTES_MAX);
    let large: Vec<_> = grown.into_iter().filter(|it| *it >= 64 << 10).collect();
    assert!(matches!(large[..], [it] if it < BULK_BYTES_MAX + (64 << 10)), "{large:?}");
}
