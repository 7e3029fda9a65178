//! Redis' own protocol, as much of it as a test needs to ask a server something and to watch a channel.
//!
//! Written independently of the product's driver, so that a mistake there shows here. Blocking, RESP2, one call at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::RigError;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// Text or bytes, of either kind.
    Bytes(Vec<u8>),
    /// An error inside a list.
    Error(String),
    /// Several.
    List(Vec<Value>),
}

impl Value {
    /// As text; numbers too, nothing as the empty text.
    pub fn text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Error(words) => words.clone(),
            Self::List(values) => values.iter().map(Self::text).collect::<Vec<_>>().join(" "),
        }
    }

    /// As a number, where it is one or reads as one.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bytes(_) => self.text().parse().ok(),
            _ => None,
        }
    }

    /// Its parts; none when it is no list.
    pub fn list(&self) -> &[Value] {
        if let Self::List(values) = self { values } else { &[] }
    }

    /// The value behind `name` in a list of names and values.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.list().chunks_exact(2).find(|pair| pair[0].text() == name).map(|pair| &pair[1])
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
}

impl Resp {
    /// Connects; nothing later waits longer than `patience`.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(addr: SocketAddr, patience: Duration) -> Result<Self, RigError> {
        let doing = || format!("connecting to {addr}");
        let stream = TcpStream::connect_timeout(&addr, patience).map_err(|e| RigError::io(doing(), e))?;
        let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_nodelay(true));
        set.map_err(|e| RigError::io(doing(), e))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its answer.
    ///
    /// # Errors
    /// The answer is an error, or there is none in time.
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Value, RigError> {
        self.send(words)?;
        match self.answer()? {
            Value::Error(answer) => Err(RigError::Refused { call: shown(words), answer }),
            value => Ok(value),
        }
    }

    /// Sends a command; its answer is read by `answer`.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<(), RigError> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
            bytes.extend_from_slice(word.as_ref());
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes).map_err(|e| RigError::io(format!("sending {}", shown(words)), e))
    }

    /// The next answer or pushed message.
    ///
    /// # Errors
    /// There is none in time, or it is not understood.
    pub fn answer(&mut self) -> Result<Value, RigError> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        let number = || rest.parse::<i64>().map_err(|_| RigError::Peer(format!("not a length: {line:?}")));
        match kind {
            "+" => Ok(Value::Bytes(rest.as_bytes().to_vec())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => number().map(Value::Number),
            "$" | "*" => match usize::try_from(number()?) {
                Err(_) => Ok(Value::Nil),
                Ok(length) if kind == "$" => self.bytes(length),
                Ok(length) => (0..length).map(|_| self.answer()).collect::<Result<_, _>>().map(Value::List),
            },
            _ => Err(RigError::Peer(format!("not RESP2: {line:?}"))),
        }
    }

    fn line(&mut self) -> Result<String, RigError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).map_err(|e| RigError::io("reading an answer", e))?;
        if read == 0 {
            return Err(RigError::io("reading an answer", std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn bytes(&mut self, length: usize) -> Result<Value, RigError> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).map_err(|e| RigError::io("reading an answer", e))?;
        bytes.truncate(length);
        Ok(Value::Bytes(bytes))
    }
}

fn shown<A: AsRef<[u8]>>(words: &[A]) -> String {
    words.iter().take(4).map(|word| String::from_utf8_lossy(word.as_ref())).collect::<Vec<_>>().join(" ")
}
