//! From the machine's arena, where values are shared, to a tree that owns them.

use std::collections::HashSet;

use super::machine::{Index, Node};
use super::{MAX_DEPTH, MAX_VALUES, Object, Value};

/// Copies the value at `root` out of the arena, within the limits on number and depth.
pub(super) fn tree(arena: &[Node], root: Index) -> Result<Value, String> {
    Expansion { arena, open: HashSet::new(), values: 0 }.value(root, 0)
}

struct Expansion<'a> {
    arena: &'a [Node],
    /// The containers that are being copied: met again, they contain themselves.
    open: HashSet<Index>,
    values: usize,
}

impl Expansion<'_> {
    fn value(&mut self, index: Index, depth: usize) -> Result<Value, String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("shared values expand to more than {MAX_VALUES}"));
        }
        if let Node::Leaf(leaf) = &self.arena[index] {
            return Ok(leaf.clone());
        }
        if depth >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        if !self.open.insert(index) {
            return Ok(Value::Recursive);
        }
        let value = self.composite(index, depth + 1);
        self.open.remove(&index);
        value
    }

    fn composite(&mut self, index: Index, depth: usize) -> Result<Value, String> {
        let arena = self.arena;
        Ok(match &arena[index] {
            Node::Leaf(leaf) => leaf.clone(),
            Node::List(items) => Value::List(self.all(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.all(items, depth)?),
            Node::Set(items) => Value::Set(self.all(items, depth)?),
            Node::Dict(entries) => Value::Dict(self.entries(entries, depth)?),
            Node::Persistent(key) => Value::Persistent(Box::new(self.value(*key, depth)?)),
            Node::Object(call) => Value::Object(Box::new(Object {
                callable: self.value(call.callable, depth)?,
                arguments: self.value(call.arguments, depth)?,
                state: call.state.map(|state| self.value(state, depth)).transpose()?,
                items: self.all(&call.items, depth)?,
                entries: self.entries(&call.entries, depth)?,
            })),
        })
    }

    fn all(&mut self, items: &[Index], depth: usize) -> Result<Vec<Value>, String> {
        items.iter().map(|&item| self.value(item, depth)).collect()
    }

    fn entries(&mut self, entries: &[(Index, Index)], depth: usize) -> Result<Vec<(Value, Value)>, String> {
        entries.iter().map(|&(key, value)| Ok((self.value(key, depth)?, self.value(value, depth)?))).collect()
    }
}
