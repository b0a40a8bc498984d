//! What flows through a network: a value and, when asked for, its tangent (a dual number).

use candle_core::Tensor;

use crate::Result;

/// A tensor, or a dual number `value + ε·tangent` with `ε² = 0`.
///
/// Every layer maps a `DualTensor` to a `DualTensor`. Without a tangent that is the ordinary forward pass;
/// with one, the same pass also computes the exact directional derivative (forward mode). Both parts
/// stay in the autodiff graph, so a backward pass through the tangent gives exact second-order
/// gradients (reverse over forward) with a first-order library.
#[derive(Clone, Debug)]
pub struct DualTensor {
    /// The value, `[batch, height, width, channels]` or `[batch, features]`.
    pub value: Tensor,
    /// The directional derivative of `value`, of the same shape.
    pub tangent: Option<Tensor>,
}

impl DualTensor {
    /// An ordinary tensor.
    pub fn plain(value: Tensor) -> Self {
        Self { value, tangent: None }
    }

    /// A dual number.
    pub fn dual(value: Tensor, tangent: Tensor) -> Self {
        Self { value, tangent: Some(tangent) }
    }

    /// Applies a linear map to value and tangent alike.
    pub fn linear(&self, map: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { value: map(&self.value)?, tangent: self.tangent.as_ref().map(&map).transpose()? })
    }

    /// Applies `function` to the value and its derivative `tangent_rule(input, output, tangent)` to the tangent.
    pub fn map(
        &self,
        function: impl Fn(&Tensor) -> Result<Tensor>,
        tangent_rule: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let value = function(&self.value)?;
        let tangent = self.tangent.as_ref().map(|t| tangent_rule(&self.value, &value, t)).transpose()?;
        Ok(Self { value, tangent })
    }

    /// The sum of two signals of the same shape.
    pub fn add(&self, other: &Self) -> Result<Self> {
        let tangent = match (&self.tangent, &other.tangent) {
            (Some(a), Some(b)) => Some((a + b)?),
            (Some(t), None) | (None, Some(t)) => Some(t.clone()),
            (None, None) => None,
        };
        Ok(Self { value: (&self.value + &other.value)?, tangent })
    }

    /// The product of two signals, broadcast (product rule for the tangent).
    pub fn multiply(&self, other: &Self) -> Result<Self> {
        let value = self.value.broadcast_mul(&other.value)?;
        let left = self.tangent.as_ref().map(|t| t.broadcast_mul(&other.value)).transpose()?;
        let right = other.tangent.as_ref().map(|t| self.value.broadcast_mul(t)).transpose()?;
        let tangent = match (left, right) {
            (Some(a), Some(b)) => Some((a + b)?),
            (one, other) => one.or(other),
        };
        Ok(Self { value, tangent })
    }

    /// Adds a tensor that does not depend on the input (a bias), broadcast.
    pub fn add_constant(&self, constant: &Tensor) -> Result<Self> {
        Ok(Self { value: self.value.broadcast_add(constant)?, tangent: self.tangent.clone() })
    }
}
