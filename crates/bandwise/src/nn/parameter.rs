//! Named tensors of a network.

use candle_core::{Tensor, Var};

use crate::Result;

/// What a named tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A convolution or linear weight, or DCT coefficients.
    Weight,
    /// A bias, or batch norm's scale and shift.
    Affine,
    /// Not learned: running statistics.
    Buffer,
}

/// A named tensor. Copies share its storage.
///
/// [`Parameter::tensor`] takes part in autodiff unless the parameter is frozen. A frozen copy sees
/// every update of the original, and costs no gradient.
#[derive(Clone, Debug)]
pub struct Parameter {
    name: String,
    role: Role,
    var: Var,
    view: Tensor,
}

impl Parameter {
    /// A parameter of the given PyTorch name and initial value.
    pub fn new(name: impl Into<String>, role: Role, value: &Tensor) -> Result<Self> {
        // A copy: the storage of a variable must belong to nobody else.
        let var = Var::from_tensor(&value.detach().copy()?)?;
        let view = if role == Role::Buffer { var.as_detached_tensor() } else { var.as_tensor().clone() };
        Ok(Self { name: name.into(), role, var, view })
    }

    /// PyTorch's full name, such as `layer1.0.conv1.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The current value; tracked by autodiff unless frozen or a buffer.
    pub fn tensor(&self) -> &Tensor {
        &self.view
    }

    /// The variable behind it, for optimizers.
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Overwrites the value in place; all copies see it.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        let value = value.to_dtype(self.var.dtype())?.to_device(self.var.device())?;
        Ok(self.var.set(&value.contiguous()?.reshape(self.var.shape())?)?)
    }

    /// A copy that shares the storage but is constant to autodiff.
    pub fn frozen(&self) -> Self {
        Self { view: self.var.as_detached_tensor(), ..self.clone() }
    }
}
