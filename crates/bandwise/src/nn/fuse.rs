//! Folded networks as one operator: runs of layers become a [`FrozenGraph`].

use std::sync::Arc;

use bandwise_kernels::{FrozenGraph, Value};
use candle_core::{DType, Tensor};

use super::layer::{Activation, Fused, Layer, Residual};
use super::model::Model;
use crate::Result;

impl Model {
    /// The same function, for networks that were [`folded`](Model::folded) on the CPU, with every run of layers that
    /// [`FrozenGraph`] knows as one operator; the normalisation becomes part of the first. Stages inside a run leave
    /// nothing to a recorder.
    pub fn fused(mut self) -> Result<Self> {
        if !self.device().is_cpu() || !matches!(self.dtype(), DType::F32 | DType::F64) {
            return Ok(self);
        }
        let normalization = self.normalization.take();
        let channels = self.interface().channels;
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
        while let Some(layer) = rest.next_if(|layer| !flat && known(layer)) {
            value = append(&mut graph, &layer, value)?;
            run += 1;
            flat = flattens(&layer);
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

/// Whether the layer, and all below it, can be part of a graph.
fn known(layer: &Layer) -> bool {
    match layer {
        Layer::Folded(_) | Layer::BatchNorm(_) | Layer::Pool(_) => true,
        Layer::GlobalAveragePool | Layer::PadShortcut(_) => true,
        Layer::Activation(activation) => *activation == Activation::Relu,
        Layer::Residual(_) => layer.children().into_iter().flatten().all(|l| known(l) && !flattens(l)),
        Layer::Stage(stage) => {
            stage.socket.is_none() && stage.layers.iter().all(|l| known(l) && !flattens(l))
        }
        _ => false,
    }
}

/// Whether the layer turns maps into vectors: the graph's result may be one, but nothing inside it.
fn flattens(layer: &Layer) -> bool {
    matches!(layer, Layer::GlobalAveragePool | Layer::Flatten | Layer::Linear(_))
}

fn append_all(graph: &mut FrozenGraph, layers: &[Layer], input: Value) -> Result<Value> {
    layers.iter().try_fold(input, |value, layer| append(graph, layer, value))
}

fn append(graph: &mut FrozenGraph, layer: &Layer, input: Value) -> Result<Value> {
    Ok(match layer {
        Layer::Residual(Residual { main, shortcut, relu }) => {
            let shortcut = append_all(graph, shortcut, input)?;
            let Some((last, rest)) = main.split_last() else { return Ok(shortcut) };
            let before = append_all(graph, rest, input)?;
            // sum and ReLU go into the branch's last operation where it has no ReLU of its own
            match last {
                Layer::Folded(folded) if !folded.relu => {
                    graph.convolution(&folded.convolution, before, Some(shortcut), *relu)
                }
                Layer::BatchNorm(norm) if !norm.relu => {
                    graph.affine(&norm.scale()?, &norm.shift()?, before, Some(shortcut), *relu)?
                }
                last => {
                    let value = append(graph, last, before)?;
                    graph.sum(value, Some(shortcut), *relu)
                }
            }
        }
        Layer::Folded(folded) => graph.convolution(&folded.convolution, input, None, folded.relu),
        Layer::BatchNorm(norm) => graph.affine(&norm.scale()?, &norm.shift()?, input, None, norm.relu)?,
        Layer::Activation(_) => graph.sum(input, None, true),
        Layer::Pool(pool) => graph.pool(pool.maximum, pool.kernel, pool.stride, pool.padding, input),
        Layer::GlobalAveragePool => graph.global_average(input),
        Layer::PadShortcut(shortcut) => graph.subsample(shortcut.stride, shortcut.channels, input),
        Layer::Stage(stage) => append_all(graph, &stage.layers, input)?,
        _ => input,
    })
}
