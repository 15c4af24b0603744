// Data of single vertices: gathered from the inputs, and scattered to the gradients.
#pragma once

#include "kernels.h"
#include "plan.h"

namespace brainkit {

// Shares (count, kSegments) and layer weights (count, layer_stride), padded with zeros.
template <typename T>
void load_selectors(const Shape& s, const Inputs<T>& in, const Taps& taps, const std::int32_t* members, Index count,
                    Index layer_stride, T* shares, T* layer_weights) {
    for (Index i = 0; i < count; ++i, shares += kSegments, layer_weights += layer_stride) {
        const Index v = members[i];
        fill_shares(s, taps, in.locations + 2 * v, in.scale[v], shares);
        std::copy_n(in.layer_weights + v * s.layers, s.layers, layer_weights);
        std::fill(layer_weights + s.layers, layer_weights + layer_stride, T(0));
    }
}

// From the gradients of a vertex's shares to those of its scale and location.
template <typename T>
void store_selector_gradients(const Shape& s, const Inputs<T>& in, const Taps& taps, Index v, const T* grad_shares,
                              const Gradients<T>& out) {
    T grad_scale = grad_shares[0];
    T grad_x = 0;
    T grad_y = 0;
    if (taps.count > 0) {
        const Place<T> place = place_of(s, taps, in.locations + 2 * v);
        for (Index t = 0; t < taps.count; ++t) {
            const T share = grad_shares[1 + t];
            const bool right = taps.corner[t] & 1;
            const bool lower = taps.corner[t] >> 1;
            grad_scale -= share * bilinear_weight(place, taps.corner[t]);
            grad_x += (right ? share : -share) * (lower ? place.y : T(1) - place.y);
            grad_y += (lower ? share : -share) * (right ? place.x : T(1) - place.x);
        }
    }
    const T local = T(1) - in.scale[v];
    out.scale[v] = grad_scale;
    out.locations[2 * v] = grad_x * local * static_cast<T>(s.width) / T(2);
    out.locations[2 * v + 1] = grad_y * local * static_cast<T>(s.height) / T(2);
}

// Vertices whose location is not finite have zero gradients.
template <typename T>
void clear_gradients(const Shape& s, const Plan& plan, const Gradients<T>& out) {
    for (const std::int32_t v : plan.not_finite) {
        std::fill_n(out.locations + 2 * v, 2, T(0));
        std::fill_n(out.layer_weights + v * s.layers, s.layers, T(0));
        std::fill_n(out.weight + v * s.channels, s.channels, T(0));
        out.scale[v] = 0;
        out.bias[v] = 0;
    }
}

}  // namespace brainkit
