//! Splits the bytes of a connection into the values of RESP, with the times at which they were complete.

use redis::Value;

use super::tape::Chunk;

/// A value, and when its last byte was passed on.
#[derive(Debug, Clone)]
pub(super) struct Timed<T> {
    pub(super) at: u64,
    pub(super) value: T,
}

/// The values in these bytes. What is cut off at the end counts for nothing.
pub(super) fn values(chunks: &[Chunk]) -> Result<Vec<Timed<Value>>, String> {
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| &chunk.bytes).copied().collect();
    let mut ends = chunks.iter().scan(0, |end, chunk| {
        *end += chunk.bytes.len();
        Some((*end, chunk.at))
    });
    let (mut begin, mut values) = (0, Vec::new());
    let (mut chunk_end, mut at) = (0, 0);
    while let Some(length) = length(&bytes[begin..]) {
        let end = begin + length;
        while chunk_end < end {
            (chunk_end, at) = ends.next().expect("the bytes are those of the chunks");
        }
        let value = redis::parse_redis_value(&bytes[begin..end]).map_err(|error| error.to_string())?;
        values.push(Timed { at, value });
        begin = end;
    }
    Ok(values)
}

/// The words of a command. `None` if it is none.
pub(super) fn words(command: Value) -> Option<Vec<Vec<u8>>> {
    let Value::Array(words) = command else { return None };
    words.into_iter().map(|word| if let Value::BulkString(word) = word { Some(word) } else { None }).collect()
}

/// The length of the first value. `None` if its end is missing.
fn length(bytes: &[u8]) -> Option<usize> {
    let line_end = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    // A null has the number -1.
    let number = || std::str::from_utf8(&bytes[1..line_end - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' => match usize::try_from(number()?) {
            Ok(length) => Some(line_end + length + 2).filter(|end| *end <= bytes.len()),
            Err(_) => Some(line_end),
        },
        b'*' => {
            let mut end = line_end;
            for _ in 0..number()? {
                end += length(&bytes[end..])?;
            }
            Some(end)
        }
        _ => Some(line_end),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn values_are_split_at_any_byte() {
        let bytes = b"+OK\r\n:12\r\n$-1\r\n*2\r\n$3\r\na\r\n\r\n*0\r\n-ERR no\r\n$2\r\n\xff\r\r\n*1\r\n$1\r\n";
        for cut in 0..bytes.len() {
            let (one, other) = bytes.split_at(cut);
            let chunks = [(1, one), (2, other)].map(|(at, bytes)| Chunk { at, bytes: bytes.to_owned() });
            let values = values(&chunks).unwrap();
            assert_eq!(values.len(), 6, "the last one has no end");
            assert_eq!(values[0].at, if cut < 5 { 2 } else { 1 });
            assert!(matches!(&values[4].value, Value::ServerError(_)));
            assert_eq!(values[5].value, Value::BulkString(b"\xff\r".to_vec()));
        }
    }
}
