//! The lines that our programs print: an object of strings, numbers and nulls each.

/// A figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) case: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
    /// The system that it is of, and what it promises; of ours nothing.
    pub(crate) peer: Option<(String, String)>,
}

/// A value of an object.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Number(f64),
    Text(String),
}

/// Reads a line; nothing if it is none of a figure.
pub(crate) fn figure(line: &str) -> Option<Figure> {
    let fields = object(line)?;
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|it| &it.1);
    let text = |name: &str| match field(name)? {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    let number = |name: &str| match field(name)? {
        Value::Number(number) => Some(*number),
        _ => None,
    };
    let (peer, value) = match field("peer")? {
        Value::Null => (None, number("value")?),
        Value::Text(peer) => (Some((peer.clone(), text("guarantee")?)), number("peer_value")?),
        Value::Number(_) => return None,
    };
    let (case, metric, unit) = (text("case")?, text("metric")?, text("unit")?);
    Some(Figure { case, metric, unit, value, peer })
}

/// The fields of a flat object.
fn object(line: &str) -> Option<Vec<(String, Value)>> {
    let mut rest = line.trim().strip_prefix('{')?;
    let mut fields = Vec::new();
    loop {
        let (name, after) = text(rest.trim_start())?;
        let (value, after) = value(after.trim_start().strip_prefix(':')?.trim_start())?;
        fields.push((name, value));
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (after == "}").then_some(fields),
        }
    }
}

/// A string, and what is behind it. One with an escape is none of ours.
fn text(rest: &str) -> Option<(String, &str)> {
    let (text, after) = rest.strip_prefix('"')?.split_once('"')?;
    (!text.contains('\\')).then(|| (text.to_owned(), after))
}

fn value(rest: &str) -> Option<(Value, &str)> {
    if rest.starts_with('"') {
        return text(rest).map(|(text, after)| (Value::Text(text), after));
    }
    let (word, after) = rest.split_at(rest.find([',', '}'])?);
    let value = match word.trim_end() {
        "null" => Value::Null,
        number => Value::Number(number.parse().ok().filter(|it: &f64| it.is_finite())?),
    };
    Some((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the line that the main benchmarks print.
    #[test]
    fn a_line_of_ours_is_read() {
        let line = "{\"bench\":\"stable\",\"case\":\"stable/commit/1thread\",\"metric\":\"p50_us\",\"value\":61.5,\
                    \"unit\":\"us\",\"peer\":null,\"peer_value\":null,\"ratio\":null}";
        let read = figure(line).unwrap();
        assert_eq!((read.value, read.unit.as_str(), &read.peer), (61.5, "us", &None));
        assert_eq!((read.case.as_str(), read.metric.as_str()), ("stable/commit/1thread", "p50_us"));
    }

    /// Checks the line that the programs of the peers print, with commas and braces in a text.
    #[test]
    fn a_line_of_a_peer_is_read() {
        let line = "{\"bench\":\"b\",\"case\":\"c\",\"metric\":\"m\",\"value\":null,\"unit\":\"1/s\",\
                    \"peer\":\"redis\",\"peer_value\":10.0,\"ratio\":null,\"guarantee\":\"1 copy, {no} TLS\"}";
        let read = figure(line).unwrap();
        assert_eq!(read.peer, Some(("redis".to_owned(), "1 copy, {no} TLS".to_owned())));
        assert_eq!(read.value, 10.0);
    }

    /// Checks that blanks between the parts do no harm.
    #[test]
    fn blanks_are_passed_over() {
        let fields = object(" { \"a\" : 1 , \"b\" : null } ").unwrap();
        let expected = [("a".to_owned(), Value::Number(1.0)), ("b".to_owned(), Value::Null)];
        assert_eq!(fields, expected);
    }

    /// Checks that what is no such object, or lacks a field, is no figure and no panic.
    #[test]
    fn other_lines_are_no_figures() {
        let wrong = [
            "",
            "{",
            "}",
            "{}",
            "ready",
            "{\"a\":1",
            "{\"a\" 1}",
            "{\"a\":}",
            "{\"a\":[1]}",
            "{\"a\":x}",
            "{\"a\":\"b\\\"\"}",
            "{\"a\":1}}",
            "{\"a\":1,}",
            "{\"a\":inf}",
            "{\"a\":\"",
            "{\"case\":\"c\"}",
        ];
        for line in wrong {
            assert_eq!(figure(line), None, "{line}");
        }
        let no_value =
            "{\"case\":\"c\",\"metric\":\"m\",\"unit\":\"u\",\"peer\":null,\"value\":null}";
        assert_eq!(figure(no_value), None);
    }
}
