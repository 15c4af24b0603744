// What belongs to the vertices of one tile, brought together from where it lies.
#pragma once

#include "kernels.h"
#include "plan.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#endif

namespace brainkit {

inline void prefetch(const void* address) {
#if defined(__GNUC__)
    __builtin_prefetch(address, 0, 2);
#elif defined(_MSC_VER) && defined(_M_X64)
    _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T1);
#else
    static_cast<void>(address);
#endif
}

// Some of a tile's vertices: the part-th of so many parts.
struct Span {
    Span(const Tile& tile, Index part, Index parts)
        : begin(tile.begin + part * tile.count / parts), end(tile.begin + (part + 1) * tile.count / parts) {}
    Index begin, end;  // into Plan::members
};

// Asks for what will be wanted soon, the first `count` of rows of `stride` numbers: they lie anywhere in memory.
template <typename T>
void prefetch_rows(const T* array, Index stride, Index count, const Plan& plan, const Span& span) {
    constexpr Index kLine = 64 / sizeof(T);
    for (Index i = span.begin; i < span.end; ++i) {
        const T* row = array + plan.members[i] * stride;
        for (Index d = 0; d < count; d += kLine) prefetch(row + d);
    }
}

template <typename T>
void prefetch_vertices(const Shape& s, const Inputs<T>& in, const Plan& plan, const Span& span) {
    prefetch_rows(in.weight, s.channels, s.channels, plan, span);
    prefetch_rows(in.layer_weights, s.layers, s.layers, plan, span);
    prefetch_rows(in.scale, 1, 1, plan, span);
    prefetch_rows(in.locations, 2, 2, plan, span);
}

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
