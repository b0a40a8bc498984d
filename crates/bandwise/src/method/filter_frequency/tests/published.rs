//! Against values of the official code.

use std::collections::HashMap;

use candle_core::Var;
use serde_json::Value;

use super::*;
use crate::golden::{self, number};
use crate::nn::weights;

fn size(value: &Value, key: &str) -> usize {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}")) as usize
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn entries(value: &Value) -> &Vec<Value> {
    value.as_array().filter(|list| !list.is_empty()).expect("a list with entries")
}

fn golden_layer(entry: &Value, tensors: &HashMap<String, Tensor>) -> Convolution {
    let [k, cin, cout, groups] = ["k", "cin", "cout", "groups"].map(|key| size(entry, key));
    let [stride, padding] = ["stride", "padding"].map(|key| size(entry, key));
    let dilation = entry["dilation"].as_u64().unwrap_or(1) as usize;
    let config = ConvConfig { stride, padding, dilation, groups, ..ConvConfig::default() };
    let coefficients = &tensors[&format!("{}.coef", text(entry, "name"))];
    let kind = domain(text(entry, "kind")).expect("WD or SD");
    let layer = decomposed_layer(kind, [cout, cin / groups, k, k], coefficients, config);
    assert_eq!(
        layer.parameters()[0].tensor().dims(),
        coefficients.dims(),
        "the parameter has the official shape"
    );
    layer
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_layers_forward_and_gradients() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case1_dct.safetensors");
    for entry in entries(&golden::json(&folder, "case1_dct.json")["layers"]) {
        let name = text(entry, "name");
        let expected = |part: &str| &tensors[&format!("{name}.{part}")];
        let layer = golden_layer(entry, &tensors);
        let input = Var::from_tensor(&nhwc(expected("x"))).unwrap();
        let run =
            |layer: &Convolution| layer.forward(&DualTensor::plain(input.as_tensor().clone())).unwrap().value;
        let output = run(&layer);
        let target = nhwc(expected("y"));
        let mut plain = layer.clone();
        plain.recompose().unwrap();
        for (form, output) in
            [("itself", &output), ("frozen", &run(&layer.frozen())), ("plain", &run(&plain))]
        {
            let error = golden::relative_l2(output, &target);
            assert!(error <= 1e-5, "{name} {form}: output off by {error}");
        }
        let error = golden::relative_l2(&layer.weight().unwrap(), expected("w_f64"));
        assert!(error <= 1e-6, "{name}: weights off by {error}");
        let loss = (output * nhwc(expected("up"))).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let error = golden::relative_l2(gradients.get(&input).unwrap(), &nhwc(expected("grad_x")));
        assert!(error <= 1e-4, "{name}: input gradient off by {error}");
        let gradient = gradients.get(layer.parameters()[0].var()).unwrap();
        let error = golden::relative_l2(gradient, expected("grad_coef"));
        assert!(error <= 1e-4, "{name}: coefficient gradient off by {error}");
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_penalties_and_gradients() {
    let folder = golden::folder();
    let (json, tensors) =
        (golden::json(&folder, "case1_dct.json"), golden::tensors(&folder, "case1_dct.safetensors"));
    let layers: HashMap<&str, Convolution> =
        entries(&json["layers"]).iter().map(|e| (text(e, "name"), golden_layer(e, &tensors))).collect();
    for entry in entries(&json["reg"]) {
        let (name, option) = (text(entry, "layer"), text(entry, "option"));
        let layer = layers.get(name).cloned().unwrap_or_else(|| decaying_layer(name));
        let mut plain = layer.clone();
        plain.recompose().unwrap();
        let expected = number(&entry["value"]);
        let penalty = penalty(option, 1.0, 1.0);
        let value = penalty.value(&model_of(layer.clone())).unwrap();
        close(name, option, scalar(&value), expected, 1e-5);
        close(
            &format!("plain {name}"),
            option,
            scalar(&penalty.value(&model_of(plain)).unwrap()),
            expected,
            1e-5,
        );
        if let Some(expected) = tensors.get(&format!("{name}.reg_{option}.grad")) {
            let gradients = value.backward().unwrap();
            let error = golden::relative_l2(gradients.get(layer.parameters()[0].var()).unwrap(), expected);
            assert!(error <= 1e-4, "{name} {option}: gradient off by {error}");
        }
    }
}

/// `decay_WD_k3 (cin2 cout3, coef=1/(1+i+j))`
fn decaying_layer(name: &str) -> Convolution {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let after = |key: &str| -> usize {
        words
            .iter()
            .find_map(|w| w.strip_prefix(key)?.parse().ok())
            .unwrap_or_else(|| panic!("{key} in {name}"))
    };
    let kind = words.iter().find_map(|word| domain(word)).unwrap_or_else(|| panic!("kind of {name}"));
    let (side, inputs, outputs) = (after("k"), after("cin"), after("cout"));
    let coefficients: Vec<f32> = (0..inputs * outputs * side * side)
        .map(|f| (f / side % side + f % side) as f32)
        .map(|sum| 1.0 / (1.0 + sum))
        .collect();
    let coefficients = Tensor::new(coefficients, &Device::Cpu).unwrap();
    decomposed_layer(kind, [outputs, inputs, side, side], &coefficients, ConvConfig::default())
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_depth_rule() {
    let folder = golden::folder();
    for entry in entries(&golden::json(&folder, "case1_dct.json")["depth_rule"]) {
        let penalty = penalty("default", number(&entry["reg_depth"]), 1.0);
        assert_eq!(
            penalty.layers_counted(size(entry, "n_layers")),
            size(entry, "layers_regularised"),
            "{entry}"
        );
    }
}

fn labels(values: &Value) -> Tensor {
    let labels: Vec<u32> = entries(values).iter().map(|v| v.as_u64().unwrap() as u32).collect();
    Tensor::new(labels, &Device::Cpu).unwrap()
}

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    crate::nn::loss::cross_entropy(logits, labels).unwrap().mean_all().unwrap()
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_resnet9_narrow_with_penalties() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case1_lowres_resnet9.safetensors");
    let json = golden::json(&folder, "case1_dct.json");
    let kinds = json["lowres_resnet9_narrow"].as_object().expect("an object of kinds");
    for (kind, entry) in kinds.iter().filter(|(_, entry)| entry.is_object()) {
        let expected = |name: &str| tensors.get(&format!("{kind}/{name}"));
        let width = expected("conv.1.weight").unwrap().dim(0).unwrap();
        let model = resnet9(kind, Some(width), expected("fc.weight").unwrap().dim(0).unwrap());
        // The state dict as published, with its constants.
        let state =
            tensors.iter().filter(|(name, _)| name.starts_with(&format!("{kind}/")) && !name.contains("__"));
        let state = state.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        let matched = weights::match_keys(&weights::shapes(&model), &state).unwrap();
        assert!(matched.report.is_exact(), "{kind}: {}", matched.report);
        for parameter in model.parameters() {
            parameter.set(&matched.tensors[parameter.name()]).unwrap();
        }
        assert_eq!(model.parameter_count(), size(entry, "n_params"));
        let (input, labels) = (nhwc(expected("__x").unwrap()), labels(&entry["labels"]));
        check_logits(kind, &model, entry, &input, &labels, &expected);
        if domain(kind).is_some() {
            check_penalties(kind, &model, entry);
            check_totals(kind, &model, entry, &input, &labels, &expected);
        }
    }
}

fn check_logits<'a>(
    kind: &str,
    model: &Model,
    entry: &Value,
    input: &Tensor,
    labels: &Tensor,
    expected: &dyn Fn(&str) -> Option<&'a Tensor>,
) {
    let mut plain = model.clone();
    recompose(&mut plain).unwrap();
    assert!(plain.parameters().iter().all(|p| !p.name().contains("coefficients")));
    for (pass, key) in [(ForwardContext::eval(), "eval"), (ForwardContext::batch_statistics(0.0), "train")] {
        for network in [model, &model.frozen(), &plain] {
            let logits = network.logits(input, &pass).unwrap();
            let target = expected(&format!("__logits_{key}")).unwrap();
            let error = golden::relative_l2(&logits, target);
            assert!(error <= 1e-5, "{kind} {key}: logits off by {error}");
            let loss = scalar(&cross_entropy(&logits, labels));
            close(kind, key, loss, number(&entry[&format!("loss_{key}")]), 1e-5);
        }
    }
    let folded = model.folded().unwrap().logits(input, &ForwardContext::eval()).unwrap();
    assert!(golden::relative_l2(&folded, expected("__logits_eval").unwrap()) <= 1e-5, "{kind}: folded");
}

fn check_penalties(kind: &str, model: &Model, entry: &Value) {
    let order: Vec<&str> = spatial_convolutions(model).iter().map(|c| c.name.as_str()).collect();
    assert_eq!(order, entries(&entry["layer_order"]).iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>());
    for case in entries(&entry["reg"]) {
        let option = text(case, "option");
        let penalty = penalty(option, number(&case["reg_depth"]), number(&case["l2_lambda"]));
        let value = penalty.value(model).unwrap();
        close(kind, option, scalar(&value), number(&case["value"]), 1e-5);
        let gradients = value.backward().unwrap();
        let norms = case["grad_norms"].as_object().expect("norms by parameter");
        for (name, var) in model.trainable() {
            let norm =
                gradients.get(&var).map(|g| scalar(&g.sqr().unwrap().sum_all().unwrap().sqrt().unwrap()));
            match norms.get(&name) {
                Some(expected) => {
                    close(kind, &format!("{option} {name}"), norm.unwrap(), number(expected), 1e-4)
                }
                None => assert_eq!(norm.unwrap_or(0.0), 0.0, "{kind} {option} {name}: no gradient expected"),
            }
        }
    }
}

fn check_totals<'a>(
    kind: &str,
    model: &Model,
    entry: &Value,
    input: &Tensor,
    labels: &Tensor,
    expected: &dyn Fn(&str) -> Option<&'a Tensor>,
) {
    let totals = entry
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(k, v)| Some((k.strip_prefix("total_loss_train_")?, v)));
    for (tag, total) in totals {
        let (option, depth) = tag.split_once("_depth").expect("OPTION_depthD");
        let penalty = penalty(option, depth.parse().unwrap(), 0.01);
        let logits = model.logits(input, &ForwardContext::batch_statistics(0.0)).unwrap();
        let loss = (cross_entropy(&logits, labels) + penalty.value(model).unwrap()).unwrap();
        close(kind, tag, scalar(&loss), number(total), 1e-5);
        let gradients = loss.backward().unwrap();
        for (name, var) in model.trainable() {
            let gradient = gradients.get(&var).unwrap();
            let norm = scalar(&gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap());
            close(kind, &name, norm, number(&entry["total_grad_norms"][&name]), 1e-4);
            if let Some(expected) = expected(&format!("__totgrad.{name}")) {
                let error = golden::relative_l2(gradient, expected);
                assert!(error <= 1e-4, "{kind} {name}: total gradient off by {error}");
            }
        }
    }
}

/// The integer hash behind the closed-form weights, uniform in [−1, 1).
fn hashed(index: u32, layer: u32, seed: u32) -> f64 {
    let mut h = index
        .wrapping_mul(2_654_435_761)
        .wrapping_add(0x9E37_79B9_u32.wrapping_mul(layer.wrapping_add(1)))
        .wrapping_add(seed.wrapping_mul(1_000_003));
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    f64::from(h) / 4_294_967_296.0 * 2.0 - 1.0
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_resnet9_full_width_closed_form() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case1_dct.json");
    for (kind, entry) in json["lowres_resnet9_full_closed_form"].as_object().expect("an object of kinds") {
        let seed = size(entry, "seed") as u32;
        for (index, expected) in entries(&entry["hash_check_first4_layer0"]).iter().enumerate() {
            assert!((hashed(index as u32, 0, seed) - number(expected)).abs() < 1e-12);
        }
        let logits = entries(&entry["logits_eval"]);
        let model = resnet9(kind, None, entries(&logits[0]).len());
        let fill = |count: usize, layer, map: &dyn Fn(f64) -> f64| -> Tensor {
            let values: Vec<f32> = (0..count as u32).map(|i| map(hashed(i, layer, seed)) as f32).collect();
            Tensor::new(values, &Device::Cpu).unwrap()
        };
        for (layer, convolution) in spatial_convolutions(&model).into_iter().enumerate() {
            let inputs = convolution.weight().unwrap().dim(1).unwrap() as f64;
            let coefficients = convolution.parameters()[0];
            let count = coefficients.tensor().elem_count();
            coefficients.set(&fill(count, layer as u32, &|u| u * 1.8 / inputs.sqrt())).unwrap();
        }
        let last = *model.parameters().last().unwrap();
        last.set(&fill(last.tensor().elem_count(), 100, &|u| 0.1 * u)).unwrap();
        assert_eq!(model.parameter_count(), size(entry, "n_params_trainable"));
        let shape = (logits.len(), 3, 32, 32);
        let input = fill(shape.0 * 3 * 32 * 32, 200, &|u| 0.5 + 0.5 * u).reshape(shape).unwrap();
        let output = golden::values(&model.logits(&nhwc(&input), &ForwardContext::eval()).unwrap());
        let expected = logits.iter().flat_map(|row| entries(row).iter().map(number));
        for (value, expected) in output.iter().zip(expected) {
            assert!((value - expected).abs() <= 2e-5, "{kind}: logit {value} instead of {expected}");
        }
        for case in entries(&entry["reg"]) {
            let option = text(case, "option");
            let value = penalty(option, number(&case["reg_depth"]), 1.0).value(&model).unwrap();
            close(kind, option, scalar(&value), number(&case["value"]), 1e-5);
        }
    }
}
