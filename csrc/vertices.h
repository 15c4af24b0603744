// What belongs to the vertices of one tile, brought together from where it lies.
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

}  // namespace brainkit
