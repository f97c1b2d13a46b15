//! Rust source with everything blanked that is not code.

/// `source` with comments and the insides of literals replaced by blanks; every line keeps its number.
pub(crate) fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = match text[at] {
            '/' if text.get(at + 1) == Some(&'/') => line_comment_end(&text, at),
            '/' if text.get(at + 1) == Some(&'*') => block_comment_end(&text, at),
            '"' => string_end(&text, at),
            '\'' => char_end(&text, at),
            other => {
                code.push(other);
                at += 1;
                continue;
            }
        };
        code.extend(text[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

fn line_comment_end(text: &[char], start: usize) -> usize {
    position(text, start, |c| c == '\n').unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment_end(text: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// The end of the string whose opening quote is at `start`; raw if `r` and hashes stand before it.
fn string_end(text: &[char], start: usize) -> usize {
    let hashes = text[..start].iter().rev().take_while(|c| **c == '#').count();
    let raw = start > hashes && text[start - hashes - 1] == 'r';
    let mut at = start + 1;
    while at < text.len() {
        match text[at] {
            '\\' if !raw => at += 2,
            '"' if !raw => return at + 1,
            '"' if text[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes => {
                return at + 1;
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// The end of the character literal whose opening quote is at `start`; a lifetime ends behind its quote.
fn char_end(text: &[char], start: usize) -> usize {
    match text.get(start + 1) {
        Some('\\') => position(text, start + 3, |c| c == '\'').map_or(text.len(), |at| at + 1),
        Some(_) if text.get(start + 2) == Some(&'\'') => start + 3,
        _ => start + 1,
    }
}

fn position(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> Option<usize> {
    (from..text.len()).find(|at| wanted(text[*at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let words = code_only(source).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, expected, "{source}");
    }

    #[test]
    fn comments_are_blanked() {
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check("/// a\n//! b\nc", "c");
        check("a / b", "a / b");
        check("a /* never closed", "a");
    }

    #[test]
    fn literals_are_blanked_and_do_not_begin_comments() {
        check(r#"a("b // c") d"#, "a( ) d");
        check(r#"a("b \" c") d"#, "a( ) d");
        check(r##"a(r"b\") c"##, "a(r ) c");
        check("a(r#\"b \" c\"#) d", "a(r# #) d");
        check("a(b'\"') c(\"d\")", "a(b ) c( )");
        check(r"a('\'') b('\\') c('\u{1F600}') d", "a( ) b( ) c( ) d");
    }

    #[test]
    fn lifetimes_are_no_literals() {
        check("fn f<'a>(x: &'a T) {} // y", "fn f< a>(x: & a T) {}");
        check("impl X<'_> { z }", "impl X< _> { z }");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = "a\n/* b\nc */\n\"d\ne\"\nf";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
        assert_eq!(code_only(source).lines().nth(5), Some("f"));
    }
}
