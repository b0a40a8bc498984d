//! Number types of storages, and tensors made from raw little-endian bytes.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

/// A number type as it lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Element {
    /// By the class of a PyTorch storage (`FloatStorage`).
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "BoolStorage" => Self::Bool,
            "ByteStorage" => Self::U8,
            "CharStorage" => Self::I8,
            "ShortStorage" => Self::I16,
            "IntStorage" => Self::I32,
            "LongStorage" => Self::I64,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            _ => return None,
        })
    }

    /// By the name of a `torch.dtype` (`float32`).
    pub(super) fn of_dtype(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "uint8" => Self::U8,
            "int8" => Self::I8,
            "int16" => Self::I16,
            "int32" => Self::I32,
            "int64" => Self::I64,
            "float16" => Self::F16,
            "bfloat16" => Self::BF16,
            "float32" => Self::F32,
            "float64" => Self::F64,
            _ => return None,
        })
    }

    /// By the type of a safetensors entry.
    pub(super) fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype;
        Some(match dtype {
            Dtype::BOOL => Self::Bool,
            Dtype::U8 => Self::U8,
            Dtype::I8 => Self::I8,
            Dtype::I16 => Self::I16,
            Dtype::I32 => Self::I32,
            Dtype::I64 => Self::I64,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F32 => Self::F32,
            Dtype::F64 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes per number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// A tensor of row-major little-endian `bytes`, as many as `shape` asks for.
    pub(super) fn tensor(self, bytes: &[u8], shape: &[usize]) -> candle_core::Result<Tensor> {
        let device = &Device::Cpu;
        match self {
            Self::Bool => {
                let values: Vec<u8> = bytes.iter().map(|&b| u8::from(b != 0)).collect();
                Tensor::from_vec(values, shape, device)
            }
            Self::U8 => Tensor::from_vec(bytes.to_vec(), shape, device),
            Self::I8 => {
                let values: Vec<i64> = bytes.iter().map(|&b| i64::from(b as i8)).collect();
                Tensor::from_vec(values, shape, device)
            }
            Self::I16 => Tensor::from_vec(numbers(bytes, i16::from_le_bytes), shape, device),
            Self::I32 => Tensor::from_vec(numbers(bytes, i32::from_le_bytes), shape, device),
            Self::I64 => Tensor::from_vec(numbers(bytes, i64::from_le_bytes), shape, device),
            Self::F16 => Tensor::from_vec(numbers(bytes, f16::from_le_bytes), shape, device),
            Self::BF16 => Tensor::from_vec(numbers(bytes, bf16::from_le_bytes), shape, device),
            Self::F32 => Tensor::from_vec(numbers(bytes, f32::from_le_bytes), shape, device),
            Self::F64 => Tensor::from_vec(numbers(bytes, f64::from_le_bytes), shape, device),
        }
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
}

/// The numbers of a tensor as row-major little-endian bytes, and their safetensors type.
pub(super) fn bytes_of(tensor: &Tensor) -> candle_core::Result<(&'static str, Vec<u8>)> {
    fn flat<T: candle_core::WithDType, const N: usize>(
        tensor: &Tensor,
        convert: impl Fn(T) -> [u8; N],
    ) -> candle_core::Result<Vec<u8>> {
        let values = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<T>()?;
        Ok(values.into_iter().flat_map(convert).collect())
    }
    Ok(match tensor.dtype() {
        DType::U8 => ("U8", flat(tensor, u8::to_le_bytes)?),
        DType::U32 => ("U32", flat(tensor, u32::to_le_bytes)?),
        DType::I16 => ("I16", flat(tensor, i16::to_le_bytes)?),
        DType::I32 => ("I32", flat(tensor, i32::to_le_bytes)?),
        DType::I64 => ("I64", flat(tensor, i64::to_le_bytes)?),
        DType::F16 => ("F16", flat(tensor, f16::to_le_bytes)?),
        DType::BF16 => ("BF16", flat(tensor, bf16::to_le_bytes)?),
        DType::F32 => ("F32", flat(tensor, f32::to_le_bytes)?),
        DType::F64 => ("F64", flat(tensor, f64::to_le_bytes)?),
        other => candle_core::bail!("tensors of type {} are not written", other.as_str()),
    })
}
