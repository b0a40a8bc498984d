//! Folded networks as one operator: runs of layers become a [`FrozenGraph`].

use std::sync::Arc;

use bandwise_kernels::{FrozenGraph, Value, has_cpu_kernels};
use candle_core::Tensor;

use super::batch_norm::BatchNorm;
use super::layer::{Activation, Folded, Fused, Layer, PadShortcut, Pool, Residual, Stage};
use super::model::Model;
use crate::Result;

impl Model {
    /// The same function, for networks that were [`folded`](Model::folded) on the CPU, with every run of layers that
    /// [`FrozenGraph`] knows as one operator; the normalization becomes part of the first. Stages inside a run leave
    /// nothing to a recorder.
    pub fn fused(mut self) -> Result<Self> {
        if !has_cpu_kernels(self.device(), self.dtype()) {
            return Ok(self);
        }
        let normalization = self.normalization.take();
        let channels = self.shape().channels;
        let row = |t: &Tensor| Ok::<_, crate::Error>(t.broadcast_as(channels)?.contiguous()?);
        let affine =
            normalization.as_ref().map(|(scale, shift)| Ok::<_, crate::Error>((row(scale)?, row(shift)?)));
        let (layers, taken) = fuse(std::mem::take(&mut self.layers), affine.transpose()?.as_ref())?;
        self.layers = layers;
        if !taken {
            self.normalization = normalization;
        }
        Ok(self)
    }
}

/// Fuses runs of layers; tells whether `affine` (scale and shift in front of the first layer) became part of them.
fn fuse(layers: Vec<Layer>, affine: Option<&(Tensor, Tensor)>) -> Result<(Vec<Layer>, bool)> {
    let mut fused = Vec::new();
    let mut taken = false;
    // graphs start from maps, not from vectors
    let mut flat = false;
    let mut rest = layers.into_iter().peekable();
    while rest.peek().is_some() {
        let mut graph = FrozenGraph::new();
        let mut value = graph.input();
        if let (Some((scale, shift)), true) = (affine, fused.is_empty()) {
            value = graph.affine(scale, shift, value, None, false)?;
        }
        let mut run = 0;
        while let Some(layer) = rest.peek().filter(|_| !flat) {
            let Some(operation) = Operation::of(layer) else { break };
            value = operation.append(&mut graph, value)?;
            run += 1;
            flat = flattens(layer);
            rest.next();
        }
        if run > 0 {
            taken |= fused.is_empty();
            fused.push(Layer::Fused(Fused { graph: Arc::new(graph) }));
        } else if let Some(mut layer) = rest.next() {
            flat |= flattens(&layer);
            if let Layer::Stage(stage) = &mut layer {
                stage.layers = fuse(std::mem::take(&mut stage.layers), None)?.0;
            }
            fused.push(layer);
        }
    }
    Ok((fused, taken))
}

/// What a graph makes of a layer.
enum Operation<'a> {
    Convolution(&'a Folded),
    Affine(&'a BatchNorm),
    Relu,
    Pool(Pool),
    GlobalAverage,
    Subsample(PadShortcut),
    Residual { main: Vec<Operation<'a>>, shortcut: Vec<Operation<'a>>, relu: bool },
    Sequence(Vec<Operation<'a>>),
}

impl<'a> Operation<'a> {
    /// `None` if the layer, or one below it, cannot be part of a graph.
    fn of(layer: &'a Layer) -> Option<Self> {
        match layer {
            Layer::Folded(folded) => Some(Self::Convolution(folded)),
            Layer::BatchNorm(norm) => Some(Self::Affine(norm)),
            Layer::Pool(pool) => Some(Self::Pool(*pool)),
            Layer::GlobalAveragePool => Some(Self::GlobalAverage),
            Layer::PadShortcut(shortcut) => Some(Self::Subsample(*shortcut)),
            Layer::Activation(Activation::Relu) => Some(Self::Relu),
            Layer::Activation(Activation::Silu | Activation::Sigmoid | Activation::Tanh) => None,
            Layer::Residual(Residual { main, shortcut, relu }) => Some(Self::Residual {
                main: Self::of_all(main)?,
                shortcut: Self::of_all(shortcut)?,
                relu: *relu,
            }),
            Layer::Stage(Stage { post_block: None, layers, .. }) => {
                Some(Self::Sequence(Self::of_all(layers)?))
            }
            Layer::Stage(Stage { post_block: Some(_), .. }) => None,
            Layer::Convolution(_) | Layer::Linear(_) | Layer::AdaptiveAveragePool(_) => None,
            Layer::Flatten | Layer::Gate(_) | Layer::Fused(_) => None,
            Layer::ZeroPad(_) | Layer::Dropout(_) => None,
        }
    }

    /// All layers of a group, none of which may turn maps into vectors.
    fn of_all(layers: &'a [Layer]) -> Option<Vec<Self>> {
        layers.iter().map(|layer| if flattens(layer) { None } else { Self::of(layer) }).collect()
    }

    /// Adds the operation behind `input`.
    fn append(&self, graph: &mut FrozenGraph, input: Value) -> Result<Value> {
        Ok(match self {
            Self::Residual { main, shortcut, relu } => {
                let shortcut = append_all(graph, shortcut, input)?;
                let Some((last, rest)) = main.split_last() else { return Ok(shortcut) };
                let before = append_all(graph, rest, input)?;
                // sum and ReLU go into the branch's last operation where it has no ReLU of its own
                match last {
                    Self::Convolution(folded) if !folded.relu => {
                        graph.convolution(&folded.convolution, before, Some(shortcut), *relu)
                    }
                    Self::Affine(norm) if !norm.relu => {
                        graph.affine(&norm.scale()?, &norm.shift()?, before, Some(shortcut), *relu)?
                    }
                    last => {
                        let value = last.append(graph, before)?;
                        graph.sum(value, Some(shortcut), *relu)
                    }
                }
            }
            Self::Convolution(folded) => graph.convolution(&folded.convolution, input, None, folded.relu),
            Self::Affine(norm) => graph.affine(&norm.scale()?, &norm.shift()?, input, None, norm.relu)?,
            Self::Relu => graph.sum(input, None, true),
            Self::Pool(pool) => graph.pool(pool.maximum, pool.kernel, pool.stride, pool.padding, input),
            Self::GlobalAverage => graph.global_average(input),
            Self::Subsample(shortcut) => graph.subsample(shortcut.stride, shortcut.channels, input),
            Self::Sequence(operations) => append_all(graph, operations, input)?,
        })
    }
}

fn append_all(graph: &mut FrozenGraph, operations: &[Operation], input: Value) -> Result<Value> {
    operations.iter().try_fold(input, |value, operation| operation.append(graph, value))
}

/// Whether the layer turns maps into vectors: the graph's result may be one, but nothing inside it.
fn flattens(layer: &Layer) -> bool {
    match layer {
        Layer::GlobalAveragePool | Layer::Flatten | Layer::Linear(_) => true,
        Layer::Convolution(_) | Layer::BatchNorm(_) | Layer::Activation(_) | Layer::Pool(_) => false,
        Layer::AdaptiveAveragePool(_) | Layer::Residual(_) | Layer::PadShortcut(_) | Layer::Gate(_) => false,
        Layer::Stage(_) | Layer::Folded(_) | Layer::Fused(_) => false,
        Layer::ZeroPad(_) | Layer::Dropout(_) => false,
    }
}
