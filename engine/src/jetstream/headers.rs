//! Header blocks that async-nats cannot parse: a message that has one ends the connection that receives it.

use async_nats::{HeaderMap, HeaderName, HeaderValue};

/// Whether async-nats can parse this header block: as its `connection.rs` does it, where `HeaderValue` panics
/// on what it refuses.
pub(crate) fn is_readable(block: &[u8]) -> bool {
    if block.is_empty() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(block) else { return false };
    let mut lines = text.lines().peekable();
    let Some(rest) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else { return false };
    let rest = rest.trim();
    let code = rest.split_once(' ').map_or(rest, |(code, _)| code.trim());
    if !code.is_empty() && code.parse::<async_nats::StatusCode>().is_err() {
        return false;
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { return false };
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        let is_fit = value.trim_end().parse::<HeaderValue>().is_ok();
        if !is_fit || name.parse::<HeaderName>().is_err() {
            return false;
        }
    }
    true
}

/// The lines of a header block that can be read; the others are left out. Bytes that are no text become U+FFFD.
pub(crate) fn readable_lines(block: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let lines = String::from_utf8_lossy(block);
    for (name, value) in lines.lines().skip(1).filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use futures_util::StreamExt;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn readable(lines: &str) -> bool {
        is_readable(format!("NATS/1.0\r\n{lines}\r\n\r\n").as_bytes())
    }

    #[test]
    fn ordinary_headers_are_readable() {
        assert!(is_readable(b""));
        assert!(readable("Trace: abc"));
        assert!(readable("Trace: abc\r\n  and more\r\nEmpty:"));
        assert!(readable("Größe".replace("Größe", "Size: groß").as_str()));
    }

    #[test]
    fn what_breaks_the_connection_is_not() {
        assert!(!readable("Trace: a\rb"), "a bare carriage return panics");
        assert!(!readable("no colon"));
        assert!(!readable("two words: x"));
        assert!(!is_readable(b"NATS/1.0\r\nTrace: \xff\xfe\r\n\r\n"));
        assert!(!is_readable(b"NATS/2.0\r\nTrace: x\r\n\r\n"));
    }

    #[test]
    fn a_line_that_continues_nothing_is_not_readable() {
        assert!(!is_readable(b"NATS/1.0\r\n  and more\r\n\r\n"));
        assert!(!readable("Trace: abc\r\n\r\n  and more"));
        assert!(!is_readable(b"NATS/1.0 503\tNo Responders\r\n\r\n"), "no status code");
    }

    #[test]
    fn a_carriage_return_at_the_end_of_a_value_is_white_space() {
        assert!(readable("Trace: abc\r"));
    }

    #[test]
    fn a_header_block_of_many_lines_is_read_in_one_pass() {
        for line in ["Trace: abc\r\n", "A:\n", " and more\r\n", "\r\n", "A:\r\n b\r\n"] {
            let block = format!("NATS/1.0\r\nFirst: x\r\n{}", line.repeat(1 << 18));
            assert!(is_readable(block.as_bytes()), "{line:?}");
        }
    }

    /// Blocks that are nearly right, so that every rule is met.
    fn blocks() -> impl Strategy<Value = Vec<u8>> {
        let parts: [&[u8]; 24] = [
            b"NATS/1.0",
            b"NATS/1.0\r\n",
            b" 404",
            b" 503 No Responders",
            b" 40",
            b" 100\tx",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"Trace",
            b"Nats-Msg-Id",
            b":",
            b": ",
            b":",
            b" ",
            b"\t",
            b"abc",
            b"\xc3\xa4",
            b"\xff",
            b"\0",
            b"\x0b",
            b"\xc2\xa0",
            b"\xe2\x80\xa8",
        ];
        let some = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..14)
            .prop_map(|parts| parts.concat());
        let noise = prop::collection::vec(any::<u8>(), 0..60);
        (any::<bool>(), prop_oneof![4 => some, 1 => noise], any::<bool>()).prop_map(
            |(begins, block, ends)| {
                let begin: &[u8] = if begins { b"NATS/1.0\r\n" } else { b"" };
                let end: &[u8] = if ends { b"\r\n\r\n" } else { b"" };
                [begin, &block, end].concat()
            },
        )
    }

    /// An async-nats client and a peer that sends it what a test wants.
    struct Client {
        socket: BufStream<TcpStream>,
        subscriber: async_nats::Subscriber,
    }

    impl Client {
        async fn connect() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let options = async_nats::ConnectOptions::new().max_reconnects(1);
            let connecting = tokio::spawn(options.connect(address.to_string()));
            let socket = listener.accept().await.unwrap().0;
            socket.set_nodelay(true).unwrap();
            let mut socket = BufStream::new(socket);
            // Nobody listens any more: what is lost is lost.
            drop(listener);
            let info =
                r#"{"server_id":"x","version":"2.15.1","headers":true,"max_payload":1048576,"proto":1}"#;
            say(&mut socket, format!("INFO {info}\r\n").as_bytes()).await;
            hear(&mut socket, "PING").await;
            say(&mut socket, b"PONG\r\n").await;
            let client = connecting.await.unwrap().unwrap();
            let subscriber = client.subscribe("a").await.unwrap();
            hear(&mut socket, "SUB").await;
            Self { socket, subscriber }
        }

        /// Whether a message with these headers arrives, or the connection ends.
        async fn gets(&mut self, block: &[u8]) -> bool {
            let line = format!("HMSG a 1 {} {}\r\n", block.len(), block.len());
            say(&mut self.socket, &[line.as_bytes(), block, b"\r\n"].concat()).await;
            tokio::time::timeout(Duration::from_secs(10), self.subscriber.next()).await.unwrap().is_some()
        }
    }

    async fn say(socket: &mut BufStream<TcpStream>, words: &[u8]) {
        socket.write_all(words).await.unwrap();
        socket.flush().await.unwrap();
    }

    async fn hear(socket: &mut BufStream<TcpStream>, word: &str) {
        let mut line = String::new();
        while !line.starts_with(word) {
            line.clear();
            assert_ne!(socket.read_line(&mut line).await.unwrap(), 0, "the client left before {word}");
        }
    }

    #[test]
    fn what_is_readable_is_what_async_nats_delivers() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = RefCell::new(None);
        let mut runner = TestRunner::default();
        let agrees = |block: Vec<u8>| {
            runtime.block_on(async {
                let mut connected = match client.take() {
                    Some(connected) => connected,
                    None => Client::connect().await,
                };
                let arrives = connected.gets(&block).await;
                client.replace(arrives.then_some(connected));
                prop_assert_eq!(is_readable(&block), arrives);
                Ok(())
            })
        };
        runner
            .run(&blocks().prop_filter("no headers, no header block", |block| !block.is_empty()), agrees)
            .unwrap();
    }

    #[test]
    fn lines_that_cannot_be_read_leave_the_others() {
        let headers =
            readable_lines(b"NATS/1.0\r\nTrace: a\xff\r\nno colon\r\nCut: a\rb\r\nTag: new\r\n\r\n");
        let value = |name| headers.get(name).map(|value| value.as_str());
        assert_eq!((value("Trace"), value("Tag"), headers.len()), (Some("a\u{fffd}"), Some("new"), 2));
    }

    proptest! {
        #[test]
        fn no_header_block_panics(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_readable(&block);
            let _ = is_readable(&[b"NATS/1.0\r\n", block.as_slice()].concat());
        }
    }
}
