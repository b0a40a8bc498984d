//! The stack machine. Values live in an arena and refer to each other by index, so that a list
//! which is remembered first and filled later is the same list everywhere, as in Python.

use std::collections::HashMap;

use super::literal::{long, trimmed, unescape, unescape_unicode};
use super::{MAX_DEPTH, MAX_VALUES, PickleError, Value, expand};

pub(super) type Index = usize;

/// A value under construction: a leaf, or a container of indices into the arena.
pub(super) enum Node {
    Leaf(Value),
    List(Vec<Index>),
    Tuple(Vec<Index>),
    Set(Vec<Index>),
    Dict(Vec<(Index, Index)>),
    Object(Box<Call>),
    Persistent(Index),
}

/// A call to be recorded as an [`Object`](super::Object).
pub(super) struct Call {
    pub(super) callable: Index,
    pub(super) arguments: Index,
    pub(super) state: Option<Index>,
    pub(super) items: Vec<Index>,
    pub(super) entries: Vec<(Index, Index)>,
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    arena: Vec<Node>,
    stack: Vec<Index>,
    /// The stacks below the marks.
    below: Vec<Vec<Index>>,
    memo: HashMap<u64, Index>,
}

type Step<T = ()> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let (arena, stack, below, memo) = Default::default();
        Self { bytes, position: 0, arena, stack, below, memo }
    }

    /// Runs to the STOP opcode; returns its value and the bytes consumed.
    pub(super) fn run(mut self) -> Step<(Value, usize)> {
        loop {
            match self.byte()? {
                b'.' => break,
                opcode => self.execute(opcode)?,
            }
        }
        let result = self.pop()?;
        let value = expand::tree(&self.arena, result).map_err(|reason| self.error(reason))?;
        Ok((value, self.position))
    }

    fn execute(&mut self, opcode: u8) -> Step {
        match opcode {
            // Protocol and framing: nothing to do.
            0x80 => {
                let protocol = self.byte()?;
                if protocol > 5 {
                    return Err(self.error(format!("protocol {protocol} is unknown")));
                }
                Ok(())
            }
            0x95 => self.take(8).map(drop),
            // Marks, stack and memo.
            b'(' => self.mark(),
            b'0' => self.discard(),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push_index(top)
            }
            b'p' | b'q' | b'r' | 0x94 => {
                let key = match opcode {
                    0x94 => self.memo.len() as u64,
                    _ => self.memo_key(opcode == b'p', opcode == b'q')?,
                };
                let top = self.top()?;
                self.memo.insert(key, top);
                Ok(())
            }
            b'g' | b'h' | b'j' => {
                let key = self.memo_key(opcode == b'g', opcode == b'h')?;
                let index = *self.memo.get(&key).ok_or_else(|| self.error(format!("no memo {key}")))?;
                self.push_index(index)
            }
            b']'
            | b'}'
            | 0x8f
            | b')'
            | b'a'
            | b'e'
            | b's'
            | b'u'
            | 0x90
            | 0x91
            | b'l'
            | b'd'
            | b't'
            | 0x85..=0x87 => self.container(opcode),
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'i' | b'o' | b'b' | b'P' | b'Q' => self.object(opcode),
            0x82..=0x84 => Err(self.error("extension codes need Python's registry")),
            0x97 | 0x98 => Err(self.error("out-of-band buffers are not in the file")),
            _ => {
                let leaf = self.leaf(opcode)?;
                self.push(Node::Leaf(leaf))
            }
        }
    }

    /// Opcodes that push a number, text or bytes.
    fn leaf(&mut self, opcode: u8) -> Step<Value> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => self.integer(text)?,
            },
            b'L' => {
                let text = self.line()?;
                self.integer(text.strip_suffix('L').unwrap_or(text))?
            }
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            0x8a | 0x8b => {
                let length = if opcode == 0x8a { 1 } else { 4 };
                long(self.counted(length)?)
            }
            b'F' => {
                let text = self.line()?;
                Value::Float(text.parse().map_err(|_| self.error(format!("{text:?} is no float")))?)
            }
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'S' => {
                let quoted = self.line_bytes()?;
                let text = unescape(quoted).ok_or_else(|| self.error("a badly quoted string"))?;
                Value::Bytes(text.into())
            }
            b'V' => {
                let raw = self.line_bytes()?;
                Value::String(unescape_unicode(raw).ok_or_else(|| self.error("a bad unicode escape"))?.into())
            }
            b'T' | b'B' => Value::Bytes(self.counted(4)?.into()),
            b'U' | b'C' => Value::Bytes(self.counted(1)?.into()),
            0x8e | 0x96 => Value::Bytes(self.counted(8)?.into()),
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            _ => return Err(self.error(format!("opcode 0x{opcode:02x} is unknown"))),
        })
    }

    /// Opcodes that make or fill lists, tuples, sets and dictionaries.
    fn container(&mut self, opcode: u8) -> Step {
        match opcode {
            b']' => self.push(Node::List(vec![])),
            b'}' => self.push(Node::Dict(vec![])),
            0x8f => self.push(Node::Set(vec![])),
            b')' => self.push(Node::Tuple(vec![])),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items))
            }
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Set(items))
            }
            b'd' => {
                let items = self.pop_mark()?;
                let entries = self.pairs(items)?;
                self.push(Node::Dict(entries))
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start =
                    self.stack.len().checked_sub(count).ok_or_else(|| self.error("an empty stack"))?;
                let items = self.stack.split_off(start);
                self.push(Node::Tuple(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])
            }
            _ => {
                let items = self.pop_mark()?;
                let entries = self.pairs(items)?;
                self.insert(entries)
            }
        }
    }

    /// Opcodes that name, call or fill objects; calls are recorded, not made.
    fn object(&mut self, opcode: u8) -> Step {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?.into(), self.line()?.into());
                self.push(Node::Leaf(Value::Global { module, name }))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.arena[module], &self.arena[name]) {
                    (Node::Leaf(Value::String(module)), Node::Leaf(Value::String(name))) => {
                        let global = Value::Global { module: module.clone(), name: name.clone() };
                        self.push(Node::Leaf(global))
                    }
                    _ => Err(self.error("a global whose name is no text")),
                }
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)
            }
            0x92 => {
                let (_keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, arguments)
            }
            b'i' => {
                let (module, name) = (self.line()?.into(), self.line()?.into());
                let arguments = self.pop_mark()?;
                let callable = self.add(Node::Leaf(Value::Global { module, name }))?;
                let arguments = self.add(Node::Tuple(arguments))?;
                self.call(callable, arguments)
            }
            b'o' => {
                let mut items = self.pop_mark()?.into_iter();
                let callable = items.next().ok_or_else(|| self.error("an object without a class"))?;
                let arguments = self.add(Node::Tuple(items.collect()))?;
                self.call(callable, arguments)
            }
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                match &mut self.arena[top] {
                    Node::Object(call) => {
                        call.state = Some(state);
                        Ok(())
                    }
                    _ => Err(self.error("a state for something that is no object")),
                }
            }
            b'P' => {
                let text = self.line()?.into();
                let key = self.add(Node::Leaf(Value::String(text)))?;
                self.push(Node::Persistent(key))
            }
            _ => {
                let key = self.pop()?;
                self.push(Node::Persistent(key))
            }
        }
    }

    fn call(&mut self, callable: Index, arguments: Index) -> Step {
        let call = Call { callable, arguments, state: None, items: vec![], entries: vec![] };
        self.push(Node::Object(Box::new(call)))
    }

    /// Appends to the list, set or object on top of the stack.
    fn extend(&mut self, new: Vec<Index>) -> Step {
        let top = self.top()?;
        match &mut self.arena[top] {
            Node::List(items) | Node::Set(items) => items.extend(new),
            Node::Object(call) => call.items.extend(new),
            _ => return Err(self.error("items for something that is no list")),
        }
        Ok(())
    }

    /// Puts entries into the dictionary or object on top of the stack.
    fn insert(&mut self, new: Vec<(Index, Index)>) -> Step {
        let top = self.top()?;
        match &mut self.arena[top] {
            Node::Dict(entries) => entries.extend(new),
            Node::Object(call) => call.entries.extend(new),
            _ => return Err(self.error("entries for something that is no dict")),
        }
        Ok(())
    }

    fn pairs(&self, items: Vec<Index>) -> Step<Vec<(Index, Index)>> {
        match items.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.error("a key without a value")),
        }
    }

    // The stack.

    fn add(&mut self, node: Node) -> Step<Index> {
        if self.arena.len() >= MAX_VALUES {
            return Err(self.error(format!("more than {MAX_VALUES} values")));
        }
        self.arena.push(node);
        Ok(self.arena.len() - 1)
    }

    fn push(&mut self, node: Node) -> Step {
        let index = self.add(node)?;
        self.push_index(index)
    }

    fn push_index(&mut self, index: Index) -> Step {
        self.stack.push(index);
        Ok(())
    }

    fn pop(&mut self) -> Step<Index> {
        self.stack.pop().ok_or_else(|| self.error("an empty stack"))
    }

    fn top(&self) -> Step<Index> {
        self.stack.last().copied().ok_or_else(|| self.error("an empty stack"))
    }

    fn mark(&mut self) -> Step {
        if self.below.len() >= MAX_DEPTH * 4 {
            return Err(self.error("too many open marks"));
        }
        self.below.push(std::mem::take(&mut self.stack));
        Ok(())
    }

    fn pop_mark(&mut self) -> Step<Vec<Index>> {
        let below = self.below.pop().ok_or_else(|| self.error("no mark"))?;
        Ok(std::mem::replace(&mut self.stack, below))
    }

    fn discard(&mut self) -> Step {
        match self.stack.pop() {
            Some(_) => Ok(()),
            None => self.pop_mark().map(drop),
        }
    }

    fn memo_key(&mut self, as_line: bool, short: bool) -> Step<u64> {
        if as_line {
            let text = self.line()?;
            text.parse().map_err(|_| self.error(format!("{text:?} is no memo number")))
        } else if short {
            self.byte().map(u64::from)
        } else {
            self.array().map(u32::from_le_bytes).map(u64::from)
        }
    }

    // The bytes.

    fn error(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Malformed { offset: self.position, reason: reason.into() }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        match rest.get(..count) {
            Some(taken) => {
                self.position += count;
                Ok(taken)
            }
            None => Err(self.error(format!("it ends where {count} more bytes are due"))),
        }
    }

    fn byte(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    /// Bytes after their length in `width` little-endian bytes.
    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        let length =
            usize::try_from(u64::from_le_bytes(length)).map_err(|_| self.error("an absurd length"))?;
        self.take(length)
    }

    fn text(&mut self, width: usize) -> Step<Value> {
        let bytes = self.counted(width)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::String(text.into())),
            // Python's "surrogatepass": lone surrogates do not occur in what we read.
            Err(_) => Err(self.error("text that is not UTF-8")),
        }
    }

    fn line_bytes(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let length = rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.error("a line without end"))?;
        self.position += length + 1;
        Ok(&rest[..length])
    }

    fn line(&mut self) -> Step<&'a str> {
        let line = self.line_bytes()?;
        std::str::from_utf8(line).map_err(|_| self.error("a line that is not UTF-8"))
    }

    fn integer(&self, text: &str) -> Step<Value> {
        match (text.parse::<i64>(), text.parse::<i128>()) {
            (Ok(small), _) => Ok(Value::Int(small)),
            (_, Ok(large)) => Ok(Value::LargeInt(trimmed(&large.to_le_bytes()).into())),
            _ => Err(self.error(format!("{:?} is no int", text.chars().take(40).collect::<String>()))),
        }
    }
}
