// Data of vertices in the plan's order, and back.
#pragma once

#include <limits>

#include "buffer.h"
#include "kernels.h"
#include "plan.h"
#include "pool.h"

namespace brainkit {

constexpr Index kPart = 4096;  // vertices per item when data is only moved

// For the backward pass. The gradient is filled first; the rest is written by the first pass and read by the second.
// Kernels read whole strips and vectors, possibly beyond the end.
template <typename T>
struct Sorted {
    Buffer<T> grad;           // (B, members), over D
    Buffer<T> shares;         // (members, kSegments)
    Buffer<T> layer_weights;  // (members, layer_stride)
    Index members, layer_stride;
};

template <typename T>
Sorted<T> make_sorted(const Shape& s, const Plan& plan, const T* grad, int threads) {
    const Index members = static_cast<Index>(plan.members.size());
    const Index stride = round_up(s.layers, kernels<T>().lanes);
    Sorted<T> sorted{Buffer<T>(s.images * members + kTile), Buffer<T>(members * kSegments),
                     Buffer<T>((members + 1) * stride), members, stride};
    std::fill_n(sorted.grad.data() + s.images * members, kTile, T(0));
    std::fill_n(sorted.layer_weights.data() + members * stride, stride, T(0));
    // One image at a time, so that random reads stay in the cache.
    const Index parts = (members + kPart - 1) / kPart;
    for_each(s.images * parts, threads, [&](Index item) {
        const T* from = grad + item / parts * s.vertices;
        T* to = sorted.grad.data() + item / parts * members;
        const Index end = std::min(members, (item % parts + 1) * kPart);
        for (Index at = item % parts * kPart; at < end; ++at) {
            to[at] = from[plan.members[at]] / static_cast<T>(s.channels);
        }
    });
    return sorted;
}

// The responses from sorted (B, members), which lacks the bias and the division by the channels. One image at a time.
template <typename T>
void unsort(const Shape& s, const Inputs<T>& in, const Plan& plan, const T* sorted, int threads, T* out) {
    const Index members = static_cast<Index>(plan.members.size());
    const Index parts = (s.vertices + kPart - 1) / kPart;
    for_each(s.images * parts, threads, [&](Index item) {
        const T* from = sorted + item / parts * members;
        T* to = out + item / parts * s.vertices;
        const Index end = std::min(s.vertices, (item % parts + 1) * kPart);
        for (Index v = item % parts * kPart; v < end; ++v) {
            const Index at = plan.places[v];
            to[v] =
                at < members ? in.bias[v] + from[at] / static_cast<T>(s.channels) : std::numeric_limits<T>::quiet_NaN();
        }
    });
}

template <typename T>
void sum_over_images(const Shape& s, const T* grad, int threads, T* out) {
    for_each((s.vertices + kPart - 1) / kPart, threads, [&](Index part) {
        const Index begin = part * kPart;
        const Index end = std::min(s.vertices, begin + kPart);
        std::fill(out + begin, out + end, T(0));
        for (Index image = 0; image < s.images; ++image) {
            for (Index v = begin; v < end; ++v) out[v] += grad[image * s.vertices + v];
        }
    });
}

}  // namespace brainkit
