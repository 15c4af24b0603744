// brainkit._C: the operator on numpy arrays. Every shape is checked here, so that no call can read out of bounds.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "factor_readout.h"
#include "recycled.h"
#include "selectors.h"
#include "token_readout.h"

namespace py = pybind11;

namespace {

// Together with noconvert() this refuses other dtypes and strides instead of copying.
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename Dims>
std::string shape_text(const Dims& dims) {
    std::string text = "(";
    for (const auto n : dims) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
    return text + ")";
}

template <typename T>
void check_array(const char* name, const Array<T>& array, std::initializer_list<std::int64_t> expected) {
    const std::vector<py::ssize_t> found(array.shape(), array.shape() + array.ndim());
    if (!std::equal(found.begin(), found.end(), expected.begin(), expected.end())) {
        throw std::invalid_argument(std::string(name) + " must have shape " + shape_text(expected) + ", got " +
                                    shape_text(found));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
        throw std::invalid_argument(std::string(name) + " must be aligned to its item size");
    }
}

template <typename T>
void check_ndim(const char* name, const Array<T>& array, py::ssize_t ndim) {
    if (array.ndim() != ndim) {
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(ndim) + " dimensions, got " +
                                    std::to_string(array.ndim()));
    }
}

void check_grid(std::int64_t height, std::int64_t width) {
    if (height < 1 || width < 1 || height > brainkit::kMaxGrid || width > brainkit::kMaxGrid) {
        throw std::invalid_argument("height and width must lie in 1.." + std::to_string(brainkit::kMaxGrid) + ", got " +
                                    std::to_string(height) + " and " + std::to_string(width));
    }
}

void check_vertices(std::int64_t vertices) {
    if (vertices > std::numeric_limits<std::int32_t>::max()) {
        throw std::invalid_argument("there must be fewer than 2^31 vertices, got " + std::to_string(vertices));
    }
}

template <typename T>
py::tuple group_vertices(const Array<T>& locations, std::int64_t height, std::int64_t width) {
    check_ndim("locations", locations, 2);
    const std::int64_t vertices = locations.shape(0);
    check_array("locations", locations, {vertices, 2});
    check_grid(height, width);
    check_vertices(vertices);
    Array<std::int32_t> order(vertices);
    Array<std::int64_t> starts(brainkit::group_count(height, width) + 1);
    const T* from = locations.data();
    std::int32_t* order_to = order.mutable_data();
    std::int64_t* starts_to = starts.mutable_data();
    {
        const py::gil_scoped_release release;
        brainkit::group_vertices(from, vertices, height, width, order_to, starts_to);
    }
    return py::make_tuple(std::move(order), std::move(starts));
}

// Sizes, from the arrays that have them; all arrays except the bias are checked to agree.
template <typename T>
brainkit::Shape check_inputs(const Array<T>& local, const Array<T>& global, const Array<T>& locations,
                             const Array<T>& layer_weights, const Array<T>& scale, const Array<T>& weight,
                             int threads) {
    check_ndim("local_tokens", local, 5);
    check_ndim("locations", locations, 2);
    const brainkit::Shape s{local.shape(0), local.shape(1), local.shape(2),
                            local.shape(3), local.shape(4), locations.shape(0)};
    check_grid(s.height, s.width);
    check_vertices(s.vertices);
    if (s.layers < 1 || s.channels < 1) {
        throw std::invalid_argument(
            "local_tokens must have at least one layer and one channel, got shape " +
            shape_text(std::initializer_list<std::int64_t>{s.images, s.layers, s.channels, s.height, s.width}));
    }
    if (threads < 1) throw std::invalid_argument("threads must be at least 1, got " + std::to_string(threads));
    check_array("local_tokens", local, {s.images, s.layers, s.channels, s.height, s.width});
    check_array("global_tokens", global, {s.images, s.layers, s.channels});
    check_array("locations", locations, {s.vertices, 2});
    check_array("layer_weights", layer_weights, {s.vertices, s.layers});
    check_array("scale", scale, {s.vertices});
    check_array("weight", weight, {s.vertices, s.channels});
    return s;
}

template <typename T>
using ForwardFunction = void (*)(const brainkit::Shape&, const brainkit::Inputs<T>&, int, T*);
template <typename T>
using BackwardFunction = void (*)(const brainkit::Shape&, const brainkit::Inputs<T>&, const T*, int,
                                  const brainkit::Gradients<T>&);

template <typename T, ForwardFunction<T> run>
Array<T> factor_readout_forward(const Array<T>& local, const Array<T>& global, const Array<T>& locations,
                                const Array<T>& layer_weights, const Array<T>& scale, const Array<T>& weight,
                                const Array<T>& bias, int threads) {
    const brainkit::Shape s = check_inputs(local, global, locations, layer_weights, scale, weight, threads);
    check_array("bias", bias, {s.vertices});

    Array<T> out({s.images, s.vertices});
    const brainkit::Inputs<T> inputs{local.data(), global.data(), locations.data(), layer_weights.data(),
                                     scale.data(), weight.data(), bias.data()};
    T* to = out.mutable_data();
    {
        const py::gil_scoped_release release;
        run(s, inputs, threads, to);
    }
    return out;
}

template <typename T, BackwardFunction<T> run>
py::tuple factor_readout_backward(const Array<T>& grad, const Array<T>& local, const Array<T>& global,
                                  const Array<T>& locations, const Array<T>& layer_weights, const Array<T>& scale,
                                  const Array<T>& weight, int threads) {
    const brainkit::Shape s = check_inputs(local, global, locations, layer_weights, scale, weight, threads);
    check_array("grad_response", grad, {s.images, s.vertices});

    const auto like = [](const Array<T>& array) {
        return Array<T>(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()));
    };
    Array<T> out[] = {like(local), like(global), like(locations), like(layer_weights),
                      like(scale), like(weight), like(scale)};
    const brainkit::Inputs<T> inputs{local.data(), global.data(), locations.data(), layer_weights.data(),
                                     scale.data(), weight.data(), nullptr};
    const brainkit::Gradients<T> to{out[0].mutable_data(), out[1].mutable_data(), out[2].mutable_data(),
                                    out[3].mutable_data(), out[4].mutable_data(), out[5].mutable_data(),
                                    out[6].mutable_data()};
    const T* from = grad.data();
    {
        const py::gil_scoped_release release;
        run(s, inputs, from, threads, to);
    }
    return py::make_tuple(out[0], out[1], out[2], out[3], out[4], out[5], out[6]);
}

// Taps and starts come from a file: each is checked, because they become addresses.
template <typename T>
Array<T> token_readout(const Array<T>& tokens, const Array<T>& weight, const Array<T>& coefficients,
                       const Array<T>& bias, const Array<std::int64_t>& taps, const Array<std::int64_t>& starts,
                       int threads) {
    check_ndim("tokens", tokens, 4);
    check_ndim("weight", weight, 2);
    check_ndim("taps", taps, 2);
    const brainkit::TokenShape s{tokens.shape(0), tokens.shape(1), tokens.shape(2),
                                 tokens.shape(3), weight.shape(0), taps.shape(0)};
    check_vertices(s.rows);
    if (s.layers < 1 || s.channels < 1 || s.cells < 1) {
        throw std::invalid_argument(
            "tokens must have at least one layer, channel and cell, got shape " +
            shape_text(std::initializer_list<std::int64_t>{s.images, s.layers, s.channels, s.cells}));
    }
    if (threads < 1) throw std::invalid_argument("threads must be at least 1, got " + std::to_string(threads));
    check_array("tokens", tokens, {s.images, s.layers, s.channels, s.cells});
    check_array("weight", weight, {s.rows, s.channels});
    check_array("coefficients", coefficients, {s.rows, brainkit::kTaps, s.layers});
    check_array("bias", bias, {s.rows});
    check_array("taps", taps, {s.groups, brainkit::kTaps});
    check_array("starts", starts, {s.groups + 1});
    const std::vector<brainkit::Index> cells(taps.data(), taps.data() + taps.size());
    const std::vector<brainkit::Index> first(starts.data(), starts.data() + starts.size());
    for (const brainkit::Index cell : cells) {
        if (cell < 0 || cell >= s.cells) {
            throw std::invalid_argument("taps must lie in 0.." + std::to_string(s.cells - 1) + ", got " +
                                        std::to_string(cell));
        }
    }
    if (first.front() != 0 || first.back() != s.rows || !std::is_sorted(first.begin(), first.end())) {
        throw std::invalid_argument("starts must rise from 0 to the number of rows, " + std::to_string(s.rows));
    }
    Array<T> out({s.images, s.rows});
    const brainkit::TokenInputs<T> inputs{tokens.data(), weight.data(), coefficients.data(),
                                          bias.data(),   cells.data(),  first.data()};
    T* to = out.mutable_data();
    {
        const py::gil_scoped_release release;
        brainkit::token_readout(s, inputs, threads, to);
    }
    return out;
}

template <typename T, ForwardFunction<T> run>
void bind_forward(py::module_& m, const char* name, const char* text) {
    m.def(name, &factor_readout_forward<T, run>, py::arg("local_tokens").noconvert(),
          py::arg("global_tokens").noconvert(), py::arg("locations").noconvert(), py::arg("layer_weights").noconvert(),
          py::arg("scale").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
          py::arg("threads") = 1, text);
}

template <typename T, BackwardFunction<T> run>
void bind_backward(py::module_& m, const char* name, const char* text) {
    m.def(name, &factor_readout_backward<T, run>, py::arg("grad_response").noconvert(),
          py::arg("local_tokens").noconvert(), py::arg("global_tokens").noconvert(), py::arg("locations").noconvert(),
          py::arg("layer_weights").noconvert(), py::arg("scale").noconvert(), py::arg("weight").noconvert(),
          py::arg("threads") = 1, text);
}

template <typename T>
struct Networks {
    const Array<T>&features, &hidden_weight, &hidden_bias, &second_weight, &second_bias, &location_head, &layer_head,
        &scale_head;

    brainkit::NetworkInputs<T> inputs() const {
        return {features.data(),    hidden_weight.data(),
                hidden_bias.data(), second_weight.data(),
                second_bias.data(), {location_head.data(), layer_head.data(), scale_head.data()}};
    }

    brainkit::NetworkShape check(int threads) const {
        check_ndim("features", features, 2);
        check_ndim("hidden_bias", hidden_bias, 2);
        check_ndim("layer_head", layer_head, 2);
        const brainkit::NetworkShape s{features.shape(0), features.shape(1), hidden_bias.shape(1), layer_head.shape(0)};
        if (s.features < 1 || s.hidden < 1 || s.layers < 1) {
            throw std::invalid_argument("there must be at least one feature, hidden unit and layer, got " +
                                        std::to_string(s.features) + ", " + std::to_string(s.hidden) + " and " +
                                        std::to_string(s.layers));
        }
        if (threads < 1) throw std::invalid_argument("threads must be at least 1, got " + std::to_string(threads));
        check_array("features", features, {s.vertices, s.features});
        check_array("hidden_weight", hidden_weight, {brainkit::kNetworks, s.hidden, s.features});
        check_array("hidden_bias", hidden_bias, {brainkit::kNetworks, s.hidden});
        check_array("second_weight", second_weight, {brainkit::kNetworks, s.hidden, s.hidden});
        check_array("second_bias", second_bias, {brainkit::kNetworks, s.hidden});
        check_array("location_head", location_head, {2, s.hidden});
        check_array("layer_head", layer_head, {s.layers, s.hidden});
        check_array("scale_head", scale_head, {1, s.hidden});
        return s;
    }
};

// Never destroyed: arrays may outlive objects that are destroyed at exit.
brainkit::Recycled& kept_memory() {
    static brainkit::Recycled* const memory = new brainkit::Recycled;
    return *memory;
}

// What the forward pass keeps, in memory that is recycled when the array is freed.
template <typename T>
Array<T> make_kept(const brainkit::NetworkShape& s) {
    const std::vector<py::ssize_t> shape{brainkit::kNetworks, s.vertices, 2, brainkit::kept_width(s.hidden)};
    std::size_t size = sizeof(T);
    for (const py::ssize_t n : shape) size *= static_cast<std::size_t>(n);
    const auto give_back = [](void* block) {
        const std::unique_ptr<brainkit::Recycled::Block> owned(static_cast<brainkit::Recycled::Block*>(block));
        kept_memory().give_back(*owned);
    };
    auto* const block = new brainkit::Recycled::Block(kept_memory().take(std::max<std::size_t>(size, 1)));
    const py::capsule owner(block, give_back);
    return Array<T>(shape, static_cast<const T*>(block->data), owner);
}

template <typename T>
py::tuple selector_networks_forward(const Array<T>& features, const Array<T>& hidden_weight,
                                    const Array<T>& hidden_bias, const Array<T>& second_weight,
                                    const Array<T>& second_bias, const Array<T>& location_head,
                                    const Array<T>& layer_head, const Array<T>& scale_head, int threads, bool keep) {
    const Networks<T> networks{features,    hidden_weight, hidden_bias, second_weight,
                               second_bias, location_head, layer_head,  scale_head};
    const brainkit::NetworkShape s = networks.check(threads);
    const brainkit::NetworkInputs<T> inputs = networks.inputs();
    Array<T> locations({s.vertices, std::int64_t{2}}), layer_weights({s.vertices, s.layers}), scale(s.vertices);
    Array<T> kept = keep ? make_kept<T>(s) : Array<T>(0);
    T* const out[] = {locations.mutable_data(), layer_weights.mutable_data(), scale.mutable_data()};
    T* const kept_to = keep ? kept.mutable_data() : nullptr;
    {
        const py::gil_scoped_release release;
        brainkit::selector_networks_forward(s, inputs, threads, out, kept_to);
    }
    return py::make_tuple(std::move(locations), std::move(layer_weights), std::move(scale), std::move(kept));
}

template <typename T>
py::tuple selector_networks_backward(const Array<T>& grad_locations, const Array<T>& grad_layer_weights,
                                     const Array<T>& grad_scale, const Array<T>& features,
                                     const Array<T>& hidden_weight, const Array<T>& hidden_bias,
                                     const Array<T>& second_weight, const Array<T>& second_bias,
                                     const Array<T>& location_head, const Array<T>& layer_head,
                                     const Array<T>& scale_head, const Array<T>& locations,
                                     const Array<T>& layer_weights, const Array<T>& scale, const Array<T>& kept,
                                     int threads) {
    const Networks<T> networks{features,    hidden_weight, hidden_bias, second_weight,
                               second_bias, location_head, layer_head,  scale_head};
    const brainkit::NetworkShape s = networks.check(threads);
    check_array("grad_locations", grad_locations, {s.vertices, 2});
    check_array("grad_layer_weights", grad_layer_weights, {s.vertices, s.layers});
    check_array("grad_scale", grad_scale, {s.vertices});
    check_array("locations", locations, {s.vertices, 2});
    check_array("layer_weights", layer_weights, {s.vertices, s.layers});
    check_array("scale", scale, {s.vertices});
    const bool is_kept = kept.ndim() != 1 || kept.shape(0) != 0;
    if (is_kept) check_array("kept", kept, {brainkit::kNetworks, s.vertices, 2, brainkit::kept_width(s.hidden)});

    const brainkit::NetworkInputs<T> inputs = networks.inputs();
    const T* const out[] = {locations.data(), layer_weights.data(), scale.data()};
    const T* const grad[] = {grad_locations.data(), grad_layer_weights.data(), grad_scale.data()};
    const T* const kept_from = is_kept ? kept.data() : nullptr;
    const auto like = [](const Array<T>& array) {
        return Array<T>(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()));
    };
    Array<T> to[] = {like(hidden_weight), like(hidden_bias), like(second_weight), like(second_bias),
                     like(location_head), like(layer_head),  like(scale_head)};
    const brainkit::NetworkGradients<T> gradients{to[0].mutable_data(),
                                                  to[1].mutable_data(),
                                                  to[2].mutable_data(),
                                                  to[3].mutable_data(),
                                                  {to[4].mutable_data(), to[5].mutable_data(), to[6].mutable_data()}};
    {
        const py::gil_scoped_release release;
        brainkit::selector_networks_backward(s, inputs, out, grad, kept_from, threads, gradients);
    }
    return py::make_tuple(to[0], to[1], to[2], to[3], to[4], to[5], to[6]);
}

template <typename T>
void bind(py::module_& m) {
    m.def("group_vertices", &group_vertices<T>, py::arg("locations").noconvert(), py::arg("height"), py::arg("width"),
          "Vertices sorted by the cells of their four taps: (order int32 (V,), starts int64 (G + 1,)), "
          "G = (height + 1) * (width + 1). Vertices whose location is not finite come last, from starts[G] on.");
    bind_forward<T, &brainkit::factor_readout_forward<T>>(
        m, "factor_readout_forward", "The FactorTopy operator: (B, V). The same bits for every number of threads.");
    bind_backward<T, &brainkit::factor_readout_backward<T>>(
        m, "factor_readout_backward",
        "Gradients of the seven inputs, the bias last. The same bits for every number of threads.");
    m.def(
        "token_readout", &token_readout<T>, py::arg("tokens").noconvert(), py::arg("weight").noconvert(),
        py::arg("coefficients").noconvert(), py::arg("bias").noconvert(), py::arg("taps").noconvert(),
        py::arg("starts").noconvert(), py::arg("threads") = 1,
        "Responses (B, n) from tokens (B, L, D, P + 1) and an encoder file's arrays: weight (n, D), coefficients "
        "(n, 5, L) and bias (n,), rows sorted by group; taps (G, 5) and starts (G + 1,) int64 of the groups. The same "
        "bits for every number of threads.");
    m.def("selector_networks_forward", &selector_networks_forward<T>, py::arg("features").noconvert(),
          py::arg("hidden_weight").noconvert(), py::arg("hidden_bias").noconvert(),
          py::arg("second_weight").noconvert(), py::arg("second_bias").noconvert(),
          py::arg("location_head").noconvert(), py::arg("layer_head").noconvert(), py::arg("scale_head").noconvert(),
          py::arg("threads") = 1, py::arg("keep") = false,
          "The networks of the selectors: (locations (V, 2), layer weights (V, L), scale (V,), kept). What is kept for "
          "the backward pass is empty unless asked for. The same bits for every number of threads.");
    m.def("selector_networks_backward", &selector_networks_backward<T>, py::arg("grad_locations").noconvert(),
          py::arg("grad_layer_weights").noconvert(), py::arg("grad_scale").noconvert(), py::arg("features").noconvert(),
          py::arg("hidden_weight").noconvert(), py::arg("hidden_bias").noconvert(),
          py::arg("second_weight").noconvert(), py::arg("second_bias").noconvert(),
          py::arg("location_head").noconvert(), py::arg("layer_head").noconvert(), py::arg("scale_head").noconvert(),
          py::arg("locations").noconvert(), py::arg("layer_weights").noconvert(), py::arg("scale").noconvert(),
          py::arg("kept").noconvert(), py::arg("threads") = 1,
          "Gradients of the seven weights, given the forward pass's four results (kept may be empty: then its sums are "
          "computed again). The same bits for every number of threads, with or without what was kept.");
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "C++ part of brainkit, on C-contiguous numpy arrays of float32 or float64.";
    bind<float>(m);
    bind<double>(m);
    bind_forward<float, &brainkit::factor_readout_forward_bf16x3>(m, "factor_readout_forward_bf16x3",
                                                                  "factor_readout_forward in bf16x3.");
    bind_backward<float, &brainkit::factor_readout_backward_bf16x3>(m, "factor_readout_backward_bf16x3",
                                                                    "factor_readout_backward in bf16x3.");
    m.def("why_no_bf16x3", &brainkit::why_no_bf16x3,
          "Why bf16x3 cannot run here, in one phrase, or None where it can. BRAINKIT_AMX=emulate, read at the first "
          "call, has it run everywhere, slowly.");
    m.def("instruction_set", &brainkit::instruction_set,
          "What serves this process: portable, avx2 or avx512. BRAINKIT_CPU, read at the first call, chooses another.");
}
