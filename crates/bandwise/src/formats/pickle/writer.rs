//! A tiny pickler for tests: writes opcodes, one method each.

/// Builder for the bytes of a pickle.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    /// Starts a pickle of protocol 2, the one PyTorch writes.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0x80, 2] }
    }

    pub(crate) fn op(mut self, opcode: u8) -> Self {
        self.bytes.push(opcode);
        self
    }

    pub(crate) fn global(mut self, module: &str, name: &str) -> Self {
        self.bytes.extend(format!("c{module}\n{name}\n").bytes());
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.bytes());
        self
    }

    /// A Python 2 `str`.
    pub(crate) fn old_text(mut self, bytes: &[u8]) -> Self {
        self.bytes.push(b'T');
        self.bytes.extend((bytes.len() as u32).to_le_bytes());
        self.bytes.extend(bytes);
        self
    }

    pub(crate) fn int(mut self, value: i32) -> Self {
        self.bytes.push(b'J');
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// A tuple of ints.
    pub(crate) fn ints(self, values: &[usize]) -> Self {
        values.iter().fold(self.op(b'('), |w, &v| w.int(v as i32)).op(b't')
    }

    /// The end.
    pub(crate) fn stop(self) -> Vec<u8> {
        self.op(b'.').bytes
    }

    /// A `uint8` array as Python 2 and NumPy wrote it for CIFAR.
    pub(crate) fn old_uint8_array(self, shape: &[usize], data: &[u8]) -> Self {
        self.global("numpy.core.multiarray", "_reconstruct")
            .global("numpy", "ndarray")
            .ints(&[0])
            .old_text(b"b")
            .op(0x87)
            .op(b'R')
            .op(b'(')
            .int(1)
            .ints(shape)
            .global("numpy", "dtype")
            .old_text(b"u1")
            .int(0)
            .int(1)
            .op(0x87)
            .op(b'R')
            .op(b'(')
            .int(3)
            .old_text(b"|")
            .op(b'N')
            .op(b'N')
            .op(b'N')
            .int(-1)
            .int(-1)
            .int(0)
            .op(b't')
            .op(b'b')
            .op(0x89)
            .old_text(data)
            .op(b't')
            .op(b'b')
    }
}
